package wan

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

const (
	etherLen = 14
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeIPv6 = 0x86dd

	protoICMPv6 = 58
)

// router decides where frames go. It is pure but for what it learns of its ports.
type router struct {
	ports []*Port
	bits  [2]int               // length of the routed prefixes, by family
	nets  map[netip.Prefix]int // to the port
}

func newRouter(ports []*Port) (*router, error) {
	r := &router{ports: ports, bits: [2]int{-1, -1}, nets: map[netip.Prefix]int{}}
	for i, p := range ports {
		copy(p.station[:], p.Station)
		for _, g := range p.Gateways {
			p.gateway[family(g)] = g
		}
		for _, n := range p.Nets {
			f := family(n.Addr())
			if r.bits[f] >= 0 && r.bits[f] != n.Bits() {
				return nil, errors.New("wan: prefixes of one family differ in length")
			}
			r.bits[f] = n.Bits()
			r.nets[n.Masked()] = i
		}
	}
	return r, nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// move is what to do with a frame: send it to a port, at once or over the line that leads there.
type move struct {
	to     int    // -1: nowhere
	frame  []byte // the frame that came, changed in place, or a new one
	direct bool   // an answer of the gateway itself
	size   int    // of the IP packet
}

var nowhere = move{to: -1}

// handle takes a frame from port in. It may change the frame and returns memory of it.
func (r *router) handle(in int, f []byte) move {
	if len(f) < etherLen || f[6]&1 != 0 {
		return nowhere
	}
	src := mac(f[6:12])
	switch binary.BigEndian.Uint16(f[12:]) {
	case typeARP:
		return r.arp(in, f, src)
	case typeIPv4:
		return r.ipv4(in, f, src)
	case typeIPv6:
		return r.ipv6(in, f, src)
	}
	return nowhere
}

// arp answers every request but those by which a station asks for itself.
func (r *router) arp(in int, f []byte, src mac) move {
	if len(f) < etherLen+28 {
		return nowhere
	}
	r.ports[in].station = src
	a := f[etherLen : etherLen+28]
	request, sender, target := binary.BigEndian.Uint16(a[6:]) == 1, [4]byte(a[14:18]), [4]byte(a[24:28])
	if !request || sender == target || sender == [4]byte{} {
		return nowhere
	}
	out := make([]byte, etherLen+28)
	ether(out, src, typeARP)
	b := out[etherLen:]
	copy(b, []byte{0, 1, 8, 0, 6, 4, 0, 2})
	copy(b[8:], self[:])
	copy(b[14:], target[:])
	copy(b[18:], src[:])
	copy(b[24:], sender[:])
	return move{to: in, frame: out, direct: true}
}

func (r *router) ipv4(in int, f []byte, src mac) move {
	p := f[etherLen:]
	if len(p) < 20 || p[0]>>4 != 4 || mac(f[:6]) != self {
		return nowhere
	}
	size := int(binary.BigEndian.Uint16(p[2:]))
	if size < 20 || size > len(p) {
		return nowhere
	}
	r.ports[in].station = src
	p = p[:size] // short frames are padded
	to, ok := r.lookup(netip.AddrFrom4([4]byte(p[16:20])))
	switch {
	case !ok || to == in && p[9] != 1:
		return nowhere
	case p[8] <= 1:
		return r.answer(in, p, expired, 0)
	}
	p[8]--
	sum := uint32(binary.BigEndian.Uint16(p[10:])) + 0x100 // RFC 1141
	binary.BigEndian.PutUint16(p[10:], uint16(sum+sum>>16))
	ether(f, r.ports[to].station, typeIPv4)
	return move{to: to, frame: f[:etherLen+size], size: size}
}

func (r *router) ipv6(in int, f []byte, src mac) move {
	p := f[etherLen:]
	if len(p) < 40 || p[0]>>4 != 6 {
		return nowhere
	}
	size := 40 + int(binary.BigEndian.Uint16(p[4:]))
	if size > len(p) {
		return nowhere
	}
	p = p[:size]
	if p[6] == protoICMPv6 && size >= 64 && p[40] == 135 && p[7] == 255 {
		return r.solicited(in, p, src)
	}
	dst := netip.AddrFrom16([16]byte(p[24:40]))
	if mac(f[:6]) != self || dst.IsLinkLocalUnicast() {
		return nowhere
	}
	r.ports[in].station = src
	to, ok := r.lookup(dst)
	switch {
	case !ok || to == in:
		return nowhere
	case p[7] <= 1:
		return r.answer(in, p, expired, 0)
	}
	p[7]--
	ether(f, r.ports[to].station, typeIPv6)
	return move{to: to, frame: f[:etherLen+size], size: size}
}

// solicited answers a neighbour solicitation (RFC 4861) but for those of duplicate address detection.
func (r *router) solicited(in int, p []byte, src mac) move {
	asker, target := [16]byte(p[8:24]), [16]byte(p[48:64])
	if asker == [16]byte{} || asker == target {
		return nowhere
	}
	r.ports[in].station = src
	out := make([]byte, etherLen+40+32)
	ether(out, src, typeIPv6)
	q := out[etherLen:]
	ipv6Header(q, 32, target, asker)
	c := q[40:]
	c[0], c[4] = 136, 0xe0 // advertisement: router, solicited, override
	copy(c[8:], target[:])
	c[24], c[25] = 2, 1
	copy(c[26:], self[:])
	checksumV6(q)
	return move{to: in, frame: out, direct: true}
}

func (r *router) lookup(a netip.Addr) (port int, ok bool) {
	f := family(a)
	if r.bits[f] < 0 {
		return 0, false
	}
	n, err := a.Prefix(r.bits[f])
	if err != nil {
		return 0, false
	}
	port, ok = r.nets[n]
	return port, ok
}

// ether writes the head of a frame from the gateway.
func ether(f []byte, to mac, kind uint16) {
	copy(f, to[:])
	copy(f[6:], self[:])
	binary.BigEndian.PutUint16(f[12:], kind)
}
