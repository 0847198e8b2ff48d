package wal

import (
	"path/filepath"
	"sync"
)

// Space says how much can still be written.
type Space struct {
	Free, Total uint64 // bytes of the file system, as an unprivileged user sees it
	Reserve     uint64 // bytes held back for the log: the ballast and what is left of a prepared segment
}

const (
	lowBytes   = 256 << 20
	lowDivisor = 20 // 5 %
)

// Low says that only what ends work should be taken on: less than 256 MiB is free, or less than 5 % of a small disk.
func (s Space) Low() bool { return s.Free < min(lowBytes, s.Total/lowDivisor) }

// Holds reports whether n more bytes surely fit.
func (s Space) Holds(n uint64) bool { return s.Free+s.Reserve >= n }

// Space asks the file system.
func (l *Log) Space() (Space, error) {
	free, total, err := l.fs.Free(l.dir)
	if err != nil {
		return Space{}, err
	}
	return Space{Free: free, Total: total, Reserve: uint64(l.spare.Load() + l.ballast.size())}, nil
}

// ballast is a file whose only use is that it can be removed when the disk is full. Log and snapshots share it.
type ballast struct {
	mu   sync.Mutex
	path string
	held int64 // bytes, 0 when released
}

func (b *ballast) size() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}

// release gives the space up and reports whether there was any.
func (b *ballast) release(fs FS) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held == 0 {
		return false
	}
	b.held = 0
	return fs.Remove(b.path) == nil
}

// Maintain takes up ballast again and prepares the next segment when the disk has room for both. Call it now and then,
// every few seconds, from the goroutine that calls Save. A disk that cannot do it is no error: Space tells.
func (l *Log) Maintain() {
	if l.failed != nil {
		return
	}
	if l.next.ended() {
		err := <-l.next.done
		l.next.done <- err
		if err != nil {
			_ = l.fs.Remove(l.next.name) // its space is what the disk lacks
			l.next = nil
		}
	}
	l.next = l.prepare()
	l.hold(l.fs, l.opt.BallastBytes)
}

// hold reserves size bytes if four times as much is free: never a reason for others to run out.
func (b *ballast) hold(fs FS, size int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if size <= 0 || b.held > 0 {
		return
	}
	free, _, err := fs.Free(filepath.Dir(b.path))
	if err != nil || free < uint64(4*size) {
		return
	}
	f, err := fs.Open(b.path, true)
	if err != nil {
		return
	}
	err = f.Allocate(size)
	_ = f.Close() // its content is never read
	if err != nil {
		_ = fs.Remove(b.path)
		return
	}
	b.held = size
}
