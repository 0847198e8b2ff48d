package marked

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ErrChanging says that somebody else wrote the file each time between our reading and our writing.
var ErrChanging = errors.New("file keeps changing while it is edited")

// attempts bounds how often an edit starts again because somebody else wrote the file meanwhile.
const attempts = 5

// File is a file that several daemons and people edit.
type File struct {
	Path string      // a symbolic link is followed: the file behind it is replaced, not the link
	Lock string      // lock file that all daemons of the machine use for Path; its directory must not be writable by others
	Mode fs.FileMode // permission of the file if it has to be made; an existing file keeps mode, owner and attributes
}

// Edit replaces the content by change(content) and reports whether it differs; equal content writes nothing. A file that
// is not there counts as empty, and is made only if change returns something. On any error the file is as it was, save
// that an in-place write (see replace) that the machine did not survive is completed by the next Edit.
func (f File) Edit(ctx context.Context, change func(old []byte) ([]byte, error)) (changed bool, err error) {
	unlock, err := lock(ctx, f.Lock)
	if err != nil {
		return false, fmt.Errorf("marked: %s: %w", f.Path, err)
	}
	defer unlock()

	path, err := resolve(f.Path)
	if err != nil {
		return false, fmt.Errorf("marked: %w", err)
	}
	for range attempts {
		changed, err = f.edit(path, change)
		if !errors.Is(err, errStale) {
			return changed, err
		}
	}
	return false, fmt.Errorf("marked: %s: %w", path, ErrChanging)
}

func (f File) edit(path string, change func([]byte) ([]byte, error)) (bool, error) {
	if err := redo(path); err != nil {
		return false, fmt.Errorf("marked: complete an interrupted write: %w", err)
	}
	old, info, err := read(path)
	if err != nil {
		return false, fmt.Errorf("marked: %w", err)
	}
	want, err := change(old)
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	if bytes.Equal(old, want) {
		return false, nil
	}
	if err := replace(path, info, f.Mode, old, want); err != nil {
		if errors.Is(err, errStale) {
			return false, err
		}
		return false, fmt.Errorf("marked: write %s: %w", path, err)
	}
	return true, nil
}

// resolve follows symbolic links; a path that is not there stands for itself.
func resolve(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	return real, err
}

// read returns the content, and the state of the file it was read from; a nil info means that there is no file.
func read(path string) ([]byte, fs.FileInfo, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file", path)
	}
	content, err := io.ReadAll(file)
	return content, info, err
}

// lock takes an exclusive lock on a file of its own, made if missing, readable by nobody else so that no other user can
// hold it. It waits as long as ctx allows.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	retry := time.NewTicker(10 * time.Millisecond)
	defer retry.Stop()
	for {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			break
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("%s is held by another process: %w", path, context.Cause(ctx))
		case <-retry.C:
		}
	}
	file.Close()
	return nil, fmt.Errorf("lock %s: %w", path, err)
}
