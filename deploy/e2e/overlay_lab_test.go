package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vcpeer/deploy/harness"
	netlab "vcpeer/deploy/lab"
	"vcpeer/deploy/lab/topology"
	"vcpeer/peer/api"
)

// The tests of the network over all sites run whole labs: their nodes are machines with Open vSwitch and vcpeer, and
// what is between the sites is known and changes at will. They need root, run one after another, since what they
// measure is time, and wait for what must come with deadlines for a machine that is busy with other things as well.

// overlayLimit bounds what a test of a lab may take.
var overlayLimit = 3 * time.Minute * patience

// patience is how many times longer than on a machine of today's all that must come may take: $VCPEER_PATIENCE, for a machine
// that is emulated. What is measured says nothing of the network there, and is told and not judged.
var patience = max(1, func() time.Duration {
	n, _ := strconv.Atoi(os.Getenv("VCPEER_PATIENCE")) // else 0
	return time.Duration(n)
}())

// kernelForwards reports whether the nodes' Open vSwitch forwards in the kernel, where there is no bridge below.
func (n *testnet) kernelForwards() bool {
	n.t.Helper()
	return n.sh(n.Nodes()[0].Name, "ovs-vsctl get bridge vcpeer0 datapath_type") == "system"
}

// testnet is a lab, all of whose nodes are one network.
type testnet struct {
	*netlab.Lab
	t     *testing.T
	ctx   context.Context
	addrs map[string]string // of the nodes in the network
}

// newNet brings up a lab with the given program; it is taken down when the test ends.
func newNet(t *testing.T, binary string, top topology.Topology) *testnet {
	t.Helper()
	if why := netlab.CannotRun(t.Context()); why != "" {
		t.Skip(why)
	}
	ctx, cancel := context.WithTimeout(t.Context(), overlayLimit)
	t.Cleanup(cancel)
	began := time.Now()
	l, err := netlab.Up(ctx, top, netlab.Options{Binary: binary, Name: fmt.Sprintf("o%d-%d", os.Getpid(), began.UnixNano()%1e6)})
	if err != nil {
		t.Fatal(err)
	}
	n := &testnet{Lab: l, t: t, ctx: ctx, addrs: map[string]string{}}
	t.Cleanup(n.down)
	var running []string
	for _, node := range n.Nodes() {
		if n.Alive(node.Name, netlab.VCPeer) {
			running = append(running, node.Name)
		}
	}
	t.Logf("%d nodes run after %v", len(running), time.Since(began).Round(time.Millisecond))
	n.settle(running)
	t.Logf("and are one network after %v; load %s", time.Since(began).Round(time.Millisecond), load())
	return n
}

func (n *testnet) down() {
	var logs []string
	for _, node := range n.Nodes() {
		b, _ := os.ReadFile(netlab.LogFile(node.Machine.Dir, netlab.VCPeer)) // one that never ran has none
		if _, race, found := strings.Cut(string(b), "WARNING: DATA RACE"); found {
			n.t.Errorf("%s has a data race:%s", node.Name, race[:min(len(race), 6000)])
		}
		if i := strings.Index(string(b), "panic: "); i >= 0 {
			n.t.Errorf("%s has panicked: %s", node.Name, b[i:min(len(b), i+4000)])
		}
		logs = append(logs, fmt.Sprintf("==== %s\n%s", node.Name, lastLines(string(b), 15)))
	}
	if n.t.Failed() {
		n.t.Log(strings.Join(logs, "\n"))
		n.tellLinks()
	}
	if err := n.Down(); err != nil {
		n.t.Error(err)
	}
}

// tellLinks tells what each node measures and which paths it uses.
func (n *testnet) tellLinks() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second*patience)
	defer cancel()
	for _, node := range n.Nodes() {
		if n.Alive(node.Name, netlab.VCPeer) {
			out, err := n.Exec(ctx, node.Name, "sh", "-c", "vcpeer links; vcpeer paths")
			n.t.Logf("==== %s: %v\n%s", node.Name, err, out)
		}
	}
}

// settle waits until each of the nodes knows how to reach all others, and notes their addresses.
func (n *testnet) settle(nodes []string) {
	n.t.Helper()
	for _, name := range nodes {
		n.within(60*time.Second, name+" is in the network", func() bool {
			o, err := n.overlayOf(name)
			if err == nil && o.Up {
				n.addrs[name] = o.Address
			}
			return n.addrs[name] != ""
		})
	}
	sites := map[string]bool{}
	for _, name := range nodes {
		sites[n.Node(name).Site] = true
	}
	for _, name := range nodes {
		n.within(60*time.Second, fmt.Sprintf("%s reaches all of %d sites", name, len(sites)), func() bool {
			o, err := n.overlayOf(name)
			return err == nil && (o.Uplink != "" || o.Label != "" && o.Sites == len(sites)-1)
		})
	}
}

// overlayOf asks a node for its part of the network.
func (n *testnet) overlayOf(node string) (*api.Overlay, error) {
	c := n.Client(node)
	defer c.Close()
	ctx, cancel := context.WithTimeout(n.ctx, 5*time.Second*patience)
	defer cancel()
	return c.Overlay(ctx, "")
}

func (n *testnet) linksOf(node string) []api.Link {
	c := n.Client(node)
	defer c.Close()
	l, err := c.Links(n.ctx, "")
	if err != nil {
		return nil
	}
	return l.Items
}

func (n *testnet) link(from, to string) api.Link {
	for _, l := range n.linksOf(from) {
		if l.Node == to {
			return l
		}
	}
	return api.Link{}
}

func (n *testnet) pathsOf(node string) []api.Path {
	c := n.Client(node)
	defer c.Close()
	l, err := c.Paths(n.ctx, "")
	if err != nil {
		return nil
	}
	return l.Items
}

func (n *testnet) path(from, to string) api.Path {
	for _, p := range n.pathsOf(from) {
		if p.To == to {
			return p
		}
	}
	return api.Path{}
}

// way waits until from sends to to over the given gateways; none: directly.
func (n *testnet) way(from, to string, via ...string) {
	n.t.Helper()
	n.within(30*time.Second, fmt.Sprintf("%s sends to %s by %v", from, to, via), func() bool {
		p := n.path(from, to)
		return p.To != "" && slices.Equal(p.Via, via)
	})
}

// within waits for something that must come.
func (n *testnet) within(d time.Duration, what string, ok func() bool) time.Duration {
	n.t.Helper()
	began := time.Now()
	d *= patience
	tick := time.NewTicker(20 * time.Millisecond * patience)
	defer tick.Stop()
	for !ok() {
		if time.Since(began) > d || n.ctx.Err() != nil {
			n.t.Fatalf("not within %v: %s", d, what)
		}
		<-tick.C
	}
	return time.Since(began)
}

// must stops the test on an error of the lab.
func (n *testnet) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// sh runs a shell command on a machine that must succeed.
func (n *testnet) sh(machine, script string) string {
	n.t.Helper()
	out, err := n.Exec(n.ctx, machine, "sh", "-c", script)
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// try runs a shell command and returns all that it printed.
func (n *testnet) try(machine, script string) (string, error) {
	ctx, cancel := context.WithTimeout(n.ctx, 30*time.Second*patience)
	defer cancel()
	out, err := n.Command(ctx, machine, "sh", "-c", script).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// pings reports whether an answer to one of a few pings comes.
func (n *testnet) pings(from, to string, more ...string) bool {
	argv := slices.Concat([]string{"ping", "-q", "-n", "-c", "1", "-W", fmt.Sprint(int(patience))}, more, []string{to})
	_, err := n.Exec(n.ctx, from, argv...)
	return err == nil
}

// allPing has each of from ping each of to at once, and returns the pairs of which nothing came back.
func (n *testnet) allPing(from []string, to map[string]string, more ...string) (silent []string) {
	var mu sync.Mutex
	var all sync.WaitGroup
	turns := make(chan struct{}, 8)
	for _, f := range from {
		for name, addr := range to {
			if name == f {
				continue
			}
			all.Go(func() {
				turns <- struct{}{}
				defer func() { <-turns }()
				argv := slices.Concat([]string{"ping", "-q", "-n", "-c", "3", "-i", "0.2", "-W", fmt.Sprint(int(patience))}, more, []string{addr})
				if out, err := n.Command(n.ctx, f, argv...).CombinedOutput(); err != nil {
					mu.Lock()
					silent = append(silent, fmt.Sprintf("%s > %s (%s): %s", f, name, addr, out))
					mu.Unlock()
				}
			})
		}
	}
	all.Wait()
	slices.Sort(silent)
	return silent
}

// stream is a ping that goes on until it is ended.
type stream struct {
	n     *testnet
	cmd   *exec.Cmd
	out   bytes.Buffer
	every time.Duration
}

// stream starts pings at a steady pace.
func (n *testnet) stream(from, to string, every time.Duration, more ...string) *stream {
	n.t.Helper()
	if a, ok := n.addrs[to]; ok {
		to = a
	}
	argv := slices.Concat([]string{"ping", "-D", "-n", "-i", fmt.Sprint(every.Seconds())}, more, []string{to})
	s := &stream{n: n, cmd: exec.CommandContext(n.ctx, argv[0], argv[1:]...), every: every}
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	n.must(n.Machine(from).Start(s.cmd))
	return s
}

// received is what came back of a stream.
type received struct {
	sent, lost int
	late       int           // answers that came after the answer to a later ping
	twice      int           // answers that came again
	blackout   time.Duration // the longest time within which no ping that was sent was answered
	rtts       []time.Duration
}

// lossy reports whether packets were lost that were not to be. An emulated machine is late so often that its links seem to fail.
func (r received) lossy() bool { return r.lost > 0 && (patience == 1 || r.lost*10 > r.sent) }

func (r received) String() string {
	return fmt.Sprintf("%d sent, %d lost, %d late, %d twice, silent for %v, RTT %v to %v", r.sent, r.lost, r.late, r.twice,
		r.blackout.Round(time.Millisecond), quantile(r.rtts, 0).Round(10*time.Microsecond), quantile(r.rtts, 1).Round(10*time.Microsecond))
}

var (
	pingLine = regexp.MustCompile(`(?m)^\[([0-9.]+)\] .*icmp_seq=(\d+) .*time=([0-9.]+) ms( \(DUP!\))?`)
	pingSum  = regexp.MustCompile(`(\d+) packets transmitted`)
)

// stop ends the stream, after a moment for what is under way.
func (s *stream) stop() received {
	s.n.t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGINT)
	_ = s.cmd.Wait() // it fails when something was lost
	m := pingSum.FindSubmatch(s.out.Bytes())
	if m == nil {
		s.n.t.Fatalf("ping said %s", s.out.Bytes())
	}
	var r received
	r.sent, _ = strconv.Atoi(string(m[1]))
	seen := map[int]time.Duration{} // when each that was answered was sent
	last := 0
	for _, m := range pingLine.FindAllSubmatch(s.out.Bytes(), -1) {
		at, _ := strconv.ParseFloat(string(m[1]), 64)
		seq, _ := strconv.Atoi(string(m[2]))
		ms, _ := strconv.ParseFloat(string(m[3]), 64)
		if _, again := seen[seq]; again || len(m[4]) > 0 {
			r.twice++
			continue
		}
		if seq < last {
			r.late++
		}
		last = max(last, seq)
		rtt := time.Duration(ms * float64(time.Millisecond))
		r.rtts = append(r.rtts, rtt)
		seen[seq] = time.Duration(at*float64(time.Second)) - rtt
	}
	answered := last // what was sent within the last round-trip time cannot be judged
	before := 0
	for seq := 1; seq <= answered; seq++ {
		if at, ok := seen[seq]; ok {
			if before > 0 && seq > before+1 {
				r.blackout = max(r.blackout, at-seen[before])
			}
			before = seq
		} else {
			r.lost++
		}
	}
	slices.Sort(r.rtts)
	return r
}

// quantile of sorted values.
func quantile[T any](sorted []T, q float64) (zero T) {
	if len(sorted) == 0 {
		return zero
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// topologyOf reads a topology that is drawn in a test.
func topologyOf(t *testing.T, text string) topology.Topology {
	t.Helper()
	top, err := topology.Parse(t.Name(), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return top
}

// quickBinary is vcpeer without the race detector, for what is measured.
func quickBinary(t *testing.T) string {
	t.Helper()
	if len(buildFlags) == 0 {
		return binary
	}
	if why := netlab.CannotRun(t.Context()); why != "" {
		t.Skip(why)
	}
	path, err := quick()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var quick = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp(os.Getenv("VCE"), "quick")
	if err != nil {
		return "", err
	}
	return harness.Build(context.Background(), dir)
})

// load is how busy the machine is, to judge what was measured by.
func load() string {
	b, _ := os.ReadFile("/proc/loadavg") // only told
	return strings.Join(strings.Fields(string(b))[:2], " ")
}
