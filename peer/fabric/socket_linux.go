package fabric

import (
	"net"

	"golang.org/x/sys/unix"
)

// udpBufferBytes is what quic-go wants of a socket, so that bursts of fast links are not lost in the kernel.
const udpBufferBytes = 7 << 20

// listenUDP opens the socket for QUIC. With the right to do so (CAP_NET_ADMIN) it takes the buffers it wants; without,
// quic-go gets what net.core.rmem_max allows.
func listenUDP(network string, laddr *net.UDPAddr) (*net.UDPConn, error) {
	c, err := net.ListenUDP(network, laddr)
	if err != nil {
		return nil, err
	}
	if raw, err := c.SyscallConn(); err == nil {
		// Failing only means smaller buffers.
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpBufferBytes)
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, udpBufferBytes)
		})
	}
	return c, nil
}
