// Package solicit writes the answer to a question of IPv6 for a machine's Ethernet address (neighbour discovery, RFC 4861),
// where Open vSwitch cannot: the Linux kernel's part of it changes no options of such messages. It is pure: a frame in, a
// frame out.
package solicit

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"

	"vcpeer/overlay/inet"
)

const (
	targetAt   = ipv6.HeaderLen + 8
	solicitLen = targetAt + 16 // without options
	hopLimit   = 255           // of all messages of neighbour discovery: no router has passed them on

	solicited = 0x40
	override  = 0x20
	linkLayer = 2 // the option that holds the target's address
)

// Answer returns the frame that answers frame, addressed to who sent that, if mac knows the address that is asked for. False
// where none is due: for what is no question, or one that RFC 4861, 7.1.1, has dropped.
func Answer(frame []byte, mac func(netip.Addr) (net.HardwareAddr, bool)) ([]byte, bool) {
	if len(frame) < inet.EtherLen+solicitLen || binary.BigEndian.Uint16(frame[12:]) != inet.EtherIPv6 {
		return nil, false
	}
	packet := frame[inet.EtherLen:]
	if packet[0]>>4 != 6 || packet[6] != 58 || packet[7] != hopLimit || ipv6.ICMPType(packet[40]) != ipv6.ICMPTypeNeighborSolicitation || packet[41] != 0 {
		return nil, false
	}
	asker, target := netip.AddrFrom16([16]byte(packet[8:])), netip.AddrFrom16([16]byte(packet[targetAt:]))
	to, known := mac(target)
	if !known || len(to) != 6 || asker.IsMulticast() {
		return nil, false
	}
	body := append([]byte{solicited | override, 0, 0, 0}, target.AsSlice()...)
	if asker.IsUnspecified() { // it has no address yet, and looks whether somebody has the one it wants
		asker = netip.IPv6LinkLocalAllNodes()
		body[0] = override
	}
	body = append(append(body, linkLayer, 1), to...)
	message, err := (&icmp.Message{Type: ipv6.ICMPTypeNeighborAdvertisement, Body: &icmp.RawBody{Data: body}}).
		Marshal(icmp.IPv6PseudoHeader(target.AsSlice(), asker.AsSlice()))
	if err != nil {
		return nil, false
	}
	return inet.AppendIPv6(inet.Ether(frame[6:12], to, inet.EtherIPv6), 58, hopLimit, target, asker, message), true
}
