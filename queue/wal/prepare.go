package wal

import (
	"path/filepath"
	"sync/atomic"
)

// preparation fills a file with zeros in the background; it becomes the next segment.
type preparation struct {
	name    string
	done    chan error // receives once
	stopped atomic.Bool
}

const zeroChunkBytes = 1 << 20

// prepare starts the next preparation, unless it is switched off, one is at work, or the disk is getting full.
func (l *Log) prepare() *preparation {
	if l.opt.Plain {
		return nil
	}
	if l.next != nil {
		return l.next
	}
	if free, _, err := l.fs.Free(l.dir); err != nil || free < uint64(8*l.opt.SegmentBytes) {
		return nil
	}
	p := &preparation{name: filepath.Join(l.dir, "zeros.tmp"), done: make(chan error, 1)}
	go func() { p.done <- p.fill(l.fs, l.opt.SegmentBytes) }()
	return p
}

func (p *preparation) fill(fs FS, size int64) error {
	f, err := fs.Open(p.name, true)
	if err != nil {
		return err
	}
	zeros := make([]byte, min(zeroChunkBytes, size))
	for off := int64(0); off < size && err == nil && !p.stopped.Load(); off += int64(len(zeros)) {
		_, err = f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// takePrepared moves the prepared file to tmp if it is ready; it never waits.
func (l *Log) takePrepared(tmp string) bool {
	if !l.next.ended() {
		return false
	}
	name, err := l.next.name, <-l.next.done
	l.next = nil
	if err == nil {
		err = l.fs.Rename(name, tmp)
	}
	if err != nil {
		_ = l.fs.Remove(name) // a half-filled file is of no use, and Open removes it as well
	}
	return err == nil
}

// ended reports whether the outcome waits in done.
func (p *preparation) ended() bool { return p != nil && len(p.done) > 0 }

// stop ends the preparation and waits for it.
func (p *preparation) stop() {
	if p == nil {
		return
	}
	p.stopped.Store(true)
	<-p.done
}
