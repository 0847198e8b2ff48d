package flow

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"vcpeer/overlay/label"
)

// The tables, by the order in which frames meet them.
const (
	tableIn       = 0
	tableAccess   = 10
	tableARP      = 11 // answers a request for a host that was found
	tableControl  = 12
	tableND       = 13
	tableNDReply  = 14
	tableOrigin   = 15 // gives frames of guests the fixed address of the guest
	tableHost     = 20
	tablePath     = 21
	tableOut      = 22
	tableGuest    = 23 // learned: the address that the guest itself uses
	tablePut      = 24
	tableSource   = 30
	tableTunnel   = 31
	tableArrive   = 32
	tableHere     = 34 // what came down: it ends here
	tableInSite   = 35 // what came from another site: it stays in this one
	tableLink     = 36
	tableSpread   = 40 // a broadcast of this node
	tableTree     = 41 // of this site, to all others
	tableGroup    = 42 // of another site, to the sites of our group
	tableSiteCopy = 43 // of another site, to the nodes of this one
	tableHereCopy = 44
)

// Registers between tables.
//
//	reg0[0]  the packet is larger than its path takes
//	reg1     the gateway that a frame is for, or the next on its way
//	reg2     the port to put it out; 0: none
//	reg3     1: the host is at another node of this site, 2: it is here; 0: elsewhere
//	reg4     the longest frame that the way takes, bytes; 0: any
//	reg5     what the sender of a tunnelled frame is: bit 0 a gateway of another site, bit 1 a node of this one; 0: no tunnel
//	reg6     what an answer to a question keeps
const (
	placeNear  = 1
	placeHere  = 2
	fromFar    = 1
	fromSite   = 2
	viaGroup   = 0xff00 // in reg2: the group of reg1
	etherProbe = 0x88b5 // IEEE 802 local experimental: the agents' own frames
)

// LearnedCookie is the cookie of flows that Open vSwitch itself makes in tableGuest: they are ours, and nobody's to remove
// but with their port.
const LearnedCookie = uint64(Magic)<<48 | 1

// DataTable is the table that every unicast frame goes through that programs or guests sent or are to get, on its way out,
// and no frame of the agents.
const DataTable = tableOut

// HostTable is the table whose flows each match the MAC address of a machine, of frames that are to go to it.
const HostTable = tableHost

// builder collects the flows for one Want.
type builder struct {
	Want
	out  Tables
	link map[label.Label]netip.Addr // where tunnels to a gateway go
}

// Build returns the tables for w. Equal inputs, in whatever order their lists are, give equal tables.
func Build(w Want) Tables {
	b := &builder{Want: w, link: map[label.Label]netip.Addr{}}
	for _, g := range w.Gateways {
		if !g.Dst.IsValid() || !g.Label.Valid() || slices.Contains(w.Self.Labels, g.Label) {
			continue
		}
		if a, ok := b.link[g.Label]; !ok || g.Dst.Less(a) { // two claim the label, until one of them repairs it
			b.link[g.Label] = g.Dst
		}
	}
	b.in()
	b.access()
	b.control()
	b.hosts()
	b.outlets()
	b.sources()
	b.tunnel()
	b.links()
	b.broadcast()
	b.out.sort()
	b.out.Flows = slices.CompactFunc(b.out.Flows, func(a, b Flow) bool {
		return a.Table == b.Table && a.Priority == b.Priority && a.Match == b.Match
	})
	return b.out
}

// add puts a flow down; actions without any means drop.
func (b *builder) add(table uint8, priority uint16, match string, actions ...string) {
	if len(actions) == 0 {
		actions = []string{"drop"}
	}
	b.out.Flows = append(b.out.Flows, Flow{table, priority, match, strings.Join(actions, ",")})
}

func resubmit(table uint8) string { return fmt.Sprintf("resubmit(,%d)", table) }

func setReg(n int, v uint32) string { return fmt.Sprintf("set_field:%#x->reg%d", v, n) }

// tunnelTo sends tunnels to an address.
func tunnelTo(a netip.Addr) string {
	if a.Is4() {
		return fmt.Sprintf("set_field:%s->tun_dst", a)
	}
	return fmt.Sprintf("set_field:0.0.0.0->tun_dst,set_field:%s->tun_ipv6_dst", a) // an IPv4 address would win
}

// tunnelFrom matches tunnels that come from an address.
func tunnelFrom(a netip.Addr) string {
	if a.Is4() {
		return fmt.Sprintf("tun_src=%s", a)
	}
	return fmt.Sprintf("tun_ipv6_src=%s", a)
}

func setKey(k label.Key) string { return fmt.Sprintf("set_field:%#x->tun_id", k.Pack()) }

// setBudget changes the budget of the key and leaves the rest.
func setBudget(n uint32) string { return fmt.Sprintf("set_field:%#x/%#x->tun_id", n<<28, keyBudget) }

// setDst changes the destination of the key and leaves the rest.
func setDst(l label.Label) string {
	return fmt.Sprintf("set_field:%#x/%#x->tun_id", uint16(l), keyDst)
}

// Masks of the parts of a key, for matchKey.
const (
	keyVersion = 0xc0000000
	keyBudget  = 0x30000000
	keySrc     = 0x0fffc000
	keyDst     = 0x00003fff
)

// matchKey matches the version and the parts of k that mask names.
func matchKey(k label.Key, mask uint32) string {
	mask |= keyVersion
	return fmt.Sprintf("tun_id=%#x/%#x", k.Pack()&mask, mask)
}

func from(who int) string { return fmt.Sprintf("reg5=%#x/%#x", who, who) }

// anyPort lets a frame out of the port that it came in by, which a bridge otherwise refuses.
const anyPort = "set_field:0->in_port"

// in sorts frames by the port that they come in by.
func (b *builder) in() {
	b.add(tableIn, 0, "")
	b.add(tableIn, 100, fmt.Sprintf("in_port=%d", b.Ports.GRE), resubmit(tableSource))
	for _, port := range b.Ports.Protected {
		b.add(tableIn, 100, fmt.Sprintf("in_port=%d", port), resubmit(tableSource))
	}
	b.add(tableIn, 100, fmt.Sprintf("in_port=%d", b.Ports.Control), resubmit(tableControl))
	b.add(tableIn, 100, fmt.Sprintf("in_port=LOCAL,dl_src=%s", b.Self.Slot.MAC()), resubmit(tableAccess))
	for _, h := range b.guests() {
		b.add(tableIn, 100, fmt.Sprintf("in_port=%d", h.Port), learnGuest(), resubmit(tableAccess))
		b.add(tableOrigin, 10, fmt.Sprintf("in_port=%d", h.Port), fmt.Sprintf("set_field:%s->eth_src", h.Slot.MAC()))
	}
}

// learnGuest notes the address that a guest uses itself, so that frames to it can be given that one again, also while no
// agent runs.
func learnGuest() string {
	return fmt.Sprintf("learn(table=%d,priority=10,cookie=%#x,NXM_NX_REG2[0..15]=NXM_OF_IN_PORT[],"+
		"load:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],output:NXM_OF_IN_PORT[])", tableGuest, LearnedCookie)
}

// guests are the hosts at ports of this bridge, this node itself left out.
func (b *builder) guests() []Host {
	var out []Host
	for _, h := range b.Hosts {
		if h.Port != 0 && h.Port != local {
			out = append(out, h)
		}
	}
	return out
}
