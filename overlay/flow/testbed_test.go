package flow

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vcpeer/overlay/flow/flowtest"
	"vcpeer/overlay/ovs/ovstest"
)

// testbed is a world of real switches: each node has a network namespace, an Open vSwitch, and one cable to a common
// Ethernet.
//
//	vc0 (programs, vcc for the agent, gre, guests) ~ tunnels ~ vcu [u0] ---- hub ---- [u0] vcu ~ tunnels ~ vc0
type testbed struct {
	w     world
	hub   *exec.Cmd
	nodes map[place]*realNode
}

type realNode struct {
	*ovstest.Switch
	name  string
	want  Want
	has   Tables
	addrs [2]netip.Addr
}

// emptyNet starts a process in a network namespace of its own.
func emptyNet(t testing.TB) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("unshare", "-n", "sh", "-c", "echo; exec cat") // until its input is closed, by us or by our end
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil { // it is in the namespace
		t.Fatal(err)
	}
	return cmd
}

func newTestbed(t testing.TB, w world) *testbed {
	t.Helper()
	for _, name := range []string{"nsenter", "unshare", "ip", "ping", "ethtool", "nft"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("needs %s: %v", name, err)
		}
	}
	b := &testbed{w: w, nodes: map[place]*realNode{}}
	for i, p := range w.places() {
		n := &realNode{Switch: ovstest.Start(t), name: fmt.Sprintf("s%dn%d", p.site, p.node)}
		if b.hub == nil { // Start has skipped where namespaces are not to be had
			b.hub = emptyNet(t)
			ovstest.Must(t, ovstest.Inside(b.hub.Process.Pid, "ip", "link", "add", "name", "hub", "type", "bridge", "mcast_snooping", "0"))
			ovstest.Must(t, ovstest.Inside(b.hub.Process.Pid, "ip", "link", "set", "hub", "up"))
		}
		n.addrs = [2]netip.Addr{w.addr(p.site, p.node), addr6(w, p)}
		n.want = w.want(p.site, p.node)
		for i := range n.want.Gateways {
			n.want.Gateways[i].Offered = true
		}
		b.nodes[p] = n
		b.cable(t, n, i)
	}
	macs := map[place]string{}
	for p, n := range b.nodes {
		macs[p] = strings.TrimSpace(ovstest.Must(t, n.in("cat", "/sys/class/net/u0/address")))
	}
	for _, n := range b.nodes {
		for p, mac := range macs {
			for _, a := range b.nodes[p].addrs {
				n.Appctl(t, "tnl/neigh/set", "vcu", a.String(), mac)
			}
		}
		n.program(t, n.want)
	}
	return b
}

func addr6(w world, p place) netip.Addr {
	a := w.addr(p.site, p.node).As4()
	return netip.AddrFrom16([16]byte{0xfd, 0x44, 14: a[2], 15: a[3]})
}

// in runs a program at the node. /sys shows the namespace of who mounted it, so it is mounted anew.
func (n *realNode) in(argv ...string) *exec.Cmd {
	if argv[0] == "cat" {
		return ovstest.Inside(n.Pid(ovstest.Vswitchd), "unshare", "-m", "sh", "-c", "mount -t sysfs sys /sys && "+strings.Join(argv, " "))
	}
	return ovstest.Inside(n.Pid(ovstest.Vswitchd), argv...)
}

// cable gives a node its place on the Ethernet and its two bridges.
func (b *testbed) cable(t testing.TB, n *realNode, i int) {
	t.Helper()
	hub, port := b.hub.Process.Pid, fmt.Sprintf("p%d", i)
	ovstest.Must(t, ovstest.Inside(hub, "ip", "link", "add", port, "type", "veth", "peer", "name", "u0", "netns", strconv.Itoa(n.Pid(ovstest.Vswitchd))))
	ovstest.Must(t, ovstest.Inside(hub, "ip", "link", "set", port, "master", "hub", "up"))
	for _, argv := range []string{
		"ip link set lo up", "ip link set u0 up", "ethtool -K u0 tx off",
		"ip addr add " + n.addrs[0].String() + "/8 dev u0", "ip addr add " + n.addrs[1].String() + "/16 dev u0 nodad",
		"nft add table inet guard", "nft add chain inet guard in { type filter hook prerouting priority -310 ; }", "nft add rule inet guard in meta l4proto 47 drop",
	} {
		ovstest.Must(t, n.in(strings.Fields(argv)...))
	}
	n.Vsctl(t, "add-br", "vcu", "--", "set", "bridge", "vcu", "datapath_type=netdev", "fail_mode=secure", "--", "add-port", "vcu", "u0")
	n.Ofctl(t, "add-flow", "vcu", "priority=10,ip,in_port=u0,nw_proto=47,actions=IN_PORT")
	n.Ofctl(t, "add-flow", "vcu", "priority=10,ipv6,in_port=u0,nw_proto=47,actions=IN_PORT")
	n.Vsctl(t, "add-br", "vc0", "--", "set", "bridge", "vc0", "datapath_type=netdev", "fail_mode=secure",
		"protocols=OpenFlow10,OpenFlow13,OpenFlow14,OpenFlow15", "other-config:hwaddr="+n.want.Self.Slot.MAC().String(),
		"--", "add-port", "vc0", "vcc", "--", "set", "interface", "vcc", "type=internal", "ofport_request=1",
		"--", "add-port", "vc0", "vcgre", "--", "set", "interface", "vcgre", "type=gre", "options:remote_ip=flow", "options:key=flow", "ofport_request=2")
	for _, argv := range []string{
		"ip link set vc0 up mtu 1400", "ip link set vcc up mtu 1500", "ethtool -K vc0 tx off",
		"ip addr add " + n.want.Self.Slot.Addr4(net4).String() + "/16 dev vc0", "ip addr add " + n.want.Self.Slot.Addr6(net6).String() + "/64 dev vc0",
	} {
		ovstest.Must(t, n.in(strings.Fields(argv)...))
	}
}

// protect gives a node a port of its own to a peer.
func (n *realNode) protect(t testing.TB, port uint16, peer netip.Addr) {
	t.Helper()
	name := fmt.Sprintf("peer%d", port)
	n.Vsctl(t, "add-port", "vc0", name, "--", "set", "interface", name, "type=gre", "options:remote_ip="+peer.String(), "options:key=flow",
		fmt.Sprintf("ofport_request=%d", port), "bfd:enable=true", "bfd:min_tx=75", "bfd:min_rx=75")
}

// program writes the tables of a want: groups first, then rules in one bundle, then groups that are gone.
func (n *realNode) program(t testing.TB, w Want) {
	t.Helper()
	next := Build(w)
	for _, g := range next.Groups {
		n.Ofctl(t, "--may-create", "mod-group", "vc0", g.Text())
	}
	want := map[rule]bool{}
	var text bytes.Buffer
	for _, f := range next.Flows {
		want[f.rule()] = true
		fmt.Fprintf(&text, "add cookie=%#x,%s\n", f.Cookie(), f.Text())
	}
	for _, f := range n.has.Flows {
		if !want[f.rule()] {
			head, _, _ := strings.Cut(f.Text(), ",actions=")
			fmt.Fprintf(&text, "delete_strict %s\n", head)
		}
	}
	path := filepath.Join(n.Dir, "flows")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Ofctl(t, "--bundle", "add-flows", "vc0", path)
	for _, g := range n.has.Groups {
		if !slices.ContainsFunc(next.Groups, func(o Group) bool { return o.ID == g.ID }) {
			n.Ofctl(t, "del-groups", "vc0", fmt.Sprintf("group_id=%d", g.ID))
		}
	}
	n.want, n.has = w, next
}

// dumped are the tables as the switch has them, as a node to walk over.
func (n *realNode) dumped(t testing.TB) *flowtest.Node {
	t.Helper()
	s, err := flowtest.Parse(strings.Split(n.Ofctl(t, "--no-names", "dump-flows", "vc0"), "\n"), strings.Split(n.Ofctl(t, "--no-names", "dump-groups", "vc0"), "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return &flowtest.Node{Name: n.name, Switch: s, Addrs: n.addrs[:], GRE: 2}
}

var (
	countOf  = regexp.MustCompile(`n_packets=(\d+)`)
	volatile = regexp.MustCompile(`(duration|n_packets|n_bytes|idle_age|hard_age)=[^, ]+,? ?`)
)

// counters are the packets that each rule has met, by node and rule as dumped.
func (b *testbed) counters(t testing.TB) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, n := range b.nodes {
		n.Appctl(t, "revalidator/wait") // counts of cached flows are in
		for line := range strings.Lines(n.Ofctl(t, "--no-names", "dump-flows", "vc0")) {
			if m := countOf.FindStringSubmatch(line); m != nil {
				count, _ := strconv.Atoi(m[1])
				out[n.name+": "+strings.TrimSpace(volatile.ReplaceAllString(line, ""))] = count
			}
		}
	}
	return out
}

func pings(t testing.TB, n *realNode, args ...string) string {
	t.Helper()
	out, err := n.in(append([]string{"ping", "-n"}, args...)...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: ping %v: %v\n%s", n.name, args, err, out)
	}
	return string(out)
}

// dial sends datagrams from a node.
func dial(t testing.TB, n *realNode, to string, count int) {
	t.Helper()
	var c net.Conn
	var err error
	n.Run(func() { c, err = net.Dial("udp", to) })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range count {
		if _, err := c.Write([]byte("hello")); err != nil && !strings.Contains(err.Error(), "refused") {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Microsecond) // or a queue somewhere may be full
	}
}

// listen counts what comes to a port of a node's programs.
func listen(t testing.TB, n *realNode, port int) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	var err error
	n.Run(func() { c, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port}) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// received counts what has come.
func received(c *net.UDPConn) int {
	buffer := make([]byte, 2000)
	c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	for n := 0; ; n++ {
		if _, err := c.Read(buffer); err != nil {
			return n
		}
	}
}

// packetSocket opens a raw socket on an interface of the node.
func (n *realNode) packetSocket(t testing.TB, name string) int {
	t.Helper()
	var fd int
	var err error
	n.Run(func() {
		var i *net.Interface
		if i, err = net.InterfaceByName(name); err != nil {
			return
		}
		if fd, err = syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 0x0300); err == nil {
			err = syscall.Bind(fd, &syscall.SockaddrLinklayer{Protocol: 0x0300, Ifindex: i.Index})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// capture begins to listen on an interface; what came until then is what the function returned returns.
func (n *realNode) capture(t testing.TB, name string) func() [][]byte {
	t.Helper()
	fd := n.packetSocket(t, name)
	return func() (out [][]byte) {
		defer syscall.Close(fd)
		time.Sleep(200 * time.Millisecond)
		syscall.SetNonblock(fd, true)
		for {
			buffer := make([]byte, 2000)
			k, from, err := syscall.Recvfrom(fd, buffer, 0)
			if err != nil {
				return out
			}
			if l, ok := from.(*syscall.SockaddrLinklayer); ok && l.Pkttype != syscall.PACKET_OUTGOING {
				out = append(out, buffer[:k])
			}
		}
	}
}
