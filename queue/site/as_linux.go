package site

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"vcpeer/queue/exec"
)

// as runs f with an account's rights on files, if the daemon is root and there is an account. The rights are those of one
// thread (setfsuid(2), credentials(7)): f runs there, and the thread ends with it, so that no other goroutine
// ever runs with them. f must do all its file work itself.
func as(account *exec.Account, f func() error) error {
	if account == nil || os.Geteuid() != 0 {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		err := become(account)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// become changes the calling thread alone; package syscall's functions of these names change all threads.
func become(a *exec.Account) error {
	groups := append([]uint32{a.GID}, a.Groups...)
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); e != 0 {
		return fmt.Errorf("queue/site: groups of %s: %w", a.Name, e)
	}
	// setfsgid and setfsuid return the value before; a second call shows whether the first one took.
	unix.RawSyscall(unix.SYS_SETFSGID, uintptr(a.GID), 0, 0)
	unix.RawSyscall(unix.SYS_SETFSUID, uintptr(a.UID), 0, 0)
	gid, _, _ := unix.RawSyscall(unix.SYS_SETFSGID, ^uintptr(0), 0, 0)
	uid, _, _ := unix.RawSyscall(unix.SYS_SETFSUID, ^uintptr(0), 0, 0)
	if uint32(gid) != a.GID || uint32(uid) != a.UID {
		return fmt.Errorf("queue/site: the rights of %s could not be taken", a.Name)
	}
	return nil
}
