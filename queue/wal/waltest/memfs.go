// Package waltest has a file system in memory that loses what was not synced, runs full, and fails on demand: what
// stands under a wal.Log in tests and simulations. Equal seeds and calls give equal outcomes.
//
// It keeps to what POSIX promises, which is less than most file systems do: what no sync has made durable may get to
// the disk in any order and in any part, names as well as content, cuts as well as writes.
package waltest

import (
	"errors"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"vcpeer/queue/wal"
)

// ErrOff is what every call returns while the power is off.
var ErrOff = errors.New("power is off")

// FS is a wal.FS in memory. The zero value is empty and endless.
type FS struct {
	// Background names a file that another goroutine fills: neither calls on it nor its size are counted, so that its
	// pace has no part in which call a fault hits and when the disk is full. Set it before use.
	Background string
	// CopyOnWrite makes it a file system that never overwrites, as Btrfs: to overwrite and to cut takes space, too, and
	// after a failed sync a file shows what is on the disk. Set it before use.
	CopyOnWrite bool

	mu       sync.Mutex
	files    map[string]*inode // as programs see them
	durable  map[string]*inode // as of the last SyncDir
	names    []rename          // since then
	locked   map[string]bool
	capacity int64 // bytes, 0 for no limit
	syncErr  error
	writeErr error
	once     fault // one call fails
	cut      fault // all calls fail from then on
	syncs    int
}

// fault comes after some more calls; the zero value never does.
type fault struct {
	armed bool
	after int
	err   error
}

// due counts a call and returns the fault's error when its time has come.
func (f *fault) due() error {
	if !f.armed {
		return nil
	}
	if f.after > 0 {
		f.after--
		return nil
	}
	return f.err
}

// rename is a change of names: from goes away, to stands for n. Either may be empty.
type rename struct {
	from, to string
	n        *inode
}

func (r rename) apply(names map[string]*inode) {
	delete(names, r.from)
	if r.to != "" {
		names[r.to] = r.n
	}
}

// inode holds a file's content; durable and the ops since are what a crash chooses from.
type inode struct {
	data    []byte
	durable []byte
	ops     []op
}

// op is a write (data at off) or, with data nil, a truncation to off.
type op struct {
	off  int64
	data []byte
}

func (o op) apply(b []byte) []byte {
	if o.data == nil {
		return truncated(b, o.off)
	}
	return written(b, o.data, o.off)
}

// do is seen at once and durable at the next sync.
func (n *inode) do(o op) {
	n.data = o.apply(n.data)
	n.ops = append(n.ops, o)
}

// forget is a failed sync: the written pages count as clean from now on, on the disk or not. The sizes are in the file
// system's journal, which does not forget. With honest the pages show what is on the disk.
func (n *inode) forget(honest bool) {
	n.ops = slices.DeleteFunc(n.ops, func(o op) bool { return o.data != nil })
	if !honest {
		return
	}
	n.data = slices.Clone(n.durable)
	for _, o := range n.ops {
		n.data = o.apply(n.data)
	}
}

// SetCapacity limits the sum of all file sizes; 0 lifts the limit.
func (m *FS) SetCapacity(n int64) { m.mu.Lock(); m.capacity = n; m.mu.Unlock() }

// FailOnce lets n more calls that change the disk or sync it succeed; the one after them fails with err. A failed write
// leaves its first half, a failed sync loses the writes and shows them all the same, as Ext4 and XFS do, and any other
// call does nothing. ENOSPC is passed over by calls that take no space. A nil err calls it off.
func (m *FS) FailOnce(n int, err error) {
	m.mu.Lock()
	m.once = fault{armed: err != nil, after: n, err: err}
	m.mu.Unlock()
}

// CutPower lets n more calls that change the disk or sync it succeed; all after them fail with ErrOff and do nothing,
// until Crash. n < 0 calls it off.
func (m *FS) CutPower(n int) {
	m.mu.Lock()
	m.cut = fault{armed: n >= 0, after: n, err: ErrOff}
	m.mu.Unlock()
}

// Off reports whether CutPower has taken effect.
func (m *FS) Off() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.off() != nil }

// Kill is the death of the process that holds the locks: nothing is lost.
func (m *FS) Kill() { m.mu.Lock(); m.locked = nil; m.mu.Unlock() }

// FailSync makes every following sync fail with err, as with FailOnce. nil ends it.
func (m *FS) FailSync(err error) { m.mu.Lock(); m.syncErr = err; m.mu.Unlock() }

// FailWrite makes every following write fail with err. nil ends it.
func (m *FS) FailWrite(err error) { m.mu.Lock(); m.writeErr = err; m.mu.Unlock() }

// Syncs returns how many file syncs have succeeded.
func (m *FS) Syncs() int { m.mu.Lock(); defer m.mu.Unlock(); return m.syncs }

// Used returns the sum of all file sizes.
func (m *FS) Used() int64 { m.mu.Lock(); defer m.mu.Unlock(); return m.used() }

// Content returns a copy of a file; nil: no such file.
func (m *FS) Content(name string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.files[name]; n != nil {
		return slices.Clone(n.data)
	}
	return nil
}

// SetContent replaces a file, durably.
func (m *FS) SetContent(name string, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.init()
	n := &inode{data: slices.Clone(b), durable: slices.Clone(b)}
	m.files[name], m.durable[name] = n, n
}

// Crash is a power cut: any of the unsynced changes of names are gone, and of each unsynced write any sectors may have
// reached the disk. Open files stay with the old, dead inodes; locks are free, the power is back.
func (m *FS) Crash(rng *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.init()
	seed := rng.Uint64()
	names := maps.Clone(m.durable)
	keep := keepShare(rng)
	dice := map[string]*rand.Rand{}
	for _, r := range m.names {
		// Each name has dice of its own, so that what becomes of one does not hang on how often another was changed.
		name := r.from + r.to
		if dice[name] == nil {
			dice[name] = dieOf(seed, name)
		}
		if dice[name].Float64() < keep {
			r.apply(names)
		}
	}
	next := make(map[string]*inode, len(names))
	for name, n := range names {
		data := n.afterCrash(dieOf(seed, name))
		next[name] = &inode{data: data, durable: slices.Clone(data)}
	}
	m.files, m.durable, m.names, m.locked = next, maps.Clone(next), nil, nil
	m.once, m.cut = fault{}, fault{}
}

// dieOf returns a source of chance for one name.
func dieOf(seed uint64, name string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name))
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// keepShare draws which share of the unsynced changes a crash keeps: the ends are as likely as the middle.
func keepShare(rng *rand.Rand) float64 { return []float64{0, 0.5, 0.9, 1}[rng.IntN(4)] }

const sectorBytes = 512

func (n *inode) afterCrash(rng *rand.Rand) []byte {
	data := slices.Clone(n.durable)
	keep := keepShare(rng)
	for _, o := range n.ops {
		if o.data == nil {
			if rng.Float64() < keep {
				data = o.apply(data)
			}
			continue
		}
		for i := 0; i < len(o.data); {
			end := min(len(o.data), i+sectorBytes-int((o.off+int64(i))%sectorBytes))
			if rng.Float64() < keep {
				data = written(data, o.data[i:end], o.off+int64(i))
			}
			i = end
		}
	}
	return data
}

func truncated(b []byte, n int64) []byte {
	if n <= int64(len(b)) {
		return b[:n:n]
	}
	return append(b, make([]byte, n-int64(len(b)))...)
}

func written(b, p []byte, off int64) []byte {
	if end := off + int64(len(p)); end > int64(len(b)) {
		b = truncated(b, end)
	}
	copy(b[off:], p)
	return b
}

func (m *FS) init() {
	if m.files == nil {
		m.files, m.durable = map[string]*inode{}, map[string]*inode{}
	}
	if m.locked == nil {
		m.locked = map[string]bool{}
	}
}

func (m *FS) used() int64 {
	n := int64(0)
	for name, f := range m.files {
		if name != m.Background {
			n += int64(len(f.data))
		}
	}
	return n
}

// off returns ErrOff when the power is gone.
func (m *FS) off() error {
	if m.cut.armed && m.cut.after == 0 {
		return m.cut.err
	}
	return nil
}

// trouble counts a call on a file that changes the disk or syncs it, and returns the error that it must fail with.
func (m *FS) trouble(name string, takesSpace bool) error {
	if err := m.off(); err != nil || name == m.Background {
		return err
	}
	if err := m.cut.due(); err != nil {
		return err
	}
	err := m.once.due()
	if err != nil {
		m.once = fault{}
	}
	if errors.Is(err, syscall.ENOSPC) && !takesSpace {
		return nil
	}
	return err
}

// lacks returns by how many bytes the disk is too small for n more.
func (m *FS) lacks(n int64) int64 {
	if m.capacity == 0 || n <= 0 {
		return 0
	}
	return max(0, m.used()+n-m.capacity)
}

func (m *FS) MkdirAll(string) error { return nil }

func (m *FS) Open(name string, create bool) (wal.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.init()
	if err := m.off(); err != nil {
		return nil, pathError("open", name, err)
	}
	n := m.files[name]
	if n == nil {
		if !create {
			return nil, pathError("open", name, os.ErrNotExist)
		}
		if err := m.trouble(name, true); err != nil {
			return nil, pathError("open", name, err)
		}
		n = &inode{}
		m.change(rename{to: name, n: n})
	}
	return &file{fs: m, name: name, n: n}, nil
}

func pathError(op, name string, err error) error { return &os.PathError{Op: op, Path: name, Err: err} }

// change is seen at once and durable at the next SyncDir.
func (m *FS) change(r rename) {
	r.apply(m.files)
	m.names = append(m.names, r)
}

func (m *FS) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.init()
	n := m.files[from]
	if n == nil {
		return pathError("rename", from, os.ErrNotExist)
	}
	if err := m.trouble(from, true); err != nil {
		return pathError("rename", from, err)
	}
	m.change(rename{from: from, to: to, n: n})
	return nil
}

func (m *FS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.init()
	if m.files[name] == nil {
		return pathError("remove", name, os.ErrNotExist)
	}
	if err := m.trouble(name, false); err != nil {
		return pathError("remove", name, err)
	}
	m.change(rename{from: name})
	return nil
}

func (m *FS) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.off(); err != nil {
		return nil, pathError("list", dir, err)
	}
	var names []string
	for _, name := range sortedKeys(m.files) {
		if filepath.Dir(name) == dir {
			names = append(names, filepath.Base(name))
		}
	}
	return names, nil
}

func (m *FS) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.init()
	if err := m.trouble(dir, false); err != nil {
		return pathError("sync", dir, err)
	}
	if m.syncErr != nil {
		return m.syncErr
	}
	m.durable, m.names = maps.Clone(m.files), nil
	return nil
}

func (m *FS) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.init()
	if err := m.off(); err != nil {
		return nil, pathError("lock", name, err)
	}
	if m.locked[name] {
		return nil, wal.ErrLocked
	}
	m.locked[name] = true
	return &unlock{m, name}, nil
}

type unlock struct {
	fs   *FS
	name string
}

func (u *unlock) Close() error {
	u.fs.mu.Lock()
	defer u.fs.mu.Unlock()
	delete(u.fs.locked, u.name)
	return nil
}

// Free returns what the capacity leaves; without a limit, plenty.
func (m *FS) Free(string) (free, total uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.capacity == 0 {
		return 1 << 40, 1 << 41, nil
	}
	return uint64(max(0, m.capacity-m.used())), uint64(m.capacity), nil
}

type file struct {
	fs   *FS
	name string // when it was opened
	n    *inode
}

func (f *file) Close() error { return nil }

func (f *file) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.fs.off(); err != nil {
		return 0, pathError("read", f.name, err)
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt writes what fits before it says that the disk is full, as file systems do.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.fs.writeErr != nil {
		return 0, f.fs.writeErr
	}
	takes := int64(len(p))
	if !f.fs.CopyOnWrite {
		takes = off + takes - int64(len(f.n.data))
	}
	err := f.fs.trouble(f.name, takes > 0)
	switch {
	case errors.Is(err, ErrOff):
		return 0, pathError("write", f.name, err)
	case err != nil:
		p, err = p[:len(p)/2], pathError("write", f.name, err)
	}
	if over := f.fs.lacks(takes); over > 0 && f.name != f.fs.Background {
		p, err = p[:max(0, int64(len(p))-over)], pathError("write", f.name, syscall.ENOSPC)
	}
	if len(p) > 0 {
		f.n.do(op{off, slices.Clone(p)})
	}
	return len(p), err
}

func (f *file) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	err := f.fs.trouble(f.name, f.fs.CopyOnWrite)
	if err == nil && f.fs.CopyOnWrite && f.fs.lacks(1) > 0 {
		err = syscall.ENOSPC
	}
	if err != nil {
		return pathError("truncate", f.name, err)
	}
	f.n.do(op{off: size})
	return nil
}

func (f *file) Allocate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	grow := size - int64(len(f.n.data))
	err := f.fs.trouble(f.name, grow > 0)
	if err == nil && f.fs.lacks(grow) > 0 {
		err = syscall.ENOSPC
	}
	if err != nil {
		return pathError("allocate", f.name, err)
	}
	if grow > 0 {
		f.n.do(op{off: size})
	}
	return nil
}

func (f *file) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	err := f.fs.trouble(f.name, false)
	switch {
	case errors.Is(err, ErrOff):
		return pathError("sync", f.name, err)
	case err != nil:
		f.n.forget(f.fs.CopyOnWrite)
		return pathError("sync", f.name, err)
	case f.fs.syncErr != nil:
		f.n.forget(f.fs.CopyOnWrite)
		return f.fs.syncErr
	}
	for _, o := range f.n.ops {
		f.n.durable = o.apply(f.n.durable)
	}
	f.n.ops = nil
	f.fs.syncs++
	return nil
}

func sortedKeys(m map[string]*inode) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
