package e2e

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	netlab "vcpeer/deploy/lab"
)

// A site of three nodes, of which one is no gateway, and two of one. No link is watched.
const gatewayTopology = `
name: gateway
sites:
  alpha: {nodes: 3, args: [--protect, 0]}
  beta:  {args: [--protect, 0]}
  gamma: {args: [--protect, 0]}
links:
  default: delay=5ms
  alpha<>beta: {delay: 15ms}
`

// TestOverlaySurvivesAGateway kills a gateway of a site with more nodes than gateways, where probes alone find it out.
func TestOverlaySurvivesAGateway(t *testing.T) {
	n := newNet(t, quickBinary(t), topologyOf(t, gatewayTopology))
	n.ownNames()
	n.failsOverUnwatched()
	inner, dead, other := n.alphaByRole()
	n.within(20*time.Second, "the links within the site have an MTU", func() bool {
		return n.link(inner, dead).MTU > 1280 && n.link(inner, other).MTU > 1280
	})
	talk := n.stream("beta-1", inner, 50*time.Millisecond)
	near := n.stream(other, inner, 50*time.Millisecond)
	for _, daemon := range []string{netlab.VCPeer, netlab.OVS, netlab.OVSDB} {
		n.must(n.Kill(dead, daemon, syscall.SIGKILL))
	}
	left := []string{inner, other, "beta-1", "gamma-1"}
	addrs := map[string]string{}
	for _, node := range left {
		addrs[node] = n.addrs[node]
	}
	took := n.within(30*time.Second, "all others reach each other", func() bool { return len(n.allPing(left, addrs)) == 0 })
	t.Logf("%s is dead: all others reach each other after %v", dead, took.Round(time.Millisecond))
	if r := near.stop(); r.lossy() {
		t.Errorf("the other nodes of its site lost packets to each other: %v", r)
	}
	t.Logf("from another site: %v", talk.stop())
	n.within(20*time.Second, "its links are known to be down", func() bool { return !n.link("beta-1", dead).Up && !n.link("gamma-1", dead).Up })
	n.broadcastOnce("beta-1", left)
	n.broadcastOnce(inner, left)
	n.within(90*time.Second, inner+" is a gateway in its stead", func() bool { o, err := n.overlayOf(inner); return err == nil && o.Label != "" })
}

// ownNames wants every node's name to mean its address in the network, for itself as for all others, and no other. The
// machines of a lab give their own names to 127.0.1.1, as Debian does.
func (n *testnet) ownNames() {
	n.t.Helper()
	names, want := "", []string(nil)
	for _, node := range n.Nodes() {
		addr := n.addrs[node.Name]
		names, want = names+" "+node.Name+" "+node.Name+"."+node.Site, append(want, addr, addr)
	}
	for _, node := range n.Nodes() {
		n.within(20*time.Second, node.Name+" finds all by their names", func() bool {
			out, err := n.try(node.Name, "for h in"+names+"; do getent ahostsv4 $h | awk '{print $1}' | sort -u; done; getent hosts "+node.Name+" | awk '{print $1}'")
			return err == nil && slices.Equal(strings.Fields(out), append(slices.Clone(want), n.addrs[node.Name]))
		})
	}
}

// failsOverUnwatched cuts a link in use that only probes look after.
func (n *testnet) failsOverUnwatched() {
	n.t.Helper()
	n.within(20*time.Second, "beta sends straight to gamma", func() bool { return n.path("beta-1", "gamma-1").To != "" && len(n.path("beta-1", "gamma-1").Via) == 0 })
	for _, l := range n.linksOf("beta-1") {
		if l.Protected {
			n.t.Errorf("the link to %s is watched in spite of --protect 0", l.Node)
		}
	}
	n.must(n.Cut("beta<>gamma"))
	took := n.within(20*time.Second, "another way is taken", func() bool { return len(n.path("beta-1", "gamma-1").Via) > 0 })
	took += n.within(20*time.Second, "pings are answered", func() bool { return n.pings("beta-1", n.addrs["gamma-1"]) })
	n.t.Logf("an unwatched link is cut: pings are answered after %v; load %s", took.Round(time.Millisecond), load())
	n.broadcastOnce("beta-1", []string{"alpha-1", "alpha-2", "alpha-3", "beta-1", "gamma-1"})
	n.must(n.Heal("beta<>gamma"))
	n.way("beta-1", "gamma-1")
}

// alphaByRole returns the node of site alpha that is no gateway, the gateway by which beta reaches it, and the other.
func (n *testnet) alphaByRole() (inner, used, other string) {
	n.t.Helper()
	nodes := []string{"alpha-1", "alpha-2", "alpha-3"}
	for _, node := range nodes {
		if o, err := n.overlayOf(node); err == nil && o.Label == "" {
			inner = node
		}
	}
	c := n.Client("beta-1")
	defer c.Close()
	why, err := c.PathWhy(n.ctx, "beta-1", inner)
	n.must(err)
	if inner == "" || len(why.Way) < 3 || !slices.Contains(nodes, why.Way[len(why.Way)-2]) {
		n.t.Fatalf("beta-1 reaches %q, which is no gateway, over %s", inner, strings.Join(why.Way, " > "))
	}
	used = why.Way[len(why.Way)-2]
	for _, node := range nodes {
		if node != inner && node != used {
			other = node
		}
	}
	return inner, used, other
}
