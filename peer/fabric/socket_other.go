//go:build !linux

package fabric

import "net"

// listenUDP opens the socket for QUIC.
func listenUDP(network string, laddr *net.UDPAddr) (*net.UDPConn, error) {
	return net.ListenUDP(network, laddr)
}
