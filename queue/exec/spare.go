package exec

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Making and removing an attempt's three directories costs a file system with a journal more than all else that is written
// for a short attempt. So those that its job left as they were made are used again, by the same user's attempts. They wait
// in the trash: a daemon that starts removes them.

// maxSpares bounds the directories kept for one user.
const maxSpares = 64

// ownerOf is who owns what is made for an account: the user, or the daemon's own where that cannot be changed.
func ownerOf(a *Account) uint32 {
	if a == nil || os.Geteuid() != 0 {
		return uint32(os.Geteuid())
	}
	return a.UID
}

// makeDir makes the attempt's directory exclusively, fs.ErrExist if it is there; spare says that work/ and tmp/ are in it.
// It needs e.mu.
func (e *Executor) makeDir(a *attempt) (spare bool, err error) {
	owner := ownerOf(a.rec.Spec.Account)
	list := e.spares[owner]
	if len(list) == 0 {
		return false, os.Mkdir(a.dir, attemptMode)
	}
	old := list[len(list)-1]
	err = unix.Renameat2(unix.AT_FDCWD, old, unix.AT_FDCWD, a.dir, unix.RENAME_NOREPLACE)
	if errors.Is(err, fs.ErrExist) {
		return false, err
	}
	e.spares[owner] = list[:len(list)-1]
	if err != nil { // a file system that cannot, or somebody removed it
		return false, os.Mkdir(a.dir, attemptMode)
	}
	return true, nil
}

// keepSpare keeps the directory of a forgotten attempt, which is in the trash, for the next one, or reports that it must
// be removed: there are enough, or the job did not leave it as it was made.
func (e *Executor) keepSpare(dir string, owner uint32) bool {
	e.mu.Lock()
	enough := e.closed || len(e.spares[owner]) >= maxSpares
	e.mu.Unlock()
	if enough || !clean(dir, owner) {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.spares[owner] = append(e.spares[owner], dir)
	return true
}

// clean removes the records of an attempt and reports whether nothing but its two directories is left, both empty and
// with their first owner and mode.
func clean(dir string, owner uint32) bool {
	info, err := os.Lstat(dir)
	if err != nil || info.Mode() != fs.ModeDir|attemptMode {
		return false
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, d := range list {
		switch d.Name() {
		case dirWork, dirTmp:
			if !untouched(filepath.Join(dir, d.Name()), owner) {
				return false
			}
		default:
			if d.IsDir() || os.Remove(filepath.Join(dir, d.Name())) != nil {
				return false
			}
		}
	}
	for _, name := range []string{dirWork, dirTmp} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// untouched reports whether dir is an empty directory of the owner, closed to others.
func untouched(dir string, owner uint32) bool {
	info, err := os.Lstat(dir)
	if err != nil || info.Mode() != fs.ModeDir|ownMode {
		return false
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != owner {
		return false
	}
	list, err := os.ReadDir(dir)
	return err == nil && len(list) == 0
}
