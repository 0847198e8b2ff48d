// Package harness starts clusters of real vcpeer processes on one machine, for tests and benchmarks: own ports on
// loopback, own data directories, real signals. It ends what it started, by pid, however the test ends.
package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"vcpeer/peer/api"
)

// Cluster is a set of nodes that share one binary and one directory.
type Cluster struct {
	Dir    string // holds one directory for each node
	Binary string
	Nodes  []*Node
}

// Node is one vcpeer process and what is needed to start it again.
type Node struct {
	Name, Site, Dir, Listen string
	Args                    []string // further arguments of `vcpeer start`

	binary string
	space  *Namespace // nil: it runs on the machine as it is
	cmd    *exec.Cmd
	exited chan struct{}
	log    *tail
}

// Build compiles the binary into dir and returns its path.
func Build(ctx context.Context, dir string, flags ...string) (string, error) {
	path := filepath.Join(dir, "vcpeer")
	args := append(append([]string{"build", "-o", path}, flags...), "vcpeer/cli/vcpeer")
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("harness: go build: %w\n%s", err, out)
	}
	return path, nil
}

// New returns a cluster without nodes. Dir should be short: unix sockets live below it.
func New(dir, binary string) *Cluster { return &Cluster{Dir: dir, Binary: binary} }

// Add describes a node; Start starts it. The port is free at this moment and stays the node's over restarts.
func (c *Cluster) Add(name, site string, args ...string) (*Node, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	n := &Node{
		Name: name, Site: site, Args: args, binary: c.Binary,
		Dir:    filepath.Join(c.Dir, name+"."+site), // two nodes may share a name
		Listen: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		log:    new(tail),
	}
	c.Nodes = append(c.Nodes, n)
	return n, nil
}

// Found starts the first node of the cluster and waits until it runs.
func (c *Cluster) Found(ctx context.Context, n *Node) error {
	if err := n.Start(); err != nil {
		return err
	}
	return n.WaitRunning(ctx)
}

// Join starts n with a fresh token of seed and waits until it runs.
func (c *Cluster) Join(ctx context.Context, n, seed *Node) error {
	token, err := seed.Client().NewToken(ctx, api.TokenAsk{TTL: time.Hour})
	if err != nil {
		return fmt.Errorf("harness: token for %s: %w", n.Name, err)
	}
	if err := n.StartJoin(seed.Listen, token.Token); err != nil {
		return err
	}
	return n.WaitRunning(ctx)
}

// Kill ends every process at once with SIGKILL, jobs included.
func (c *Cluster) Kill() {
	for _, n := range c.Nodes {
		n.Kill()
	}
	for _, n := range c.Nodes {
		n.KillShims()
	}
}

// Start starts the node as one that has joined before, or as a founder.
func (n *Node) Start() error { return n.start(nil) }

// StartJoin starts a node that is to join through seed.
func (n *Node) StartJoin(seed, token string) error {
	return n.start([]string{"VCPEER_TOKEN=" + token}, "--seed", seed)
}

func (n *Node) start(env []string, more ...string) error {
	if n.Alive() {
		return fmt.Errorf("harness: %s runs already", n.Name)
	}
	args := []string{"--name", n.Name, "--site", n.Site, "--listen", n.Listen, "--log-level", "info"}
	cmd := n.command(append(append(args, n.Args...), more...))
	cmd.Env = append(append(os.Environ(), "NO_COLOR=1"), env...)
	cmd.Stdout, cmd.Stderr = n.log, n.log
	cmd.WaitDelay = time.Second // shims may hold the pipe open after the daemon has gone
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("harness: %s: %w", n.Name, err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is seen in its log
		close(exited)
	}()
	n.cmd, n.exited = cmd, exited
	return nil
}

// command is `vcpeer start` where the node lives.
func (n *Node) command(args []string) *exec.Cmd {
	if n.space != nil {
		return n.space.start(append([]string{"start"}, args...))
	}
	return exec.Command(n.binary, append([]string{"start", "--dir", n.Dir, "--jobs-as", "self"}, args...)...)
}

// Alive reports whether the daemon runs.
func (n *Node) Alive() bool {
	if n.exited == nil {
		return false
	}
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

// PID is the daemon's process ID, of the last start.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// Socket is where the node's API answers.
func (n *Node) Socket() string {
	if n.space != nil {
		return filepath.Join(n.Dir, "run", "vcpeer", "vcpeer.sock")
	}
	return filepath.Join(n.Dir, "run", "vcpeer.sock")
}

// Client talks to the node.
func (n *Node) Client() *api.Client { return api.NewClient(n.Socket()) }

// Log returns the end of what the node printed, over all its starts.
func (n *Node) Log() string { return n.log.String() }

// WaitRunning waits until the node says that it runs. It fails early when the process ends.
func (n *Node) WaitRunning(ctx context.Context) error {
	client := n.Client()
	return n.until(ctx, "runs", func() bool {
		s, err := client.Status(ctx)
		return err == nil && s.Node.Phase == "running"
	})
}

// WaitWell waits until the node finds nothing wrong and sees members alive members.
func (n *Node) WaitWell(ctx context.Context, members int) error {
	client := n.Client()
	return n.until(ctx, fmt.Sprintf("is well among %d", members), func() bool {
		s, err := client.Status(ctx)
		return err == nil && s.Well && s.Cluster.Alive == members
	})
}

func (n *Node) until(ctx context.Context, what string, ok func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-n.exited:
			return fmt.Errorf("harness: %s ended before it %s:\n%s", n.Name, what, n.Log())
		case <-ctx.Done():
			return fmt.Errorf("harness: %s never %s: %w\n%s", n.Name, what, ctx.Err(), n.Log())
		case <-tick.C:
		}
	}
	return nil
}

// Kill ends the daemon with SIGKILL and leaves its shims and jobs.
func (n *Node) Kill() { n.signal(syscall.SIGKILL) }

// Stop asks the daemon to end and waits for it.
func (n *Node) Stop() { n.signal(syscall.SIGTERM) }

// Pause stops the daemon where it is (SIGSTOP); Resume lets it go on.
func (n *Node) Pause() { _ = n.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (n *Node) Resume() { _ = n.cmd.Process.Signal(syscall.SIGCONT) }

func (n *Node) signal(sig syscall.Signal) {
	if !n.Alive() {
		return
	}
	_ = n.cmd.Process.Signal(sig) // it may end at this very moment
	select {
	case <-n.exited:
	case <-time.After(20 * time.Second):
		_ = n.cmd.Process.Kill()
		<-n.exited
	}
}

// KillShims ends the node's shims and the jobs below them, found by the node's directory in their command line and by
// their working directory: as if the machine had lost power.
func (n *Node) KillShims() {
	for _, pid := range n.processes() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// processes lists the processes that work below the node's directory, the daemon itself left out.
func (n *Node) processes() []int {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() || n.cmd != nil && pid == n.cmd.Process.Pid {
			continue
		}
		cwd, _ := os.Readlink(filepath.Join("/proc", p.Name(), "cwd"))
		cmdline, _ := os.ReadFile(filepath.Join("/proc", p.Name(), "cmdline"))
		if within(cwd, n.Dir) || bytes.Contains(cmdline, []byte("\x00shim\x00")) && bytes.Contains(cmdline, []byte(n.Dir+"/")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func within(path, dir string) bool {
	path = strings.TrimSuffix(path, " (deleted)")
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// freePort finds a port that is free for TCP and UDP on loopback.
func freePort() (int, error) {
	for range 100 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		port := ln.Addr().(*net.TCPAddr).Port
		pc, err := net.ListenPacket("udp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		ln.Close()
		if err == nil {
			pc.Close()
			return port, nil
		}
	}
	return 0, errors.New("harness: no port is free for both TCP and UDP")
}

// tail keeps the end of what a process prints.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*tailBytes {
		t.buf = append(t.buf[:0:0], t.buf[len(t.buf)-tailBytes:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf[max(0, len(t.buf)-tailBytes):])
}
