package wal

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
	"syscall"
)

// Log is an open log. See the package comment for who may call what.
type Log struct {
	dir  string
	opt  Options
	fs   FS
	lock io.Closer

	// Owned by the caller of Save.
	salt   uint32
	segs   []segment // in order of seq; the last one is active; consecutive
	f      File      // the active segment
	off    int64     // where the next record goes
	synced int64     // f's bytes below it are durable; synced <= off
	ragged bool      // behind off may be a part of a batch that does not count; it must go before anything is written
	buf    []byte
	known  Batch // identity, hard state and marker as last saved: what a new segment repeats
	failed error // once set, every call returns it

	next  *preparation
	spare atomic.Int64 // bytes of f beyond off that are written already: they need no new space
	ballast
}

// Save writes b and, with b.Sync, returns when it is durable. An empty batch does nothing. Errors: ErrNoSpace, after
// which the log is as before the call; ErrFailed, after which it must be closed; any other: the batch is none that a
// log can hold, and nothing was done.
func (l *Log) Save(b Batch) error {
	if l.failed != nil {
		return l.failed
	}
	if err := l.save(b); err != nil {
		return fmt.Errorf("wal: save to %s: %w", l.dir, err)
	}
	return nil
}

func (l *Log) save(b Batch) error {
	for _, e := range b.Entries {
		if len(e.Data) > MaxDataBytes {
			return fmt.Errorf("entry %d holds %d bytes, at most %d can be read back", e.Index, len(e.Data), MaxDataBytes)
		}
	}
	if n := encodedSize(b); n > 0 {
		if err := l.rotateIfFull(n); err != nil {
			return err
		}
		l.encode(b)
		if err := l.write(l.buf); err != nil {
			return err
		}
		l.remember(b)
	}
	if b.Sync {
		return l.sync()
	}
	return nil
}

// encode fills buf with the records of b; the last one closes the batch.
func (l *Log) encode(b Batch) {
	l.buf = l.buf[:0]
	n := len(b.Entries)
	for _, set := range []bool{b.Identity != nil, b.Hard != nil, b.Marker != nil} {
		if set {
			n++
		}
	}
	put := func(k kind, body []byte) {
		n--
		l.buf = appendRecord(l.buf, l.salt, record{kind: k, last: n == 0, synced: l.synced, body: body})
	}
	if b.Identity != nil {
		put(kindIdentity, encodeIdentity(*b.Identity))
	}
	if b.Hard != nil {
		put(kindHard, encodeHard(*b.Hard))
	}
	if b.Marker != nil {
		put(kindMarker, encodeMarker(*b.Marker))
	}
	for _, e := range b.Entries {
		put(kindEntry, encodeEntry(e))
	}
}

// encodedSize returns how many bytes encode makes of b.
func encodedSize(b Batch) int64 {
	n := 0
	add := func(body int) { n += recordHeaderBytes + body + padding(body) }
	if b.Identity != nil {
		add(8 + len(b.Identity.Owner))
	}
	if b.Hard != nil {
		add(hardBytes)
	}
	if b.Marker != nil {
		add(markerBytes)
	}
	for _, e := range b.Entries {
		add(entryHeaderBytes + len(e.Data))
	}
	return int64(n)
}

// write puts p at the end of the active segment. On a full disk it gives up the ballast once; if that is not enough the
// segment is cut back to where it was.
func (l *Log) write(p []byte) error {
	if err := l.cut(); err != nil {
		return err
	}
	_, err := l.f.WriteAt(p, l.off)
	if isFull(err) && l.release(l.fs) {
		// The same bytes to the same place: what the first try has left needs no cut.
		_, err = l.f.WriteAt(p, l.off)
	}
	if isFull(err) {
		l.ragged = true
		if err := l.cut(); err != nil && !errors.Is(err, ErrNoSpace) {
			return err
		}
		return fmt.Errorf("%w: %v", ErrNoSpace, err)
	}
	if err != nil {
		return l.fail("write", err)
	}
	l.off += int64(len(p))
	l.spare.Store(max(0, l.spare.Load()-int64(len(p))))
	return nil
}

// cut removes, durably, what a batch that does not count has left behind off. The system may have put it on the disk
// long ago. If it came back in a crash after more was written, it could mix with that, or stand at the end of a closed
// segment and pass for damage. ErrNoSpace: file systems that never overwrite need space for this, too; it is tried
// again before anything is written.
func (l *Log) cut() error {
	if !l.ragged {
		return nil
	}
	err := l.f.Truncate(l.off)
	if isFull(err) {
		return fmt.Errorf("%w: %v", ErrNoSpace, err)
	}
	if err != nil {
		return l.fail("truncate", err)
	}
	l.spare.Store(0)
	l.ragged = false
	return l.flush()
}

func (l *Log) sync() error {
	if l.synced == l.off {
		return nil
	}
	return l.flush()
}

func (l *Log) flush() error {
	if err := l.f.Sync(); err != nil {
		return l.fail("sync", err)
	}
	l.synced = l.off
	return nil
}

// fail makes the log unusable: what is on disk is no longer known.
func (l *Log) fail(what string, cause error) error {
	l.failed = fmt.Errorf("wal: %s in %s: %w: %w", what, l.dir, ErrFailed, cause)
	return l.failed
}

func (l *Log) remember(b Batch) {
	if b.Identity != nil {
		l.known.Identity = new(*b.Identity)
	}
	if b.Hard != nil {
		l.known.Hard = new(*b.Hard)
	}
	active := &l.segs[len(l.segs)-1]
	if b.Marker != nil {
		// A repeated marker must not void the entries that came after the first one.
		l.known.Marker = &Marker{Index: b.Marker.Index, Term: b.Marker.Term}
		if b.Marker.Reset {
			for i := range l.segs {
				l.segs[i].last = 0
			}
		}
	}
	if n := len(b.Entries); n > 0 {
		active.last = max(active.last, b.Entries[n-1].Index)
	}
}

// rotateIfFull begins a new segment when n more bytes do not fit in the active one. Without space for a new segment
// the active one grows instead, as far as it can.
func (l *Log) rotateIfFull(n int64) error {
	if l.off+n <= l.opt.SegmentBytes || l.off == segmentHeaderBytes {
		return nil
	}
	// A closed segment holds nothing but whole batches and zeros, all of it durable.
	if err := l.cut(); err != nil {
		return err
	}
	if err := l.sync(); err != nil {
		return err
	}
	if err := l.dropSpare(); err != nil {
		return err
	}
	if err := l.begin(l.segs[len(l.segs)-1].seq + 1); err != nil && !errors.Is(err, ErrNoSpace) {
		return err
	}
	return nil
}

// dropSpare gives the zeros of a prepared segment back. They read as the end, so it does no harm if a crash or a full disk
// undoes or prevents that.
func (l *Log) dropSpare() error {
	if l.spare.Load() == 0 {
		return nil
	}
	err := l.f.Truncate(l.off)
	if isFull(err) {
		return nil
	}
	if err != nil {
		return l.fail("truncate", err)
	}
	l.spare.Store(0)
	return nil
}

// begin makes segment seq the active one. Its header and the repeated state are durable before it gets its name.
func (l *Log) begin(seq uint64) error {
	tmp := filepath.Join(l.dir, "next.tmp")
	prepared := l.takePrepared(tmp)
	f, err := l.fs.Open(tmp, true)
	if err == nil && !prepared {
		err = f.Truncate(0)
	}
	if err != nil {
		return l.beginFailed(f, tmp, err)
	}
	old := l.swap(f)
	l.encode(l.known)
	head := append(appendSegmentHeader(nil, l.salt, seq, old.off), l.buf...)
	_, err = f.WriteAt(head, 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.fs.Rename(tmp, l.segmentPath(seq))
	}
	if err != nil {
		l.restore(old)
		return l.beginFailed(f, tmp, err)
	}
	if old.f != nil {
		// All of it is durable; an error from close has nothing left to say.
		_ = old.f.Close()
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		return l.fail("sync directory", err)
	}
	l.segs = append(l.segs, segment{seq: seq})
	l.off, l.synced = int64(len(head)), int64(len(head))
	if prepared {
		l.spare.Store(max(0, l.opt.SegmentBytes-l.off))
	}
	l.next = l.prepare()
	return nil
}

// position is where the log writes, in a segment that is not ragged.
type position struct {
	f           File
	off, synced int64
}

// swap makes f, empty, the file that encode and write speak of.
func (l *Log) swap(f File) position {
	old := position{l.f, l.off, l.synced}
	l.f, l.off, l.synced = f, 0, 0
	l.spare.Store(0)
	return old
}

func (l *Log) restore(p position) { l.f, l.off, l.synced = p.f, p.off, p.synced }

// beginFailed cleans up after a segment that could not be made; a full disk is not fatal.
func (l *Log) beginFailed(f File, tmp string, cause error) error {
	if f != nil {
		_ = f.Close() // nothing in it counts
	}
	_ = l.fs.Remove(tmp) // Open removes it, too
	if isFull(cause) {
		return fmt.Errorf("%w: %v", ErrNoSpace, cause)
	}
	return l.fail("new segment", cause)
}

// Compact says that the snapshot of m, which WriteSnapshot has made durable, stands for the entries up to m.Index, and
// removes segments whose entries are all at or below keep, and older snapshots.
func (l *Log) Compact(m Marker, keep uint64) error {
	if err := l.Save(Batch{Marker: &m, Sync: true}); err != nil {
		return err
	}
	return l.Trim(min(keep, m.Index))
}

// Trim removes the segments at the front whose entries are all at or below keep, and the snapshots before the newest
// marker. keep must not be above that marker's index.
func (l *Log) Trim(keep uint64) error {
	if l.failed != nil {
		return l.failed
	}
	// What stands for the entries must be durable before they go.
	if err := l.sync(); err != nil {
		return err
	}
	for len(l.segs) > 1 && l.segs[0].last <= keep {
		if err := l.fs.Remove(l.segmentPath(l.segs[0].seq)); err != nil {
			return fmt.Errorf("wal: remove old segment: %w", err)
		}
		l.segs = l.segs[1:]
		// One by one: a crash must not bring back a segment without the one after it.
		if err := l.fs.SyncDir(l.dir); err != nil {
			return l.fail("sync directory", err)
		}
	}
	if l.known.Marker == nil {
		return nil
	}
	return l.removeSnapshots(func(index uint64) bool { return index < l.known.Marker.Index })
}

// Close leaves a witness that all is durable, so that damage to the last batch is noticed, and releases the directory.
// After ErrFailed it only releases.
func (l *Log) Close() error {
	l.next.stop()
	err := l.failed
	if err == nil {
		err = l.seal()
	}
	if cerr := l.f.Close(); err == nil {
		err = cerr
	}
	if cerr := l.lock.Close(); err == nil {
		err = cerr
	}
	l.failed = fmt.Errorf("wal: %s: closed: %w", l.dir, ErrFailed)
	return err
}

func (l *Log) seal() error {
	if err := l.sync(); err != nil {
		return err
	}
	p := appendRecord(nil, l.salt, record{kind: kindClosed, last: true, synced: l.synced})
	// The witness is a help, not a promise: on a full disk the log is as good without it.
	if err := l.write(p); err != nil {
		if errors.Is(err, ErrNoSpace) {
			return nil
		}
		return err
	}
	return l.sync()
}

// isFull reports whether err says that the disk or the quota is used up.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
