package sealed

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"vcpeer/overlay/flow"
	"vcpeer/overlay/label"
	"vcpeer/overlay/ovs/ovstest"
)

// bridged is a node with an Open vSwitch, whose tunnels go over the cable or over a sealed link:
//
//	vc0 (programs, vcc, gre) ~ GRE ~ vcu [u0, sealed] ; sealed = the link = u0 ---- u0 of the other
type bridged struct {
	*ovstest.Switch
	n   int // 1 or 2, also its label and slot
	pid int
}

func (n *bridged) addr(sealed bool, of int) netip.Addr {
	if sealed {
		return AddrOf(DefaultNet, label.Label(of))
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, byte(of)})
}

// program writes the tables by which tunnels go to the sealed address of the other, or to its real one. Nothing else
// differs.
func (n *bridged) program(t testing.TB, sealed bool) {
	t.Helper()
	other := 3 - n.n
	dst := n.addr(sealed, other)
	tables := flow.Build(flow.Want{
		Self: flow.Self{Slot: flow.Slot(n.n), Label: label.Label(n.n), Labels: []label.Label{label.Label(n.n)}, Transit: true,
			Net4: netip.MustParsePrefix("10.77.0.0/16"), Net6: netip.MustParsePrefix("fd77::/64")},
		Ports:    flow.Ports{Control: 1, GRE: 2},
		Hosts:    []flow.Host{{Slot: flow.Slot(n.n), Port: 0xfffe}, {Slot: flow.Slot(other), Far: label.Label(other)}},
		Gateways: []flow.Gateway{{Label: label.Label(other), Addrs: []netip.Addr{dst}, Dst: dst, Site: "other", Offered: true}},
		Paths:    []flow.Path{{To: label.Label(other), MTU: 1390}}, CheckBelow: 1400,
	})
	var text bytes.Buffer
	text.WriteString("delete\n")
	for _, f := range tables.Flows {
		fmt.Fprintf(&text, "add %s\n", f.Text())
	}
	path := filepath.Join(n.Dir, "flows")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Ofctl(t, "--bundle", "add-flows", "vc0", path)
}

// newBridges makes both nodes, with a sealed link between them.
func newBridges(t testing.TB) (nodes [2]*bridged, links [2]*node) {
	t.Helper()
	needRoot(t, "nft", "ping", "iperf3", "ss")
	for i := range nodes {
		nodes[i] = &bridged{Switch: ovstest.Start(t), n: i + 1}
		nodes[i].pid = nodes[i].Pid(ovstest.Vswitchd)
	}
	sh(t, nodes[0].pid, "ip link add u0 type veth peer name u0 netns "+strconv.Itoa(nodes[1].pid))
	for _, n := range nodes {
		sh(t, n.pid, "ip link set lo up", "ip link set u0 up", "ethtool -K u0 tx off", fmt.Sprintf("ip addr add 192.0.2.%d/24 dev u0", n.n),
			"nft add table inet guard", "nft add chain inet guard in { type filter hook prerouting priority -310 ; }", "nft add rule inet guard in meta l4proto 47 drop")
	}
	for i, n := range nodes {
		links[i] = startNode(t, nodeConfig{N: n.n, MTU: 9000, Profile: *profTo}, 0, "nsenter", "-t", strconv.Itoa(n.pid), "-n")
		sh(t, n.pid, fmt.Sprintf("ip addr add %s/16 dev sealed", n.addr(true, n.n)), "ip link set sealed up")
		n.Vsctl(t, "add-br", "vcu", "--", "set", "bridge", "vcu", "datapath_type=netdev", "fail_mode=secure", "--", "add-port", "vcu", "u0", "--", "add-port", "vcu", "sealed")
		for _, a := range []string{"nw_src", "nw_dst"} { // see TestNothingInTheClear
			n.Ofctl(t, "add-flow", "vcu", "priority=20,ip,in_port=u0,nw_proto=47,"+a+"="+DefaultNet.String()+",actions=drop")
		}
		for _, port := range []string{"u0", "sealed"} {
			n.Ofctl(t, "add-flow", "vcu", "priority=10,ip,in_port="+port+",nw_proto=47,actions=IN_PORT")
		}
		n.Vsctl(t, "add-br", "vc0", "--", "set", "bridge", "vc0", "datapath_type=netdev", "fail_mode=secure",
			"protocols=OpenFlow10,OpenFlow13,OpenFlow14,OpenFlow15", "other-config:hwaddr="+flow.Slot(n.n).MAC().String(),
			"--", "add-port", "vc0", "vcc", "--", "set", "interface", "vcc", "type=internal", "ofport_request=1",
			"--", "add-port", "vc0", "vcgre", "--", "set", "interface", "vcgre", "type=gre", "options:remote_ip=flow", "options:key=flow", "ofport_request=2")
		sh(t, n.pid, "ip link set vc0 up mtu 1390", "ip link set vcc up", "ethtool -K vc0 tx off", fmt.Sprintf("ip addr add 10.77.0.%d/16 dev vc0", n.n))
	}
	for i, n := range nodes {
		links[i].up(t)
		other := nodes[1-i]
		mac := strings.TrimSpace(ovstest.Must(t, ovstest.Inside(other.pid, "unshare", "-m", "sh", "-c", "mount -t sysfs sys /sys && cat /sys/class/net/u0/address")))
		n.Appctl(t, "tnl/neigh/set", "vcu", n.addr(false, other.n).String(), mac)
		// The machine itself asks for the other's sealed address, and gets an answer; see package underlay.
		ovstest.Inside(n.pid, "ping", "-c1", "-W1", n.addr(true, other.n).String()).Run()
		neigh := strings.Fields(ovstest.Must(t, ovstest.Inside(n.pid, "ip", "neigh", "show", n.addr(true, other.n).String())))
		if len(neigh) < 5 {
			t.Fatalf("nobody answered for the sealed address: %q", neigh)
		}
		n.Appctl(t, "tnl/neigh/set", "vcu", n.addr(true, other.n).String(), neigh[4])
		n.program(t, true)
	}
	return nodes, links
}

// TestBridge proves on real switches that the rules of GRE links serve sealed links too, that nothing travels in the clear,
// and that what is changed between the two is the address alone.
func TestBridge(t *testing.T) {
	nodes, links := newBridges(t)
	a, b := nodes[0], nodes[1]
	ovstest.Until(t, "a ping over the bridges", func() error { return ovstest.Inside(a.pid, "ping", "-c1", "-W1", "10.77.0.2").Run() })
	sh(t, a.pid, "ping -c 5 -i 0.05 10.77.0.2", "ping -c 3 -i 0.05 -s 1362 -M do 10.77.0.2")
	p := pair{a.pid, b.pid}
	for _, sealed := range []bool{true, false, true} {
		a.program(t, sealed)
		b.program(t, sealed)
		sh(t, a.pid, "ping -c 3 -i 0.05 10.77.0.2")
		r := p.runIperf(t, "10.77.0.2", "-t", "1", "-w", "96K")
		t.Logf("sealed %v: %.0f Mbit/s, %d retransmits", sealed, r.mbits, r.retransmits)
		if r.mbits < 10 {
			t.Errorf("%.0f Mbit/s", r.mbits)
		}
	}
	for i, l := range links {
		s := l.stats(t)
		t.Logf("%+v", s)
		if d := s.Peers[0].Drops; s.Peers[0].Received.Packets == 0 || d.Malformed+d.Forged+d.Replayed+d.System+d.TooLarge != 0 {
			t.Errorf("node %d: %+v", i+1, s)
		}
	}
}

// TestNothingInTheClear: the addresses of sealed links mean nothing on a real interface. Without the two rules for that in
// the under-bridge, anybody could send from such an address, and with the TAP gone frames would follow the default route.
func TestNothingInTheClear(t *testing.T) {
	nodes, _ := newBridges(t)
	a := nodes[0]
	forged := func() string {
		return a.Appctl(t, "ofproto/trace", "vcu", "in_port=1,ip,nw_proto=47,dl_dst="+strings.TrimSpace(ovstest.Must(t, ovstest.Inside(a.pid, "unshare", "-m", "sh", "-c", "mount -t sysfs sys /sys && cat /sys/class/net/u0/address")))+
			",nw_src=240.118.0.2,nw_dst=192.0.2.1")
	}
	leaves := func() string {
		return a.Appctl(t, "ofproto/trace", "vc0", "in_port=LOCAL,ip,dl_src="+flow.Slot(1).MAC().String()+",dl_dst="+flow.Slot(2).MAC().String())
	}
	const dropped, pushed = "Datapath actions: drop", "tnl_push("
	if got := leaves(); !strings.Contains(got, pushed) {
		t.Fatalf("nothing goes over the link: %s", got)
	}
	if got := forged(); !strings.Contains(got, dropped) {
		t.Errorf("a forged source comes in: %s", got)
	}
	sh(t, a.pid, "ip addr flush dev sealed", "ip route add default via 192.0.2.2")
	a.Appctl(t, "tnl/neigh/set", "vcu", a.addr(true, 2).String(), "02:00:00:00:00:01")
	ovstest.Until(t, "the route is gone", func() error {
		if got := a.Appctl(t, "ovs/route/lookup", "240.118.0.2"); strings.Contains(got, "sealed") {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	if got := leaves(); strings.Contains(got, pushed) {
		t.Errorf("frames leave in the clear: %s", got)
	}
	a.Ofctl(t, "del-flows", "vcu", "ip,nw_proto=47,nw_dst="+DefaultNet.String())
	a.Ofctl(t, "del-flows", "vcu", "ip,nw_proto=47,nw_src="+DefaultNet.String())
	if forged, leaves := forged(), leaves(); strings.Contains(forged, dropped) || !strings.Contains(leaves, pushed) {
		t.Errorf("the rules are for nothing:\n%s\n%s", forged, leaves)
	}
}

// BenchmarkBridge measures TCP from bridge to bridge over GRE and over a sealed link in turn, and prints medians.
func BenchmarkBridge(b *testing.B) {
	nodes, links := newBridges(b)
	p := pair{nodes[0].pid, nodes[1].pid}
	ovstest.Until(b, "a ping over the bridges", func() error { return ovstest.Inside(p[0], "ping", "-c1", "-W1", "10.77.0.2").Run() })
	all := map[bool][]result{}
	for range *rounds {
		for _, sealed := range []bool{true, false} {
			for _, n := range nodes {
				n.program(b, sealed)
			}
			var before [2][2]float64
			for i, n := range nodes {
				before[i] = [2]float64{seconds(b, n.pid), seconds(b, links[i].cmd.Process.Pid)}
			}
			ping := ovstest.Must(b, ovstest.Inside(p[0], "ping", "-c", "20", "-i", "0.01", "-q", "10.77.0.2"))
			r := result{iperf: p.runIperf(b, "10.77.0.2", "-t", *runTime), ping: strings.Split(ping[strings.LastIndex(ping, "= ")+2:], " ")[0]}
			for i, n := range nodes { // tx and rx stand for switches and links here
				r.tx += (seconds(b, n.pid) - before[i][0]) / (r.bytes / 1e9)
				r.rx += (seconds(b, links[i].cmd.Process.Pid) - before[i][1]) / (r.bytes / 1e9)
			}
			all[sealed] = append(all[sealed], r)
		}
	}
	fmt.Printf("\n%-8s %10s %18s %18s %12s %s\n", "", "Mbit/s", "both switches s/GB", "both links s/GB", "retr./GB", "ping ms")
	for _, sealed := range []bool{true, false} {
		get := func(f func(r result) float64) float64 {
			var out []float64
			for _, r := range all[sealed] {
				out = append(out, f(r))
			}
			slices.Sort(out)
			return median(out)
		}
		fmt.Printf("%-8s %10.0f %18.1f %18.1f %12.0f %s\n", map[bool]string{true: "sealed", false: "GRE"}[sealed], get(func(r result) float64 { return r.mbits }),
			get(func(r result) float64 { return r.tx }), get(func(r result) float64 { return r.rx }),
			get(func(r result) float64 { return float64(r.retransmits) / r.bytes * 1e9 }), all[sealed][0].ping)
	}
	for _, l := range links {
		l.stats(b) // and with it the profile is written
	}
}
