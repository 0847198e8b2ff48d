package exec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// launch is an order on its way to the keeper.
type launch struct{ order *order }

// Events of the keeper.
type (
	keptStart struct {
		first startedRecord
		err   error // not started; no other event follows
	}
	keptFirst struct{ status syscall.WaitStatus } // the first process has ended, others have not
	keptEnd   struct {                            // nothing is left
		status syscall.WaitStatus // of the first process
		cpu    time.Duration
		maxRSS int64
	}
)

// keep starts processes and waits for all that the shim inherits. It holds one thread for ever: the parent-death signal
// of a job is bound to the thread that started it, and so is "no new privileges", which its children inherit.
func (s *shim) keep() {
	runtime.LockOSThread()
	nnp := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	for l := range s.orders {
		if nnp != nil {
			s.in <- keptStart{err: fmt.Errorf("give up new privileges: %w", nnp)}
			continue
		}
		pid, err := s.start(l.order)
		if err != nil {
			s.in <- keptStart{err: err}
			continue
		}
		first := startedRecord{PID: pid, At: time.Now()}
		if p, err := readProcess(pid); err == nil { // at worst a zombie: only we reap it
			first.Ticks = p.ticks
		}
		s.in <- keptStart{first: first}
		s.reap(pid)
	}
}

// reap waits until no child is left, for the first process and for orphans of its family.
func (s *shim) reap(first int) {
	var end keptEnd
	flags, told := 0, true
	for {
		var st syscall.WaitStatus
		var ru syscall.Rusage
		pid, err := syscall.Wait4(-1, &st, flags, &ru)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil: // ECHILD: all are gone
			s.in <- end
			return
		case pid > 0:
			end.cpu += time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
			end.maxRSS = max(end.maxRSS, ru.Maxrss<<10)
			if pid == first {
				end.status, flags, told = st, syscall.WNOHANG, false // look for others without waiting
			}
		}
		if pid == 0 && !told { // others are left
			s.in <- keptFirst{end.status}
			flags, told = 0, true
		}
	}
}

// start runs the order's command; the error wraps the errno of what failed.
func (s *shim) start(o *order) (int, error) {
	files, err := openStdio(o)
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err != nil {
		return 0, err
	}
	work := filepath.Join(o.Dir, dirWork)
	path, err := lookPath(o.Argv[0], o.Env, work)
	if err != nil {
		return 0, err
	}
	attr := &syscall.ProcAttr{Dir: work, Env: o.Env, Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}}
	for _, f := range files {
		attr.Files = append(attr.Files, f.Fd())
	}
	if c := o.Cred; c != nil {
		attr.Sys.Credential = &syscall.Credential{Uid: c.UID, Gid: c.GID, Groups: c.Groups}
	}
	if s.groupDir != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(s.groupDir.Fd())
	}
	for wait := time.Millisecond; ; wait *= 2 {
		pid, err := syscall.ForkExec(path, o.Argv, attr)
		if err == nil {
			return pid, nil
		}
		if !errors.Is(err, syscall.ETXTBSY) || wait > 200*time.Millisecond {
			return 0, &os.PathError{Op: "exec", Path: o.Argv[0], Err: err}
		}
		time.Sleep(wait) // a process just being forked elsewhere still holds the file open for writing
	}
}

// openStdio returns the standard input, output and error of the job. The files belong to its user, so that it can open
// /dev/stderr; they are its only open files.
func openStdio(o *order) ([]*os.File, error) {
	files := make([]*os.File, 0, 3)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	files = append(files, null)
	for _, stream := range []struct {
		name      string
		discarded bool
	}{{fileStdout, o.NoStdout}, {fileStderr, o.NoStderr}} {
		f := null
		switch {
		case stream.name == fileStderr && o.Join:
			f = files[1]
		case !stream.discarded:
			if f, err = createStream(o, stream.name); err != nil {
				return files, err
			}
		}
		files = append(files, f)
	}
	return files, nil
}

func createStream(o *order, name string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(o.Dir, name), os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if c := o.Cred; c != nil {
		if err := f.Chown(int(c.UID), int(c.GID)); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

// lookPath finds the command along the job's own PATH. A name with a slash is taken as it is, from the working directory.
func lookPath(name string, env []string, work string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	path := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	found := error(syscall.ENOENT)
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(work, dir)
		}
		file := filepath.Join(dir, name)
		info, err := os.Stat(file)
		if err != nil || info.IsDir() {
			continue
		}
		if info.Mode()&0o111 != 0 {
			return file, nil
		}
		found = syscall.EACCES
	}
	return "", &os.PathError{Op: "find on PATH", Path: name, Err: found}
}
