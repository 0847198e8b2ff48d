// Package ovstest gives a test an Open vSwitch of its own: database, daemons and sockets in a directory of its own, in a
// network namespace of its own, with the userspace datapath. All of it ends with the test, and with the test's process
// however that ends.
//
//	sw := ovstest.Start(t) // skips, with the reason, where it cannot be
//	sw.Vsctl(t, "add-br", "br0")
//	sw.Kill(t, ovstest.Vswitchd)
//	sw.Launch(t, ovstest.Vswitchd)
package ovstest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Daemon is one of the two.
type Daemon string

// The daemons.
const (
	Vswitchd Daemon = "ovs-vswitchd"
	Ovsdb    Daemon = "ovsdb-server"
)

// Switch is a running Open vSwitch. Not for concurrent use, but for Run.
type Switch struct {
	Dir     string // OVS_RUNDIR
	calls   chan func()
	running map[Daemon]*exec.Cmd
}

// Start starts one, or skips the test.
func Start(t testing.TB) *Switch {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: network namespaces and tap devices")
	}
	for _, name := range []string{"ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl", "ovs-ofctl"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("needs Open vSwitch: %v", err)
		}
	}
	dir, err := os.MkdirTemp("", "ovs") // short: the path of a socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Switch{Dir: dir, calls: make(chan func()), running: map[Daemon]*exec.Cmd{}}
	if err := s.enter(); err != nil {
		t.Skipf("needs network namespaces: %v", err)
	}
	t.Cleanup(func() { s.end(t) })
	s.run(t, "ovsdb-tool", "create", s.path("conf.db"), "/usr/share/openvswitch/vswitch.ovsschema")
	s.Launch(t, Ovsdb)
	s.Vsctl(t, "--no-wait", "init")
	s.Launch(t, Vswitchd)
	return s
}

// enter starts the goroutine whose thread is in the new namespace. All processes are its children and end with the
// thread (Pdeathsig tells of the thread, not of the process), which is never given back to others.
func (s *Switch) enter() error {
	entered := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		entered <- err
		if err != nil {
			return
		}
		for call := range s.calls {
			call()
		}
	}()
	return <-entered
}

// Run calls f in the namespace, on its thread, and returns when f has returned.
func (s *Switch) Run(f func()) {
	done := make(chan struct{})
	s.calls <- func() { defer close(done); f() }
	<-done
}

func (s *Switch) end(t testing.TB) {
	for d := range s.running {
		s.Kill(t, d)
	}
	close(s.calls)
}

func (s *Switch) path(name string) string { return filepath.Join(s.Dir, name) }

// DB is where the database listens.
func (s *Switch) DB() string { return "unix:" + s.path("db.sock") }

// Pid is that of a running daemon.
func (s *Switch) Pid(d Daemon) int { return s.running[d].Process.Pid }

// Launch starts a daemon and returns when it listens.
func (s *Switch) Launch(t testing.TB, d Daemon) {
	t.Helper()
	args := []string{s.DB(), "--unixctl=" + s.path("vswitchd.ctl"), "--disable-system"}
	socket := "vswitchd.ctl"
	if d == Ovsdb {
		args = []string{s.path("conf.db"), "--remote=p" + s.DB(), "--unixctl=" + s.path("ovsdb.ctl")}
		socket = "db.sock"
	}
	os.Remove(s.path(socket)) // left by one that was killed
	args = append(args, "--no-chdir", "--log-file="+s.path(string(d)+".log"), "-vconsole:off", "--pidfile="+s.path(string(d)+".pid"))
	cmd := s.command(string(d), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	s.Run(func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	s.running[d] = cmd
	Until(t, string(d)+" listens", func() error { _, err := os.Stat(s.path(socket)); return err })
}

// Kill ends a daemon as a crash does.
func (s *Switch) Kill(t testing.TB, d Daemon) {
	t.Helper()
	cmd := s.running[d]
	delete(s.running, d)
	if err := cmd.Process.Kill(); err != nil {
		t.Errorf("%s: %v", d, err)
	}
	cmd.Wait() // says that it was killed
}

func (s *Switch) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+s.Dir, "OVS_DBDIR="+s.Dir, "OVS_LOGDIR="+s.Dir, "LC_ALL=C")
	return cmd
}

func (s *Switch) run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := s.command(name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var err error
	s.Run(func() { err = cmd.Run() })
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, errs.String())
	}
	return out.String()
}

// Vsctl runs ovs-vsctl, as somebody would by hand.
func (s *Switch) Vsctl(t testing.TB, args ...string) string {
	t.Helper()
	return strings.TrimSpace(s.run(t, "ovs-vsctl", append([]string{"--db=" + s.DB(), "--timeout=20"}, args...)...))
}

// Ofctl runs ovs-ofctl with OpenFlow 1.5.
func (s *Switch) Ofctl(t testing.TB, args ...string) string {
	t.Helper()
	return s.run(t, "ovs-ofctl", append([]string{"--protocols=OpenFlow15", "--timeout=20"}, args...)...)
}

// Appctl runs a command in ovs-vswitchd.
func (s *Switch) Appctl(t testing.TB, args ...string) string {
	t.Helper()
	return s.run(t, "ovs-appctl", append([]string{"--target=" + s.path("vswitchd.ctl"), "--timeout=20"}, args...)...)
}

// Until waits for a condition, at most 20 s.
func Until(t testing.TB, what string, cond func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited for: %s: %v", what, err)
		case <-tick.C:
		}
	}
}

// Inside is a program in the network namespace of a process.
func Inside(pid int, argv ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", strconv.Itoa(pid), "-n"}, argv...)...)
}

// Must runs a command and returns what it prints.
func Must(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}
