package flow

import (
	"fmt"
	"net/netip"
	"slices"

	"vcpeer/overlay/label"
)

// hosts says where each machine is, and how the gateways of other sites are reached. Where a site has one machine its
// path stands with the machine: a thousand sites are a thousand flows, not two thousand.
func (b *builder) hosts() {
	count := map[label.Label]int{}
	for _, h := range b.Hosts {
		count[h.Far]++
	}
	mtu := map[netip.Addr]int{}
	for _, n := range b.Nodes {
		mtu[n.Dst] = n.MTU
	}
	paths := map[label.Label][]string{}
	for _, p := range b.Paths {
		if ways := b.way(p); ways != nil {
			paths[p.To] = ways
			if count[p.To] > 1 {
				b.add(tablePath, 10, fmt.Sprintf("reg1=%#x", uint32(p.To)), ways...)
			}
		}
	}
	if !b.Self.gateway() && b.Self.Uplink.IsValid() {
		b.add(tablePath, 1, "reg5=0", append(b.check(mtu[b.Self.Uplink]), setKey(label.Key{Budget: 1, Dst: label.Site}),
			tunnelTo(b.Self.Uplink), b.outBy(b.Ports.GRE))...) // of frames from tunnels none: what came up never goes up again
	}
	b.add(tablePath, 0, "")
	for _, h := range b.Hosts {
		match := fmt.Sprintf("dl_dst=%s", h.Slot.MAC())
		switch {
		case h.Port != 0:
			b.add(tableHost, 10, match, setReg(3, placeHere), b.outBy(h.Port))
		case h.Near.IsValid():
			b.add(tableHost, 10, match, append(b.check(mtu[h.Near]), setReg(3, placeNear),
				setKey(label.Key{Src: b.Self.Label, Dst: label.Site}), tunnelTo(h.Near), b.outBy(b.Ports.GRE))...)
		case !b.Self.gateway():
			b.add(tableHost, 10, match, resubmit(tablePath))
		case count[h.Far] > 1:
			b.add(tableHost, 10, match, setReg(1, uint32(h.Far)), resubmit(tablePath))
		case paths[h.Far] != nil:
			b.add(tableHost, 10, match, append([]string{setReg(1, uint32(h.Far))}, paths[h.Far]...)...)
		}
	}
	b.add(tableHost, 0, "")
}

func (b *builder) outBy(port uint16) string { return setReg(2, uint32(port)) }

// way returns the actions that put a frame on a path; nil if it cannot be gone.
func (b *builder) way(p Path) []string {
	if !b.Self.gateway() {
		return nil
	}
	straight := b.leg(p.To, p.Via)
	if straight == nil {
		return nil
	}
	out := b.check(p.MTU)
	if port := b.Ports.Protected[firstHop(p.To, p.Via)]; p.Watched && port != 0 {
		b.group(p, port)
		return append(out, setReg(2, viaGroup))
	}
	return append(append(out, straight...), b.outBy(b.Ports.GRE))
}

// check has packets looked at that are too large for a path of mtu bytes, if any can come. The look itself is in tableOut,
// behind which nothing comes: Open vSwitch follows for either answer what stands behind check_pkt_larger in the same list,
// and then forgets what that did. The length that it compares has the 14 bytes of the Ethernet header in it.
func (b *builder) check(mtu int) []string {
	if mtu == 0 || mtu >= b.CheckBelow {
		return nil
	}
	longest := uint32(mtu + 14)
	b.add(tableOut, 10, fmt.Sprintf("reg4=%#x", longest), fmt.Sprintf("check_pkt_larger(%d)->NXM_NX_REG0[0]", longest), resubmit(tablePut))
	return []string{setReg(4, longest)}
}

func firstHop(to label.Label, via []label.Label) label.Label {
	if len(via) > 0 {
		return via[0]
	}
	return to
}

// leg returns the actions that address a frame to a gateway over transit gateways; nil if the first is not linked, or a
// path is named that cannot be: too long, or with a gateway twice.
func (b *builder) leg(to label.Label, via []label.Label) []string {
	first, ok := b.firstLink(to, via)
	if !ok {
		return nil
	}
	out := []string{setKey(label.Key{Budget: uint8(len(via)), Src: b.Self.Label, Dst: to}), tunnelTo(first)}
	return append(out, transits(via)...)
}

// firstLink is where tunnels on a path go; false: it cannot be gone.
func (b *builder) firstLink(to label.Label, via []label.Label) (netip.Addr, bool) {
	first, ok := b.link[firstHop(to, via)]
	if !ok || len(via) > label.MaxTransit || slices.Contains(via, to) || slices.Contains(via, b.Self.Label) {
		return netip.Addr{}, false
	}
	for i, l := range via {
		if slices.Contains(via[:i], l) {
			return netip.Addr{}, false
		}
	}
	return first, true
}

// transits puts the second and third transit gateway where those before them look.
func transits(via []label.Label) []string {
	load := func(l label.Label, field string) string {
		return fmt.Sprintf("load:%#x->%s[16..31]", uint16(l), field)
	}
	switch len(via) {
	case 2:
		return []string{load(via[1], "NXM_OF_ETH_DST")}
	case 3:
		return []string{load(via[1], "NXM_OF_ETH_SRC"), load(via[2], "NXM_OF_ETH_DST")}
	}
	return nil
}

// group makes the path of its gateway one that falls over by itself: the first bucket whose port lives is taken, and the
// tunnel port that all share always lives. That the last bucket has: when all ports seem dead at once it is this machine that
// is late, or a switch of another one that restarts, whose kernel goes on forwarding meanwhile.
func (b *builder) group(p Path, port uint16) {
	g := Group{ID: uint32(p.To), Type: "ff"}
	bucket := func(watch uint16, leg []string, out uint16) {
		actions := ""
		for _, a := range leg {
			actions += a + ","
		}
		g.Buckets = append(g.Buckets, fmt.Sprintf("watch_port:%d,actions=%soutput:%d", watch, actions, out))
	}
	last := b.leg(p.To, p.Via)
	bucket(port, last, port)
	for _, via := range p.Backups {
		leg := b.leg(p.To, via)
		if leg == nil {
			continue
		}
		own := b.Ports.Protected[firstHop(p.To, via)]
		if own == 0 {
			last = leg // what comes after is never taken
			break
		}
		bucket(own, leg, own)
	}
	bucket(b.Ports.GRE, last, b.Ports.GRE)
	b.out.Groups = append(b.out.Groups, g)
	b.add(tablePut, 60, fmt.Sprintf("reg1=%#x,reg2=%#x", uint32(p.To), viaGroup), fmt.Sprintf("group:%d", g.ID))
}

// restore are the actions that put back the bytes in which transit gateways travel.
var restore = []string{"load:0->NXM_OF_ETH_DST[16..31]", "load:0->NXM_OF_ETH_SRC[16..31]"}

// outlets puts frames out.
func (b *builder) outlets() {
	b.add(tableOut, 0, "", resubmit(tablePut))
	b.add(tablePut, 100, "reg0=0x1/0x1", append(slices.Clone(restore), fmt.Sprintf("output:%d", b.Ports.Control))...)
	for _, h := range b.guests() {
		b.add(tablePut, 40, fmt.Sprintf("reg2=%#x", h.Port), resubmit(tableGuest))
	}
	b.add(tablePut, 10, "reg2=0")
	b.add(tablePut, 5, "", "output:NXM_NX_REG2[0..15]")
	b.add(tableGuest, 1, "", "output:NXM_NX_REG2[0..15]")
}
