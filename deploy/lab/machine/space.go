package machine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Space is the namespaces of a process and its control group: what another program needs of a machine.
type Space struct {
	PID   int
	Group string // directory; empty: that of the caller
}

// Namespace is the path of one of them: net, mnt, pid, uts or ipc.
func (s Space) Namespace(kind string) string { return fmt.Sprintf("/proc/%d/ns/%s", s.PID, kind) }

// Command is a command in the machine, found by its PATH. To kill it is enough to kill what Command returns, and it is
// killed when the program that started it ends. The working directory is kept where the machine has it too.
func (s Space) Command(ctx context.Context, argv ...string) *exec.Cmd {
	enter := []string{"--target", fmt.Sprint(s.PID), "--mount", "--net", "--pid", "--uts", "--ipc", "--",
		"setpriv", "--pdeathsig", "KILL", "env", "--", "PATH=" + Path}
	return exec.CommandContext(ctx, "nsenter", slices.Concat(enter, argv)...)
}

// Path is where a machine finds programs.
const Path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Start starts cmd as a process of the machine that the caller waits for and signals as any other. Unlike what Command
// returns it may outlive the thread that started it, but not the machine. The program is searched by PATH there.
func (s Space) Start(cmd *exec.Cmd) error {
	cmd.Args = slices.Concat([]string{"env", "--", "PATH=" + Path}, cmd.Args)
	cmd.Path, cmd.Err = "/usr/bin/env", nil
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	leave, err := s.join(cmd.SysProcAttr)
	if err != nil {
		return err
	}
	defer leave()
	return s.inside([]string{"net", "uts", "ipc", "pid", "mnt"}, cmd.Start)
}

// join has a process start in the machine's control group; leave is to be called when it has started.
func (s Space) join(attr *syscall.SysProcAttr) (leave func(), err error) {
	if s.Group == "" {
		return func() {}, nil
	}
	dir, err := os.Open(s.Group)
	if err != nil {
		return nil, err
	}
	attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	return func() { dir.Close() }, nil
}

// InNetwork runs do on a thread that is in the machine's network: what it opens there stays there.
func (s Space) InNetwork(do func() error) error { return s.inside([]string{"net"}, do) }

// inside runs do on a thread that has entered namespaces, and that ends afterwards: no other goroutine meets it.
func (s Space) inside(kinds []string, do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread ends with this goroutine
		err := s.enter(kinds)
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

func (s Space) enter(kinds []string) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // threads that share a root directory may not change mounts
		return fmt.Errorf("unshare: %w", err)
	}
	var files []*os.File
	for _, k := range kinds { // all before the first is entered, which may hide /proc
		f, err := os.Open(s.Namespace(k))
		if err != nil {
			return err
		}
		defer f.Close()
		files = append(files, f)
	}
	for i, f := range files {
		if err := unix.Setns(int(f.Fd()), 0); err != nil {
			return fmt.Errorf("enter %s: %w", s.Namespace(kinds[i]), err)
		}
	}
	return nil
}
