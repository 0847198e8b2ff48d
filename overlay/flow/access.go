package flow

import (
	"fmt"
	"net/netip"
)

// access is for frames of this node's programs and guests. Questions for addresses are answered here: nothing of ARP, ND,
// DHCP or a spanning tree ever leaves the node.
func (b *builder) access() {
	b.add(tableAccess, 0, "")
	b.answerARP()
	if b.Self.Net6.IsValid() {
		b.answerND()
	}
	for _, t := range []int{130, 131, 132, 133, 134, 135, 136, 137, 143} { // multicast listeners, routers, neighbours
		b.add(tableAccess, 90, fmt.Sprintf("icmp6,icmp_type=%d", t))
	}
	for _, m := range []string{fmt.Sprintf("dl_type=%#x", etherProbe), "arp", "udp,tp_dst=67", "udp,tp_dst=68", "udp6,tp_dst=546", "udp6,tp_dst=547", "ip,nw_proto=2"} {
		b.add(tableAccess, 90, m)
	}
	b.add(tableAccess, 80, ourMACs, resubmit(tableOrigin), resubmit(tableHost), resubmit(tableOut))
	b.add(tableAccess, 70, "ip,"+toMany, resubmit(tableOrigin), resubmit(tableSpread))
	b.add(tableAccess, 70, "ipv6,"+toMany, resubmit(tableOrigin), resubmit(tableSpread))
}

// ourMACs matches frames to machines of the network.
const ourMACs = "dl_dst=02:76:00:00:00:00/ff:ff:ff:ff:00:00"

// toMany matches broadcasts and multicasts.
const toMany = "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00"

// asIfTo makes a question look like a frame to the machine that is asked for, so that the host table can be asked for it.
// Of what that table may change the asker's address is put back: the answer goes there.
func asIfTo(field string) []string {
	return []string{"set_field:02:76:00:00:00:00->eth_dst", "move:" + field + "[0..15]->NXM_OF_ETH_DST[0..15]",
		"move:NXM_OF_ETH_SRC[16..31]->NXM_NX_REG6[0..15]", resubmit(tableHost), "move:NXM_NX_REG6[0..15]->NXM_OF_ETH_SRC[16..31]"}
}

// answerARP answers for every host that is known (RFC 826): its MAC follows from its address. Nobody is told of his own
// address, or he would take it for taken (RFC 5227).
func (b *builder) answerARP() {
	ask := asIfTo("NXM_OF_ARP_TPA")
	b.add(tableAccess, 100, "arp,arp_op=1,arp_tpa="+b.Self.Net4.String(), append(ask, resubmit(tableARP))...)
	b.ownQuestions(func(port string, a netip.Addr) {
		b.add(tableAccess, 110, fmt.Sprintf("arp,in_port=%s,arp_tpa=%s", port, a))
	}, b.Self.Net4)
	b.add(tableARP, 10, "reg2=0")
	b.add(tableARP, 5, "arp",
		"move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]",
		"move:NXM_OF_ARP_SPA[]->NXM_NX_REG0[]", "move:NXM_OF_ARP_TPA[]->NXM_OF_ARP_SPA[]", "move:NXM_NX_REG0[]->NXM_OF_ARP_TPA[]",
		"move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[]",
		"set_field:02:76:00:00:00:00->eth_src", "move:NXM_OF_ARP_SPA[0..15]->NXM_OF_ETH_SRC[0..15]",
		"move:NXM_OF_ETH_SRC[]->NXM_NX_ARP_SHA[]", "set_field:2->arp_op", "IN_PORT")
}

// answerND does the same for IPv6 (RFC 4861, 7.2.4: solicited, override).
func (b *builder) answerND() {
	ask := asIfTo("NXM_NX_ND_TARGET")
	ours := netip.PrefixFrom(Slot(0).Addr6(b.Self.Net6), 112) // the rest of the /64 belongs to nobody, least of all to a slot
	b.add(tableAccess, 100, "icmp6,icmp_type=135,icmp_code=0,nd_target="+ours.String(), append(ask, resubmit(tableND))...)
	b.ownQuestions(func(port string, a netip.Addr) {
		b.add(tableAccess, 110, fmt.Sprintf("icmp6,icmp_type=135,icmp_code=0,in_port=%s,nd_target=%s", port, a))
	}, b.Self.Net6)
	b.add(tableND, 10, "reg2=0")
	if b.AskAgent { // its answer is for the fixed address of a guest; see control
		b.add(tableND, 5, "icmp6,icmp_type=135,icmp_code=0", resubmit(tableOrigin), fmt.Sprintf("output:%d", b.Ports.Control))
		return
	}
	b.add(tableND, 5, "icmp6,icmp_type=135,icmp_code=0",
		"move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]", "move:NXM_NX_IPV6_SRC[]->NXM_NX_IPV6_DST[]", "move:NXM_NX_ND_TARGET[]->NXM_NX_IPV6_SRC[]",
		"set_field:02:76:00:00:00:00->eth_src", "move:NXM_NX_ND_TARGET[0..15]->NXM_OF_ETH_SRC[0..15]",
		"set_field:136->icmpv6_type", resubmit(tableNDReply))
	b.add(tableNDReply, 5, "icmp6,icmp_type=136,icmp_code=0",
		"set_field:2->nd_options_type", "set_field:0x60000000->nd_reserved", "move:NXM_OF_ETH_SRC[]->NXM_NX_ND_TLL[]", "IN_PORT")
}

// ownQuestions calls f for this node and each guest with its port and its address in net.
func (b *builder) ownQuestions(f func(port string, a netip.Addr), net netip.Prefix) {
	addr := func(s Slot) netip.Addr {
		if net.Addr().Is4() {
			return s.Addr4(net)
		}
		return s.Addr6(net)
	}
	f("LOCAL", addr(b.Self.Slot))
	for _, h := range b.guests() {
		f(fmt.Sprint(h.Port), addr(h.Slot))
	}
}
