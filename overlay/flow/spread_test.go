package flow

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"vcpeer/overlay/flow/flowtest"
	"vcpeer/overlay/label"
)

// receivers says how often a frame was delivered at each port.
func receivers(f flowtest.Fate) map[string]int {
	out := map[string]int{}
	for _, d := range f.Delivered {
		out[fmt.Sprintf("%s port %d", d.Node.Name, d.Port)]++
	}
	return out
}

// TestBroadcastReachesAllOnce: with equal records every node and every guest gets one copy, whoever speaks, and the speaker
// none.
func TestBroadcastReachesAllOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, rapid.IntRange(1, 9).Draw(t, "sites"))
		net, nodes := w.net(nil)
		for _, src := range w.places() {
			for _, guest := range []bool{false, true} {
				p := w.from(src, guest).With("eth_dst", "ff:ff:ff:ff:ff:ff")
				want := map[string]int{}
				for _, n := range net.Nodes {
					want[fmt.Sprintf("%s port %d", n.Name, flowtest.Local)]++
					want[fmt.Sprintf("%s port %d", n.Name, guestPort)]++
				}
				delete(want, fmt.Sprintf("%s port %d", nodes[src].Name, p.Get("in_port")))
				fate := net.Walk(nodes[src], p)
				if got := receivers(fate); fmt.Sprint(got) != fmt.Sprint(want) || fate.Hops > 4 || fate.Err != nil {
					t.Fatalf("from %v: %v in %d hops, want %v\n%q", src, got, fate.Hops, want, fate.Trace)
				}
				for _, d := range fate.Delivered {
					if d.Packet.MAC("eth_dst") != "ff:ff:ff:ff:ff:ff" || guest && d.Packet.MAC("eth_src") != w.guest(src.site, src.node).MAC().String() {
						t.Fatalf("from %v: arrived as %v", src, d)
					}
				}
			}
		}
	})
}

// severed is a world some of whose links between gateways do not work.
type severed struct {
	world
	down map[[2]label.Label]bool // by label, the lower one first
}

func drawSevered(t *rapid.T) severed {
	w := severed{drawWorld(t, rapid.IntRange(2, 9).Draw(t, "sites")), map[[2]label.Label]bool{}}
	few := rapid.IntRange(1, 6).Draw(t, "one in")
	for i, a := range w.sites {
		for _, b := range w.sites[i+1:] {
			for _, x := range a.gateways {
				for _, y := range b.gateways {
					w.down[[2]label.Label{min(x, y), max(x, y)}] = rapid.IntRange(1, few).Draw(t, "down") == 1
				}
			}
		}
	}
	if rapid.Bool().Draw(t, "a gateway is down") { // a site's first, say
		dead := rapid.SampledFrom(w.sites).Draw(t, "of").gateways[0]
		for link := range w.down {
			if link[0] == dead || link[1] == dead {
				w.down[link] = true
			}
		}
	}
	return w
}

func (w severed) works(a, b label.Label) bool { return !w.down[[2]label.Label{min(a, b), max(a, b)}] }

// via is a shortest way from a gateway to another over gateways of third sites; false: there is none with few enough.
func (w severed) via(a, b label.Label) ([]label.Label, bool) {
	ways := [][]label.Label{{}}
	for range label.MaxTransit + 1 {
		var longer [][]label.Label
		for _, way := range ways {
			at := a
			if len(way) > 0 {
				at = way[len(way)-1]
			}
			if w.works(at, b) {
				return way, true
			}
			for i, s := range w.sites {
				for _, x := range s.gateways {
					if i != w.siteOf(a) && i != w.siteOf(b) && i != w.siteOf(at) && w.works(at, x) && !slices.Contains(way, x) {
						longer = append(longer, append(slices.Clone(way), x))
					}
				}
			}
		}
		ways = longer[:min(len(longer), 500)]
	}
	return nil, false
}

// transits is how many there must be between a gateway and a site; more than any frame may have: it is out of reach.
func (w severed) transits(a label.Label, site int) int {
	least := label.MaxTransit + 1
	for _, b := range w.sites[site].gateways {
		if way, ok := w.via(a, b); ok {
			least = min(least, len(way))
		}
	}
	return least
}

// around tells a gateway of links that do not work, and what to do instead.
func (w severed) around(want *Want) {
	for i, g := range want.Gateways {
		if self := want.Self.Label; self.Valid() && !w.works(self, g.Label) {
			want.Gateways[i].Down = true
			want.Gateways[i].Over, _ = w.via(self, g.Label)
		}
	}
}

// cut has the links of a net not work that do not, and says which gateway each node is, if any.
func (w severed) cut(net *flowtest.Net, nodes map[place]*flowtest.Node) map[*flowtest.Node]label.Label {
	gateway := map[*flowtest.Node]label.Label{}
	for p, n := range nodes {
		if w.isGateway(p) {
			gateway[n] = w.sites[p.site].gateways[p.node]
		}
	}
	net.Cut = func(a, b *flowtest.Node) bool {
		return gateway[a] != 0 && gateway[b] != 0 && !w.works(gateway[a], gateway[b])
	}
	return gateway
}

// TestBroadcastFindsAnotherWay: where links between gateways do not work, whoever the speaker has a link to gets one copy
// still, and if every site can be reached from every gateway over as many transit gateways as a relay may name, all do;
// nobody ever gets two.
func TestBroadcastFindsAnotherWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawSevered(t)
		net, nodes := w.net(func(_ place, want *Want) { w.around(want) })
		gateway, all := w.cut(net, nodes), true
		for n, l := range gateway {
			for s := range w.sites {
				all = all && (s == w.siteOf(gateway[n]) || w.transits(l, s) <= relayTransit)
			}
		}
		for _, src := range w.places() {
			at := w.sites[src.site].gateways[0] // the uplink of those that are none
			if w.isGateway(src) {
				at = gateway[nodes[src]]
			}
			fate := net.Walk(nodes[src], w.from(src, true).With("eth_dst", "01:00:5e:00:00:fb"))
			if fate.Err != nil || fate.Hops > hopBound || fate.Lost > 0 {
				t.Fatalf("from %v: %d hops, %d lost, %v\n%q", src, fate.Hops, fate.Lost, fate.Err, fate.Trace)
			}
			got := receivers(fate)
			for p, n := range nodes {
				count := got[fmt.Sprintf("%s port %d", n.Name, flowtest.Local)]
				if count > 1 || count == 0 && (all || p.site == src.site || w.transits(at, p.site) == 0) {
					t.Fatalf("from %v: %d copies at %v, links down: %v\n%q", src, count, p, w.down, fate.Trace)
				}
			}
			for _, d := range fate.Delivered {
				if d.Packet.MAC("eth_dst") != "01:00:5e:00:00:fb" || d.Packet.MAC("eth_src") != w.guest(src.site, src.node).MAC().String() {
					t.Fatalf("from %v: arrived as %v", src, d)
				}
			}
		}
	})
}

// chain has links between neighbouring sites alone.
func chain(w world) severed {
	out := severed{w, map[[2]label.Label]bool{}}
	for i, a := range w.sites {
		for _, b := range w.sites[min(i+2, len(w.sites)):] {
			for _, x := range a.gateways {
				for _, y := range b.gateways {
					out.down[[2]label.Label{min(x, y), max(x, y)}] = true
				}
			}
		}
	}
	return out
}

// TestBroadcastAlongAChain: sites of which each has links to its neighbours alone. Of five, whoever speaks is heard by all.
func TestBroadcastAlongAChain(t *testing.T) {
	for length := 2; length <= 5; length++ {
		var sites world
		for i := range length {
			sites.sites = append(sites.sites, siteSpec{[]label.Label{label.Last - label.Label(i)}, 2})
		}
		w := chain(sites)
		net, nodes := w.net(func(_ place, want *Want) { w.around(want) })
		w.cut(net, nodes)
		for _, src := range w.places() {
			for _, dst := range []string{"ff:ff:ff:ff:ff:ff", "33:33:00:00:00:fb"} {
				fate := net.Walk(nodes[src], w.from(src, false).With("eth_dst", dst))
				if got := receivers(fate); len(got) != 4*length-1 || len(fate.Delivered) != len(got) || fate.Lost > 0 || fate.Hops > hopBound {
					t.Fatalf("%d sites, from %v: %v in %d hops\n%q", length, src, got, fate.Hops, fate.Trace)
				}
				for _, d := range fate.Delivered {
					if d.Packet.MAC("eth_dst") != dst || d.Packet.MAC("eth_src") != w.slot(src.site, src.node).MAC().String() {
						t.Fatalf("from %v: arrived as %v", src, d)
					}
				}
			}
		}
	}
}

// TestBroadcastBesideOlderGateways: gateways of before knew no broadcast with two transit gateways, and take two bytes of its
// destination address for one. It ends there or somewhere else; nobody gets two copies, and no one of the speaker's site more than
// the one of there.
func TestBroadcastBesideOlderGateways(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawSevered(t)
		net, nodes := w.net(func(_ place, want *Want) { w.around(want) })
		w.cut(net, nodes)
		for _, p := range w.places() {
			if rapid.Bool().Draw(t, "older") {
				want := w.wantGuests(p.site, p.node)
				w.around(&want)
				tables := Build(want)
				tables.Flows = slices.DeleteFunc(tables.Flows, func(f Flow) bool { return f.Table == tableTunnel && f.Priority == priorityToSite })
				nodes[p].Switch = read(tables)
			}
		}
		for _, src := range w.places() {
			for _, dst := range []string{"01:00:5e:00:00:fb", "ff:ff:ff:ff:ff:ff"} { // of the first it reads label 0x1e00
				fate := net.Walk(nodes[src], w.from(src, false).With("eth_dst", dst))
				if fate.Err != nil || fate.Hops > hopBound {
					t.Fatalf("from %v: %d hops, %v\n%q", src, fate.Hops, fate.Err, fate.Trace)
				}
				for at, count := range receivers(fate) {
					if count > 1 {
						t.Fatalf("from %v: %d copies at %s\n%q", src, count, at, fate.Trace)
					}
				}
			}
		}
	})
}

// TestBroadcastWithDifferentRecords: where nodes know different sites a broadcast may miss some and reach some twice, but
// it never comes back, and no gateway's links carry more copies than its tables have.
func TestBroadcastWithDifferentRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, rapid.IntRange(2, 9).Draw(t, "sites"))
		net, nodes := w.net(func(_ place, want *Want) {
			unknown := rapid.IntRange(0, len(w.sites)).Draw(t, "unknown")
			want.Gateways = slices.DeleteFunc(want.Gateways, func(g Gateway) bool { return g.Site == fmt.Sprint(unknown) })
			if len(want.Self.Labels) > 1 && want.Self.Label == 0 && rapid.Bool().Draw(t, "other uplink") {
				want.Self.Labels = want.Self.Labels[1:]
			}
		})
		for _, src := range w.places() {
			fate := net.Walk(nodes[src], w.from(src, false).With("eth_dst", "01:00:5e:00:00:fb"))
			if fate.Err != nil || fate.Hops > 4 {
				t.Fatalf("from %v: %d hops, %v", src, fate.Hops, fate.Err)
			}
			for _, d := range fate.Delivered {
				if d.Node == nodes[src] && d.Port == flowtest.Local {
					t.Fatalf("from %v: it came back\n%q", src, fate.Trace)
				}
			}
		}
	})
}

// TestBroadcastCopies: no gateway sends more than some multiple of √n copies.
func TestBroadcastCopies(t *testing.T) {
	w := large(100)
	net, nodes := w.net(nil)
	fate := net.Walk(nodes[place{37, 0}], w.from(place{37, 0}, false).With("eth_dst", "ff:ff:ff:ff:ff:ff"))
	if len(fate.Delivered) != 2*100-1 || fate.Sent != 99 || fate.Hops != 2 {
		t.Errorf("%d deliveries, %d copies, %d hops", len(fate.Delivered), fate.Sent, fate.Hops)
	}
}

// TestEqualRecordsGiveEqualTables: the order of records does not show, and what two gateways of a site do with frames of
// others is the same.
func TestEqualRecordsGiveEqualTables(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawAnything(t, 0)
		got := Build(shuffle(t, w))
		if want := Build(w); !slices.Equal(got.Flows, want.Flows) {
			t.Fatalf("the order of the records shows:\n%v\n%v", got.Flows, want.Flows)
		}
	})
	w := world{[]siteSpec{{[]label.Label{1, 2}, 3}, {[]label.Label{3}, 1}, {[]label.Label{4}, 1}}}
	own := func(f Flow) bool { // own address, own label, who is here, and the other of the two
		return !slices.Contains([]uint8{tableARP, tableND, tableNDReply, tableOut, tablePut, tableGuest, tableHere, tableInSite, tableLink, tableArrive}, f.Table)
	}
	a, b := Build(w.wantGuests(0, 0)).Flows, Build(w.wantGuests(0, 1)).Flows
	if a, b = slices.DeleteFunc(a, own), slices.DeleteFunc(b, own); !slices.Equal(a, b) {
		t.Errorf("two gateways of a site differ:\n%v\n%v", a, b)
	}
}

func shuffle(t *rapid.T, w Want) Want {
	w.Hosts = rapid.Permutation(w.Hosts).Draw(t, "hosts")
	w.Nodes = rapid.Permutation(w.Nodes).Draw(t, "nodes")
	w.Gateways = rapid.Permutation(w.Gateways).Draw(t, "gateways")
	return w
}
