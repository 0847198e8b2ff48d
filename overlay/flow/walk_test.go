package flow

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"vcpeer/overlay/flow/flowtest"
	"vcpeer/overlay/label"
)

const guestPort = 1000

// guest is the slot of the guest that every node of a world has.
func (w world) guest(site, node int) Slot { return 0x4000 + w.slot(site, node) }

// wantGuests is want with a guest at every node, and every link offered.
func (w world) wantGuests(s, n int) Want {
	out := w.want(s, n)
	for i, site := range w.sites {
		for j := range site.nodes {
			h := Host{Slot: w.guest(i, j)}
			switch {
			case i == s && j == n:
				h.Port = guestPort
			case i == s:
				h.Near = w.addr(i, j)
			default:
				h.Far = site.gateways[0]
			}
			out.Hosts = append(out.Hosts, h)
		}
	}
	for i := range out.Gateways {
		out.Gateways[i].Offered = true
	}
	return out
}

// texts are tables as the lines that a parser reads.
func texts(t Tables) (flows, groups []string) {
	for _, f := range t.Flows {
		flows = append(flows, f.Text())
	}
	for _, g := range t.Groups {
		groups = append(groups, g.Text())
	}
	return flows, groups
}

func read(t Tables) *flowtest.Switch {
	s, err := flowtest.Parse(texts(t))
	if err != nil {
		panic(err)
	}
	return s
}

// node is the bridge of a want at an address.
func node(name string, w Want, addrs ...netip.Addr) *flowtest.Node {
	return &flowtest.Node{Name: name, Switch: read(Build(w)), Addrs: addrs, GRE: w.Ports.GRE}
}

// place is a node of a world.
type place struct{ site, node int }

func (w world) places() []place {
	var out []place
	for s, site := range w.sites {
		for n := range site.nodes {
			out = append(out, place{s, n})
		}
	}
	return out
}

func (w world) isGateway(p place) bool { return p.node < len(w.sites[p.site].gateways) }

// net makes the bridges of a world; change, if any, may change what each wants.
func (w world) net(change func(place, *Want)) (*flowtest.Net, map[place]*flowtest.Node) {
	out, byPlace := &flowtest.Net{}, map[place]*flowtest.Node{}
	for _, p := range w.places() {
		want := w.wantGuests(p.site, p.node)
		if change != nil {
			change(p, &want)
		}
		n := node(fmt.Sprintf("s%dn%d", p.site, p.node), want, w.addr(p.site, p.node))
		out.Nodes = append(out.Nodes, n)
		byPlace[p] = n
	}
	return out, byPlace
}

// drawWorld draws a few sites with one or two gateways and up to two more nodes, labels in no order.
func drawWorld(t *rapid.T, sites int) world {
	labels := rapid.Permutation([]label.Label{1, 2, 3, 4, 5, 900, 0x1e00, 0x3ffd, label.Last, 77, 78, 79, 80, 81, 82, 83, 84, 85}).Draw(t, "labels")
	var w world
	for range sites {
		n := rapid.IntRange(1, 2).Draw(t, "gateways")
		w.sites = append(w.sites, siteSpec{labels[:n:n], n + rapid.IntRange(0, 2).Draw(t, "more nodes")})
		labels = labels[n:]
	}
	return w
}

// drawVia draws transit gateways that a path between two sites may have.
func (w world) drawVia(t *rapid.T, from, to int) []label.Label {
	var sites []int
	for i := range w.sites {
		if i != from && i != to {
			sites = append(sites, i)
		}
	}
	sites = rapid.Permutation(sites).Draw(t, "transit sites")
	var via []label.Label
	for _, s := range sites[:rapid.IntRange(0, min(label.MaxTransit, len(sites))).Draw(t, "transits")] {
		via = append(via, rapid.SampledFrom(w.sites[s].gateways).Draw(t, "transit"))
	}
	return via
}

func (w world) siteOf(l label.Label) int {
	return slices.IndexFunc(w.sites, func(s siteSpec) bool { return slices.Contains(s.gateways, l) })
}

// from is a frame of this node or its guest, whose own address is another.
func (w world) from(p place, guest bool) flowtest.Packet {
	if guest {
		return flowtest.Frame(guestPort).With("eth_src", "52:54:00:00:00:01").With("eth_type", "0x0800")
	}
	return flowtest.Frame(flowtest.Local).With("eth_src", w.slot(p.site, p.node).MAC().String()).With("eth_type", "0x0800")
}

// TestUnicastArrives sends from everywhere to everywhere, over paths of every length: each frame is delivered once, where
// its host is, with the addresses that it had.
func TestUnicastArrives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, rapid.IntRange(2, 5).Draw(t, "sites"))
		watched := rapid.Bool().Draw(t, "watched")
		vias := map[place]map[label.Label][]label.Label{}
		net, nodes := w.net(func(p place, want *Want) {
			vias[p] = map[label.Label][]label.Label{}
			for i := range want.Paths {
				via := w.drawVia(t, p.site, w.siteOf(want.Paths[i].To))
				want.Paths[i].Via = via
				vias[p][want.Paths[i].To] = via
				if watched {
					want.Paths[i].Watched = true
					want.Paths[i].Backups = [][]label.Label{w.drawVia(t, p.site, w.siteOf(want.Paths[i].To))}
				}
			}
		})
		for _, src := range w.places() {
			for _, dst := range w.places() {
				for _, guests := range [][2]bool{{false, false}, {true, false}, {false, true}, {true, true}} {
					w.checkUnicast(t, net, nodes, src, dst, guests[0], guests[1], vias)
				}
			}
		}
	})
}

func (w world) checkUnicast(t *rapid.T, net *flowtest.Net, nodes map[place]*flowtest.Node, src, dst place, fromGuest, toGuest bool,
	vias map[place]map[label.Label][]label.Label) {
	srcSlot, dstSlot, port := w.slot(src.site, src.node), w.slot(dst.site, dst.node), uint16(flowtest.Local)
	if fromGuest {
		srcSlot = w.guest(src.site, src.node)
	}
	if toGuest {
		dstSlot, port = w.guest(dst.site, dst.node), guestPort
	}
	if srcSlot == dstSlot {
		return
	}
	fate := net.Walk(nodes[src], w.from(src, fromGuest).With("eth_dst", dstSlot.MAC().String()))
	hops := 0
	switch gateway := (place{src.site, 0}); {
	case src == dst:
	case src.site == dst.site:
		hops = 1
	case w.isGateway(src):
		hops = 1 + len(vias[src][w.sites[dst.site].gateways[0]])
	default:
		hops = 2 + len(vias[gateway][w.sites[dst.site].gateways[0]])
	}
	if src.site != dst.site && dst.node != 0 { // behind its site's first gateway
		hops++
	}
	if len(fate.Delivered) != 1 || fate.Err != nil {
		t.Fatalf("%v to %v: delivered %v, %v\n%q", src, dst, fate, fate.Err, fate.Trace)
	}
	d := fate.Delivered[0]
	gotDst := d.Packet.MAC("eth_dst")
	if toGuest && gotDst == "52:54:00:00:00:01" {
		gotDst = dstSlot.MAC().String() // what it uses itself, once it is known
	}
	if d.Node != nodes[dst] || d.Port != port || d.Packet.MAC("eth_src") != srcSlot.MAC().String() || gotDst != dstSlot.MAC().String() {
		t.Fatalf("%v to %v: delivered %v, want %v>%v\n%q", src, dst, fate, srcSlot.MAC(), dstSlot.MAC(), fate.Trace)
	}
	if d.Hops != hops {
		t.Fatalf("%v to %v: %d hops, want %d\n%q", src, dst, d.Hops, hops, fate.Trace)
	}
}

// TestGroupsFallOver: with the port of its first link down, a watched path is left for the first backup whose port lives, of
// which the one that all share always does; with all down it is taken as if none was.
func TestGroupsFallOver(t *testing.T) {
	w := world{[]siteSpec{{[]label.Label{1}, 1}, {[]label.Label{2}, 1}, {[]label.Label{3}, 1}, {[]label.Label{4}, 1}, {[]label.Label{5}, 1}}}
	from := place{0, 0}
	backups := [][]label.Label{{2, 3}, {3, 4}, {4, 3, 5}, {5}} // the first cannot be
	for _, tt := range []struct {
		backups [][]label.Label
		down    []uint16
		hops    int
	}{
		{backups, nil, 1}, {backups, []uint16{100}, 3}, {backups, []uint16{100, 101}, 4},
		{backups[:2], []uint16{100}, 3}, {backups[:2], []uint16{100, 101}, 1}, {nil, []uint16{100}, 1},
	} {
		net, nodes := w.net(func(p place, want *Want) {
			if p == from {
				want.Ports.Protected = map[label.Label]uint16{2: 100, 3: 101}
				want.Paths = []Path{{To: 2, Watched: true, Backups: tt.backups}}
			}
		})
		nodes[from].Protected = map[uint16]netip.Addr{100: w.addr(1, 0), 101: w.addr(2, 0)}
		nodes[from].Switch.Live = func(port uint16) bool { return !slices.Contains(tt.down, port) }
		fate := net.Walk(nodes[from], w.from(from, false).With("eth_dst", w.slot(1, 0).MAC().String()))
		want := flowtest.Delivery{Node: nodes[place{1, 0}], Port: flowtest.Local, Packet: w.from(from, false).With("eth_dst", w.slot(1, 0).MAC().String())}
		if fate.String() != want.String() || fate.Hops != tt.hops {
			t.Errorf("%v down, backups %v: %v in %d hops, want %v in %d\n%q", tt.down, tt.backups, fate, fate.Hops, want, tt.hops, fate.Trace)
		}
	}
}

func TestGuestGetsItsOwnAddressBack(t *testing.T) {
	w := world{[]siteSpec{{[]label.Label{1}, 1}, {[]label.Label{2}, 1}}}
	net, nodes := w.net(nil)
	a, b := place{0, 0}, place{1, 0}
	net.Walk(nodes[b], w.from(b, true).With("eth_dst", w.slot(0, 0).MAC().String()))
	fate := net.Walk(nodes[a], w.from(a, false).With("eth_dst", w.guest(1, 0).MAC().String()))
	if len(fate.Delivered) != 1 || fate.Delivered[0].Packet.MAC("eth_dst") != "52:54:00:00:00:01" {
		t.Errorf("delivered %v", fate)
	}
}

// TestTransitIsOptional: a gateway that forwards for nobody ends what others send over it.
func TestTransitIsOptional(t *testing.T) {
	w := world{[]siteSpec{{[]label.Label{1}, 1}, {[]label.Label{2}, 1}, {[]label.Label{3}, 1}}}
	for _, transit := range []bool{false, true} {
		net, nodes := w.net(func(p place, want *Want) {
			if p.site == 0 {
				want.Paths = []Path{{To: 3, Via: []label.Label{2}}}
			}
			if p.site == 1 {
				want.Self.Transit = transit
			}
		})
		fate := net.Walk(nodes[place{0, 0}], w.from(place{0, 0}, false).With("eth_dst", w.slot(2, 0).MAC().String()))
		if got := len(fate.Delivered) == 1; got != transit {
			t.Errorf("transit %v: delivered %v", transit, fate)
		}
	}
}

// TestTooLargeGoesToTheAgent: what a way does not take is handed to the agent of the first node that knows, intact, and
// nothing else is.
func TestTooLargeGoesToTheAgent(t *testing.T) {
	w := world{[]siteSpec{{[]label.Label{1}, 2}, {[]label.Label{2}, 2}, {[]label.Label{3}, 1}, {[]label.Label{4}, 1}, {[]label.Label{5}, 1}}}
	for _, tt := range []struct {
		name     string
		from, to place
		at       place
		change   func(place, *Want)
	}{
		{"path", place{0, 0}, place{1, 0}, place{0, 0}, func(p place, w *Want) {
			if p == (place{0, 0}) {
				for i := range w.Paths {
					w.Paths[i].MTU, w.Paths[i].Via = 1300, nil
					if w.Paths[i].To == 2 {
						w.Paths[i].Via = []label.Label{3, 4, 5}
					}
				}
			}
		}},
		{"path of another", place{0, 1}, place{1, 0}, place{0, 0}, func(p place, w *Want) {
			if p == (place{0, 0}) {
				w.Paths = []Path{{To: 2, MTU: 1300, Via: []label.Label{3, 4}}}
			}
		}},
		{"watched path", place{0, 0}, place{1, 0}, place{0, 0}, func(p place, w *Want) {
			if p == (place{0, 0}) {
				w.Ports.Protected = map[label.Label]uint16{2: 100}
				w.Paths = []Path{{To: 2, MTU: 1300, Watched: true}}
			}
		}},
		{"uplink", place{0, 1}, place{1, 0}, place{0, 1}, func(p place, w *Want) {
			if p == (place{0, 1}) {
				w.Nodes[0].MTU = 1300
			}
		}},
		{"node of the site", place{0, 1}, place{0, 0}, place{0, 1}, func(p place, w *Want) {
			if p == (place{0, 1}) {
				w.Nodes[0].MTU = 1300
			}
		}},
		{"last link", place{0, 0}, place{1, 1}, place{1, 0}, func(p place, w *Want) {
			if p == (place{1, 0}) {
				w.Nodes[0].MTU = 1300
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			net, nodes := w.net(tt.change)
			nodes[place{0, 0}].Protected = map[uint16]netip.Addr{100: w.addr(1, 0)}
			p := w.from(tt.from, false).With("eth_dst", w.slot(tt.to.site, tt.to.node).MAC().String())
			for _, size := range []int{1300 + 14, 1301 + 14} {
				p.Size = size
				fate := net.Walk(nodes[tt.from], p)
				want := flowtest.Delivery{Node: nodes[tt.to], Port: flowtest.Local, Packet: p}
				if size > 1314 {
					want.Node, want.Port = nodes[tt.at], 1
				}
				if fate.String() != want.String() {
					t.Errorf("%d bytes: %v, want %v\n%q", size, fate, want, fate.Trace)
				}
			}
		})
	}
}

// TestProbes: the agents' frames reach the agent that they name, over the gateways that they name, whatever the paths are.
func TestProbes(t *testing.T) {
	w := world{[]siteSpec{{[]label.Label{1}, 2}, {[]label.Label{0x0202}, 1}, {[]label.Label{0x0303}, 1}, {[]label.Label{0x0404}, 1}, {[]label.Label{label.Last}, 1}}}
	net, nodes := w.net(func(_ place, want *Want) {
		want.Paths = nil
		for i, g := range want.Gateways {
			want.Gateways[i].Clear6 = g.Dst // any address: what matters is that it is that
		}
	})
	for _, tt := range []struct {
		name, dst, src string
		from, to       place
		hops           int
		arrives        string
	}{
		{"straight", "02:7a:00:00:02:02", "02:76:2c:00:01:01", place{0, 0}, place{1, 0}, 1, "02:76:00:00:01:01>02:7a:00:00:02:02"},
		{"straight, over IPv6", "02:7b:00:00:02:02", "02:76:00:00:02:02", place{0, 0}, place{1, 0}, 1, "02:76:00:00:02:02>02:7b:00:00:02:02"},
		{"over its own link", "02:76:00:00:02:02", "02:76:00:00:02:02", place{0, 0}, place{1, 0}, 1, "02:76:00:00:02:02>02:76:00:00:02:02"},
		{"over one", "02:77:00:00:02:02", "02:76:00:00:03:03", place{0, 0}, place{1, 0}, 2, "02:76:00:00:03:03>02:76:00:00:02:02"},
		{"over two", "02:78:04:04:02:02", "02:76:00:00:03:03", place{0, 0}, place{1, 0}, 3, "02:76:00:00:03:03>02:76:00:00:02:02"},
		{"over three", "02:79:3f:fe:02:02", "02:76:04:04:03:03", place{0, 0}, place{1, 0}, 4, "02:76:00:00:03:03>02:76:00:00:02:02"},
		{"in the site", "02:7f:00:00:00:02", "02:76:00:00:00:01", place{0, 0}, place{0, 1}, 1, "02:76:00:00:00:01>02:76:00:00:00:02"},
		{"in the site, back", "02:7f:00:00:00:01", "02:76:00:00:00:02", place{0, 1}, place{0, 0}, 1, "02:76:00:00:00:02>02:76:00:00:00:01"},
	} {
		p := flowtest.Frame(1).With("eth_type", "0x88b5").With("eth_dst", tt.dst).With("eth_src", tt.src)
		fate := net.Walk(nodes[tt.from], p)
		want := fmt.Sprintf("%s port 1 %s", nodes[tt.to].Name, tt.arrives)
		if fate.String() != want || fate.Hops != tt.hops {
			t.Errorf("%s: %v in %d hops, want %v in %d\n%q", tt.name, fate, fate.Hops, want, tt.hops, fate.Trace)
		}
	}
	for _, guest := range []bool{false, true} {
		p := w.from(place{0, 0}, guest).With("eth_type", "0x88b5").With("eth_dst", w.slot(1, 0).MAC().String())
		if fate := net.Walk(nodes[place{0, 0}], p); fate.Sent > 0 || len(fate.Delivered) > 0 {
			t.Errorf("a program or guest speaks as an agent: %v", fate)
		}
	}
}
