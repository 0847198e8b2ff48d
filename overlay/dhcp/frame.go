package dhcp

import (
	"encoding/binary"
	"net/netip"

	"vcpeer/overlay/inet"
)

// question is what a guest asks, without its headers.
type question struct {
	kind     int
	mac      MAC        // of the sender
	src      netip.Addr // of the sender
	hopLimit byte       // of IPv6
	data     []byte     // DHCP: the UDP payload; router solicitation: the ICMPv6 message
}

const (
	questionDHCP = iota
	questionDHCP6
	questionRouter
)

const (
	etherLen = inet.EtherLen
	ip4Len   = inet.IPv4Len
	ip6Len   = inet.IPv6Len
	udpLen   = 8
	udp      = 17
	icmp6    = 58
)

// UDP ports.
const (
	server4 = 67
	client4 = 68
	client6 = 546
	server6 = 547
)

// routerSolicitation is the type of an ICMPv6 message.
const routerSolicitation = 133

// parse takes a frame apart; false: it is no question. Checksums are not looked at: a virtual machine may leave them for
// its network card to make, and here that is nobody.
func parse(frame []byte) (question, bool) {
	if len(frame) < etherLen || frame[6]&1 != 0 {
		return question{}, false
	}
	q := question{mac: MAC(frame[6:12])}
	switch packet := frame[etherLen:]; binary.BigEndian.Uint16(frame[12:]) {
	case inet.EtherIPv4:
		return q.parse4(packet)
	case inet.EtherIPv6:
		return q.parse6(packet)
	}
	return question{}, false
}

func (q question) parse4(packet []byte) (question, bool) {
	if len(packet) < ip4Len || packet[0]>>4 != 4 || packet[9] != udp || binary.BigEndian.Uint16(packet[6:])&0x3fff != 0 {
		return question{}, false // a fragment, too: no message is so large
	}
	head, total := int(packet[0]&15)*4, int(binary.BigEndian.Uint16(packet[2:]))
	if head < ip4Len || total < head || total > len(packet) {
		return question{}, false
	}
	q.kind, q.src = questionDHCP, netip.AddrFrom4([4]byte(packet[12:16]))
	var ok bool
	q.data, ok = payload(packet[head:total], server4)
	return q, ok
}

func (q question) parse6(packet []byte) (question, bool) {
	if len(packet) < ip6Len || packet[0]>>4 != 6 {
		return question{}, false
	}
	n := int(binary.BigEndian.Uint16(packet[4:]))
	if n > len(packet)-ip6Len {
		return question{}, false
	}
	body := packet[ip6Len : ip6Len+n]
	q.src, q.hopLimit = netip.AddrFrom16([16]byte(packet[8:24])), packet[7]
	switch {
	case packet[6] == udp:
		q.kind = questionDHCP6
		var ok bool
		q.data, ok = payload(body, server6)
		return q, ok
	case packet[6] == icmp6 && len(body) >= 8 && body[0] == routerSolicitation && body[1] == 0:
		q.kind, q.data = questionRouter, body
		return q, true
	}
	return question{}, false
}

// payload is what a UDP datagram to a port carries.
func payload(datagram []byte, port uint16) ([]byte, bool) {
	if len(datagram) < udpLen || binary.BigEndian.Uint16(datagram[2:]) != port {
		return nil, false
	}
	n := int(binary.BigEndian.Uint16(datagram[4:]))
	if n < udpLen || n > len(datagram) {
		return nil, false
	}
	return datagram[udpLen:n], true
}

// Hop limits. The second is the receiver's proof that a message came from the link (RFC 4861, 6.1.1 and 6.1.2).
const (
	hopLimit   = 64
	hopLimitND = 255
)

var (
	everyone    = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	broadcast   = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	allNodes    = netip.IPv6LinkLocalAllNodes()
	allNodesMAC = MAC{0x33, 0x33, 0, 0, 0, 1}
)

// linkLocal is the address that a node has on the link by its Ethernet address (RFC 4291, appendix A).
func (n Node) linkLocal() netip.Addr {
	m := n.MAC
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// frame4 is a datagram of the node to a DHCP client. The checksum of UDP is left out, as IPv4 permits.
func (n Node) frame4(mac MAC, dst netip.Addr, data []byte) []byte {
	body := append(udpHead(server4, client4, len(data)), data...)
	return inet.AppendIPv4(inet.Ether(mac[:], n.MAC[:], inet.EtherIPv4), udp, n.Addr, dst, body)
}

// frame6 is a packet of the node by its address on the link.
func (n Node) frame6(mac MAC, dst netip.Addr, next, hops byte, body []byte) []byte {
	return inet.AppendIPv6(inet.Ether(mac[:], n.MAC[:], inet.EtherIPv6), next, hops, n.linkLocal(), dst, body)
}

// datagram6 is a datagram of the node to a DHCPv6 client, with its checksum, which IPv6 wants (RFC 8200, 8.1).
func (n Node) datagram6(mac MAC, dst netip.Addr, data []byte) []byte {
	body := append(udpHead(server6, client6, len(data)), data...)
	pseudo := append(n.linkLocal().AsSlice(), dst.AsSlice()...)
	pseudo = append(pseudo, 0, 0, byte(len(body)>>8), byte(len(body)), 0, 0, 0, udp)
	c := inet.Checksum(append(pseudo, body...))
	if c == 0 {
		c = 0xffff // zero says that there is none
	}
	binary.BigEndian.PutUint16(body[6:], c)
	return n.frame6(mac, dst, udp, hopLimit, body)
}

func udpHead(src, dst uint16, n int) []byte {
	out := binary.BigEndian.AppendUint16(nil, src)
	out = binary.BigEndian.AppendUint16(out, dst)
	return append(binary.BigEndian.AppendUint16(out, uint16(udpLen+n)), 0, 0)
}
