// Package waltest has a file system in memory that loses what was not synced, runs full, and fails on demand: what
// stands under a wal.Log in tests and simulations. Equal seeds and calls give equal outcomes.
package waltest

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"vcpeer/queue/wal"
)

// FS is a wal.FS in memory. The zero value is empty and endless.
type FS struct {
	mu       sync.Mutex
	files    map[string]*inode // as programs see them
	durable  map[string]*inode // as of the last SyncDir
	locked   map[string]bool
	capacity int64 // bytes, 0 for no limit
	syncErr  error
	writeErr error
	syncs    int
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

// SetCapacity limits the sum of all file sizes; 0 lifts the limit.
func (m *FS) SetCapacity(n int64) { m.mu.Lock(); m.capacity = n; m.mu.Unlock() }

// FailSync makes every following sync fail with err, losing the unsynced writes as Linux does. nil ends it.
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

// Crash is a power cut: unsynced names are gone or not, and of each unsynced write any sectors may have reached the disk.
// Open files stay with the old, dead inodes; locks are free.
func (m *FS) Crash(rng *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.init()
	names := m.durable
	if rng.IntN(2) == 0 {
		names = m.files
	}
	next := make(map[string]*inode, len(names))
	for _, name := range sortedKeys(names) {
		data := names[name].afterCrash(rng)
		next[name] = &inode{data: data, durable: slices.Clone(data)}
	}
	m.files, m.locked = next, nil
	m.durable = make(map[string]*inode, len(next))
	for name, n := range next {
		m.durable[name] = n
	}
}

const sectorBytes = 512

func (n *inode) afterCrash(rng *rand.Rand) []byte {
	data := slices.Clone(n.durable)
	keep := []float64{0, 0.5, 0.9, 1}[rng.IntN(4)]
	for _, o := range n.ops {
		if o.data == nil {
			if rng.Float64() < keep {
				data = truncated(data, o.off)
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
	for _, f := range m.files {
		n += int64(len(f.data))
	}
	return n
}

func (m *FS) MkdirAll(string) error { return nil }

func (m *FS) Open(name string, create bool) (wal.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.init()
	n := m.files[name]
	if n == nil {
		if !create {
			return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
		}
		n = &inode{}
		m.files[name] = n
	}
	return &file{fs: m, n: n}, nil
}

func (m *FS) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.init()
	n := m.files[from]
	if n == nil {
		return &os.PathError{Op: "rename", Path: from, Err: os.ErrNotExist}
	}
	delete(m.files, from)
	m.files[to] = n
	return nil
}

func (m *FS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.init()
	if m.files[name] == nil {
		return &os.PathError{Op: "remove", Path: name, Err: os.ErrNotExist}
	}
	delete(m.files, name)
	return nil
}

func (m *FS) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
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
	if m.syncErr != nil {
		return m.syncErr
	}
	m.durable = make(map[string]*inode, len(m.files))
	for name, n := range m.files {
		m.durable[name] = n
	}
	return nil
}

func (m *FS) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.init()
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
	fs *FS
	n  *inode
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
	var err error
	if grow := off + int64(len(p)) - int64(len(f.n.data)); grow > 0 && f.fs.capacity > 0 {
		if over := f.fs.used() + grow - f.fs.capacity; over > 0 {
			p, err = p[:max(0, int64(len(p))-over)], syscall.ENOSPC
		}
	}
	if len(p) > 0 {
		f.n.data = written(f.n.data, p, off)
		f.n.ops = append(f.n.ops, op{off, slices.Clone(p)})
	}
	return len(p), err
}

func (f *file) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.n.data = truncated(f.n.data, size)
	f.n.ops = append(f.n.ops, op{off: size})
	return nil
}

func (f *file) Allocate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if grow := size - int64(len(f.n.data)); grow > 0 {
		if f.fs.capacity > 0 && f.fs.used()+grow > f.fs.capacity {
			return syscall.ENOSPC
		}
		f.n.data = truncated(f.n.data, size)
		f.n.ops = append(f.n.ops, op{off: size})
	}
	return nil
}

func (f *file) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.fs.syncErr != nil {
		f.n.ops = nil
		return f.fs.syncErr
	}
	for _, o := range f.n.ops {
		if o.data == nil {
			f.n.durable = truncated(f.n.durable, o.off)
		} else {
			f.n.durable = written(f.n.durable, o.data, o.off)
		}
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
