package wal_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"

	"vcpeer/queue/wal"
	"vcpeer/queue/wal/waltest"
)

func open(t testing.TB, fs wal.FS, dir string) (*wal.Log, wal.State) {
	t.Helper()
	l, st, err := wal.Open(dir, wal.Options{FS: fs, SegmentBytes: 4096, BallastBytes: -1, Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	return l, st
}

func entries(from, to, term uint64) []wal.Entry {
	var es []wal.Entry
	for i := from; i <= to; i++ {
		es = append(es, wal.Entry{Index: i, Term: term, Data: fmt.Appendf(nil, "entry %d of term %d", i, term)})
	}
	return es
}

func save(t testing.TB, l *wal.Log, b wal.Batch) {
	t.Helper()
	b.Sync = true
	if err := l.Save(b); err != nil {
		t.Fatal(err)
	}
}

// fill makes a log of an identity and three batches.
func fill(t testing.TB, fs wal.FS) {
	l, st := open(t, fs, "d")
	if st.Identity != nil {
		t.Fatal("new log has an identity")
	}
	save(t, l, wal.Batch{Identity: &wal.Identity{ID: 7, Owner: "me"}})
	save(t, l, wal.Batch{Hard: &wal.HardState{Term: 1, Vote: 7}, Entries: entries(1, 3, 1)})
	save(t, l, wal.Batch{Hard: &wal.HardState{Term: 1, Vote: 7, Commit: 3}, Entries: entries(4, 5, 1)})
	save(t, l, wal.Batch{Hard: &wal.HardState{Term: 2, Vote: 9, Commit: 3}, Entries: entries(5, 6, 2)})
}

const firstSegment = "d/0000000000000001.wal"

// unlocked copies the files to a disk without the first process's lock.
func unlocked(fs *waltest.FS, name string, content []byte) *waltest.FS {
	c := &waltest.FS{}
	c.SetContent(name, content)
	return c
}

func TestReopen(t *testing.T) {
	fs := &waltest.FS{}
	fill(t, fs)
	_, st := open(t, unlocked(fs, firstSegment, fs.Content(firstSegment)), "d")
	want := wal.State{
		Identity: &wal.Identity{ID: 7, Owner: "me"}, Hard: wal.HardState{Term: 2, Vote: 9, Commit: 3},
		Entries: append(entries(1, 4, 1), entries(5, 6, 2)...),
	}
	if !reflect.DeepEqual(st, want) {
		t.Errorf("got  %+v\nwant %+v", st, want)
	}
}

// A crash may cut the file at any byte of the last batch: the batch is dropped as a whole, all before it is there, and
// the log goes on.
func TestTornAtEveryByte(t *testing.T) {
	fs := &waltest.FS{}
	l, _ := open(t, fs, "d")
	save(t, l, wal.Batch{Identity: &wal.Identity{ID: 7}})
	save(t, l, wal.Batch{Entries: entries(1, 2, 1)})
	start := len(fs.Content(firstSegment))
	save(t, l, wal.Batch{Hard: &wal.HardState{Term: 3}, Entries: entries(3, 5, 3)})
	whole := fs.Content(firstSegment)
	for n := start; n <= len(whole); n++ {
		for _, zeros := range []int{0, 64} {
			torn := unlocked(fs, firstSegment, append(append([]byte(nil), whole[:n]...), make([]byte, zeros)...))
			l, st := open(t, torn, "d")
			want := 2
			// Zeros behind the cut may be the very zeros that were cut off.
			if n == len(whole) || zeros > 0 && len(bytes.TrimRight(whole[n:], "\x00")) == 0 {
				want = 5
			}
			if len(st.Entries) != want || (st.Hard.Term == 3) != (want == 5) {
				t.Fatalf("cut at %d of %d: %d entries, hard state %+v", n, len(whole), len(st.Entries), st.Hard)
			}
			save(t, l, wal.Batch{Entries: entries(uint64(want)+1, uint64(want)+1, 4)})
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if _, st = open(t, torn, "d"); len(st.Entries) != want+1 {
				t.Fatalf("cut at %d: %d entries after going on, want %d", n, len(st.Entries), want+1)
			}
		}
	}
}

// A flipped bit anywhere before the last batch is damage that must be reported, and nothing may be changed.
func TestFlippedBits(t *testing.T) {
	fs := &waltest.FS{}
	fill(t, fs)
	whole := fs.Content(firstSegment)
	_, st := open(t, unlocked(fs, firstSegment, whole), "d")
	for name, tt := range map[string]struct {
		content []byte
		synced  bool // a witness covers all of it
	}{
		"crashed": {content: whole},
		"closed":  {content: sealed(t), synced: true},
	} {
		t.Run(name, func(t *testing.T) {
			lost := 0
			for i := range tt.content {
				bad := append([]byte(nil), tt.content...)
				bad[i] ^= 1 << (i % 8)
				disk := unlocked(fs, firstSegment, bad)
				_, got, err := wal.Open("d", wal.Options{FS: disk, BallastBytes: -1, Plain: true})
				switch {
				case errors.Is(err, wal.ErrCorrupt):
					if string(disk.Content(firstSegment)) != string(bad) {
						t.Fatalf("flip at %d: the damaged file was changed", i)
					}
				case err != nil:
					t.Fatalf("flip at %d: %v, want ErrCorrupt", i, err)
				case reflect.DeepEqual(clean(got), clean(st)):
					// In padding or behind the data.
				case isPrefix(got, st):
					lost++
				default:
					t.Fatalf("flip at %d: wrong data without an error: %+v", i, got)
				}
			}
			// Only the batch that no witness covers can pass for torn.
			if tt.synced && lost > 0 || lost > 200 {
				t.Errorf("%d of %d flips lost synced data silently", lost, len(tt.content))
			}
		})
	}
}

func sealed(t *testing.T) []byte {
	fs := &waltest.FS{}
	fill(t, fs)
	disk := unlocked(fs, firstSegment, fs.Content(firstSegment))
	l, _ := open(t, disk, "d")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return disk.Content(firstSegment)
}

func clean(st wal.State) wal.State { st.DroppedBytes = 0; return st }

// isPrefix reports whether got is what an older log of the same history held.
func isPrefix(got, whole wal.State) bool {
	if got.DroppedBytes == 0 || len(got.Entries) > len(whole.Entries) {
		return false
	}
	for i, e := range got.Entries {
		if e.Index != whole.Entries[i].Index || e.Term > whole.Entries[i].Term {
			return false
		}
	}
	return true
}

func TestFullDisk(t *testing.T) {
	fs := &waltest.FS{}
	l, _ := open(t, fs, "d")
	save(t, l, wal.Batch{Identity: &wal.Identity{ID: 7}, Entries: entries(1, 2, 1)})
	before := fs.Content(firstSegment)
	fs.SetCapacity(fs.Used() + 30)
	for range 3 {
		if err := l.Save(wal.Batch{Entries: entries(3, 9, 1), Sync: true}); !errors.Is(err, wal.ErrNoSpace) || errors.Is(err, wal.ErrFailed) {
			t.Fatalf("save on a full disk: %v, want ErrNoSpace", err)
		}
	}
	if string(fs.Content(firstSegment)) != string(before) {
		t.Error("a refused batch left something behind")
	}
	if err := l.WriteSnapshot(wal.Snapshot{Index: 2, Term: 1, Data: make([]byte, 100)}); !errors.Is(err, wal.ErrNoSpace) {
		t.Errorf("snapshot on a full disk: %v, want ErrNoSpace", err)
	}
	fs.SetCapacity(0)
	save(t, l, wal.Batch{Entries: entries(3, 4, 1)})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, st := open(t, fs, "d"); len(st.Entries) != 4 {
		t.Errorf("%d entries, want 4", len(st.Entries))
	}
}

// An entry that Open would take for damage is refused, and the log goes on.
func TestEntryTooLarge(t *testing.T) {
	fs := &waltest.FS{}
	l, _ := open(t, fs, "d")
	largest := wal.Entry{Index: 1, Term: 1, Data: make([]byte, wal.MaxDataBytes)}
	tooLarge := wal.Entry{Index: 2, Term: 1, Data: make([]byte, wal.MaxDataBytes+1)}
	save(t, l, wal.Batch{Entries: []wal.Entry{largest}})
	if err := l.Save(wal.Batch{Entries: []wal.Entry{tooLarge}, Sync: true}); err == nil {
		t.Error("an entry that cannot be read back was taken")
	}
	save(t, l, wal.Batch{Entries: entries(2, 2, 1)})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, st := open(t, fs, "d"); len(st.Entries) != 2 || len(st.Entries[0].Data) != wal.MaxDataBytes {
		t.Errorf("%d entries, want 2", len(st.Entries))
	}
}

func TestBallastServesSmallBatches(t *testing.T) {
	fs := &waltest.FS{}
	l, _, err := wal.Open("d", wal.Options{FS: fs, BallastBytes: 4096, Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	fs.SetCapacity(fs.Used())
	s, err := l.Space()
	if err != nil || s.Reserve != 4096 || !s.Low() || !s.Holds(4096) || s.Holds(4097) {
		t.Fatalf("space %+v, %v", s, err)
	}
	n := uint64(0)
	for {
		err := l.Save(wal.Batch{Entries: entries(n+1, n+1, 1), Sync: true})
		if errors.Is(err, wal.ErrNoSpace) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n < 30 {
		t.Errorf("%d small batches fitted into a ballast of 4096 bytes", n)
	}
	fs.SetCapacity(0)
	l.Maintain()
	if s, _ := l.Space(); s.Reserve != 4096 {
		t.Errorf("reserve %d after the disk was free again, want 4096", s.Reserve)
	}
}

func TestFailedSyncIsFinal(t *testing.T) {
	for name, breakIt := range map[string]func(*waltest.FS, error){"sync": (*waltest.FS).FailSync, "write": (*waltest.FS).FailWrite} {
		t.Run(name, func(t *testing.T) {
			fs := &waltest.FS{}
			l, _ := open(t, fs, "d")
			save(t, l, wal.Batch{Identity: &wal.Identity{ID: 7}})
			breakIt(fs, syscall.EIO)
			if err := l.Save(wal.Batch{Entries: entries(1, 1, 1), Sync: true}); !errors.Is(err, wal.ErrFailed) || !errors.Is(err, syscall.EIO) {
				t.Errorf("save: %v, want ErrFailed and EIO", err)
			}
			breakIt(fs, nil)
			syncs := fs.Syncs()
			if err := l.Save(wal.Batch{Entries: entries(1, 1, 1), Sync: true}); !errors.Is(err, wal.ErrFailed) {
				t.Errorf("save after a failure: %v, want ErrFailed", err)
			}
			if fs.Syncs() != syncs {
				t.Error("the sync was tried again")
			}
		})
	}
}

func TestCompaction(t *testing.T) {
	fs := &waltest.FS{}
	l, _ := open(t, fs, "d")
	save(t, l, wal.Batch{Identity: &wal.Identity{ID: 7}})
	for i := uint64(1); i <= 500; i++ {
		save(t, l, wal.Batch{Hard: &wal.HardState{Term: 1, Commit: i}, Entries: entries(i, i, 1)})
	}
	for _, at := range []uint64{200, 400} {
		if err := l.WriteSnapshot(wal.Snapshot{Index: at, Term: 1, Data: fmt.Appendf(nil, "state at %d", at)}); err != nil {
			t.Fatal(err)
		}
		if err := l.Compact(wal.Marker{Index: at, Term: 1}, at-50); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, st := open(t, fs, "d")
	if string(st.Snapshot.Data) != "state at 400" || st.Identity == nil || st.Hard.Commit != 500 {
		t.Errorf("state %+v", st)
	}
	first := st.Entries[0].Index
	if n := len(st.Entries); first > 351 || first < 250 || st.Entries[n-1].Index != 500 {
		t.Errorf("entries %d to %d, want about 350 to 500", first, st.Entries[n-1].Index)
	}
	if _, err := l.ReadSnapshot(200); !errors.Is(err, wal.ErrNoSnapshot) {
		t.Errorf("old snapshot: %v, want ErrNoSnapshot", err)
	}
	// A leader's snapshot replaces everything.
	if err := l.WriteSnapshot(wal.Snapshot{Index: 900, Term: 3, Data: []byte("from a leader")}); err != nil {
		t.Fatal(err)
	}
	save(t, l, wal.Batch{Marker: &wal.Marker{Index: 900, Term: 3, Reset: true}, Entries: entries(901, 902, 3)})
	if err := l.Trim(900); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, st = open(t, fs, "d")
	if len(st.Entries) != 2 || st.Entries[0].Index != 901 || st.Snapshot.Index != 900 {
		t.Errorf("after a leader's snapshot: %+v", st)
	}
}

// The marker of a leader's snapshot voids what was before it, once: not again when a later segment repeats it.
func TestRepeatedMarkerVoidsNothing(t *testing.T) {
	for _, reopened := range []bool{false, true} {
		fs := &waltest.FS{}
		l, _ := open(t, fs, "d")
		save(t, l, wal.Batch{Identity: &wal.Identity{ID: 7}, Entries: entries(1, 3, 1)})
		if err := l.WriteSnapshot(wal.Snapshot{Index: 900, Term: 3}); err != nil {
			t.Fatal(err)
		}
		save(t, l, wal.Batch{Marker: &wal.Marker{Index: 900, Term: 3, Reset: true}})
		if reopened {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l, _ = open(t, fs, "d")
		}
		for i := uint64(901); i <= 1200; i++ { // several segments
			save(t, l, wal.Batch{Entries: entries(i, i, 3)})
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, st := open(t, fs, "d"); len(st.Entries) != 300 {
			t.Errorf("reopened %v: %d entries behind the snapshot, want 300", reopened, len(st.Entries))
		}
	}
}

func TestMissingAndDamagedFiles(t *testing.T) {
	build := func(t *testing.T) *waltest.FS {
		fs := &waltest.FS{}
		l, _ := open(t, fs, "d")
		save(t, l, wal.Batch{Identity: &wal.Identity{ID: 7}})
		for i := uint64(1); i <= 200; i++ {
			save(t, l, wal.Batch{Entries: entries(i, i, 1)})
		}
		if err := l.WriteSnapshot(wal.Snapshot{Index: 100, Term: 1, Data: []byte("hundred")}); err != nil {
			t.Fatal(err)
		}
		if err := l.Compact(wal.Marker{Index: 100, Term: 1}, 0); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return fs
	}
	for name, harm := range map[string]func(*waltest.FS) error{
		"first segments gone": func(fs *waltest.FS) error {
			return errors.Join(fs.Remove(firstSegment), fs.Remove("d/0000000000000002.wal"))
		},
		"second segment gone":    func(fs *waltest.FS) error { return fs.Remove("d/0000000000000002.wal") },
		"snapshot gone":          func(fs *waltest.FS) error { return fs.Remove("d/0000000000000064.snap") },
		"all segments gone":      func(fs *waltest.FS) error { return removeSegments(fs) },
		"snapshot flipped":       func(fs *waltest.FS) error { return flip(fs, "d/0000000000000064.snap", 50) },
		"closed segment flipped": func(fs *waltest.FS) error { return flip(fs, firstSegment, 1000) },
		"segment header flipped": func(fs *waltest.FS) error { return flip(fs, firstSegment, 13) },
		"segments swapped": func(fs *waltest.FS) error {
			fs.SetContent("d/0000000000000002.wal", fs.Content(firstSegment))
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs := build(t)
			if err := harm(fs); err != nil {
				t.Fatal(err)
			}
			_, _, err := wal.Open("d", wal.Options{FS: fs, Plain: true, BallastBytes: -1})
			if !errors.Is(err, wal.ErrCorrupt) {
				t.Errorf("open: %v, want ErrCorrupt", err)
			}
		})
	}
}

// A closed segment whose end reads as zeros has lost records, even if those that follow do not show it.
func TestClosedSegmentCutShort(t *testing.T) {
	fs := &waltest.FS{}
	l, _ := open(t, fs, "d")
	save(t, l, wal.Batch{Identity: &wal.Identity{ID: 7}, Entries: entries(1, 10, 1)})
	whole := len(fs.Content(firstSegment))
	save(t, l, wal.Batch{Entries: entries(11, 12, 1)})
	for term := uint64(1); fs.Content("d/0000000000000002.wal") == nil; term++ {
		save(t, l, wal.Batch{Hard: &wal.HardState{Term: term}})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b := fs.Content(firstSegment)
	clear(b[whole:])
	fs.SetContent(firstSegment, b)
	if _, _, err := wal.Open("d", wal.Options{FS: fs, Plain: true, BallastBytes: -1}); !errors.Is(err, wal.ErrCorrupt) {
		t.Errorf("open: %v, want ErrCorrupt", err)
	}
}

func removeSegments(fs *waltest.FS) error {
	names, err := fs.List("d")
	for _, n := range names {
		if filepath.Ext(n) == ".wal" {
			err = errors.Join(err, fs.Remove(filepath.Join("d", n)))
		}
	}
	return err
}

func flip(fs *waltest.FS, name string, at int) error {
	b := fs.Content(name)
	b[at] ^= 4
	fs.SetContent(name, b)
	return nil
}
