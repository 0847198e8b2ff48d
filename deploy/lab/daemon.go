package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"vcpeer/deploy/lab/machine"
	"vcpeer/peer/api"
)

// Daemons of a node.
const (
	OVSDB  = "ovsdb-server"
	OVS    = "ovs-vswitchd"
	VCPeer = "vcpeer"
)

// Daemons lists them in the order in which they start.
var Daemons = []string{OVSDB, OVS, VCPeer}

// daemon is a process of a node.
type daemon struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

func (d *daemon) alive() bool {
	if d == nil {
		return false
	}
	select {
	case <-d.exited:
		return false
	default:
		return true
	}
}

// Alive reports whether a daemon of the node runs.
func (l *Lab) Alive(node, name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.Node(node)
	return n != nil && n.daemons[name].alive()
}

// LogFile is where a daemon writes its log, below the directory of its machine.
func LogFile(dir, daemon string) string {
	if daemon == VCPeer {
		return filepath.Join(dir, "log", "vcpeer.log")
	}
	return filepath.Join(dir, "log", "openvswitch", daemon+".log")
}

// switchNice is the nice value that ovs-ctl(8) gives the daemons of Open vSwitch.
const switchNice = -10

// launch starts a daemon in the node; what it prints goes to a file in its log directory.
func (n *Node) launch(name string, env []string, argv ...string) error {
	path := filepath.Join(n.Machine.Dir, "log", name+".out")
	if name == VCPeer {
		path = LogFile(n.Machine.Dir, name)
	}
	d, err := launch(n.Machine, name, path, env, argv...)
	if err == nil {
		n.daemons[name] = d
	}
	return err
}

// launch starts a daemon in a machine; what it prints goes to the file at path.
func launch(m *machine.Machine, name, path string, env []string, argv ...string) (*daemon, error) {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append([]string{"HOME=/root", "NO_COLOR=1", "LANG=C.UTF-8"}, env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := m.Start(cmd); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if name != VCPeer {
		_ = syscall.Setpriority(syscall.PRIO_PROCESS, cmd.Process.Pid, switchNice) // without the right to it, all are equal
	}
	d := &daemon{cmd, make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(d.exited)
	}()
	return d, nil
}

// waitFor waits until ok, asking ever less often, since that is work for a machine which is starting; it fails early when the
// daemon ends.
func (n *Node) waitFor(ctx context.Context, name string, ok func() bool) error {
	d := n.daemons[name]
	const often, seldom = 10 * time.Millisecond, 200 * time.Millisecond
	gap := often
	tick := time.NewTicker(gap)
	defer tick.Stop()
	for !ok() {
		if gap < seldom {
			gap += gap / 4
			tick.Reset(gap)
		}
		select {
		case <-d.exited:
			return fmt.Errorf("%s on %s ended: %s\n%s", name, n.Name, d.cmd.ProcessState, n.lastWords(name))
		case <-ctx.Done():
			return fmt.Errorf("%s on %s is not ready: %w\n%s", name, n.Name, context.Cause(ctx), n.lastWords(name))
		case <-tick.C:
		}
	}
	return nil
}

// lastWords is the end of what a daemon said.
func (n *Node) lastWords(name string) string {
	var b []byte
	for _, path := range []string{filepath.Join(n.Machine.Dir, "log", name+".out"), LogFile(n.Machine.Dir, name)} {
		if more, err := os.ReadFile(path); err == nil {
			b = append(b, more...)
		}
	}
	const enough = 2000
	return string(b[max(0, len(b)-enough):])
}

// Kill sends a signal to a daemon; after one that ends a process it waits until that has ended.
func (l *Lab) Kill(node, name string, sig syscall.Signal) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.daemonOf(node, name)
	if err != nil {
		return err
	}
	d := n.daemons[name]
	if !d.alive() {
		return &api.Problem{Code: api.CodeNotFound, Message: fmt.Sprintf("%s does not run on %s", name, n.Name),
			Hint: fmt.Sprintf("vcpeer lab start %s --daemon %s", n.Name, name)}
	}
	if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("lab: %s on %s: %w", name, n.Name, err)
	}
	if !slices.Contains([]syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGABRT}, sig) {
		return nil
	}
	const within = 30 * time.Second
	select {
	case <-d.exited:
		return nil
	case <-time.After(within):
		return fmt.Errorf("lab: %s on %s is still there %v after %v", name, n.Name, within, sig)
	}
}

// StartDaemon starts a daemon that does not run and waits until it answers.
func (l *Lab) StartDaemon(ctx context.Context, node, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.daemonOf(node, name)
	if err != nil {
		return err
	}
	if n.daemons[name].alive() {
		return &api.Problem{Code: api.CodeRefused, Message: fmt.Sprintf("%s runs on %s already", name, n.Name),
			Hint: fmt.Sprintf("vcpeer lab kill %s --daemon %s ends it", n.Name, name)}
	}
	switch name {
	case OVSDB:
		err = n.startOVSDB(ctx)
	case OVS:
		err = n.startOVS(ctx)
	default:
		err = l.startPeer(ctx, n)
	}
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

func (l *Lab) daemonOf(node, name string) (*Node, error) {
	n := l.Node(node)
	switch {
	case n == nil:
		return nil, l.noMachine(node)
	case !slices.Contains(Daemons, name):
		return nil, &api.Problem{Code: api.CodeBadRequest, Message: fmt.Sprintf("daemon %q: want %s", name, strings.Join(Daemons, ", "))}
	case name != VCPeer && !n.wanted.OVS:
		return nil, &api.Problem{Code: api.CodeRefused, Message: n.Name + " has no Open vSwitch", Hint: "its topology says ovs: off"}
	}
	return n, nil
}
