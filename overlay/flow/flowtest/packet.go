package flowtest

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Local is OFPP_LOCAL, the bridge's own interface.
const Local = 0xfffe

// field is what a rule can match or change.
type field int

const (
	inPort field = iota
	ethSrc
	ethDst
	ethType
	ipProto
	tpDst // also an ICMP type's code
	icmpType
	icmpCode
	ipv6Src
	ipv6Dst
	arpOp
	arpSPA
	arpTPA
	arpSHA
	arpTHA
	ndTarget
	ndType
	ndReserved
	ndTLL
	tunID
	tunSrc
	tunDst
	tunSrc6
	tunDst6
	reg0
	reg1
	reg2
	reg3
	reg4
	reg5
	reg6
	reg7
	fields
)

// names are all words for a field: in matches, in set_field and in move.
var names = map[string]struct {
	f     field
	width int
}{
	"in_port": {inPort, 16}, "NXM_OF_IN_PORT": {inPort, 16},
	"dl_src": {ethSrc, 48}, "eth_src": {ethSrc, 48}, "NXM_OF_ETH_SRC": {ethSrc, 48},
	"dl_dst": {ethDst, 48}, "eth_dst": {ethDst, 48}, "NXM_OF_ETH_DST": {ethDst, 48},
	"dl_type": {ethType, 16}, "eth_type": {ethType, 16},
	"nw_proto": {ipProto, 8}, "tp_dst": {tpDst, 16}, "udp_dst": {tpDst, 16},
	"icmp_type": {icmpType, 8}, "icmpv6_type": {icmpType, 8}, "icmp_code": {icmpCode, 8},
	"ipv6_src": {ipv6Src, 128}, "NXM_NX_IPV6_SRC": {ipv6Src, 128}, "ipv6_dst": {ipv6Dst, 128}, "NXM_NX_IPV6_DST": {ipv6Dst, 128},
	"arp_op": {arpOp, 16}, "arp_spa": {arpSPA, 32}, "NXM_OF_ARP_SPA": {arpSPA, 32}, "arp_tpa": {arpTPA, 32}, "NXM_OF_ARP_TPA": {arpTPA, 32},
	"arp_sha": {arpSHA, 48}, "NXM_NX_ARP_SHA": {arpSHA, 48}, "arp_tha": {arpTHA, 48}, "NXM_NX_ARP_THA": {arpTHA, 48},
	"nd_target": {ndTarget, 128}, "NXM_NX_ND_TARGET": {ndTarget, 128}, "nd_options_type": {ndType, 8}, "nd_reserved": {ndReserved, 32},
	"nd_tll": {ndTLL, 48}, "NXM_NX_ND_TLL": {ndTLL, 48},
	"tun_id": {tunID, 64}, "NXM_NX_TUN_ID": {tunID, 64}, "tun_src": {tunSrc, 32}, "tun_dst": {tunDst, 32}, "NXM_NX_TUN_IPV4_DST": {tunDst, 32},
	"tun_ipv6_src": {tunSrc6, 128}, "tun_ipv6_dst": {tunDst6, 128},
	"reg0": {reg0, 32}, "reg1": {reg1, 32}, "reg2": {reg2, 32}, "reg3": {reg3, 32},
	"reg4": {reg4, 32}, "reg5": {reg5, 32}, "reg6": {reg6, 32}, "reg7": {reg7, 32},
	"NXM_NX_REG0": {reg0, 32}, "NXM_NX_REG1": {reg1, 32}, "NXM_NX_REG2": {reg2, 32}, "NXM_NX_REG3": {reg3, 32},
	"NXM_NX_REG4": {reg4, 32}, "NXM_NX_REG5": {reg5, 32}, "NXM_NX_REG6": {reg6, 32}, "NXM_NX_REG7": {reg7, 32},
}

// part is some bits of a field, as "NXM_NX_REG2[0..15]".
type part struct {
	f        field
	from, to int
}

func (p part) width() int { return p.to - p.from + 1 }

func parsePart(s string) (part, error) {
	name, bits, ok := strings.Cut(strings.TrimSuffix(s, "]"), "[")
	n, known := names[name]
	if !known {
		return part{}, fmt.Errorf("flowtest: unknown field %q", s)
	}
	p := part{n.f, 0, n.width - 1}
	if !ok || bits == "" {
		return p, nil
	}
	from, to, two := strings.Cut(bits, "..")
	var err error
	if p.from, err = strconv.Atoi(from); err != nil {
		return p, fmt.Errorf("flowtest: bits of %q", s)
	}
	p.to = p.from
	if two {
		if p.to, err = strconv.Atoi(to); err != nil {
			return p, fmt.Errorf("flowtest: bits of %q", s)
		}
	}
	if p.from > p.to || p.to >= n.width {
		return p, fmt.Errorf("flowtest: bits of %q: the field has %d", s, n.width)
	}
	return p, nil
}

// Packet is a frame with all that a bridge knows of it.
type Packet struct {
	v    [fields]wide
	Size int // bytes, with the 14 of the Ethernet header
}

// Frame is an empty frame that comes in by a port.
func Frame(port uint16) Packet {
	p := Packet{Size: 64}
	p.v[inPort] = wide{lo: uint64(port)}
	return p
}

// With returns p with a field set, both as ovs-ofctl writes them; what it does not write is a panic.
func (p Packet) With(name, v string) Packet {
	n, ok := names[name]
	w, err := value(v)
	if !ok || err != nil {
		panic(fmt.Sprintf("no field %s=%s", name, v))
	}
	p.v[n.f] = w
	return p
}

// Get returns the lower 64 bits of a field.
func (p Packet) Get(name string) uint64 { return p.v[names[name].f].lo }

// Addr6 returns a field that holds an IPv6 address.
func (p Packet) Addr6(name string) netip.Addr {
	var b [16]byte
	w := p.v[names[name].f]
	for i := range 8 {
		b[i], b[8+i] = byte(w.hi>>(56-8*i)), byte(w.lo>>(56-8*i))
	}
	return netip.AddrFrom16(b)
}

// MAC returns a field that holds an Ethernet address.
func (p Packet) MAC(name string) string {
	v := p.Get(name)
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", byte(v>>40), byte(v>>32), byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

func (p Packet) read(s part) wide { return p.v[s.f].right(s.from).and(ones(s.width())) }

func (p *Packet) write(s part, v wide) {
	mask := ones(s.width()).left(s.from)
	p.v[s.f] = p.v[s.f].and(mask.not()).or(v.left(s.from).and(mask))
}

// wire is what is left of a packet on its way to another bridge.
func (p Packet) wire() Packet {
	for f := tunSrc; f < fields; f++ {
		p.v[f] = wide{}
	}
	return p
}
