package wal_test

import (
	"math/rand/v2"
	"testing"

	"vcpeer/queue/wal"
	"vcpeer/queue/wal/waltest"
)

// Each story ends in a power cut, of which many outcomes are tried: the log must open and hold all that was
// acknowledged, which is entries 1 to want of term 1.
func TestPowerCut(t *testing.T) {
	for _, tt := range []struct {
		name  string
		story func(t *testing.T, fs *waltest.FS, l *wal.Log) (want int)
	}{
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
