package cli

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vcpeer/deploy/lab/machine"
	"vcpeer/peer/api"
)

func newLabExec(e *env, name *string) *cobra.Command {
	cmd := &cobra.Command{Use: "exec NODE [--] COMMAND [ARG…]", Short: "Run a command on a node, as root there",
		Long: `Exec runs a command with the node's network, files and processes, with this terminal, input and output, and leaves with
its exit code. Besides nodes there are the routers of sites (SITE-router) and the network between all sites (wan), whose
interfaces have the names of the sites. Where a site has one node its name will do. Without a command it is a shell.`,
		Example: `  vcpeer lab exec kyoto-1 -- vcpeer status
  vcpeer lab exec kyoto-1 -- ovs-vsctl show
  vcpeer lab exec osaka                             # a shell
  vcpeer lab exec wan -- tcpdump -ni kyoto ip proto 47`,
		Args: atLeastOne("node"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runLabExec(cmd.Context(), e, *name, args[0], args[1:])
		}}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func runLabExec(ctx context.Context, e *env, name, node string, argv []string) error {
	r, err := e.lab(name)
	if err != nil {
		return attachedError{err}
	}
	m, err := r.State.Machine(node)
	if err != nil {
		return attachedError{err}
	}
	if !m.First.Alive() {
		return attachedError{&api.Problem{Code: api.CodeUnavailable, Message: m.Name + " is gone", Hint: "vcpeer lab down --name " + r.State.Name}}
	}
	if len(argv) > 0 && argv[0] == "--" {
		argv = argv[1:]
	}
	if len(argv) == 0 {
		argv = []string{"/bin/bash"}
	}
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdin, c.Stdout, c.Stderr = e.In, e.Out, e.Err
	if l, ok := e.Err.(*lockedWriter); ok {
		c.Stderr = l.w
	}
	c.Env = slices.DeleteFunc(slices.Clone(e.Environ), func(v string) bool { return strings.HasPrefix(v, "VCPEER_") })
	c.Dir = e.Dir
	return e.attach(ctx, m.Space(), c)
}

// attach runs a command in the place of this one. On a terminal it is the foreground, so that Ctrl-C is for it alone.
func (e *env) attach(ctx context.Context, s machine.Space, c *exec.Cmd) error {
	if tty, ok := e.In.(*os.File); ok && e.InTTY {
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Foreground: true, Ctty: int(tty.Fd())}
		signal.Ignore(syscall.SIGTTOU)
		defer signal.Reset(syscall.SIGTTOU)
		defer func() { _ = unix.IoctlSetPointerInt(int(tty.Fd()), unix.TIOCSPGRP, unix.Getpgrp()) }()
	}
	if err := s.Start(c); err != nil {
		return attachedError{err}
	}
	defer context.AfterFunc(ctx, func() { _ = c.Process.Signal(syscall.SIGTERM) })()
	err := c.Wait()
	var ended *exec.ExitError
	switch {
	case errors.As(err, &ended):
		if ws, ok := ended.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return exitStatus(128 + int(ws.Signal()))
		}
		return exitStatus(ended.ExitCode())
	case err != nil:
		return attachedError{err}
	}
	return nil
}
