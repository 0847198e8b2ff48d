// Package toobig writes the answer to a packet that is too large for its path, so that its sender makes smaller ones (path
// MTU discovery, RFC 1191 and RFC 8201) and not wait for what was dropped. It is pure: a frame in, a frame out.
package toobig

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	etherLen  = 14
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	quoted4   = 548  // of the packet, at most: the answer has at most 576 bytes (RFC 1812, 4.3.2.3)
	quoted6   = 1184 // the answer has at most the smallest MTU of IPv6 (RFC 4443, 2.4)
)

// Answer returns the frame that tells the sender of frame that its packet is larger than mtuBytes, addressed back with the
// addresses of frame exchanged. The answer's source is the packet's destination: the sender's kernel takes nothing from its
// own address. An IPv4 packet is answered whether or not it may be fragmented, since nobody here cuts it. False where no
// answer is due: what is no IP packet, an error message itself, a broadcast, or a fragment that is not the first.
func Answer(frame []byte, mtuBytes int) ([]byte, bool) {
	if len(frame) < etherLen || frame[0]&1 != 0 {
		return nil, false
	}
	packet := frame[etherLen:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case etherIPv4:
		return answer4(frame, packet, mtuBytes)
	case etherIPv6:
		return answer6(frame, packet, mtuBytes)
	}
	return nil, false
}

func answer4(frame, packet []byte, mtu int) ([]byte, bool) {
	h, err := ipv4.ParseHeader(packet)
	if err != nil || h.FragOff != 0 || h.Len > len(packet) || h.Src.IsMulticast() || h.Dst.IsMulticast() || isError4(h, packet) {
		return nil, false
	}
	quote := packet[:min(len(packet), quoted4)]
	body, err := (&icmp.Message{Type: ipv4.ICMPTypeDestinationUnreachable, Code: 4, Body: &icmp.RawBody{
		Data: append([]byte{0, 0, byte(mtu >> 8), byte(mtu)}, quote...),
	}}).Marshal(nil)
	if err != nil {
		return nil, false
	}
	out := ether(frame, etherIPv4)
	total := ipv4.HeaderLen + len(body)
	head := make([]byte, ipv4.HeaderLen)
	head[0], head[8], head[9] = 4<<4|ipv4.HeaderLen/4, 64, 1
	binary.BigEndian.PutUint16(head[2:], uint16(total))
	copy(head[12:], h.Dst.To4())
	copy(head[16:], h.Src.To4())
	binary.BigEndian.PutUint16(head[10:], checksum(head))
	return append(append(out, head...), body...), true
}

// isError4 reports an ICMP error message, to which no error may be answered (RFC 1122, 3.2.2).
func isError4(h *ipv4.Header, packet []byte) bool {
	if h.Protocol != 1 || len(packet) <= h.Len {
		return false
	}
	t := ipv4.ICMPType(packet[h.Len])
	return t != ipv4.ICMPTypeEcho && t != ipv4.ICMPTypeEchoReply && t != ipv4.ICMPTypeTimestamp && t != ipv4.ICMPTypeTimestampReply
}

func answer6(frame, packet []byte, mtu int) ([]byte, bool) {
	h, err := ipv6.ParseHeader(packet)
	if err != nil || h.Src.IsMulticast() || h.Dst.IsMulticast() {
		return nil, false
	}
	if h.NextHeader == 58 && len(packet) > ipv6.HeaderLen && packet[ipv6.HeaderLen] < 128 {
		return nil, false // an error message (RFC 4443, 2.4)
	}
	src, dst := netip.AddrFrom16([16]byte(h.Dst.To16())), netip.AddrFrom16([16]byte(h.Src.To16()))
	body, err := (&icmp.Message{Type: ipv6.ICMPTypePacketTooBig, Body: &icmp.PacketTooBig{
		MTU: mtu, Data: packet[:min(len(packet), quoted6)],
	}}).Marshal(icmp.IPv6PseudoHeader(src.AsSlice(), dst.AsSlice()))
	if err != nil {
		return nil, false
	}
	head := make([]byte, ipv6.HeaderLen)
	head[0], head[6], head[7] = 6<<4, 58, 64
	binary.BigEndian.PutUint16(head[4:], uint16(len(body)))
	copy(head[8:], src.AsSlice())
	copy(head[24:], dst.AsSlice())
	return append(append(ether(frame, etherIPv6), head...), body...), true
}

// ether is the Ethernet header of an answer.
func ether(frame []byte, kind uint16) []byte {
	out := make([]byte, 0, etherLen+576)
	out = append(append(out, frame[6:12]...), frame[:6]...)
	return binary.BigEndian.AppendUint16(out, kind)
}

// checksum is the Internet checksum (RFC 1071) of a header whose checksum field is zero.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
