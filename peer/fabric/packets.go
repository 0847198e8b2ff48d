package fabric

import (
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// Packets are datagrams other than QUIC's on the UDP sockets that QUIC uses too, so that they go through the same hole in
// a NAT: whoever has a QUIC connection with a peer can send packets to that connection's remote address and needs no hole
// and no port of its own. They are told from QUIC by the first byte, which is below 0x40 (RFC 9443), and 0x00 is the
// fabric's own. Nothing is known of who sent one: the receiver has to prove each, for instance with a key from
// [Session.Export].
//
// Many packets of one sender that arrive together stay together, as the kernel joined them (UDP_GRO), and are handed on
// without a copy.
type Packets struct {
	From    netip.AddrPort // of the sender
	Local   netip.AddrPort // of the socket; its address is unspecified if it listens on all
	Segment int            // bytes of each packet but the last, which may be shorter
	Data    []byte         // one packet after the other

	buf *packetBuffer
}

// All yields the packets, which end with Release.
func (p *Packets) All() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for b := p.Data; len(b) > 0; {
			n := min(p.Segment, len(b))
			if !yield(b[:n:n]) {
				return
			}
			b = b[n:]
		}
	}
}

// Release gives the memory back; Data must not be used after it. Once only, by whoever was handed p; forgetting it costs
// no more than the garbage collector's work.
func (p *Packets) Release() {
	if p.buf != nil {
		buffers.Put(p.buf)
		p.buf, p.Data = nil, nil
	}
}

const (
	firstQUIC      = 0x40      // first bytes from here on are QUIC's
	firstFabric    = 0x00      // first byte of the fabric's own packets
	maxBatchBytes  = 65507     // that one call can send: what UDP over IPv4 can carry
	maxSegments    = 64        // that one call can send (UDP_MAX_SEGMENTS of kernels before 6.9)
	readBufferSize = 64 * 1024 // the most that the kernel joins
)

type packetBuffer [readBufferSize]byte

var buffers = sync.Pool{New: func() any { return new(packetBuffer) }}

// packetSockets are the UDP sockets of a fabric and who gets what is not QUIC's.
type packetSockets struct {
	handler atomic.Pointer[func(*Packets)]
	own     atomic.Pointer[func(from, local netip.AddrPort, b []byte)] // packets with firstFabric

	mu   sync.Mutex
	open []*packetSocket
}

// HandlePackets sets who gets the packets that are not QUIC's. h is called from the goroutine that reads the socket, so
// it must not wait; it owns the Packets and releases them. nil: they are dropped.
func (f *Fabric) HandlePackets(h func(*Packets)) {
	if h == nil {
		f.sockets.handler.Store(nil)
		return
	}
	f.sockets.handler.Store(&h)
}

// ErrNoSocket says that there is no UDP socket to send from: UDP is off, or none of the other address's family is open.
var ErrNoSocket = errors.New("fabric: no UDP socket for that address")

// SendPackets sends b as packets of segment bytes each (the last may be shorter) to an address, from the socket with the
// local address of a session (its port and family matter, and its IP where several are listened on). It uses as few
// system calls as it can (UDP_SEGMENT) and waits while the socket's send buffer is full. The first byte of each packet
// has to be from 0x01 to 0x3f.
//
// An error wraps ErrNoSocket, or syscall.EMSGSIZE where the packets are larger than the first link takes, or is the
// system's; b may then have been sent in part.
func (f *Fabric) SendPackets(local, to netip.AddrPort, b []byte, segment int) error {
	if segment <= 0 || len(b) == 0 {
		return fmt.Errorf("fabric: %d bytes in packets of %d", len(b), segment)
	}
	s := f.sockets.find(local, to)
	if s == nil {
		return ErrNoSocket
	}
	whole := min(maxSegments, max(1, maxBatchBytes/segment)) * segment // of one call
	for len(b) > 0 {
		n := min(whole, len(b))
		if err := s.send(b[:n], segment, to); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// find chooses the socket that a session with that local address uses.
func (p *packetSockets) find(local, to netip.AddrPort) *packetSocket {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found *packetSocket
	for _, s := range p.open {
		switch {
		case s.local.Addr().Is4() != to.Addr().Unmap().Is4():
		case s.local == local:
			return s
		case found == nil, s.local.Port() == local.Port() && found.local.Port() != local.Port():
			found = s
		}
	}
	return found
}

// listen opens a UDP socket for QUIC and everything else.
func (p *packetSockets) listen(network string, laddr *net.UDPAddr) (net.PacketConn, error) {
	c, err := listenUDP(network, laddr)
	if err != nil {
		return nil, err
	}
	local := c.LocalAddr().(*net.UDPAddr).AddrPort()
	s := newPacketSocket(p, c, netip.AddrPortFrom(local.Addr().Unmap(), local.Port()))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = append(p.open, s)
	return s, nil
}

// Close closes the socket.
func (s *packetSocket) Close() error {
	s.of.mu.Lock()
	s.of.open = slices.DeleteFunc(s.of.open, func(o *packetSocket) bool { return o == s })
	s.of.mu.Unlock()
	return s.UDPConn.Close()
}

// sort hands on what of a received buffer is not QUIC's, and appends to quic what is, as slices of buf or copies. kept: the
// buffer belongs to somebody else now.
func (p *packetSockets) sort(quic [][]byte, buf *packetBuffer, n, segment int, from, local netip.AddrPort) (_ [][]byte, kept bool) {
	if segment <= 0 || segment > n {
		segment = n
	}
	all := &Packets{Segment: max(segment, 1), Data: buf[:n]}
	ours := 0 // bytes of QUIC's and the fabric's own
	for b := range all.All() {
		if b[0] >= firstQUIC || b[0] == firstFabric {
			ours += len(b)
		}
	}
	h := p.handler.Load()
	foreign := h != nil && ours < n
	rest := 0 // bytes of the others, moved together
	for b := range all.All() {
		switch {
		case b[0] >= firstQUIC && foreign:
			quic = append(quic, slices.Clone(b))
		case b[0] >= firstQUIC:
			quic = append(quic, b)
		case b[0] == firstFabric:
			if own := p.own.Load(); own != nil {
				(*own)(from, local, b)
			}
		case foreign && ours == 0:
			rest += len(b)
		case foreign:
			rest += copy(buf[rest:], b) // to the front of where it was
		}
	}
	if !foreign {
		return quic, false
	}
	(*h)(&Packets{From: from, Local: local, Segment: segment, Data: buf[:rest], buf: buf})
	return quic, true
}
