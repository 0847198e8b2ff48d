package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	netlab "vcpeer/deploy/lab"
	"vcpeer/overlay/sealed"
)

// Three sites of an address family, one of them behind a router whose firewall is the test's.
const filteredTopology = `
name: filtered
sites:
  one:   {router: yes, ip: FAMILY}
  two:   {ip: FAMILY}
  three: {ip: FAMILY}
links:
  default: delay=10ms
`

// TestOverlayMovesToSealedLinks filters GRE under a TCP stream, and wants frames to go sealed within seconds and by GRE again
// when that passes, without the stream breaking; then, with encryption on, no GRE at all.
func TestOverlayMovesToSealedLinks(t *testing.T) {
	for _, tt := range []struct {
		family string
		header int // of the underlay's IP, bytes
	}{{"v4", 20}, {"v6", 40}} {
		t.Run(tt.family, func(t *testing.T) { movesToSealed(t, tt.family, tt.header) })
	}
}

func movesToSealed(t *testing.T, family string, header int) {
	n := newNet(t, quickBinary(t), topologyOf(t, strings.ReplaceAll(filteredTopology, "FAMILY", family)))
	n.kind("one-1", "two-1", "GRE")
	n.kind("two-1", "one-1", "GRE")
	stream := n.tcp("one-1", "two-1", 15*time.Second)
	pings := n.stream("one-1", "two-1", 20*time.Millisecond)
	n.sh("one-router", "nft 'add table inet test; add chain inet test f { type filter hook forward priority 0; }; add rule inet test f meta l4proto gre drop'")
	took := n.kind("one-1", "two-1", "sealed")
	took = max(took, n.kind("two-1", "one-1", "sealed"))
	n.within(5*time.Second, "pings are answered", func() bool { return n.pings("one-1", n.addrs["two-1"]) })
	n.sh("one-router", "nft delete table inet test")
	back := n.kind("one-1", "two-1", "GRE")
	back = max(back, n.kind("two-1", "one-1", "GRE"))
	t.Logf("sealed %v after GRE was filtered, by GRE %v after that was over: %v", took.Round(time.Millisecond), back.Round(time.Millisecond), pings.stop())
	if mbits := stream(); mbits*float64(patience) < 1 {
		t.Errorf("the TCP stream broke or starved: %.1f Mbit/s", mbits)
	}
	n.encrypts(header)
}

// encrypts turns encryption on and looks at what leaves a site.
func (n *testnet) encrypts(header int) {
	n.t.Helper()
	n.sh("one-1", "vcpeer overlay encrypt off")
	if !n.seesGRE("one-router") {
		n.t.Error("no GRE is seen where there must be some")
	}
	n.sh("one-1", "vcpeer overlay encrypt on --yes")
	nodes := []string{"one-1", "two-1", "three-1"}
	for _, from := range nodes {
		for _, to := range nodes {
			if from != to {
				n.kind(from, to, "sealed")
			}
		}
	}
	n.within(3*time.Second, "no GRE leaves the site where only encrypted links may be used", func() bool { return !n.seesGRE("one-router") })
	if silent := n.allPing(nodes, n.addrs); len(silent) > 0 {
		n.t.Errorf("no answer:\n%s", strings.Join(silent, "\n"))
	}
	largest := 1500 - header - 8 - sealed.Overhead - 14 // IP, UDP, the link's own, Ethernet
	n.within(20*time.Second*patience, "what fits passes", func() bool { return n.link("one-1", "two-1").MTU == largest })
	n.sh("one-1", fmt.Sprintf("ping -q -c 3 -i 0.1 -M do -s %d %s", largest-28, n.addrs["two-1"]))
}

// seesGRE reports whether GRE passes a router on its way to other sites within a few seconds.
func (n *testnet) seesGRE(router string) bool {
	n.t.Helper()
	seen := n.sh(router, "timeout 3 tcpdump -n -i wan -c 1 'ip proto 47 or ip6 proto 47' 2>&1 || true")
	if !strings.Contains(seen, " captured") {
		n.t.Fatalf("tcpdump said %s", seen)
	}
	return !strings.Contains(seen, "0 packets captured")
}

// One public site, one behind a NAT in which holes can be made, and two behind NATs in which none can.
const behindNATTopology = `
name: behind-nat
sites:
  open:   {nodes: [open]}
  home:   {nodes: [home], nat: port-restricted}
  office: {nodes: [office], nat: symmetric}
  mobile: {nodes: [mobile], nat: symmetric}
links:
  default: delay=10ms
`

// TestOverlayBehindNAT wants every site to reach every other, by the shortest way that its NAT leaves, through a restart of the
// daemon that carries the frames, and a node that was put out to lose its links at once.
func TestOverlayBehindNAT(t *testing.T) {
	n := newNet(t, quickBinary(t), topologyOf(t, behindNATTopology))
	nodes := []string{"open", "home", "office", "mobile"}
	for _, from := range nodes {
		for _, to := range nodes {
			if from != to {
				n.kind(from, to, "sealed")
			}
		}
	}
	if silent := n.allPing(nodes, n.addrs); len(silent) > 0 {
		t.Fatalf("no answer:\n%s", strings.Join(silent, "\n"))
	}
	n.within(20*time.Second, "holes are used where there are any, and no relay where a gateway is as near", func() bool {
		return !n.link("open", "home").Stream && !n.link("office", "open").Stream && n.link("office", "mobile").Stream &&
			len(n.path("office", "mobile").Via) == 1 && len(n.path("mobile", "office").Via) == 1
	})
	for _, pair := range [][2]string{{"open", "home"}, {"office", "mobile"}} {
		if mbits := n.tcp(pair[0], pair[1], 3*time.Second)(); mbits*float64(patience) < 5 {
			t.Errorf("%s to %s: %.1f Mbit/s", pair[0], pair[1], mbits)
		}
	}
	n.restartsSealed()
	n.evicts(nodes)
}

// restartsSealed stops and kills the daemons of nodes behind NAT, which carry their frames themselves, under pings from a node
// with a link to them and from one whose way leads over a gateway. What is lost is what comes between the end of one process
// and the first round trips of the next: a machine that is busy with other tests takes longer now and then.
func (n *testnet) restartsSealed() {
	n.t.Helper()
	soon, late := 500*time.Millisecond*patience, 6*time.Second*patience
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		best := late
		for _, node := range []string{"home", "office"} {
			near, far := n.stream("open", node, 10*time.Millisecond), n.stream("mobile", node, 10*time.Millisecond)
			n.within(5*time.Second, "pings are answered", func() bool { return n.pings("open", n.addrs[node]) && n.pings("mobile", n.addrs[node]) })
			n.must(n.Kill(node, netlab.VCPeer, sig))
			n.within(10*time.Second, "it has ended", func() bool { return !n.Alive(node, netlab.VCPeer) })
			n.must(n.StartDaemon(n.ctx, node, netlab.VCPeer))
			n.within(20*time.Second, "it is back", func() bool { o, err := n.overlayOf(node); return err == nil && o.Up && o.Sites == 3 })
			n.within(5*time.Second, "pings are answered", func() bool {
				return n.pings("open", n.addrs[node]) && n.pings("mobile", n.addrs[node])
			})
			a, b := near.stop(), far.stop()
			n.t.Logf("%s gets %v: from open %v; from mobile %v; load %s", node, sig, a, b, load())
			worst := max(a.blackout, b.blackout)
			best = min(best, worst)
			if worst > late {
				n.t.Errorf("silent for %v", worst)
			}
		}
		if best > soon {
			n.t.Errorf("after %v each was silent for %v or longer", sig, best)
		}
	}
}

// evicts puts a node out that has a link by a hole and one by a stream.
func (n *testnet) evicts(nodes []string) {
	n.t.Helper()
	n.sh("open", "vcpeer evict mobile --yes")
	for _, other := range nodes[:3] {
		took := n.within(10*time.Second, other+" has no link to who was put out", func() bool { return n.link(other, "mobile").Node == "" })
		n.t.Logf("%s: gone after %v", other, took.Round(time.Millisecond))
		if n.pings(other, n.addrs["mobile"]) {
			n.t.Errorf("%s still gets answers from who was put out", other)
		}
	}
}

// kind waits until a node uses a link of a kind to another.
func (n *testnet) kind(from, to, kind string) time.Duration {
	n.t.Helper()
	return n.within(30*time.Second, fmt.Sprintf("%s sends to %s by a link that is %s", from, to, kind), func() bool {
		l := n.link(from, to)
		return l.Up && l.Kind == kind
	})
}

// tcp starts a TCP stream, and returns what waits for its end and tells the Mbit/s that arrived.
func (n *testnet) tcp(from, to string, d time.Duration) func() float64 {
	n.t.Helper()
	server := exec.CommandContext(n.ctx, "iperf3", "-s", "-1")
	n.must(n.Machine(to).Start(server))
	n.within(5*time.Second, "iperf3 listens", func() bool {
		_, err := n.Exec(n.ctx, to, "sh", "-c", "ss -Hltn sport = 5201 | grep -q .")
		return err == nil
	})
	var out strings.Builder
	client := exec.CommandContext(n.ctx, "iperf3", "-J", "-c", n.addrs[to], "-t", fmt.Sprint(d.Seconds()))
	client.Stdout = &out
	n.must(n.Machine(from).Start(client))
	return func() float64 {
		n.t.Helper()
		_ = client.Wait() // what it says tells more
		_ = server.Wait()
		var said struct {
			Error string
			End   struct {
				SumReceived struct {
					Bits float64 `json:"bits_per_second"`
				} `json:"sum_received"`
			}
		}
		if err := json.Unmarshal([]byte(out.String()), &said); err != nil || said.Error != "" {
			n.t.Errorf("iperf3 from %s to %s: %v %s", from, to, err, said.Error)
		}
		n.t.Logf("TCP from %s to %s: %.1f Mbit/s; load %s", from, to, said.End.SumReceived.Bits/1e6, load())
		return said.End.SumReceived.Bits / 1e6
	}
}
