package flow

import (
	"fmt"
	"net/netip"
	"slices"

	"vcpeer/overlay/label"
)

// sources lets in what comes from the addresses of members: the key of a tunnel is no secret (RFC 2890 says so).
func (b *builder) sources() {
	who := map[netip.Addr]uint32{}
	for _, g := range b.Gateways {
		for _, a := range g.Addrs {
			who[a] |= fromFar
		}
	}
	for _, n := range b.Nodes {
		for _, a := range n.Addrs {
			who[a] |= fromSite
		}
	}
	for a, bits := range who {
		b.add(tableSource, 10, tunnelFrom(a), setReg(5, bits), resubmit(tableTunnel))
	}
	b.add(tableSource, 0, "")
}

// tunnel decides by the key of a frame what becomes of it. Every rule but the last drops what the key does not allow.
func (b *builder) tunnel() {
	b.add(tableTunnel, 0, "")
	down := label.Key{Dst: label.Site}
	b.add(tableTunnel, 30, matchKey(down, keyBudget|keyDst)+","+from(fromSite), resubmit(tableHost), resubmit(tableHere))
	b.add(tableHere, 20, fmt.Sprintf("dl_type=%#x,reg3=%#x", etherProbe, placeHere), fmt.Sprintf("output:%d", b.Ports.Control))
	b.add(tableHere, 10, fmt.Sprintf("reg3=%#x", placeHere), resubmit(tableOut))
	b.add(tableHere, 0, "")
	b.add(tableInSite, 20, fmt.Sprintf("dl_type=%#x,reg3=%#x", etherProbe, placeNear), resubmit(tablePut))
	b.add(tableInSite, 10, fmt.Sprintf("reg3=%#x", placeNear), resubmit(tableOut))
	b.add(tableInSite, 10, fmt.Sprintf("reg3=%#x", placeHere), resubmit(tableOut))
	b.add(tableInSite, 0, "")
	if b.Self.gateway() {
		b.up()
		b.arrive()
	}
	if b.Self.gateway() && b.Self.Transit {
		b.transit()
	}
}

// up lets frames of the site's nodes out of the site; see tablePath for why never up again.
func (b *builder) up() {
	up := label.Key{Budget: 1, Dst: label.Site}
	b.add(tableTunnel, 30, matchKey(up, keyBudget|keyDst)+","+from(fromSite), anyPort, resubmit(tableHost), resubmit(tableOut))
}

// arrive is for frames to this gateway: to the agent, to this node, or down to a node of the site, and never out again.
func (b *builder) arrive() {
	me := label.Key{Dst: b.Self.Label}
	b.add(tableTunnel, 30, matchKey(me, keyDst)+","+from(fromFar), append(append([]string{anyPort}, restore...), resubmit(tableArrive))...)
	b.add(tableArrive, 20, fmt.Sprintf("dl_type=%#x", etherProbe), fmt.Sprintf("output:%d", b.Ports.Control))
	b.add(tableArrive, 10, ourMACs, resubmit(tableHost), resubmit(tableInSite))
	b.add(tableArrive, 0, "")
}

// priorityToSite is above what is sent on by its destination address.
const priorityToSite = 25

// transit sends on what has a budget: to the gateway that the frame names, which no choice of ours changes. Broadcasts come
// here that are for the site of one gateway.
func (b *builder) transit() {
	next := []struct{ field, zero string }{
		{"NXM_NX_TUN_ID[0..13]", ""},
		{"NXM_OF_ETH_DST[16..29]", "load:0->NXM_OF_ETH_DST[16..31]"},
		{"NXM_OF_ETH_SRC[16..29]", "load:0->NXM_OF_ETH_SRC[16..31]"},
	}
	for i, n := range next {
		actions := []string{anyPort, setReg(1, 0), "move:" + n.field + "->NXM_NX_REG1[0..13]", setBudget(uint32(i))}
		if n.zero != "" {
			actions = append(actions, n.zero)
		}
		b.add(tableTunnel, 20, matchKey(label.Key{Budget: uint8(i + 1)}, keyBudget)+","+from(fromFar), append(actions, resubmit(tableLink))...)
	}
	toSite := matchKey(label.Key{Budget: 2}, keyBudget) + "," + from(fromFar) + "," + toMany
	b.add(tableTunnel, priorityToSite, toSite, slices.Concat([]string{anyPort, setReg(1, 0)}, lastTransit, []string{setBudget(1), resubmit(tableLink)})...)
}

// links says where the tunnels go of the links that this gateway offers.
func (b *builder) links() {
	b.add(tableLink, 0, "")
	if !b.Self.gateway() {
		return
	}
	for _, g := range b.Gateways {
		if dst, ok := b.link[g.Label]; ok && g.Offered {
			b.add(tableLink, 10, fmt.Sprintf("reg1=%#x", uint32(g.Label)), tunnelTo(dst), fmt.Sprintf("output:%d", b.Ports.GRE))
		}
	}
}

// control is for frames that the agent puts in: probes, whose MAC addresses say where they go (see package probe), and
// answers to packets that were too large and to questions for addresses.
func (b *builder) control() {
	b.add(tableControl, 0, "")
	b.add(tableControl, 10, ourMACs, resubmit(tableHost), resubmit(tableInSite))
	probe := func(second byte, low string, actions ...string) {
		b.add(tableControl, 20, fmt.Sprintf("dl_type=%#x,dl_dst=02:%02x:00:00:00:00/ff:ff:%s:00:00", etherProbe, second, low), actions...)
	}
	const plain = "set_field:02:76:00:00:00:00/ff:ff:00:00:00:00->eth_dst"
	probe(0x7f, "ff:ff", plain, resubmit(tableHost), resubmit(tableInSite))
	if !b.Self.gateway() {
		return
	}
	const toDst = "move:NXM_OF_ETH_DST[0..13]->NXM_NX_TUN_ID[0..13]"
	probe(0x7a, "ff:ff", setKey(label.Key{Src: b.Self.Label}), toDst, "move:NXM_OF_ETH_SRC[0..31]->NXM_NX_TUN_IPV4_DST[]",
		fmt.Sprintf("output:%d", b.Ports.GRE))
	for l, a := range b.clear6() {
		match := fmt.Sprintf("dl_type=%#x,dl_dst=02:7b:00:00:%02x:%02x", etherProbe, byte(l>>8), byte(l))
		b.add(tableControl, 20, match, setKey(label.Key{Src: b.Self.Label, Dst: l}), tunnelTo(a), fmt.Sprintf("output:%d", b.Ports.GRE))
	}
	for budget := byte(0); budget <= label.MaxTransit; budget++ {
		probe(0x76+budget, "00:00", setKey(label.Key{Budget: budget, Src: b.Self.Label}), toDst,
			setReg(1, 0), "move:NXM_OF_ETH_SRC[0..13]->NXM_NX_REG1[0..13]", plain, resubmit(tableLink))
	}
}

// clear6 is where probes over IPv6 go. Of two that claim one label the lower address counts, until one of them repairs it.
func (b *builder) clear6() map[label.Label]netip.Addr {
	out := map[label.Label]netip.Addr{}
	for _, g := range b.Gateways {
		if a, ok := out[g.Label]; g.Clear6.IsValid() && g.Label.Valid() && (!ok || g.Clear6.Less(a)) {
			out[g.Label] = g.Clear6
		}
	}
	return out
}
