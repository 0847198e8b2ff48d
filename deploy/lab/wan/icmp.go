package wan

import "encoding/binary"

// complaint is what a gateway tells the sender of a packet that it does not forward.
type complaint int

const (
	expired  complaint = iota // the time to live is over
	tooLarge                  // packet too big; fragmentation needed
)

const (
	quotedV4 = 20 + 128  // of the packet at fault; more than the 8 bytes of RFC 792, as RFC 1812 wants
	quotedV6 = 1280 - 48 // RFC 4443: as much as fits the smallest MTU
)

// answer builds an ICMP error about packet, which came from port in. Errors about errors, and about what has no one to
// tell, are not sent.
func (r *router) answer(in int, packet []byte, c complaint, mtu int) move {
	var out []byte
	if packet[0]>>4 == 4 {
		out = r.answerV4(in, packet, c, mtu)
	} else {
		out = r.answerV6(in, packet, c, mtu)
	}
	if out == nil {
		return nowhere
	}
	return move{to: in, frame: out, direct: true}
}

func (r *router) answerV4(in int, packet []byte, c complaint, mtu int) []byte {
	g := r.ports[in].gateway[0]
	head := int(packet[0]&15) * 4
	isError := packet[9] == 1 && (len(packet) <= head || packet[head] != 8 && packet[head] != 0)
	if !g.IsValid() || isError || c == tooLarge && packet[6]&0x40 == 0 {
		return nil
	}
	quoted := packet[:min(len(packet), quotedV4)]
	out := make([]byte, etherLen+28+len(quoted))
	ether(out, r.ports[in].station, typeIPv4)
	p := out[etherLen:]
	p[0], p[8], p[9] = 0x45, 64, 1
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	from := g.As4()
	copy(p[12:], from[:])
	copy(p[16:], packet[12:16])
	binary.BigEndian.PutUint16(p[10:], ^sum(0, p[:20]))
	i := p[20:]
	if i[0] = 11; c == tooLarge {
		i[0], i[1] = 3, 4
		binary.BigEndian.PutUint16(i[6:], uint16(mtu)) // RFC 1191
	}
	copy(i[8:], quoted)
	binary.BigEndian.PutUint16(i[2:], ^sum(0, i))
	return out
}

func (r *router) answerV6(in int, packet []byte, c complaint, mtu int) []byte {
	g := r.ports[in].gateway[1]
	isError := packet[6] == protoICMPv6 && (len(packet) <= 40 || packet[40] < 128)
	if !g.IsValid() || isError || packet[8] == 0xff {
		return nil
	}
	quoted := packet[:min(len(packet), quotedV6)]
	out := make([]byte, etherLen+48+len(quoted))
	ether(out, r.ports[in].station, typeIPv6)
	p := out[etherLen:]
	ipv6Header(p, 8+len(quoted), g.As16(), [16]byte(packet[8:24]))
	i := p[40:]
	if i[0] = 3; c == tooLarge {
		i[0] = 2
		binary.BigEndian.PutUint32(i[4:], uint32(mtu))
	}
	copy(i[8:], quoted)
	checksumV6(p)
	return out
}

func ipv6Header(p []byte, payload int, from, to [16]byte) {
	p[0], p[6], p[7] = 0x60, protoICMPv6, 255
	binary.BigEndian.PutUint16(p[4:], uint16(payload))
	copy(p[8:], from[:])
	copy(p[24:], to[:])
}

// checksumV6 fills in the checksum of an ICMPv6 packet: over the pseudo header, then the message (RFC 8200).
func checksumV6(p []byte) {
	message := p[40:]
	s := sum(uint32(len(message))+protoICMPv6, p[8:40])
	binary.BigEndian.PutUint16(message[2:], ^sum(uint32(s), message))
}

// sum is the ones' complement sum of b in 16-bit words, on top of start.
func sum(start uint32, b []byte) uint16 {
	s := start
	for ; len(b) > 1; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
