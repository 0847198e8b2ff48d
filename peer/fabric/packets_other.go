//go:build !linux

package fabric

import (
	"net"
	"net/netip"
)

// packetSocket is a UDP socket that shows QUIC only what is QUIC's.
type packetSocket struct {
	*net.UDPConn
	of    *packetSockets
	local netip.AddrPort
}

// Here quic-go reads the socket itself, so that what is not QUIC's is lost: only QUIC and TCP work.
func newPacketSocket(of *packetSockets, c *net.UDPConn, local netip.AddrPort) *packetSocket {
	return &packetSocket{UDPConn: c, of: of, local: local}
}

func (s *packetSocket) send(b []byte, segment int, to netip.AddrPort) error {
	for p := range (&Packets{Segment: segment, Data: b}).All() {
		if _, err := s.WriteToUDPAddrPort(p, to); err != nil {
			return err
		}
	}
	return nil
}
