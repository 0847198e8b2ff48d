package flow

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"vcpeer/overlay/flow/flowtest"
	"vcpeer/overlay/label"
)

// hopBound is one tunnel up to the gateway, one more than transits between gateways, one down.
const hopBound = 1 + label.MaxTransit + 1 + 1

var (
	fewLabels = []label.Label{0, 1, 2, 3, 4, 5, label.Broadcast}
	fewAddrs  = []netip.Addr{netip.MustParseAddr("44.0.0.1"), netip.MustParseAddr("44.0.0.2"), netip.MustParseAddr("44.0.0.3"),
		netip.MustParseAddr("44.0.0.4"), netip.MustParseAddr("fd44::1"), netip.MustParseAddr("fd44::2")}
	fewSlots = []Slot{1, 2, 3, 4, 5}
)

func drawSome[E any](t *rapid.T, name string, from []E, most int) []E {
	return rapid.SliceOfN(rapid.SampledFrom(from), 0, most).Draw(t, name)
}

// drawMost draws a list with few left out.
func drawMost[E any](t *rapid.T, name string, from []E) []E {
	skip, too := rapid.Uint64().Draw(t, name), rapid.Uint64().Draw(t, name)
	var out []E
	for i, e := range from {
		if (skip&too)>>i&1 == 0 {
			out = append(out, e)
		}
	}
	return out
}

func drawAddr(t *rapid.T) netip.Addr {
	return rapid.SampledFrom(append([]netip.Addr{{}}, fewAddrs...)).Draw(t, "address")
}

// drawOr draws mostly the first, else any of the others.
func drawOr[E any](t *rapid.T, name string, mostly E, others []E) E {
	if rapid.IntRange(0, 3).Draw(t, name+" as it is") > 0 {
		return mostly
	}
	return rapid.SampledFrom(others).Draw(t, name)
}

// drawAnything draws what node i believes, of which anything may be wrong: labels of others, addresses that are gateway and
// node at once, uplinks and hosts that point anywhere, paths through oneself and in circles.
func drawAnything(t *rapid.T, i int) Want {
	aLabel, anAddr := rapid.SampledFrom(fewLabels), rapid.SampledFrom(fewAddrs[:4])
	w := Want{
		Self: Self{
			Slot: fewSlots[i], Label: drawOr(t, "label", label.Label(i+1), fewLabels), Labels: drawSome(t, "labels", fewLabels, 2),
			Transit: rapid.IntRange(0, 7).Draw(t, "transit") > 0, Net4: net4, Net6: net6, Uplink: drawAddr(t),
		},
		Ports:      Ports{Control: 1, GRE: 2, Protected: map[label.Label]uint16{}},
		CheckBelow: 1400,
	}
	for _, l := range drawSome(t, "protected", fewLabels, 2) {
		w.Ports.Protected[l] = 100 + uint16(l)
	}
	for _, s := range fewSlots {
		h := Host{Slot: s}
		switch rapid.IntRange(0, 7).Draw(t, "where") {
		case 0:
			h.Port = rapid.SampledFrom([]uint16{local, guestPort, 1, 2}).Draw(t, "port")
		case 1, 2:
			h.Near = anAddr.Draw(t, "near")
		default:
			h.Far = aLabel.Draw(t, "far")
		}
		w.Hosts = append(w.Hosts, h)
	}
	for _, a := range drawMost(t, "nodes", fewAddrs) {
		w.Nodes = append(w.Nodes, Node{Addrs: drawMost(t, "node's", fewAddrs), Dst: a, MTU: rapid.SampledFrom([]int{0, 1300}).Draw(t, "mtu")})
	}
	for l := range label.Label(5) {
		w.Gateways = append(w.Gateways, Gateway{
			Label: drawOr(t, "gateway", l+1, fewLabels), Addrs: drawMost(t, "gateway's", fewAddrs), Dst: drawOr(t, "to gateway", fewAddrs[l], fewAddrs),
			Site:    fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "site")),
			Offered: rapid.IntRange(0, 7).Draw(t, "offered") > 0, Down: rapid.Bool().Draw(t, "down"), Over: drawSome(t, "over", fewLabels, 4),
		})
	}
	for l := range label.Label(5) {
		w.Paths = append(w.Paths, Path{
			To: drawOr(t, "to", l+1, fewLabels), Via: drawSome(t, "via", fewLabels[1:], 4), Backups: [][]label.Label{drawSome(t, "backup", fewLabels, 4)},
			Watched: rapid.Bool().Draw(t, "watched"), MTU: rapid.SampledFrom([]int{0, 1300}).Draw(t, "mtu"),
		})
	}
	return w
}

// drawMix draws a table in the middle of a change that is not written at once: each rule from one of two tables.
func drawMix(t *rapid.T, a, b Tables) Tables {
	type key struct {
		table, priority uint16
		match           string
	}
	mixed, groups := map[key]Flow{}, map[uint32]Group{}
	for _, tables := range []Tables{a, b} {
		skip := rapid.Uint64().Draw(t, "skip")
		for i, f := range tables.Flows {
			if skip>>(i%64)&1 == 0 {
				mixed[key{uint16(f.Table), f.Priority, f.Match}] = f
			}
		}
		for _, g := range tables.Groups {
			groups[g.ID] = g
		}
	}
	var out Tables
	out.Flows = slices.Collect(maps.Values(mixed))
	out.Groups = slices.Collect(maps.Values(groups))
	out.sort()
	return out
}

func drawFrame(t *rapid.T, port uint16) flowtest.Packet {
	mac := func(name string, seconds []int) string {
		s := rapid.SampledFrom(fewSlots).Draw(t, name)
		l := rapid.SampledFrom(fewLabels).Draw(t, name+"'s bytes")
		return fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", rapid.SampledFrom(seconds).Draw(t, name+"'s kind"), byte(l>>8), byte(l), s>>8, s&0xff)
	}
	p := flowtest.Frame(port).With("eth_src", mac("source", []int{0x76})).With("eth_dst", mac("destination", []int{0x76, 0x76, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x7f}))
	if rapid.IntRange(0, 2).Draw(t, "to many") == 0 {
		p = p.With("eth_dst", "ff:ff:ff:ff:ff:ff")
	}
	p.Size = rapid.SampledFrom([]int{64, 1500}).Draw(t, "size")
	return p.With("eth_type", rapid.SampledFrom([]string{"0x0800", "0x86dd", "0x88b5", "0x0806"}).Draw(t, "type"))
}

// TestEveryFrameEnds is what the whole design stands on: whatever each node believes, and in the middle of whatever change,
// no frame of a node, a guest, an agent, or somebody who sends any key from a member's address makes more hops than the
// bound.
func TestEveryFrameEnds(t *testing.T) {
	most := 0
	rapid.Check(t, func(t *rapid.T) {
		var net flowtest.Net
		for i := range rapid.IntRange(2, 4).Draw(t, "nodes") {
			want := drawAnything(t, i)
			tables := Build(want)
			if rapid.Bool().Draw(t, "in a change") {
				tables = drawMix(t, tables, Build(drawAnything(t, i)))
			}
			n := &flowtest.Node{Name: fmt.Sprint(i), Switch: read(tables), GRE: 2, Addrs: []netip.Addr{fewAddrs[i], fewAddrs[4+i%2]}}
			n.Protected = map[uint16]netip.Addr{}
			for _, l := range fewLabels {
				n.Protected[100+uint16(l)] = rapid.SampledFrom(fewAddrs).Draw(t, "peer of a port")
			}
			down := rapid.SampledFrom(fewLabels).Draw(t, "port that is down")
			n.Switch.Live = func(port uint16) bool { return port != 100+uint16(down) }
			net.Nodes = append(net.Nodes, n)
		}
		for range 30 {
			at := rapid.SampledFrom(net.Nodes).Draw(t, "at")
			p := drawFrame(t, rapid.SampledFrom([]uint16{local, guestPort, 1}).Draw(t, "port"))
			hops := 0
			if rapid.Bool().Draw(t, "outsider") {
				k := label.Key{Budget: rapid.Uint8Range(0, 3).Draw(t, "budget"), Src: rapid.SampledFrom(fewLabels).Draw(t, "from"),
					Dst: rapid.SampledFrom(fewLabels).Draw(t, "to")}
				p = flowtest.Raw(at, rapid.SampledFrom(fewAddrs).Draw(t, "spoofed"), k.Pack(), p)
				hops = 1
			}
			fate := net.Walk(at, p)
			most = max(most, fate.Hops+hops)
			if fate.Err != nil || fate.Hops+hops > hopBound {
				t.Fatalf("%d hops, %v\n%q", fate.Hops+hops, fate.Err, fate.Trace)
			}
		}
	})
	t.Logf("at most %d hops of %d", most, hopBound)
}

// TestStrangersAreDropped: tunnels from other addresses, with another version, or for somebody else end at once.
func TestStrangersAreDropped(t *testing.T) {
	w := world{[]siteSpec{{[]label.Label{1}, 2}, {[]label.Label{2}, 1}, {[]label.Label{3}, 1}}}
	net, nodes := w.net(func(_ place, want *Want) {
		for i := range want.Gateways {
			want.Gateways[i].Offered = want.Gateways[i].Label != 3
			if want.Gateways[i].Label == 3 {
				want.Gateways[i].Addrs, want.Gateways[i].Dst = nil, netip.Addr{}
			}
		}
	})
	mine := label.Key{Src: 2, Dst: 1}
	for _, tt := range []struct {
		name string
		src  netip.Addr
		key  uint32
		ok   bool
	}{
		{"a gateway", w.addr(1, 0), mine.Pack(), true},
		{"an unknown address", netip.MustParseAddr("9.9.9.9"), mine.Pack(), false},
		{"an unknown IPv6 address", netip.MustParseAddr("fd99::9"), mine.Pack(), false},
		{"version 0", w.addr(1, 0), mine.Pack() &^ keyVersion, false},
		{"version 2", w.addr(1, 0), mine.Pack() ^ keyVersion, false},
		{"no key", w.addr(1, 0), 0, false},
		{"for another gateway", w.addr(1, 0), label.Key{Src: 2, Dst: 4}.Pack(), false},
		{"for another, with a budget", w.addr(1, 0), label.Key{Budget: 1, Src: 2, Dst: 4}.Pack(), false},
		{"from another site as from ours", w.addr(1, 0), label.Key{Budget: 1}.Pack(), false},
		{"a node of the site as a gateway", w.addr(0, 1), mine.Pack(), false},
		{"a node of the site", w.addr(0, 1), label.Key{Budget: 1}.Pack(), true},
		{"a gateway without a link", w.addr(2, 0), label.Key{Src: 3, Dst: 1}.Pack(), false},
	} {
		p := flowtest.Frame(0).With("eth_src", w.slot(1, 0).MAC().String()).With("eth_dst", w.slot(0, 0).MAC().String()).With("eth_type", "0x0800")
		fate := net.Walk(nodes[place{0, 0}], flowtest.Raw(nodes[place{0, 0}], tt.src, tt.key, p))
		if got := len(fate.Delivered) == 1; got != tt.ok || fate.Sent > 0 {
			t.Errorf("%s: delivered %v, sent %d", tt.name, fate, fate.Sent)
		}
	}
	out := net.Walk(nodes[place{0, 0}], w.from(place{0, 0}, false).With("eth_dst", w.slot(2, 0).MAC().String()))
	if out.Sent > 0 {
		t.Errorf("frames to a gateway without a link: %q", out.Trace)
	}
}

// TestUpIsNeverUpAgain: two nodes that are each other's gateways, for the time that rules of before stand beside those of
// after.
func TestUpIsNeverUpAgain(t *testing.T) {
	w := world{[]siteSpec{{[]label.Label{1, 2}, 3}, {[]label.Label{3}, 1}}}
	var net flowtest.Net
	for n := range 2 {
		as := w.wantGuests(0, n)
		was := w.wantGuests(0, n)
		was.Self.Label, was.Self.Uplink = 0, w.addr(0, 1-n)
		tables := Build(was) // its hosts are behind its gateway
		tables.Flows = append(Build(as).Flows, tables.Flows...)
		net.Nodes = append(net.Nodes, &flowtest.Node{Name: fmt.Sprint(n), Switch: read(tables), GRE: 2, Addrs: []netip.Addr{w.addr(0, n)}})
	}
	p := w.from(place{0, 2}, false).With("eth_dst", w.slot(1, 0).MAC().String())
	fate := net.Walk(net.Nodes[0], flowtest.Raw(net.Nodes[0], w.addr(0, 2), label.Key{Budget: 1}.Pack(), p))
	if fate.Err != nil || fate.Hops > hopBound {
		t.Errorf("%d hops: %v\n%q", fate.Hops, fate.Err, fate.Trace)
	}
}
