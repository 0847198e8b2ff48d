package wal_test

import (
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"vcpeer/queue/wal"
	"vcpeer/queue/wal/waltest"
)

// Each story ends in a power cut, of which many outcomes are tried: the log must open and hold all that was
// acknowledged, which is entries 1 to want of term 1.
func TestPowerCut(t *testing.T) {
	for _, tt := range []struct {
		name  string
		story story
	}{
		{"a refused batch, then a roll-over", refusedBeforeRollOver(false)},
		{"a refused batch, then one that overwrites the first part of it", refusedBeforeOverwrite(false)},
		{"a refused batch that cannot be cut off, then a roll-over", refusedBeforeRollOver(true)},
		{"a refused batch that cannot be cut off, then one that overwrites the first part of it", refusedBeforeOverwrite(true)},
		{"a failed sync, a new process", func(t *testing.T, fs *waltest.FS, l *wal.Log) int {
			save(t, l, wal.Batch{Entries: entries(1, 3, 1)})
			fs.FailOnce(1, syscall.EIO)
			if err := l.Save(wal.Batch{Entries: entries(4, 5, 1), Sync: true}); !errors.Is(err, wal.ErrFailed) {
				t.Fatalf("save: %v, want ErrFailed", err)
			}
			if err := l.Close(); !errors.Is(err, wal.ErrFailed) {
				t.Fatalf("close: %v, want ErrFailed", err)
			}
			// The kernel shows the batch, so the new process acts on it.
			l, st := open(t, fs, "d")
			n := len(st.Entries)
			save(t, l, wal.Batch{Entries: entries(uint64(n)+1, 9, 1)})
			return 9
		}},
		{"a failed sync on close, a new process", func(t *testing.T, fs *waltest.FS, l *wal.Log) int {
			save(t, l, wal.Batch{Entries: entries(1, 3, 1)})
			fs.FailOnce(1, syscall.EIO)
			if err := l.Close(); !errors.Is(err, wal.ErrFailed) {
				t.Fatalf("close: %v, want ErrFailed", err)
			}
			l, _ = open(t, fs, "d")
			save(t, l, wal.Batch{Entries: entries(4, 5, 1)})
			return 5
		}},
		{"several segments trimmed", func(t *testing.T, fs *waltest.FS, l *wal.Log) int {
			for i := uint64(1); i <= 200; i += 20 {
				save(t, l, wal.Batch{Entries: entries(i, i+19, 1)})
			}
			if err := l.WriteSnapshot(wal.Snapshot{Index: 200, Term: 1}); err != nil {
				t.Fatal(err)
			}
			if err := l.Compact(wal.Marker{Index: 200, Term: 1}, 200); err != nil {
				t.Fatal(err)
			}
			return 200
		}},
		{"trimmed behind a marker that no sync followed", func(t *testing.T, fs *waltest.FS, l *wal.Log) int {
			for i := uint64(1); i <= 200; i += 20 {
				save(t, l, wal.Batch{Entries: entries(i, i+19, 1)})
			}
			if err := l.WriteSnapshot(wal.Snapshot{Index: 200, Term: 1}); err != nil {
				t.Fatal(err)
			}
			if err := l.Save(wal.Batch{Marker: &wal.Marker{Index: 200, Term: 1}}); err != nil {
				t.Fatal(err)
			}
			if err := l.Trim(200); err != nil {
				t.Fatal(err)
			}
			return 200
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for seed := range uint64(300) {
				fs := &waltest.FS{}
				l, _ := open(t, fs, "d")
				save(t, l, wal.Batch{Identity: &wal.Identity{ID: 7}})
				want := tt.story(t, fs, l)
				fs.Crash(rand.New(rand.NewPCG(seed, 0)))
				_, st := open(t, fs, "d")
				checkPrefix(t, st, want)
			}
		})
	}
}

// story is what happens before a power cut; it returns up to which entry all was acknowledged.
type story func(t *testing.T, fs *waltest.FS, l *wal.Log) (want int)

// refusedBeforeRollOver has a batch refused of which a part fits on the disk. What is left of it must not stay behind in a
// closed segment. With copyOnWrite it cannot be cut off while the disk is full.
func refusedBeforeRollOver(copyOnWrite bool) story {
	return func(t *testing.T, fs *waltest.FS, l *wal.Log) int {
		save(t, l, wal.Batch{Entries: entries(1, 40, 1)})
		fs.CopyOnWrite = copyOnWrite
		fs.SetCapacity(fs.Used() + 100)
		refuse(t, l, wal.Batch{Entries: entries(41, 50, 2)})
		if copyOnWrite {
			refuse(t, l, wal.Batch{Entries: entries(41, 80, 2)})
		}
		fs.SetCapacity(0)
		rollOver(t, fs, l, 41)
		return 80
	}
}

// refusedBeforeOverwrite saves behind a refused batch another, not synced, in the place of its first part.
func refusedBeforeOverwrite(copyOnWrite bool) story {
	return func(t *testing.T, fs *waltest.FS, l *wal.Log) int {
		save(t, l, wal.Batch{Entries: entries(1, 3, 1)})
		fs.CopyOnWrite = copyOnWrite
		fs.SetCapacity(fs.Used() + 1200)
		refuse(t, l, wal.Batch{Entries: entries(4, 50, 2)})
		fs.SetCapacity(0)
		if err := l.Save(wal.Batch{Entries: entries(4, 14, 1)}); err != nil {
			t.Fatal(err)
		}
		return 3
	}
}

func refuse(t *testing.T, l *wal.Log, b wal.Batch) {
	t.Helper()
	b.Sync = true
	if err := l.Save(b); !errors.Is(err, wal.ErrNoSpace) || errors.Is(err, wal.ErrFailed) {
		t.Fatalf("save on a full disk: %v, want ErrNoSpace", err)
	}
}

// rollOver saves entries from the given one on, more than the first segment has room for.
func rollOver(t *testing.T, fs *waltest.FS, l *wal.Log, from uint64) {
	t.Helper()
	save(t, l, wal.Batch{Entries: entries(from, from+39, 1)})
	if fs.Content("d/0000000000000002.wal") == nil {
		t.Fatal("no second segment")
	}
}

// checkPrefix checks for entries 1 to n, and perhaps more, all of term 1.
func checkPrefix(t *testing.T, st wal.State, n int) {
	t.Helper()
	last := uint64(0)
	if st.Snapshot != nil {
		last = st.Snapshot.Index
	}
	for _, e := range st.Entries {
		if e.Term != 1 {
			t.Fatalf("entry %d is of a refused batch", e.Index)
		}
		last = max(last, e.Index)
	}
	if last < uint64(n) {
		t.Fatalf("entries up to %d, %d were acknowledged", last, n)
	}
}
