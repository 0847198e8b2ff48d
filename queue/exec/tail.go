package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Streams of Tail.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// tailEvery is how often a follower looks for more.
const tailEvery = 100 * time.Millisecond

// Tail reads a stream ("stdout", "stderr") of an attempt that is not acknowledged, from a byte offset. With follow, Read
// waits for more until the attempt has ended or ctx is over. Where a very long stream was cut, a notice stands for what
// is left out. ErrUnknown: not here (any more).
func (e *Executor) Tail(ctx context.Context, key, stream string, offset int64, follow bool) (io.ReadCloser, error) {
	if stream != Stdout && stream != Stderr || offset < 0 {
		return nil, fmt.Errorf("exec: tail %s: no stream %q at offset %d", key, stream, offset)
	}
	e.mu.Lock()
	a := e.attempts[key]
	e.mu.Unlock()
	if a == nil {
		return nil, fmt.Errorf("exec: tail %s: %w", key, ErrUnknown)
	}
	if a.rec.Spec.Join {
		stream = Stdout
	}
	return &tail{ctx: ctx, life: e.life, ended: a.ended, path: filepath.Join(a.dir, stream), at: offset, follow: follow, bound: e.cfg.OutputBytes}, nil
}

// tail is a reader of one call: its contexts live as long as that.
type tail struct {
	ctx, life context.Context
	ended     <-chan struct{}
	path      string
	file      *os.File // nil: not there yet
	at        int64
	follow    bool
	bound     int64
	note      string // still to be given
}

// Close implements io.Closer.
func (t *tail) Close() error {
	if t.file == nil {
		return nil
	}
	return t.file.Close()
}

// Read implements io.Reader.
func (t *tail) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		last := !t.follow || isClosed(t.ended) // before the look: what comes after the end is not missed
		n, err := t.more(p)
		if n > 0 || err != nil {
			return n, err
		}
		if last {
			return 0, io.EOF
		}
		timer := time.NewTimer(tailEvery)
		select {
		case <-timer.C:
		case <-t.ended:
		case <-t.ctx.Done():
			timer.Stop()
			return 0, t.ctx.Err()
		case <-t.life.Done():
			timer.Stop()
			return 0, ErrClosed
		}
		timer.Stop()
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// more reads what is there now; 0 and nil: nothing yet.
func (t *tail) more(p []byte) (int, error) {
	if t.file == nil {
		f, err := os.OpenFile(t.path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		t.file = f
	}
	if t.note == "" {
		t.skipHole()
	}
	if t.note != "" {
		n := copy(p, t.note)
		t.note = t.note[n:]
		return n, nil
	}
	n, err := t.file.ReadAt(p, t.at)
	t.at += int64(n)
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// skipHole steps over what trim has freed; only a stream beyond the bound has that.
func (t *tail) skipHole() {
	info, err := t.file.Stat()
	if err != nil || info.Size() <= t.bound {
		return
	}
	data, err := unix.Seek(int(t.file.Fd()), t.at, unix.SEEK_DATA)
	if err != nil || data <= t.at {
		return
	}
	t.note = notice(data-t.at, t.bound)
	t.at = data
}
