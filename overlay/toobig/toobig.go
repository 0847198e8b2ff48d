// Package toobig writes the answer to a packet that is too large for its path, so that its sender makes smaller ones (path
// MTU discovery, RFC 1191 and RFC 8201) and not wait for what was dropped. It is pure: a frame in, a frame out.
package toobig

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"vcpeer/overlay/inet"
)

const (
	quoted4 = 548  // of the packet, at most: the answer has at most 576 bytes (RFC 1812, 4.3.2.3)
	quoted6 = 1184 // the answer has at most the smallest MTU of IPv6 (RFC 4443, 2.4)
)

// Answer returns the frame that tells the sender of frame that its packet is larger than mtuBytes, addressed back with the
// addresses of frame exchanged. The answer's source is the packet's destination: the sender's kernel takes nothing from its
// own address. An IPv4 packet is answered whether or not it may be fragmented, since nobody here cuts it. False where no
// answer is due: what is no IP packet, an error message itself, a broadcast, or a fragment that is not the first.
func Answer(frame []byte, mtuBytes int) ([]byte, bool) {
	if len(frame) < inet.EtherLen || frame[0]&1 != 0 {
		return nil, false
	}
	packet := frame[inet.EtherLen:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case inet.EtherIPv4:
		return answer4(frame, packet, mtuBytes)
	case inet.EtherIPv6:
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
	src, dst := netip.AddrFrom4([4]byte(h.Dst.To4())), netip.AddrFrom4([4]byte(h.Src.To4()))
	return inet.AppendIPv4(back(frame, inet.EtherIPv4), 1, src, dst, body), true
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
	return inet.AppendIPv6(back(frame, inet.EtherIPv6), 58, 64, src, dst, body), true
}

// back begins the answer to a frame.
func back(frame []byte, kind uint16) []byte { return inet.Ether(frame[6:12], frame[:6], kind) }
