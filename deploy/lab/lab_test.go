package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"vcpeer/deploy/harness"
	"vcpeer/peer/api"
)

// newLab brings up a lab for one test, without vcpeer unless there is a binary.
func newLab(t *testing.T, binary, file string) *Lab {
	t.Helper()
	if why := CannotRun(t.Context()); why != "" {
		t.Skip(why)
	}
	o := Options{Binary: binary, Name: fmt.Sprintf("t%d-%d", os.Getpid(), time.Now().UnixNano()%1e6)}
	if binary == "" {
		o.Binary, o.NoStart = "/bin/true", true
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l, err := Up(ctx, parsed(t, file), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// vcpeer is the program, built for this test.
func vcpeer(t *testing.T) string {
	t.Helper()
	if why := CannotRun(t.Context()); why != "" {
		t.Skip(why)
	}
	if path := os.Getenv("VCPEER_BINARY"); path != "" {
		return path
	}
	bin, err := harness.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

var minRTT = regexp.MustCompile(`rtt min/avg/max/mdev = ([0-9.]+)/`)

// rtt returns the least of some round-trip times in milliseconds; -1: no answer came.
func (l *Lab) rtt(t *testing.T, from string, to netip.Addr) float64 {
	t.Helper()
	out, err := l.Exec(t.Context(), from, "ping", "-q", "-c5", "-i0.05", "-W1", to.String())
	m := minRTT.FindSubmatch(out)
	if err != nil || m == nil {
		return -1
	}
	ms, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return ms
}

// tolerance is by how much the least of five round-trip times may exceed the delays on a busy machine.
const tolerance = 4

func (l *Lab) wantRTT(t *testing.T, from, to string, want float64) {
	t.Helper()
	for _, a := range l.Node(to).Addrs {
		if a.Is4() != l.Node(from).Addrs[0].Is4() && len(l.Node(from).Addrs) == 1 {
			continue
		}
		got := l.rtt(t, from, a)
		if want < 0 && got >= 0 || want >= 0 && (got < want || got > want+tolerance) {
			t.Errorf("%s to %s (%s): %v ms, want %v", from, to, a, got, want)
		}
	}
}

// kyoto-1, kyoto-2 -- router --+
// osaka-1 ---------------------+-- home-router -- laptop
// sendai-1 (both families) ----+
const small = `
sites:
  kyoto: {nodes: 2, ip: both}
  osaka:
  sendai: {ip: both, mtu: 1400}
  home: {nodes: [laptop], nat: port-restricted}
links:
  default: delay=10ms
  osaka>sendai: delay=2ms
`

func TestNetwork(t *testing.T) {
	l := newLab(t, "", small)
	t.Run("EveryPublicNodeIsReached", func(t *testing.T) {
		for _, from := range l.Nodes() {
			for _, to := range l.Nodes() {
				if from.Name == to.Name || to.Name == "laptop" {
					continue
				}
				want := 20.0
				switch {
				case from.Site == to.Site:
					want = 0
				case from.Site+to.Site == "osakasendai" || from.Site+to.Site == "sendaiosaka":
					want = 12
				}
				l.wantRTT(t, from.Name, to.Name, want)
			}
		}
	})
	t.Run("SetCutHeal", func(t *testing.T) { testSetCutHeal(t, l) })
	t.Run("TooLargeIsAnswered", func(t *testing.T) {
		for _, a := range l.Node("sendai").Addrs {
			out, _ := l.Command(t.Context(), "kyoto-1", "ping", "-c3", "-i0.1", "-W1", "-s", "1430", "-M", "do", a.String()).CombinedOutput()
			if !regexp.MustCompile(`(?i)mtu ?= ?1400`).Match(out) {
				t.Errorf("ping %s said\n%s", a, out)
			}
		}
	})
	t.Run("Daemons", func(t *testing.T) { testDaemons(t, l) })
}

func testSetCutHeal(t *testing.T, l *Lab) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(l.Set("kyoto>osaka", "delay=40ms"))
	l.wantRTT(t, "osaka-1", "kyoto-1", 50)
	must(l.Cut("osaka>kyoto"))
	l.wantRTT(t, "kyoto-1", "osaka-1", -1)
	must(l.Heal("kyoto<>osaka"))
	l.wantRTT(t, "kyoto-1", "osaka-1", 50)
	must(l.Cut("kyoto-2"))
	l.wantRTT(t, "osaka-1", "kyoto-2", -1)
	l.wantRTT(t, "osaka-1", "kyoto-1", 50)
	must(l.Cut("sendai"))
	l.wantRTT(t, "osaka-1", "sendai-1", -1)
	must(l.Heal("*"))
	l.wantRTT(t, "osaka-1", "kyoto-2", 50)
	l.wantRTT(t, "osaka-1", "sendai-1", 12)
	for _, err := range []error{l.Cut("nara"), l.Set("kyoto<>osaka", "delay=fast"), l.Set("kyoto<>nara", "loss=1%")} {
		if err == nil {
			t.Error("what cannot be was done")
		}
	}
}

func testDaemons(t *testing.T, l *Lab) {
	if _, err := l.Exec(t.Context(), "osaka", "ovs-vsctl", "--timeout=10", "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{OVSDB, OVS} {
		if err := l.Kill("osaka", d, syscall.SIGKILL); err != nil || l.Alive("osaka", d) {
			t.Fatal(d, err)
		}
		if err := l.StartDaemon(t.Context(), "osaka", d); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := l.Exec(t.Context(), "osaka", "ovs-vsctl", "--timeout=10", "list-br"); err != nil || string(out) != "br0\n" {
		t.Errorf("after all were killed: %q %v", out, err)
	}
	if out, err := l.Exec(t.Context(), "kyoto-1", "ovs-vsctl", "--timeout=10", "list-br"); err != nil || len(out) != 0 {
		t.Errorf("another node has bridges %q %v", out, err)
	}
}

func TestNodesAreOneCluster(t *testing.T) {
	l := newLab(t, vcpeer(t), small)
	for _, n := range l.Nodes() {
		c := l.Client(n.Name)
		defer c.Close()
		wait(t, n.Name+" sees all", func() bool {
			s, err := c.Status(t.Context())
			return err == nil && s.Cluster.Alive == len(l.Nodes())
		})
	}
	if err := l.Kill("laptop", VCPeer, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := l.StartDaemon(t.Context(), "laptop", VCPeer); err != nil {
		t.Fatal(err)
	}
	out, err := l.Exec(t.Context(), "laptop", "vcpeer", "status", "--json")
	if err != nil {
		t.Errorf("status: %v %s", err, out)
	}
	var p *api.Problem
	if err := l.StartDaemon(t.Context(), "laptop", VCPeer); !asProblem(err, &p) || p.Code != api.CodeRefused {
		t.Errorf("started twice: %v", err)
	}
}

func TestDownLeavesNothing(t *testing.T) {
	before := machineState(t)
	l := newLab(t, "", small)
	var first []Process
	for _, m := range l.machines {
		first = append(first, processOf(m.PID))
	}
	if again, err := Up(t.Context(), l.Topology, Options{Name: l.Name, Binary: "/bin/true", NoStart: true}); err == nil {
		t.Error("two labs of one name")
		_ = again.Down()
	}
	if err := l.Down(); err != nil {
		t.Fatal(err)
	}
	for _, p := range first {
		if p.Alive() {
			t.Errorf("process %d is still there", p.PID)
		}
	}
	if _, err := os.Stat(l.Dir); err == nil {
		t.Error(l.Dir + " is still there")
	}
	if after := machineState(t); after != before {
		t.Errorf("interfaces and mounts of the machine:\n%s\nbefore:\n%s", after, before)
	}
}

// machineState is what of the real machine a lab might change.
func machineState(t *testing.T) string {
	t.Helper()
	links, err := exec.CommandContext(t.Context(), "ip", "-br", "link").Output()
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/vcpeer-lab*")
	return string(links) + string(mounts) + fmt.Sprint(groups)
}

// TestHolderKilled: a lab whose process is killed ends with it, and what it leaves can be removed.
func TestHolderKilled(t *testing.T) {
	bin := vcpeer(t)
	name := fmt.Sprintf("k%d", os.Getpid())
	up := exec.CommandContext(t.Context(), bin, "lab", "up", "--sites", "2", "--no-start", "--name", name)
	if out, err := up.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s, err := Find(name)
	if err != nil {
		t.Fatal(err)
	}
	defer Remote{s}.Down(context.WithoutCancel(t.Context()))
	if out, err := exec.CommandContext(t.Context(), bin, "lab", "exec", "--name", name, "site1", "--", "sh", "-c", "hostname; exit 7").CombinedOutput(); err == nil ||
		err.Error() != "exit status 7" || string(out) != "site1-1\n" {
		t.Errorf("exec: %v, printed %q", err, out)
	}
	if err := syscall.Kill(s.Holder.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, m := range s.Machines {
		wait(t, m.Name+" ends", func() bool { return !m.First.Alive() })
	}
	if out, err := exec.CommandContext(t.Context(), bin, "lab", "down", "--name", name).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := os.Stat(s.Dir); err == nil {
		t.Error(s.Dir + " is still there")
	}
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
