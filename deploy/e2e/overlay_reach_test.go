package e2e

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	netlab "vcpeer/deploy/lab"
)

// A site of three nodes, of which one is no gateway; two of one; one of two families; and one that comes later.
//
//	alpha (3, v4+v6) ── beta (v4) ── gamma (v6: meets beta only over alpha) ── late (v4)
const reachTopology = `
name: reach
sites:
  alpha: {nodes: 3, ip: both}
  beta:  {ip: v4}
  gamma: {ip: v6}
  late:  {ip: v4, start: no}
links:
  default: delay=5ms
  late<>beta: {mtu: 1400}
`

func TestOverlayReachesEveryNode(t *testing.T) {
	n := newNet(t, binary, topologyOf(t, reachTopology))
	nodes := []string{"alpha-1", "alpha-2", "alpha-3", "beta-1", "gamma-1"}
	for _, what := range [][]string{nil, {"-s", "1300", "-M", "do"}} {
		n.within(20*time.Second, fmt.Sprintf("all pings %v are answered", what), func() bool {
			silent := n.allPing(nodes, n.addrs, what...)
			return len(silent) == 0
		})
	}
	v6 := map[string]string{}
	for _, node := range nodes {
		o, err := n.overlayOf(node)
		n.must(err)
		v6[node] = o.Address6
	}
	if silent := n.allPing(nodes, v6, "-6"); len(silent) > 0 {
		t.Errorf("over IPv6: %s", strings.Join(silent, "\n"))
	}
	if !n.pings("gamma-1", "alpha-3.alpha") {
		t.Error("gamma-1 does not reach alpha-3 by its name")
	}
	if out := n.sh("gamma-1", "getent ahosts alpha-3.alpha | cut -d' ' -f1 | sort -u"); out != n.addrs["alpha-3"] {
		t.Errorf("the name alpha-3.alpha means %s: it must not have programs try IPv6 first", out)
	}
	if !n.pings("gamma-1", "ip6-alpha-3.alpha", "-6") {
		t.Error("gamma-1 does not reach alpha-3 by the name of its IPv6 address")
	}
	n.broadcastOnce("alpha-3", nodes)
	n.joinLate(append(nodes, "late-1"))
	n.guestMoves()
	n.leaves("late-1", nodes)
	n.uninstalled("beta-1")
}

// broadcastOnce has one node send to all, and wants one copy at each. What was changed just before may cost a broadcast or
// two, since each gateway finds out by itself; a second copy may never come.
func (n *testnet) broadcastOnce(from string, nodes []string) {
	n.t.Helper()
	const tries = 4
	var missed []string
	for try := range tries {
		missed = nil
		for node, copies := range n.broadcast(from, nodes) {
			if copies > 1 {
				n.t.Errorf("%s saw %d copies of a broadcast of %s, want 1", node, copies, from)
			}
			if copies == 0 {
				missed = append(missed, node)
			}
		}
		if len(missed) == 0 {
			return
		}
		n.t.Logf("broadcast %d of %s did not come to %v", try+1, from, missed)
	}
	n.t.Errorf("%d broadcasts of %s did not come to %v", tries, from, missed)
}

// broadcast returns how many copies each node sees of a broadcast.
func (n *testnet) broadcast(from string, nodes []string) map[string]int {
	n.t.Helper()
	const listen = `exec timeout %d tcpdump -l -n -i vcpeer0 -c 8 'udp and port 9999 and not src host 0.0.0.0' 2>/dev/null`
	listeners := func(node string) int {
		out, err := n.try(node, "grep -c . /proc/net/packet")
		n.must(err)
		count, err := strconv.Atoi(strings.TrimSpace(out))
		n.must(err)
		return count
	}
	before, heard := map[string]int{}, map[string]*strings.Builder{}
	var ends []func() error
	for _, node := range nodes {
		before[node] = listeners(node)
		out := new(strings.Builder)
		cmd := n.Command(n.ctx, node, "sh", "-c", fmt.Sprintf(listen, 4*patience))
		cmd.Stdout = out
		n.must(cmd.Start())
		heard[node], ends = out, append(ends, cmd.Wait)
	}
	n.within(2*time.Second, "the listeners listen", func() bool {
		return !slices.ContainsFunc(nodes, func(node string) bool { return listeners(node) <= before[node] })
	})
	n.must(n.Machine(from).InNetwork(func() error {
		conn, err := net.Dial("udp4", "10.77.255.255:9999") // Go asks for leave to send broadcasts by itself
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte("hello"))
		return err
	}))
	for _, end := range ends {
		_ = end() // the time is up
	}
	copies := map[string]int{}
	for node, out := range heard {
		copies[node] = strings.Count(out.String(), " > 10.77.255.255.9999")
	}
	return copies
}

// joinLate starts a site and wants it to be reached from and to all soon after it runs.
func (n *testnet) joinLate(nodes []string) {
	n.t.Helper()
	n.must(n.StartDaemon(n.ctx, "late-1", netlab.VCPeer))
	n.within(20*time.Second, "late-1 has an address", func() bool {
		o, err := n.overlayOf("late-1")
		if err == nil && o.Address != "" {
			n.addrs["late-1"] = o.Address
		}
		return n.addrs["late-1"] != ""
	})
	took := n.within(15*time.Second, "late-1 is reached from and to all", func() bool {
		to := map[string]string{"late-1": n.addrs["late-1"]}
		return len(n.allPing(nodes, to)) == 0 && len(n.allPing([]string{"late-1"}, n.addrs)) == 0
	})
	n.t.Logf("late-1 is reached from and to all %v after it has its address", took.Round(time.Millisecond))
	// Nobody told it of the smaller MTU on the way.
	n.within(15*time.Second, "the smaller MTU is known", func() bool { return n.path("beta-1", "late-1").MTU == 1358 })
	n.within(5*time.Second, "a packet that is too large is answered", func() bool {
		out, _ := n.try("beta-1", "ping -c 2 -i 0.2 -W 1 -M do -s 1400 "+n.addrs["late-1"])
		return strings.Contains(out, "message too long, mtu=1358") || strings.Contains(out, "mtu = 1358")
	})
}

// guestMoves puts a container on the network, has others reach it by name, and moves it to another site.
func (n *testnet) guestMoves() {
	n.t.Helper()
	for _, node := range []string{"alpha-3", "beta-1"} {
		n.sh(node, "ip netns add box; ip link add box0 type veth peer name eth0 netns box")
	}
	n.sh("alpha-3", "vcpeer attach box0 --name web")
	n.within(20*time.Second, "beta-1 reaches the guest", func() bool { return n.pings("beta-1", "web.alpha") })
	before := n.sh("gamma-1", "getent ahostsv4 web.alpha | cut -d' ' -f1 | head -1")
	n.sh("beta-1", "vcpeer attach box0 --name web --move")
	n.within(10*time.Second, "gamma-1 reaches the guest at its new site", func() bool { return n.pings("gamma-1", "web.beta") })
	if after := n.sh("gamma-1", "getent ahostsv4 web.beta | cut -d' ' -f1 | head -1"); after != before {
		n.t.Errorf("the guest moved from %s to %s: it must keep its address", before, after)
	}
	n.within(5*time.Second, "what was the guest at its old site has no address any more", func() bool { return n.boxAddrs("alpha-3") == "" })
	if got := n.boxAddrs("beta-1"); !strings.Contains(got, before+"/16") {
		n.t.Errorf("the guest has %q, and not %s", got, before)
	}
	n.within(5*time.Second, "the guest reaches a node behind a gateway", func() bool {
		_, err := n.try("beta-1", "ip netns exec box ping -q -c 1 -W 1 "+n.addrs["alpha-3"])
		return err == nil
	})
	n.sh("beta-1", "vcpeer detach web --forget")
	if got := n.boxAddrs("beta-1"); got != "" {
		n.t.Errorf("the guest was detached, and has %q", got)
	}
	n.within(5*time.Second, "the guest's name is gone", func() bool {
		_, err := n.try("gamma-1", "getent hosts web.beta")
		return err != nil
	})
}

// boxAddrs are the addresses of the container at a node, but for those that it has of itself.
func (n *testnet) boxAddrs(node string) string {
	n.t.Helper()
	return n.sh(node, "ip -n box -o addr show dev eth0 scope global | awk '{print $4}'")
}

// leaves takes a node out while others talk, and wants nothing of it to be left with them, and nothing lost.
func (n *testnet) leaves(node string, others []string) {
	n.t.Helper()
	talk := n.stream("beta-1", "alpha-1", 10*time.Millisecond)
	addr := n.addrs[node]
	n.sh(node, "vcpeer leave --yes")
	for _, other := range others {
		n.within(10*time.Second, other+" has forgotten "+node, func() bool {
			flows, err := n.try(other, "ovs-ofctl dump-flows vcpeer0; cat /etc/hosts")
			return err == nil && !strings.Contains(flows, addr) && !strings.Contains(flows, mac(addr)) && !strings.Contains(flows, "44.128.3.1")
		})
	}
	if r := talk.stop(); r.lossy() {
		n.t.Errorf("a leave cost two others packets: %v", r)
	}
}

// mac is the fixed address of a machine in the network.
func mac(addr string) string {
	var a, b, c, d int
	fmt.Sscanf(addr, "%d.%d.%d.%d", &a, &b, &c, &d)
	return fmt.Sprintf("02:76:00:00:%02x:%02x", c, d)
}

// uninstalled wants a node to leave nothing in its machine.
func (n *testnet) uninstalled(node string) {
	n.t.Helper()
	n.sh(node, "vcpeer stop && vcpeer uninstall --yes")
	if out := n.sh(node, "ovs-vsctl list-br"); out != "" {
		n.t.Errorf("bridges are left: %s", out)
	}
	if out := n.sh(node, "nft list tables; ip -br link; ip route; grep vcpeer /etc/hosts || true"); strings.Contains(out, "vcpeer") {
		n.t.Errorf("left behind: %s", out)
	}
}
