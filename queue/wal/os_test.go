package wal_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"vcpeer/queue/wal"
)

const childEnv = "WAL_TEST_CHILD"

// TestMain lets the test binary be the process that gets killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child appends for ever and prints each index once it is durable.
func child(dir string) error {
	l, st, err := wal.Open(dir, wal.Options{SegmentBytes: 64 << 10, BallastBytes: -1})
	if err != nil {
		return err
	}
	next := uint64(len(st.Entries)) + 1
	for {
		if err := l.Save(wal.Batch{Entries: entries(next, next, 1), Sync: true}); err != nil {
			return err
		}
		fmt.Println(next)
		next++
	}
}

func TestKilledProcessLosesNothingAcknowledged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	acked := 0
	for round := range 6 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		// 37 is prime to all that rotates: the kill comes at ever other places.
		for stop := acked + 137 + 37*round; acked < stop && lines.Scan(); {
			if acked, err = strconv.Atoi(lines.Text()); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it acknowledged before it died
			if n, err := strconv.Atoi(lines.Text()); err == nil {
				acked = n
			}
		}
		_ = cmd.Wait() // killed, as it should be
		l, st, err := wal.Open(dir, wal.Options{BallastBytes: -1, Plain: true})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if len(st.Entries) < acked {
			t.Fatalf("round %d: %d entries, %d were acknowledged", round, len(st.Entries), acked)
		}
		acked = len(st.Entries)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRealFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("needs a mount of a small tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	opt := wal.Options{SegmentBytes: 64 << 10, BallastBytes: 128 << 10}
	l, _, err := wal.Open(filepath.Join(dir, "log"), opt)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := l.Space(); err != nil || s.Reserve < 128<<10 {
		t.Fatalf("space %+v, %v: no ballast", s, err)
	}
	n := uint64(0)
	for {
		e := wal.Entry{Index: n + 1, Term: 1, Data: make([]byte, 5000)}
		err := l.Save(wal.Batch{Entries: []wal.Entry{e}, Sync: true})
		if errors.Is(err, wal.ErrNoSpace) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n < 150 {
		t.Errorf("full after %d entries of 5 kB on 1 MiB", n)
	}
	// Space comes back: the same log goes on.
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=2m"); err != nil {
		t.Fatal(err)
	}
	if err := l.Save(wal.Batch{Entries: entries(n+1, n+1, 2), Sync: true}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, st, err := wal.Open(filepath.Join(dir, "log"), opt)
	if err != nil || uint64(len(st.Entries)) != n+1 {
		t.Errorf("%d entries, %v; want %d", len(st.Entries), err, n+1)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLockedDirectory(t *testing.T) {
	dir := t.TempDir()
	l, _, err := wal.Open(dir, wal.Options{BallastBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := wal.Open(dir, wal.Options{BallastBytes: -1}); !errors.Is(err, wal.ErrLocked) {
		t.Errorf("second open: %v, want ErrLocked", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, _, err = wal.Open(dir, wal.Options{BallastBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// Prepared segments must be used and hold the same data as plain ones.
func TestPreparedSegments(t *testing.T) {
	dir := t.TempDir()
	opt := wal.Options{SegmentBytes: 16 << 10, BallastBytes: -1}
	l, _, err := wal.Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	prepared := false
	for i := uint64(1); i <= 2000; i++ {
		save(t, l, wal.Batch{Entries: entries(i, i, 1)})
		s, err := l.Space()
		if err != nil {
			t.Fatal(err)
		}
		prepared = prepared || s.Reserve > 0
	}
	if !prepared {
		t.Error("no segment was prepared ahead")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, st, err := wal.Open(dir, opt)
	if err != nil || len(st.Entries) != 2000 {
		t.Fatalf("%d entries, %v", len(st.Entries), err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkAppendSync(b *testing.B) {
	for _, size := range []int{1, 16, 256} {
		for _, plain := range []bool{true, false} {
			name := map[bool]string{true: "growing", false: "prepared"}[plain]
			b.Run(fmt.Sprintf("batch=%d/%s", size, name), func(b *testing.B) {
				l, _, err := wal.Open(b.TempDir(), wal.Options{BallastBytes: -1, Plain: plain})
				if err != nil {
					b.Fatal(err)
				}
				defer l.Close()
				data := make([]byte, 256)
				next := uint64(1)
				es := make([]wal.Entry, size)
				b.SetBytes(int64(size * len(data)))
				for b.Loop() {
					for i := range es {
						es[i] = wal.Entry{Index: next, Term: 1, Data: data}
						next++
					}
					if err := l.Save(wal.Batch{Entries: es, Sync: true}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
			})
		}
	}
}
