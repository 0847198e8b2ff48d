package flow

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"vcpeer/overlay/label"
)

// Budgets of a broadcast, each of which only becomes a lower one: so that no copy goes round, and by this order none comes
// back. A node hands it to its gateway, that to one relay of each group of sites, that to the sites of its group, and a
// gateway to the nodes of its site. A copy for a site without a direct link is addressed to a gateway of that and has a budget
// as frames to it have; it never becomes one for all again. So between gateways no copy goes further than a frame to one: a
// speaker may name as many transit gateways as that, a relay, which is one hop away, one less.
const (
	spreadUp    = 3
	spreadRelay = 2
	spreadLeaf  = 1
	spreadDown  = 0

	relayTransit = label.MaxTransit - 1
)

// broadcast makes the tree: with n sites, a gateway makes about √n copies for relays and √n for its own group. Which sites are
// in which group follows from the records alone. By which gateway a site is reached is the sender's affair, since each
// takes a copy for the whole site: by the first that answers, else over transit gateways, as a frame to that gateway.
func (b *builder) broadcast() {
	b.add(tableSpread, 0, "", append(append(b.copiesHere(), b.copiesDown()...), b.copiesOut()...)...)
	b.add(tableHereCopy, 0, "", b.copiesHere()...)
	all := label.Key{Dst: label.Broadcast}
	in := func(priority uint16, budget uint8, who int, actions ...string) {
		k := all
		k.Budget = budget
		b.add(tableTunnel, priority, matchKey(k, keyBudget|keyDst)+","+from(who), actions...)
	}
	in(40, spreadDown, fromSite, resubmit(tableHereCopy))
	if !b.Self.gateway() {
		return
	}
	for _, own := range b.Self.Labels { // our own broadcasts end where somebody believes that they are news to us
		for _, budget := range []uint8{spreadRelay, spreadLeaf} {
			b.add(tableTunnel, 50, matchKey(label.Key{Budget: budget, Src: own, Dst: label.Broadcast}, keyBudget|keySrc|keyDst))
		}
		b.add(tableTunnel, 50, matchKey(label.Key{Src: own, Dst: b.Self.Label}, keyBudget|keySrc|keyDst)+","+toMany)
	}
	me := matchKey(label.Key{Dst: b.Self.Label}, keyBudget|keyDst) + "," + from(fromFar) + "," + toMany
	b.add(tableTunnel, 40, me, anyPort, noTransits, resubmit(tableSiteCopy))
	in(40, spreadUp, fromSite, anyPort, resubmit(tableTree))
	in(40, spreadRelay, fromFar, anyPort, resubmit(tableGroup), resubmit(tableSiteCopy))
	in(40, spreadLeaf, fromFar, anyPort, resubmit(tableSiteCopy))
	b.add(tableTree, 0, "", b.tree()...)
	b.add(tableGroup, 0, "", b.groupCopies()...)
	b.add(tableSiteCopy, 0, "", append(b.copiesHere(), b.copiesDown()...)...)
}

// copiesHere are for this node and its guests; the bridge leaves out the port that the frame came in by.
func (b *builder) copiesHere() []string {
	out := []string{"LOCAL"}
	for _, h := range b.guests() {
		out = append(out, fmt.Sprintf("output:%d", h.Port))
	}
	slices.Sort(out[1:])
	return out
}

// copyTo is one copy over the tunnel port.
func (b *builder) copyTo(dst netip.Addr) []string {
	return []string{tunnelTo(dst), fmt.Sprintf("output:%d", b.Ports.GRE)}
}

// copiesDown are for the other nodes of the site.
func (b *builder) copiesDown() []string {
	nodes := slices.SortedFunc(slices.Values(b.Nodes), func(x, y Node) int { return x.Dst.Compare(y.Dst) })
	out := []string{setKey(label.Key{Budget: spreadDown, Src: b.Self.Label, Dst: label.Broadcast})}
	for _, n := range nodes {
		if n.Dst.IsValid() {
			out = append(out, b.copyTo(n.Dst)...)
		}
	}
	if len(out) == 1 {
		return nil
	}
	return out
}

// copiesOut are for all other sites.
func (b *builder) copiesOut() []string {
	switch {
	case b.Self.gateway():
		return []string{resubmit(tableTree)}
	case b.Self.Uplink.IsValid():
		return append([]string{setKey(label.Key{Budget: spreadUp, Dst: label.Broadcast})}, b.copyTo(b.Self.Uplink)...)
	}
	return nil
}

// speaker is a site in the tree.
type speaker struct {
	l    label.Label // the lowest of its gateways': what sites are ordered by
	site string
	own  bool
	dst  netip.Addr    // where its copy goes; not valid: there is no way
	to   label.Label   // the gateway that the copy is for, if dst is a transit gateway's …
	via  []label.Label // … and those on the way
}

// groups divides the sites into groups of about √n, the same on every node with the same records.
func (b *builder) groups() [][]speaker {
	bySite := map[string][]Gateway{}
	for _, g := range b.Gateways {
		bySite[g.Site] = append(bySite[g.Site], g)
	}
	var all []speaker
	for _, gateways := range bySite {
		all = append(all, b.speaker(gateways))
	}
	if len(b.Self.Labels) > 0 {
		all = append(all, speaker{l: slices.Min(b.Self.Labels), own: true})
	}
	slices.SortFunc(all, func(x, y speaker) int { return cmp.Or(cmp.Compare(x.l, y.l), cmp.Compare(x.site, y.site)) })
	size := int(math.Ceil(math.Sqrt(float64(len(all)))))
	return slices.Collect(slices.Chunk(all, max(1, size)))
}

// speaker chooses how a site is reached: by its first gateway that answers, else by the one that is reached over fewest
// others, of equals the first.
func (b *builder) speaker(gateways []Gateway) speaker {
	slices.SortFunc(gateways, func(x, y Gateway) int {
		return cmp.Or(cmp.Compare(x.Label, y.Label), slices.Compare(x.Over, y.Over))
	})
	s := speaker{l: gateways[0].Label, site: gateways[0].Site}
	for _, g := range gateways {
		if dst, ok := b.link[g.Label]; ok && !g.Down {
			s.dst = dst
			return s
		}
	}
	slices.SortStableFunc(gateways, func(x, y Gateway) int { return cmp.Compare(len(x.Over), len(y.Over)) })
	for _, g := range gateways {
		if dst, ok := b.firstLink(g.Label, g.Over); ok && len(g.Over) > 0 && g.Label.Valid() && !slices.Contains(b.Self.Labels, g.Label) {
			s.dst, s.to, s.via = dst, g.Label, g.Over
			return s
		}
	}
	return s
}

func (s speaker) reached() bool { return !s.own && s.dst.IsValid() }

// tree is a broadcast of this site to all others: straight to those of our group, and one copy to each other group, or to
// each of its sites if no other copy comes to one that could be the relay.
func (b *builder) tree() []string {
	var leaves, relays []speaker
	for _, group := range b.groups() {
		relay := slices.IndexFunc(group, func(s speaker) bool { return s.reached() && s.to == 0 })
		if relay < 0 || slices.ContainsFunc(group, func(s speaker) bool { return s.own }) {
			leaves = append(leaves, group...)
		} else {
			relays = append(relays, group[relay])
		}
	}
	key := func(k label.Key) string {
		k.Src = b.Self.Label
		return setKey(k)
	}
	out := b.copies(leaves, key(label.Key{Budget: spreadLeaf, Dst: label.Broadcast}), func(s speaker) string {
		return key(label.Key{Budget: uint8(len(s.via)), Dst: s.to})
	})
	return append(out, b.copies(relays, key(label.Key{Budget: spreadRelay, Dst: label.Broadcast}), nil)...)
}

// groupCopies are what a relay sends to the other sites of its group.
func (b *builder) groupCopies() []string {
	for _, group := range b.groups() {
		if slices.ContainsFunc(group, func(s speaker) bool { return s.own }) {
			group = slices.DeleteFunc(group, func(s speaker) bool { return len(s.via) > relayTransit })
			return b.copies(group, setBudget(spreadLeaf), func(s speaker) string {
				return setBudget(uint32(len(s.via))) + "," + setDst(s.to)
			})
		}
	}
	return nil
}

// copies are one for each site, the direct ones after straight has set their key, the others each after over has.
func (b *builder) copies(sites []speaker, straight string, over func(speaker) string) []string {
	out := []string{straight}
	for _, s := range sites {
		if s.reached() && s.to == 0 {
			out = append(out, b.copyTo(s.dst)...)
		}
	}
	if len(out) == 1 {
		out = nil
	}
	for _, s := range sites {
		if s.reached() && s.to != 0 {
			out = append(append(out, over(s)), manyTransits(s.via)...)
			out = append(out, b.copyTo(s.dst)...)
			if len(s.via) > 1 {
				out = append(out, noTransits)
			}
		}
	}
	return out
}

// A broadcast's destination address is its own. The last of its transit gateways but one, which travels there in other frames,
// has the first two bytes of the source address instead: all but the two bits that say what kind of address it is.
const (
	lastTransitField = "NXM_OF_ETH_SRC[32..47]"
	firstBytes       = 0x0276
)

// noTransits puts back the bytes in which transit gateways of a broadcast travel.
var noTransits = fmt.Sprintf("load:0->NXM_OF_ETH_SRC[16..31],load:%#x->%s", firstBytes, lastTransitField)

// manyTransits puts the second and third transit gateway of a broadcast where those before them look.
func manyTransits(via []label.Label) []string {
	last := func(l label.Label) string {
		return fmt.Sprintf("load:%#x->%s", uint16(l)>>8<<10|firstBytes&0x0300|uint16(l)&0xff, lastTransitField)
	}
	switch len(via) {
	case 2:
		return []string{last(via[1])}
	case 3:
		return []string{fmt.Sprintf("load:%#x->NXM_OF_ETH_SRC[16..31]", uint16(via[1])), last(via[2])}
	}
	return nil
}

// lastTransit has what manyTransits put there looked up as the next on the way, and puts back the bytes.
var lastTransit = []string{
	"move:NXM_OF_ETH_SRC[32..39]->NXM_NX_REG1[0..7]", "move:NXM_OF_ETH_SRC[42..47]->NXM_NX_REG1[8..13]",
	fmt.Sprintf("load:%#x->%s", firstBytes, lastTransitField),
}
