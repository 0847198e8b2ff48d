package marked

import (
	"errors"

	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// errStale: the file is not the one that was read.
var errStale = errors.New("file changed since it was read")

// replace gives path the content want, atomically and durably: written beside, synced, renamed over, directory synced.
// Where path is a mount point of its own, as /etc/hosts is in containers, a rename is refused and the file is
// written in place: a reader may then meet a mixture for an instant, and a crash could leave one. Against that the
// synced new content stays beside as .NAME.vcpeer-redo until it is all in place, and redo completes it.
// The caller holds the lock; info and old are what read returned.
func replace(path string, info fs.FileInfo, mode fs.FileMode, old, want []byte) error {
	next := beside(path, "new")
	err := writeNew(next, path, info, mode, want)
	if errors.Is(err, unix.EROFS) && info != nil { // only the file itself is writable
		return writeInPlace(path, old, want)
	}
	if err != nil {
		return err
	}
	defer os.Remove(next) // gone already unless something failed
	if !same(path, info) {
		return errStale
	}
	err = os.Rename(next, path)
	if errors.Is(err, unix.EBUSY) {
		return replaceMounted(path, next, old, want)
	}
	if err != nil {
		return err
	}
	return syncDir(path)
}

func replaceMounted(path, next string, old, want []byte) error {
	log := beside(path, "redo")
	if err := os.Rename(next, log); err != nil {
		return err
	}
	if err := syncDir(path); err != nil {
		return err
	}
	if err := writeInPlace(path, old, want); err != nil {
		return err
	}
	if err := os.Remove(log); err != nil {
		return err
	}
	return syncDir(path)
}

// redo completes an in-place write that was interrupted, if there is one.
func redo(path string) error {
	log := beside(path, "redo")
	want, err := os.ReadFile(log)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := writeInPlace(path, nil, want); err != nil {
		return err
	}
	return os.Remove(log)
}

// writeInPlace writes from the first byte that differs, so that the lines before our block are not even touched, and
// only then cuts what is left of the old content.
func writeInPlace(path string, old, want []byte) error {
	from := 0
	for from < len(old) && from < len(want) && old[from] == want[from] {
		from++
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err = file.WriteAt(want[from:], int64(from)); err == nil {
		err = file.Truncate(int64(len(want)))
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// writeNew makes next with the content and with mode, owner and attributes of path.
func writeNew(next, path string, info fs.FileInfo, mode fs.FileMode, content []byte) error {
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) { // left by a crash; the lock is ours
		return err
	}
	file, err := os.OpenFile(next, os.O_CREATE|os.O_EXCL|os.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = dress(file, path, info, mode)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		os.Remove(next)
	}
	return err
}

// dress gives file the owner, mode and extended attributes (access lists, security labels) of path.
func dress(file *os.File, path string, info fs.FileInfo, mode fs.FileMode) error {
	if info == nil {
		return file.Chmod(mode)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := file.Chown(int(st.Uid), int(st.Gid)); err != nil && os.Geteuid() == 0 {
			return err
		}
	}
	if err := file.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	return copyAttributes(file, path)
}

func copyAttributes(file *os.File, path string) error {
	names := make([]byte, 4096)
	n, err := unix.Listxattr(path, names)
	if err != nil {
		if errors.Is(err, unix.ENOTSUP) {
			return nil
		}
		return err
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10) // the kernel's limit for one attribute
		n, err := unix.Getxattr(path, name, value)
		if err != nil {
			return err
		}
		if err := unix.Fsetxattr(int(file.Fd()), name, value[:n], 0); err != nil && !errors.Is(err, unix.ENOTSUP) && os.Geteuid() == 0 {
			return err
		}
	}
	return nil
}

// same reports whether path still is what info was taken from.
func same(path string, info fs.FileInfo) bool {
	now, err := os.Stat(path)
	if info == nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	return err == nil && os.SameFile(now, info) && now.Size() == info.Size() && now.ModTime().Equal(info.ModTime())
}

func beside(path, kind string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".vcpeer-"+kind)
}

func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	err = dir.Sync()
	if errors.Is(err, unix.EINVAL) { // some file systems cannot
		err = nil
	}
	return errors.Join(err, dir.Close())
}
