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
// gateway to the nodes of its site.
const (
	spreadUp    = 3
	spreadRelay = 2
	spreadLeaf  = 1
	spreadDown  = 0
)

// broadcast makes the tree: with n sites, a gateway makes about √n copies for relays and √n for its own group.
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
	}
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

// speaker is the gateway that takes broadcasts for a site: of its gateways the one with the lowest label, by the records
// alone, so that every node means the same.
type speaker struct {
	l    label.Label
	own  bool
	dst  netip.Addr
	site string
}

// groups divides the sites into groups of about √n, the same on every node with the same records.
func (b *builder) groups() [][]speaker {
	bySite := map[string]speaker{}
	for _, g := range b.Gateways {
		if s, ok := bySite[g.Site]; !ok || g.Label < s.l {
			bySite[g.Site] = speaker{l: g.Label, dst: b.link[g.Label], site: g.Site}
		}
	}
	var all []speaker
	for _, s := range bySite {
		all = append(all, s)
	}
	if len(b.Self.Labels) > 0 {
		all = append(all, speaker{l: slices.Min(b.Self.Labels), own: true})
	}
	slices.SortFunc(all, func(x, y speaker) int { return cmp.Compare(x.l, y.l) })
	size := int(math.Ceil(math.Sqrt(float64(len(all)))))
	return slices.Collect(slices.Chunk(all, max(1, size)))
}

// tree is a broadcast of this site to all others: straight to those of our group, and one copy to each other group.
func (b *builder) tree() []string {
	var leaves, relays []string
	for _, group := range b.groups() {
		ours := slices.ContainsFunc(group, func(s speaker) bool { return s.own })
		for _, s := range group {
			if s.own || !s.dst.IsValid() {
				continue
			}
			if ours {
				leaves = append(leaves, b.copyTo(s.dst)...)
				continue
			}
			relays = append(relays, b.copyTo(s.dst)...)
			break // one relay for the group
		}
	}
	key := func(budget uint8) string {
		return setKey(label.Key{Budget: budget, Src: b.Self.Label, Dst: label.Broadcast})
	}
	var out []string
	if leaves != nil {
		out = append(append(out, key(spreadLeaf)), leaves...)
	}
	if relays != nil {
		out = append(append(out, key(spreadRelay)), relays...)
	}
	return out
}

// groupCopies are what a relay sends to the other sites of its group.
func (b *builder) groupCopies() []string {
	out := []string{setBudget(spreadLeaf)}
	for _, group := range b.groups() {
		if !slices.ContainsFunc(group, func(s speaker) bool { return s.own }) {
			continue
		}
		for _, s := range group {
			if !s.own && s.dst.IsValid() {
				out = append(out, b.copyTo(s.dst)...)
			}
		}
	}
	if len(out) == 1 {
		return nil
	}
	return out
}
