package flow

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"vcpeer/overlay/label"
)

type rule struct {
	table, priority uint16
	match           string
}

func (f Flow) rule() rule { return rule{uint16(f.Table), f.Priority, f.Match} }

// TestPlannedChangeLosesNothing changes one gateway's paths, hosts' places behind gateways, MTUs and protected ports while
// all others stay as they are. Rules that are new are written before those that change, and those before what goes; within
// each of these in any order. What both tables deliver is delivered at every moment.
func TestPlannedChangeLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, rapid.IntRange(2, 5).Draw(t, "sites"))
		one := place{rapid.IntRange(0, len(w.sites)-1).Draw(t, "whose"), 0}
		protected := map[label.Label]uint16{}
		draw := func() Want {
			want := w.wantGuests(one.site, 0)
			want.Ports.Protected = protected
			for i := range want.Paths {
				p := &want.Paths[i]
				p.Via = w.drawVia(t, one.site, w.siteOf(p.To))
				p.MTU = rapid.SampledFrom([]int{0, 1300, 1350}).Draw(t, "mtu")
				p.Watched = rapid.Bool().Draw(t, "watched")
				p.Backups = [][]label.Label{w.drawVia(t, one.site, w.siteOf(p.To))}
			}
			for i, h := range want.Hosts { // a site's hosts by its other gateway
				if h.Far != 0 {
					want.Hosts[i].Far = rapid.SampledFrom(w.sites[w.siteOf(h.Far)].gateways).Draw(t, "far")
				}
			}
			return want
		}
		for i, g := range w.wantGuests(one.site, 0).Gateways {
			if rapid.Bool().Draw(t, "protected") {
				protected[g.Label] = uint16(100 + i)
			}
		}
		net, nodes := w.net(nil)
		before, after := Build(draw()), Build(draw())
		at := nodes[one]
		for _, g := range w.wantGuests(one.site, 0).Gateways {
			if port := protected[g.Label]; port != 0 {
				if at.Protected == nil {
					at.Protected = map[uint16]netip.Addr{}
				}
				at.Protected[port] = g.Dst
			}
		}
		now := before
		for step := range steps(t, before, after, &now) {
			at.Switch = read(now)
			for _, dst := range w.places() {
				if dst == one {
					continue
				}
				fate := net.Walk(at, w.from(one, false).With("eth_dst", w.slot(dst.site, dst.node).MAC().String()))
				if len(fate.Delivered) != 1 || fate.Delivered[0].Node != nodes[dst] || fate.Delivered[0].Packet.Get("eth_dst")&0xffff0000 != 0 {
					t.Fatalf("after %s: to %v: %v\n%q", step, dst, fate, fate.Trace)
				}
			}
		}
	})
}

// steps yields the name of each change of now, on the way from before to after.
func steps(t *rapid.T, before, after Tables, now *Tables) func(func(string) bool) {
	return func(yield func(string) bool) {
		have := map[rule]Flow{}
		for _, f := range before.Flows {
			have[f.rule()] = f
		}
		want := map[rule]bool{}
		var add, change, remove []Flow
		for _, f := range after.Flows {
			want[f.rule()] = true
			switch old, ok := have[f.rule()]; {
			case !ok:
				add = append(add, f)
			case old != f:
				change = append(change, f)
			}
		}
		for _, f := range before.Flows {
			if !want[f.rule()] {
				remove = append(remove, f)
			}
		}
		now.Groups = slices.Clone(before.Groups) // groups are whole before any rule and after all
		for _, g := range after.Groups {
			now.Groups = append(slices.DeleteFunc(now.Groups, func(o Group) bool { return o.ID == g.ID }), g)
			if !yield("group " + g.Text()) {
				return
			}
		}
		for i, list := range [][]Flow{add, change, remove} {
			for _, f := range rapid.Permutation(list).Draw(t, fmt.Sprint("order ", i)) {
				now.Flows = slices.DeleteFunc(slices.Clone(now.Flows), func(o Flow) bool { return o.rule() == f.rule() })
				if i < 2 {
					now.Flows = append(now.Flows, f)
				}
				if !yield([]string{"add ", "change ", "remove "}[i] + f.Text()) {
					return
				}
			}
		}
		now.Groups = after.Groups
		yield("the last")
	}
}
