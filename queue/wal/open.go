package wal

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Open opens the log in dir, making it if there is none, and returns what it holds. Errors: ErrLocked, ErrCorrupt (wrapped,
// with file and offset), or those of the file system.
func Open(dir string, opt Options) (*Log, State, error) {
	opt = opt.withDefaults()
	fs := opt.FS
	if err := fs.MkdirAll(dir); err != nil {
		return nil, State{}, fmt.Errorf("wal: %w", err)
	}
	lock, err := fs.Lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, State{}, fmt.Errorf("wal: %w", err)
	}
	l := &Log{dir: dir, opt: opt, fs: fs, lock: lock, ballast: ballast{path: filepath.Join(dir, "ballast")}}
	state, err := l.load()
	if err != nil {
		if l.f != nil {
			_ = l.f.Close() // the first error counts
		}
		_ = lock.Close()
		return nil, State{}, fmt.Errorf("wal: open %s: %w", dir, err)
	}
	l.next = l.prepare()
	l.hold(fs, opt.BallastBytes)
	return l, state, nil
}

func (l *Log) load() (State, error) {
	names, err := l.fs.List(l.dir)
	if err != nil {
		return State{}, err
	}
	var seqs []uint64
	for _, name := range names {
		if seq, ok := parseSegmentName(name); ok {
			seqs = append(seqs, seq)
		}
		// The ballast is weighed anew: its size may have changed.
		if strings.HasSuffix(name, ".tmp") || name == "ballast" {
			if err := l.fs.Remove(filepath.Join(l.dir, name)); err != nil {
				return State{}, err
			}
		}
	}
	slices.Sort(seqs)
	if len(seqs) == 0 {
		return State{}, l.create(names)
	}
	for i, seq := range seqs {
		if seq != seqs[0]+uint64(i) {
			return State{}, fmt.Errorf("%w: segment %016x is missing", ErrCorrupt, seqs[0]+uint64(i))
		}
	}
	return l.replay(seqs)
}

// create makes the first segment of a new log. A directory with snapshots but no segment has lost its log.
func (l *Log) create(names []string) error {
	for _, name := range names {
		if _, ok := parseSnapshotName(name); ok {
			return fmt.Errorf("%w: %s is there, but no segment", ErrCorrupt, name)
		}
	}
	var salt [4]byte
	rand.Read(salt[:])
	// A salt of zero would let zeros pass for a salt.
	l.salt = binary.LittleEndian.Uint32(salt[:]) | 1
	return l.begin(1)
}

// replay reads all segments, cuts off a torn tail, and leaves the log ready to append.
func (l *Log) replay(seqs []uint64) (State, error) {
	var b builder
	var before scanned
	for i, seq := range seqs {
		lastSegment := i == len(seqs)-1
		highest := uint64(0)
		data, f, err := l.readSegment(seq)
		if err != nil {
			return State{}, err
		}
		s, err := scan(data, lastSegment, func(r record) error {
			e, err := b.visit(r)
			highest = max(highest, e)
			return err
		})
		if err == nil && (s.seq != seq || i > 0 && s.salt != l.salt) {
			err = errors.New("header of another segment")
		}
		if err == nil && i > 0 && s.before > 0 && s.before != before.end {
			err = fmt.Errorf("the segment before it ends at %d instead of %d", before.end, s.before)
		}
		if err != nil {
			_ = f.Close() // read only so far
			return State{}, fmt.Errorf("%w: segment %016x: %v", ErrCorrupt, seq, err)
		}
		l.salt, before = s.salt, s
		l.segs = append(l.segs, segment{seq: seq, last: highest})
		if !lastSegment {
			_ = f.Close() // read only
			continue
		}
		l.f = f
		if err := l.settle(data, s, &b.state); err != nil {
			return State{}, err
		}
	}
	return l.finish(b)
}

func (l *Log) readSegment(seq uint64) ([]byte, File, error) {
	f, err := l.fs.Open(l.segmentPath(seq), false)
	if err != nil {
		return nil, nil, err
	}
	data, err := readAll(f)
	if err != nil {
		_ = f.Close() // the read error counts
		return nil, nil, fmt.Errorf("read segment %016x: %w", seq, err)
	}
	return data, f, nil
}

// settle makes the active segment end at s.end and all of it durable: from now on we act on it. After the death of a
// mere process the last batches may be in the page cache only. After a failed fsync they are there for good, since the
// kernel counts them as written. So what no record proves to be durable is written again.
func (l *Log) settle(data []byte, s scanned, st *State) error {
	tail := bytes.TrimRight(data[s.end:], "\x00")
	st.DroppedBytes = int64(len(tail))
	l.off, l.synced = s.end, s.synced
	if l.ragged = len(tail) > 0; !l.ragged {
		l.spare.Store(int64(len(data)) - s.end)
	}
	// A full disk is no reason not to open: the torn tail can go later, and only file systems that never overwrite, and
	// do not forget what they failed to write, need space to write the same again.
	if err := l.cut(); err != nil && !errors.Is(err, ErrNoSpace) {
		return err
	}
	if _, err := l.f.WriteAt(data[s.synced:s.end], s.synced); err != nil && !isFull(err) {
		return err
	}
	if err := l.f.Sync(); err != nil {
		return err
	}
	l.synced = s.end
	return l.fs.SyncDir(l.dir)
}

// finish loads the snapshot that the newest marker names and checks that the entries join on to it.
func (l *Log) finish(b builder) (State, error) {
	st := b.state
	l.known = Batch{Identity: st.Identity}
	if st.Hard != (HardState{}) {
		l.known.Hard = new(st.Hard)
	}
	if b.marker != nil {
		// As in remember: when a later segment repeats it, it must not void the entries since.
		l.known.Marker = &Marker{Index: b.marker.Index, Term: b.marker.Term}
	}
	base := uint64(0)
	if b.marker != nil {
		base = b.marker.Index
		snap, err := l.ReadSnapshot(b.marker.Index)
		if errors.Is(err, ErrNoSnapshot) {
			return State{}, fmt.Errorf("%w: the log needs it: %w", ErrCorrupt, err)
		}
		if err != nil {
			return State{}, err
		}
		if snap.Term != b.marker.Term {
			return State{}, fmt.Errorf("%w: snapshot %d is of term %d, the log says %d", ErrCorrupt, snap.Index, snap.Term, b.marker.Term)
		}
		st.Snapshot = &snap
	}
	if n := len(st.Entries); n > 0 && st.Entries[0].Index > base+1 {
		return State{}, fmt.Errorf("%w: entries %d to %d are missing", ErrCorrupt, base+1, st.Entries[0].Index-1)
	}
	// A snapshot without a marker was written just before a crash, or has been replaced: nothing needs it.
	return st, l.removeSnapshots(func(index uint64) bool { return b.marker == nil || index != base })
}

// builder puts the state together from records in their order.
type builder struct {
	state  State
	marker *Marker
}

// visit takes one record and returns the index of the entry in it, if it is one.
func (b *builder) visit(r record) (uint64, error) {
	switch r.kind {
	case kindIdentity:
		id, err := decodeIdentity(r.body)
		if err != nil {
			return 0, err
		}
		if old := b.state.Identity; old != nil && *old != id {
			return 0, fmt.Errorf("identity changes from %x to %x", old.ID, id.ID)
		}
		b.state.Identity = &id
	case kindHard:
		h, err := decodeHard(r.body)
		if err != nil {
			return 0, err
		}
		b.state.Hard = h
	case kindMarker:
		m, err := decodeMarker(r.body)
		if err != nil {
			return 0, err
		}
		b.marker = &m
		if m.Reset {
			b.state.Entries = nil
		}
	case kindEntry:
		e, err := decodeEntry(r.body)
		if err != nil {
			return 0, err
		}
		return e.Index, b.append(e)
	}
	return 0, nil
}

// append puts e in its place, voiding what was there and after.
func (b *builder) append(e Entry) error {
	es := b.state.Entries
	if len(es) == 0 {
		b.state.Entries = append(es, e)
		return nil
	}
	first, next := es[0].Index, es[0].Index+uint64(len(es))
	if e.Index > next {
		return fmt.Errorf("entry %d follows entry %d", e.Index, next-1)
	}
	if e.Index <= first {
		b.state.Entries = append(es[:0], e)
		return nil
	}
	b.state.Entries = append(es[:e.Index-first], e)
	return nil
}
