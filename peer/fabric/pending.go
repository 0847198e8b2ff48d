package fabric

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/transport"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// maxPendingPerIP bounds the incoming connections from one address, TCP and UDP each, that have not proven a key. It is apart from
	// maxConnsPerIP, so that somebody behind a laboratory's NAT address who only opens connections cannot take its
	// members' places.
	maxPendingPerIP = 64

	// calmPending is how many of them over UDP, from all addresses, are nothing special. Above it a QUIC client must first show that it gets
	// what is sent to its address (a Retry packet, RFC 9000 section 8.1): packets with forged or no sense cost nothing then.
	calmPending = 16
)

// pending counts the incoming connections whose peer has not proven its key yet. Safe for concurrent use.
type pending struct {
	mu    sync.Mutex
	udp   int // connections over UDP in all
	total int
	perIP map[pendingKey]int
	open  map[socket][]*place // oldest first; more than one: QUIC connections from one socket
}

// socket is where a connection comes from.
type socket struct {
	udp bool
	at  netip.AddrPort
}

// pendingKey is what maxPendingPerIP bounds: an address's TCP connections, which cost it nothing to hold open, do not
// take the room of its QUIC connections.
type pendingKey struct {
	udp bool
	ip  netip.Addr
}

func (s socket) key() pendingKey { return pendingKey{s.udp, oneAddress(s.at.Addr())} }

// place is one counted connection.
type place struct {
	of   *pending
	from socket
}

func newPending() *pending {
	return &pending{perIP: map[pendingKey]int{}, open: map[socket][]*place{}}
}

// enter takes a place for a connection from an address; nil: there is none left.
func (p *pending) enter(addr net.Addr) *place {
	from := socketOf(addr)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.perIP[from.key()] >= maxPendingPerIP || p.total >= maxPendingConns {
		return nil
	}
	at := &place{of: p, from: from}
	p.open[from] = append(p.open[from], at)
	p.perIP[from.key()]++
	p.total++
	if from.udp {
		p.udp++
	}
	return at
}

// leave gives the place back. Any number of times.
func (at *place) leave() {
	p := at.of
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.open[at.from], at); i >= 0 {
		p.removeLocked(at.from, i)
	}
}

// proven notes that a connection from addr has proven its key.
func (p *pending) proven(addr net.Addr) {
	from := socketOf(addr)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.open[from]) > 0 {
		p.removeLocked(from, 0)
	}
}

func (p *pending) removeLocked(from socket, i int) {
	p.open[from] = slices.Delete(p.open[from], i, i+1)
	if len(p.open[from]) == 0 {
		delete(p.open, from)
	}
	if p.perIP[from.key()]--; p.perIP[from.key()] <= 0 {
		delete(p.perIP, from.key())
	}
	p.total--
	if from.udp {
		p.udp--
	}
}

// busy reports whether more is going on over UDP than usual.
func (p *pending) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.udp > calmPending
}

// socketOf is the address of a UDP or TCP socket.
func socketOf(a net.Addr) socket {
	switch a := a.(type) {
	case *net.UDPAddr:
		return socket{true, netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())}
	case *net.TCPAddr:
		return socket{false, netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())}
	}
	return socket{}
}

// oneAddress is what counts as one address: an IPv4 address, or an IPv6 /64, which is what one machine can easily have.
func oneAddress(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a
	}
	p, _ := a.Prefix(64) // 64 is valid for IPv6
	return p.Addr()
}

// guardedUpgrader is libp2p's upgrader with TCP connections counted from accept on.
type guardedUpgrader struct {
	transport.Upgrader
	pending *pending
}

func (u guardedUpgrader) GateMaListener(l manet.Listener) transport.GatedMaListener {
	return u.Upgrader.GateMaListener(guardedListener{l, u.pending})
}

type guardedListener struct {
	manet.Listener
	pending *pending
}

// Accept returns the next connection for which there is a place, and closes the others.
func (l guardedListener) Accept() (manet.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if at := l.pending.enter(c.RemoteAddr()); at != nil {
			return &guardedConn{c, at}, nil
		}
		c.Close()
	}
}

// guardedConn gives its place back when it closes.
type guardedConn struct {
	manet.Conn
	at *place
}

func (c *guardedConn) Close() error {
	c.at.leave()
	return c.Conn.Close()
}

// SetLinger and the keepalive settings are what libp2p's TCP transport looks for in a connection.

func (c *guardedConn) SetLinger(sec int) error {
	if t, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return t.SetLinger(sec)
	}
	return nil
}

func (c *guardedConn) SetKeepAlive(on bool) error {
	if t, ok := c.Conn.(interface{ SetKeepAlive(bool) error }); ok {
		return t.SetKeepAlive(on)
	}
	return nil
}

func (c *guardedConn) SetKeepAlivePeriod(d time.Duration) error {
	if t, ok := c.Conn.(interface{ SetKeepAlivePeriod(time.Duration) error }); ok {
		return t.SetKeepAlivePeriod(d)
	}
	return nil
}
