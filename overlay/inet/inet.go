// Package inet makes the headers of packets that the agent itself sends in frames: its answers to guests and senders.
package inet

import (
	"encoding/binary"
	"net/netip"
)

// Ethernet's header and what stands in it.
const (
	EtherLen  = 14
	EtherIPv4 = 0x0800
	EtherIPv6 = 0x86dd
)

// Lengths of headers without options, bytes.
const (
	IPv4Len = 20
	IPv6Len = 40
)

// Ether begins a frame.
func Ether(to, from []byte, kind uint16) []byte {
	out := make([]byte, 0, 600) // most answers fit
	return binary.BigEndian.AppendUint16(append(append(out, to...), from...), kind)
}

// AppendIPv4 appends a packet (RFC 791) that is no fragment, with a time to live of 64.
func AppendIPv4(out []byte, protocol byte, src, dst netip.Addr, body []byte) []byte {
	head := make([]byte, IPv4Len)
	head[0], head[8], head[9] = 4<<4|IPv4Len/4, 64, protocol
	binary.BigEndian.PutUint16(head[2:], uint16(IPv4Len+len(body)))
	copy(head[12:], src.AsSlice())
	copy(head[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(head[10:], Checksum(head))
	return append(append(out, head...), body...)
}

// AppendIPv6 appends a packet (RFC 8200).
func AppendIPv6(out []byte, next, hops byte, src, dst netip.Addr, body []byte) []byte {
	out = append(out, 6<<4, 0, 0, 0)
	out = append(binary.BigEndian.AppendUint16(out, uint16(len(body))), next, hops)
	out = append(append(out, src.AsSlice()...), dst.AsSlice()...)
	return append(out, body...)
}

// Checksum is the Internet checksum (RFC 1071) of b, whose own place for it is zero; of what has its checksum it is zero.
func Checksum(b []byte) uint16 {
	sum := uint32(0)
	for i, c := range b {
		sum += uint32(c) << (8 * (1 - i&1))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
