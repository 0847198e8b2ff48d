package e2e

import (
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	netlab "vcpeer/deploy/lab"
)

// Four sites of one node; the direct way between one and two is longer than the ways over three and four.
const ringTopology = `
name: ring
sites:
  one:   {}
  two:   {}
  three: {}
  four:  {}
links:
  default: delay=10ms
  one<>two:  {delay: 40ms}
  two<>four: {delay: 20ms}
`

// TestOverlayHeals does to a network what daemons, hands and cables do, under a stream of pings: what is planned loses
// nothing, what breaks heals.
func TestOverlayHeals(t *testing.T) {
	n := newNet(t, quickBinary(t), topologyOf(t, ringTopology))
	n.way("one-1", "two-1", "three-1")
	n.way("two-1", "one-1", "three-1")
	n.losesNothing()
	n.failsOver()
	n.healsOpenVSwitch()
	n.keepsOthersOut()
}

// losesNothing restarts daemons and changes the plan while packets go.
func (n *testnet) losesNothing() {
	n.t.Helper()
	restart := func(node string, sig syscall.Signal) func() {
		return func() {
			n.must(n.Kill(node, netlab.VCPeer, sig))
			n.within(10*time.Second, node+" has ended", func() bool { return !n.Alive(node, netlab.VCPeer) })
			n.must(n.StartDaemon(n.ctx, node, netlab.VCPeer))
			n.within(20*time.Second, node+" is back", func() bool { o, err := n.overlayOf(node); return err == nil && o.Up && o.Sites == 3 })
		}
	}
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"the sender's vcpeer is restarted", restart("one-1", syscall.SIGTERM)},
		{"the receiver's vcpeer is killed", restart("two-1", syscall.SIGKILL)},
		{"the sender's vcpeer is killed", restart("one-1", syscall.SIGKILL)},
		{"the direct way becomes the shortest", func() {
			n.must(n.Set("one<>two", "delay=5ms"))
			n.way("one-1", "two-1")
		}},
	} {
		s := n.stream("one-1", "two-1", 5*time.Millisecond)
		step.do()
		if r := s.stop(); r.lossy() || r.late > 10 && patience == 1 {
			n.t.Errorf("%s: %v", step.what, r)
		} else {
			n.t.Logf("%s: %v", step.what, r)
		}
	}
}

// failsOver cuts the link in use. How long that is felt is told and not judged: the machine may be busy with other tests.
func (n *testnet) failsOver() {
	n.t.Helper()
	n.within(10*time.Second, "the link is watched", func() bool { return n.link("one-1", "two-1").BFD == "up" && n.link("two-1", "one-1").BFD == "up" })
	for _, cut := range []string{"one<>two", "one>two"} {
		s := n.stream("one-1", "two-1", 5*time.Millisecond)
		n.within(5*time.Second, "the stream runs", func() bool { return n.pings("one-1", n.addrs["two-1"]) })
		n.must(n.Cut(cut))
		n.within(10*time.Second, "another way is taken", func() bool { return len(n.path("one-1", "two-1").Via) > 0 })
		n.within(5*time.Second, "pings are answered", func() bool { return n.pings("one-1", n.addrs["two-1"]) })
		r := s.stop()
		n.t.Logf("cut %s: %v; load %s", cut, r, load())
		n.must(n.Heal(cut))
		n.within(60*time.Second, "the link is taken again", func() bool {
			return len(n.path("one-1", "two-1").Via) == 0 && len(n.path("two-1", "one-1").Via) == 0 && n.link("one-1", "two-1").BFD == "up"
		})
	}
	n.must(n.Set("one>two", "loss=40%"))
	n.within(30*time.Second, "loss on the way out is seen, on the way back none", func() bool {
		l := n.link("one-1", "two-1")
		return l.LossOut > 0.2 && l.LossIn < 0.1
	})
	n.within(60*time.Second, "the lossy link is left", func() bool { return len(n.path("one-1", "two-1").Via) > 0 })
	n.must(n.Set("one<>two", "loss=0", "delay=40ms"))
}

// healsOpenVSwitch breaks what Open vSwitch holds.
func (n *testnet) healsOpenVSwitch() {
	n.t.Helper()
	n.sh("one-1", `ovs-vsctl add-br theirs -- set bridge theirs datapath_type=netdev
		ovs-ofctl add-flow theirs cookie=0x5,priority=7,actions=drop
		ovs-ofctl add-flow vcpeer0 table=99,cookie=0x5,priority=7,actions=drop`)
	type breakage struct{ what, script string }
	breakages := []breakage{
		{"all flows are removed", "ovs-ofctl del-flows vcpeer0 cookie=0x7663000000000000/0xffff000000000000"},
		{"a flow is changed", "ovs-ofctl mod-flows vcpeer0 table=0,in_port=LOCAL,actions=drop"},
		{"the tunnel port is removed", "ovs-vsctl del-port vcpeer0g; for p in $(ovs-vsctl list-ports vcpeer0 | grep vcpeer0p); do ovs-vsctl del-port $p; done"},
		{"the bridge loses its address", "ip addr flush dev vcpeer0; ip link set vcpeer0 down"},
		{"the interface has another MAC address", "ip link set eth0 address 02:11:22:33:44:55"},
	}
	if !n.kernelForwards() {
		breakages = append(breakages, breakage{"the interface is taken out of the underlay's bridge", "ovs-vsctl del-port eth0"})
	}
	for _, b := range breakages {
		n.sh("one-1", b.script)
		took := n.within(40*time.Second, "pings are answered after "+b.what, func() bool { return n.pings("one-1", n.addrs["two-1"]) })
		n.t.Logf("%s: pings are answered after %v", b.what, took.Round(time.Millisecond))
	}
	if out := n.sh("one-1", "ovs-ofctl dump-flows theirs; ovs-ofctl dump-flows vcpeer0 table=99"); strings.Count(out, "cookie=0x5,") != 2 {
		n.t.Errorf("flows of somebody else are gone: %s", out)
	}
	for _, daemon := range []string{netlab.OVS, netlab.OVSDB} {
		n.must(n.Kill("one-1", daemon, syscall.SIGKILL))
		n.within(10*time.Second, daemon+" has ended", func() bool { return !n.Alive("one-1", daemon) })
		n.must(n.StartDaemon(n.ctx, "one-1", daemon))
		took := n.within(30*time.Second, "pings are answered after "+daemon+" was killed", func() bool { return n.pings("one-1", n.addrs["two-1"]) })
		n.t.Logf("%s is killed and started: pings are answered after %v", daemon, took.Round(time.Millisecond))
	}
	n.sh("one-1", "ovs-vsctl br-exists theirs")
}

// keepsOthersOut sends tunnels that are not a member's.
func (n *testnet) keepsOthersOut() {
	n.t.Helper()
	dropped := func(table int) string {
		return n.sh("one-1", fmt.Sprintf(`ovs-ofctl dump-flows vcpeer0 | grep 'table=%d,.*priority=0 ' | grep -o 'n_packets=[0-9]*'`, table))
	}
	strangers, keys := dropped(30), dropped(31)
	n.sh("four-1", "ip addr add 44.128.3.77/24 dev eth0")
	n.forge("four-1", "44.128.3.77", "44.128.0.1")
	n.within(5*time.Second, "a stranger's tunnels are dropped and counted", func() bool { return dropped(30) != strangers })
	n.forge("four-1", "44.128.3.1", "44.128.0.1")
	n.within(5*time.Second, "a member's tunnels with keys that it may not use are dropped and counted", func() bool { return dropped(31) != keys })
}

// forge sends tunnels with keys that only others may use: down from a gateway of the site, up to all sites, and for a gateway
// that the receiver is not.
func (n *testnet) forge(machine, from, to string) {
	n.t.Helper()
	inner, err := hex.DecodeString("0276000000010276000000020800" + "45" + strings.Repeat("00", 45))
	n.must(err)
	n.must(n.Machine(machine).InNetwork(func() error {
		conn, err := net.DialIP("ip4:47", &net.IPAddr{IP: net.ParseIP(from)}, &net.IPAddr{IP: net.ParseIP(to)})
		if err != nil {
			return err
		}
		defer conn.Close()
		for _, key := range []uint32{0x40000000, 0x7fffffff, 0x10004001} {
			gre := []byte{0x20, 0, 0x65, 0x58, byte(key >> 24), byte(key >> 16), byte(key >> 8), byte(key)} // RFC 2890
			if _, err := conn.Write(append(gre, inner...)); err != nil {
				return err
			}
		}
		return nil
	}))
}
