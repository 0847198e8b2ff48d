package flow

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vcpeer/overlay/flow/flowtest"
	"vcpeer/overlay/label"
	"vcpeer/overlay/ovs/ovstest"
)

var five = world{[]siteSpec{{[]label.Label{1}, 2}, {[]label.Label{2}, 1}, {[]label.Label{3}, 1}, {[]label.Label{4}, 1}, {[]label.Label{0x3005}, 2}}}

// TestRealSwitches carries real packets through what Build makes.
func TestRealSwitches(t *testing.T) {
	b := newTestbed(t, five)
	a, far := b.nodes[place{0, 0}], b.nodes[place{4, 0}]
	for _, n := range b.nodes { // the addresses' own questions are done and unanswered
		ovstest.Until(t, "address of "+n.name, func() error {
			if out := ovstest.Must(t, n.in("ip", "-6", "addr", "show", "dev", "vc0")); strings.Contains(out, "tentative") || strings.Contains(out, "dadfailed") {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	}
	t.Run("straight", func(t *testing.T) { b.everyPair(t) })
	for _, via := range [][]label.Label{{2}, {2, 3}, {2, 3, 4}} {
		t.Run(fmt.Sprintf("over %d", len(via)), func(t *testing.T) {
			back := slices.Clone(via)
			slices.Reverse(back)
			b.send(t, a, 0x3005, via)
			b.send(t, far, 1, back)
			b.everyPair(t)
			b.agrees(t, place{0, 1}, place{4, 1})
		})
	}
	t.Run("switched under traffic", b.switchedUnderTraffic)
	t.Run("broadcast", b.broadcastOnce)
	t.Run("broadcast along a chain", b.broadcastAlongAChain)
	t.Run("guest", b.guestTalks)
	t.Run("too large", b.tooLarge)
	t.Run("probes", b.probesArrive)
	t.Run("over IPv6", b.overIPv6)
	t.Run("failover", b.failsOver)
}

// send changes the path of a node to a gateway.
func (b *testbed) send(t testing.TB, n *realNode, to label.Label, via []label.Label) {
	t.Helper()
	w := n.want
	w.Paths = slices.Clone(w.Paths)
	for i := range w.Paths {
		if w.Paths[i].To == to {
			w.Paths[i] = Path{To: to, Via: via}
		}
	}
	n.program(t, w)
}

func (b *testbed) everyPair(t *testing.T) {
	var failed []string
	for _, n := range b.nodes { // they ask for each other again
		ovstest.Must(t, n.in("ip", "neigh", "flush", "dev", "vc0"))
	}
	for _, src := range b.w.places() {
		for _, dst := range b.w.places() {
			if src == dst {
				continue
			}
			slot := b.w.slot(dst.site, dst.node)
			for _, to := range []netip.Addr{slot.Addr4(net4), slot.Addr6(net6)} {
				if out, err := b.nodes[src].in("ping", "-n", "-c1", "-W2", "-s1300", to.String()).CombinedOutput(); err != nil {
					failed = append(failed, fmt.Sprintf("%v to %v: %s", src, dst, out))
				}
			}
		}
	}
	if len(failed) > 0 {
		t.Errorf("%d fail: %s", len(failed), failed[0])
	}
}

// agrees compares the rules that one packet met with those that the walker says.
func (b *testbed) agrees(t *testing.T, from, to place) {
	var net flowtest.Net
	for _, p := range b.w.places() {
		net.Nodes = append(net.Nodes, b.nodes[p].dumped(t))
	}
	at := net.Nodes[slices.Index(b.w.places(), from)]
	slot := b.w.slot(to.site, to.node)
	fate := net.Walk(at, b.w.from(from, false).With("eth_dst", slot.MAC().String()).With("nw_proto", "17").With("tp_dst", "9999"))
	if len(fate.Delivered) != 1 || fate.Delivered[0].Node.Name != b.nodes[to].name {
		t.Fatalf("the walker says %v", fate)
	}
	var says []string
	for _, line := range fate.Trace {
		says = append(says, volatile.ReplaceAllString(line, ""))
	}
	slices.Sort(says)
	listen(t, b.nodes[to], 9999) // or its kernel would send errors back
	before := b.counters(t)
	const packets = 400 // far more than of anything else
	dial(t, b.nodes[from], fmt.Sprintf("%s:9999", slot.Addr4(net4)), packets)
	var did []string
	for k, n := range b.counters(t) {
		if n-before[k] > packets/2 {
			did = append(did, k)
		}
	}
	slices.Sort(did)
	if !slices.Equal(did, slices.Compact(says)) {
		t.Errorf("the switches used\n%s\nthe walker\n%s", strings.Join(did, "\n"), strings.Join(says, "\n"))
	}
}

// switchedUnderTraffic changes the path some twenty times; a ping every two milliseconds comes back each time. A switch in user
// space on a busy machine drops one in some thousands by itself; a change that loses packets would do so nearly each time.
func (b *testbed) switchedUnderTraffic(t *testing.T) {
	a := b.nodes[place{0, 0}]
	cmd := a.in("ping", "-n", "-q", "-i", "0.002", "-w", "8", b.w.slot(4, 1).Addr4(net4).String())
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	switches := 0
	for time.Since(begin) < 6*time.Second {
		b.send(t, a, 0x3005, [][]label.Label{nil, {2}, {3, 2}, {4, 3, 2}, {3}}[switches%5])
		switches++
		time.Sleep(300 * time.Millisecond)
	}
	cmd.Wait()
	lines := out.String()
	t.Logf("%d switches: %s", switches, strings.TrimSpace(lines[strings.Index(lines, "---"):]))
	var sent, received int
	if i := strings.Index(lines, "statistics ---\n"); i < 0 {
		t.Fatalf("ping: %s", lines)
	} else if _, err := fmt.Sscanf(lines[i+len("statistics ---\n"):], "%d packets transmitted, %d received", &sent, &received); err != nil {
		t.Fatalf("ping: %v: %s", err, lines)
	}
	if lost := sent - received; sent < 1000 || lost > switches/5 {
		t.Errorf("%d switches lost %d of %d packets", switches, lost, sent)
	}
}

func (b *testbed) broadcastOnce(t *testing.T) {
	for _, src := range b.w.places() {
		var sockets []*net.UDPConn
		for _, p := range b.w.places() {
			sockets = append(sockets, listen(t, b.nodes[p], 7777))
		}
		var c *net.UDPConn
		var err error
		b.nodes[src].Run(func() { c, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 7778}) })
		if err != nil {
			t.Fatal(err)
		}
		c.WriteTo([]byte("all"), &net.UDPAddr{IP: net.IPv4(10, 77, 255, 255), Port: 7777})
		c.Close()
		time.Sleep(200 * time.Millisecond)
		for i, p := range b.w.places() {
			n := received(sockets[i])
			sockets[i].Close()
			if n != 1 { // the speaker's own kernel gives it one, and the network none more
				t.Errorf("from %v: %d copies at %v", src, n, p)
			}
		}
	}
}

// broadcastAlongAChain has each site use the links to its neighbours alone, so that up to three transit gateways are between.
func (b *testbed) broadcastAlongAChain(t *testing.T) {
	w := chain(b.w)
	for p, n := range b.nodes {
		was := n.want
		defer n.program(t, was)
		now := was
		now.Gateways = slices.Clone(was.Gateways)
		w.around(&now)
		n.program(t, now)
		if p == (place{0, 0}) && !slices.ContainsFunc(now.Gateways, func(g Gateway) bool { return len(g.Over) == label.MaxTransit }) {
			t.Fatalf("no long way: %+v", now.Gateways)
		}
	}
	b.broadcastOnce(t)
}

// guestTalks has a machine with a MAC address of its own behind a non-gateway talk to all.
func (b *testbed) guestTalks(t *testing.T) {
	home := place{4, 1}
	slot := Slot(0x0777)
	n, machine := b.nodes[home], emptyNet(t)
	ovstest.Must(t, n.in("ip", "link", "add", "g0", "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(machine.Process.Pid)))
	ovstest.Must(t, n.in("ip", "link", "set", "g0", "up"))
	n.Vsctl(t, "add-port", "vc0", "g0", "--", "set", "interface", "g0", "ofport_request=1000")
	for _, argv := range []string{
		"ethtool -K eth0 tx off", "ip link set eth0 address 52:54:00:12:34:56 mtu 1400", "ip link set eth0 up",
		"ip addr add " + slot.Addr4(net4).String() + "/16 dev eth0", "ip addr add " + slot.Addr6(net6).String() + "/64 dev eth0",
	} {
		ovstest.Must(t, ovstest.Inside(machine.Process.Pid, strings.Fields(argv)...))
	}
	for _, p := range b.w.places() {
		w := b.nodes[p].want
		h := Host{Slot: slot}
		switch {
		case p == home:
			h.Port = guestPort
		case p.site == home.site:
			h.Near = b.w.addr(home.site, home.node)
		default:
			h.Far = b.w.sites[home.site].gateways[0]
		}
		w.Hosts = append(slices.Clone(w.Hosts), h)
		b.nodes[p].program(t, w)
	}
	ovstest.Until(t, "the guest's address", func() error {
		if out := ovstest.Must(t, ovstest.Inside(machine.Process.Pid, "ip", "-6", "addr", "show", "dev", "eth0")); strings.Contains(out, "tentative") || strings.Contains(out, "dadfailed") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	for _, p := range b.w.places() {
		s := b.w.slot(p.site, p.node)
		for _, to := range []netip.Addr{s.Addr4(net4), s.Addr6(net6)} {
			if out, err := ovstest.Inside(machine.Process.Pid, "ping", "-n", "-c1", "-W2", to.String()).CombinedOutput(); err != nil {
				t.Errorf("guest to %v: %s", p, out)
			}
		}
		pings(t, b.nodes[p], "-c1", "-W2", slot.Addr4(net4).String())
	}
	if out := n.Ofctl(t, "dump-flows", "vc0", fmt.Sprintf("table=%d", tableGuest)); !strings.Contains(out, "52:54:00:12:34:56") {
		t.Errorf("the guest's address was not learned:\n%s", out)
	}
}

// tooLarge: a packet larger than its path comes to the agent's port, unchanged, and smaller ones do not.
func (b *testbed) tooLarge(t *testing.T) {
	a := b.nodes[place{0, 0}]
	w := a.want
	w.CheckBelow, w.Paths = 1400, slices.Clone(w.Paths)
	for i := range w.Paths {
		if w.Paths[i].To == 0x3005 {
			w.Paths[i] = Path{To: 0x3005, Via: []label.Label{2, 3, 4}, MTU: 1300}
		}
	}
	a.program(t, w)
	got := a.capture(t, "vcc")
	to := b.w.slot(4, 0).Addr4(net4).String()
	pings(t, a, "-c2", "-i0.2", "-W2", "-s", strconv.Itoa(1300-28), to)
	a.in("ping", "-n", "-c1", "-W1", "-M", "do", "-s", strconv.Itoa(1301-28), to).Run()
	frames := got()
	frames = slices.DeleteFunc(frames, func(f []byte) bool { return len(f) < 1000 })
	if len(frames) != 1 || len(frames[0]) != 1301+14 {
		t.Fatalf("%d frames at the agent's port", len(frames))
	}
	want := append(slices.Clone([]byte(b.w.slot(4, 0).MAC())), a.want.Self.Slot.MAC()...)
	if !bytes.Equal(frames[0][:12], want) {
		t.Errorf("it came as % x, want % x", frames[0][:12], want)
	}
	b.send(t, a, 0x3005, nil)
}

func (b *testbed) probesArrive(t *testing.T) {
	a := b.nodes[place{0, 0}]
	fd := a.packetSocket(t, "vcc")
	defer syscall.Close(fd)
	for _, tt := range []struct {
		dst, src string
		to       place
		arrives  string
	}{
		{"027a00003005", "02762c000401", place{4, 0}, "02 7a 00 00 30 05 02 76 00 00 04 01"},
		{"027600003005", "027600003005", place{4, 0}, "02 76 00 00 30 05 02 76 00 00 30 05"},
		{"027700003005", "027600000002", place{4, 0}, "02 76 00 00 30 05 02 76 00 00 00 02"},
		{"027800033005", "027600000002", place{4, 0}, "02 76 00 00 30 05 02 76 00 00 00 02"},
		{"027900043005", "027600030002", place{4, 0}, "02 76 00 00 30 05 02 76 00 00 00 02"},
		{"027f00000002", "027600000001", place{0, 1}, "02 76 00 00 00 02 02 76 00 00 00 01"},
	} {
		got := b.nodes[tt.to].capture(t, "vcc")
		var frame []byte
		fmt.Sscanf(tt.dst+tt.src+"88b5", "%x", &frame)
		frame = append(frame, make([]byte, 60)...)
		if _, err := syscall.Write(fd, frame); err != nil {
			t.Fatal(err)
		}
		frames := slices.DeleteFunc(got(), func(f []byte) bool { return !bytes.Equal(f[12:14], []byte{0x88, 0xb5}) })
		if len(frames) != 1 || fmt.Sprintf("% x", frames[0][:12]) != tt.arrives {
			t.Errorf("%s %s: %d frames, % x, want %s", tt.dst, tt.src, len(frames), frames, tt.arrives)
		}
	}
}

// overIPv6 has some of the nodes be reached over IPv6 only, so that a transit gateway joins both.
func (b *testbed) overIPv6(t *testing.T) {
	six := map[place]bool{{3, 0}: true, {4, 0}: true, {4, 1}: true}
	to := func(from, to place) netip.Addr {
		if six[to] || six[from] {
			return addr6(b.w, to)
		}
		return b.w.addr(to.site, to.node)
	}
	for _, p := range b.w.places() {
		at := map[netip.Addr]netip.Addr{}
		for _, q := range b.w.places() {
			at[b.w.addr(q.site, q.node)] = to(p, q)
		}
		w := b.nodes[p].want
		w.Hosts, w.Nodes, w.Gateways, w.Paths = slices.Clone(w.Hosts), slices.Clone(w.Nodes), slices.Clone(w.Gateways), slices.Clone(w.Paths)
		for i, h := range w.Hosts {
			if h.Near.IsValid() {
				w.Hosts[i].Near = at[h.Near]
			}
		}
		for i, n := range w.Nodes {
			w.Nodes[i].Dst, w.Nodes[i].Addrs = at[n.Dst], []netip.Addr{at[n.Dst]}
		}
		for i, g := range w.Gateways {
			w.Gateways[i].Dst, w.Gateways[i].Addrs = at[g.Dst], []netip.Addr{at[g.Dst]}
		}
		if w.Self.Uplink.IsValid() {
			w.Self.Uplink = at[w.Self.Uplink]
		}
		if p.site == 0 && p.node == 0 { // IPv4 to the first, IPv6 from there
			for i := range w.Paths {
				if w.Paths[i].To == 0x3005 {
					w.Paths[i].Via = []label.Label{2}
				}
			}
		}
		b.nodes[p].program(t, w)
	}
	b.everyPair(t)
	for p, n := range b.nodes { // back to IPv4
		n.program(t, b.w.wantOffered(p))
	}
}

func (w world) wantOffered(p place) Want {
	out := w.want(p.site, p.node)
	for i := range out.Gateways {
		out.Gateways[i].Offered = true
	}
	return out
}

// failsOver cuts the link of a protected pair under traffic, again and again, and says how long nothing came through.
func (b *testbed) failsOver(t *testing.T) {
	a, far := b.nodes[place{0, 0}], b.nodes[place{4, 0}]
	for _, x := range []struct {
		n    *realNode
		to   label.Label
		peer *realNode
	}{{a, 0x3005, far}, {far, 1, a}} {
		x.n.protect(t, 100, x.peer.addrs[0])
		w := x.n.want
		w.Ports.Protected = map[label.Label]uint16{x.to: 100}
		w.Paths = slices.Clone(w.Paths)
		for i := range w.Paths {
			if w.Paths[i].To == x.to {
				w.Paths[i].Watched, w.Paths[i].Backups = true, [][]label.Label{{2, 3}}
			}
		}
		ovstest.Until(t, "port", func() error {
			if got := x.n.Vsctl(t, "get", "interface", "peer100", "ofport"); got != "100" {
				return fmt.Errorf("%s", got)
			}
			return nil
		})
		x.n.program(t, w)
	}
	for _, n := range []*realNode{a, far} {
		ovstest.Until(t, "BFD", func() error {
			if out := n.Appctl(t, "bfd/show", "peer100"); strings.Count(out, "State: up") < 2 && !strings.Contains(out, "Remote Session State: up") {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	}
	to := b.w.slot(4, 1).Addr4(net4).String()
	pings(t, a, "-c3", "-i0.1", "-W2", to)
	var gaps []time.Duration
	for range 3 {
		cmd := a.in("ping", "-n", "-D", "-i", "0.005", "-w", "3", to)
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		a.Ofctl(t, "add-flow", "vcu", fmt.Sprintf("priority=20,ip,in_port=u0,nw_proto=47,nw_src=%s,actions=drop", far.addrs[0]))
		far.Ofctl(t, "add-flow", "vcu", fmt.Sprintf("priority=20,ip,in_port=u0,nw_proto=47,nw_src=%s,actions=drop", a.addrs[0]))
		cmd.Wait()
		gaps = append(gaps, longestGap(out.String()))
		for _, n := range []*realNode{a, far} {
			n.Ofctl(t, "--strict", "del-flows", "vcu", fmt.Sprintf("priority=20,ip,in_port=u0,nw_proto=47,nw_src=%s", map[*realNode]netip.Addr{a: far.addrs[0], far: a.addrs[0]}[n]))
		}
		ovstest.Until(t, "BFD again", func() error {
			if out := a.Appctl(t, "bfd/show", "peer100"); !strings.Contains(out, "Remote Session State: up") {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
		time.Sleep(300 * time.Millisecond)
	}
	slices.Sort(gaps)
	t.Logf("longest silence of each cut: %v", gaps)
	if gaps[len(gaps)/2] > 3*time.Second { // three lost of one each 75 ms, on a machine that may do much else
		t.Errorf("failing over takes %v", gaps)
	}
}

var stamp = regexp.MustCompile(`(?m)^\[(\d+\.\d+)\] \d+ bytes`)

// longestGap is the longest time between two answers of a ping with -D.
func longestGap(out string) time.Duration {
	var last, most float64
	for _, m := range stamp.FindAllStringSubmatch(out, -1) {
		at, _ := strconv.ParseFloat(m[1], 64)
		if last > 0 {
			most = max(most, at-last)
		}
		last = at
	}
	return time.Duration(most * float64(time.Second)).Round(time.Millisecond)
}
