package fabric

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/quic-go/quic-go"

	"vcpeer/crdt"
)

const (
	maxAddrsPerPeer = 16              // of a peer's record are used; the rest is ignored
	observedAddrTTL = 2 * time.Minute // the address a member last came from is worth a try that long after it went
)

// link is what the fabric holds of one peer.
type link struct {
	id crdt.NodeID

	mu      sync.Mutex
	learned []ma.Multiaddr      // from its record
	found   []ma.Multiaddr      // beside those, where others have seen that it can be reached
	relays  []crdt.NodeID       // through which it says that it is reached
	punch   puncher             // getting from a relay to a direct connection
	conns   []*conn             // open connections, oldest first
	speaks  map[string]struct{} // protocols it has accepted since it was last unconnected
	out     outbox
	rtt     time.Duration // last answer to a ping on the datagram stream; 0: none
}

// conn is one open connection.
type conn struct {
	network.Conn
	ctx     context.Context // over when it closes
	cancel  context.CancelFunc
	quic    *quic.Conn  // nil: it is not QUIC
	session *Session    // nil: it is not QUIC; under the lock of the link
	via     crdt.NodeID // the relay that it goes through; zero: it is direct
	punched bool        // it goes through a hole that both sides made; under the lock of the link
	life    life        // under the lock of the link
}

// linkTo returns the link with id, making it if need be.
func (f *Fabric) linkTo(id crdt.NodeID) *link {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.links[id]
	if l == nil {
		l = &link{id: id, speaks: map[string]struct{}{}}
		f.links[id] = l
	}
	return l
}

// peek returns the link with id, or nil.
func (f *Fabric) peek(id crdt.NodeID) *link {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.links[id]
}

// forgetIdle drops l when it holds nothing: a stranger that went.
func (f *Fabric) forgetIdle(l *link) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) == 0 && len(l.learned) == 0 && len(l.found) == 0 && len(l.relays) == 0 && !l.out.draining && f.links[l.id] == l {
		delete(f.links, l.id)
	}
}

// knows reports whether a is one of the peer's addresses that anybody can dial. The caller holds the lock.
func (l *link) knows(a ma.Multiaddr) bool {
	return slices.ContainsFunc(l.learned, a.Equal) || slices.ContainsFunc(l.found, a.Equal)
}

// connected is libp2p's notice of a new connection. It comes before any of its streams and must not wait.
func (f *Fabric) connected(_ network.Network, nc network.Conn) {
	id, ok := nodeIDOf(nc.RemotePeer())
	if !ok {
		return
	}
	if err := f.gate.admits(id, nc); err != nil {
		code := network.ConnGated
		if errors.Is(err, ErrBusy) {
			code = network.ConnRateLimited
		}
		f.closeConn(nc, code)
		return
	}
	c := &conn{Conn: nc}
	c.via, _ = relayOf(nc.RemoteMultiaddr())
	c.ctx, c.cancel = context.WithCancel(f.ctx)
	if !nc.As(&c.quic) {
		c.quic = nil
	} else if s, err := f.newSession(id, c.quic); err == nil {
		c.session = &s
	}
	l := f.linkTo(id)
	l.mu.Lock()
	l.conns = append(l.conns, c)
	l.out.revive()
	l.mu.Unlock()
	if c.quic != nil {
		f.running.Go(func() { f.receiveQUIC(id, c) })
	}
	f.sessionWatch.wake()
	f.improve(l)
	f.log.Debug("connected", "peer", id, "addr", nc.RemoteMultiaddr(), "inbound", nc.Stat().Direction == network.DirInbound)
}

// disconnected is libp2p's notice that a connection is gone.
func (f *Fabric) disconnected(_ network.Network, nc network.Conn) {
	f.gate.leave(nc)
	id, ok := nodeIDOf(nc.RemotePeer())
	if !ok {
		return
	}
	f.log.Debug("disconnected", "peer", id, "addr", nc.RemoteMultiaddr())
	l := f.peek(id)
	if l == nil {
		return
	}
	l.mu.Lock()
	for i, c := range l.conns {
		if c.Conn == nc {
			c.cancel()
			l.conns = slices.Delete(l.conns, i, i+1)
			break
		}
	}
	if len(l.conns) == 0 {
		clear(l.speaks) // it may come back as another version
	}
	l.mu.Unlock()
	f.sessionWatch.wake()
	f.rememberObserved(id, nc)
	f.forgetIdle(l)
}

// rememberObserved keeps the address of a member's incoming QUIC connection for a while: QUIC dials from the port it
// listens on, so that address may work where those of the record do not.
func (f *Fabric) rememberObserved(id crdt.NodeID, nc network.Conn) {
	if nc.Stat().Direction != network.DirInbound || f.cfg.Standing(id) != Member {
		return
	}
	if _, err := nc.RemoteMultiaddr().ValueForProtocol(ma.P_QUIC_V1); err == nil {
		f.host.Peerstore().AddAddr(nc.RemotePeer(), nc.RemoteMultiaddr(), observedAddrTTL)
	}
}

// Recall says where a member was reached by QUIC before this process: that is worth a try for a while.
func (f *Fabric) Recall(id crdt.NodeID, at netip.AddrPort) {
	if id != f.self && !id.IsZero() && at.IsValid() && !f.cfg.Hidden(at.Addr()) {
		f.host.Peerstore().AddAddr(peerIDOf(id), multiaddr(at.Addr(), "quic", int(at.Port())), observedAddrTTL)
	}
}

// Learn sets the multiaddrs under which id may be reached, in place of those learned before. Ones that cannot be used
// are left out. No addresses: forget them.
func (f *Fabric) Learn(id crdt.NodeID, addrs []string) {
	if id == f.self || id.IsZero() {
		return
	}
	f.learn(id, addrs, func(l *link) *[]ma.Multiaddr { return &l.learned })
}

// LearnFound is Learn for addresses that are not of the peer's own choice: where its NAT was found to let anybody in. The
// two do not touch one another.
func (f *Fabric) LearnFound(id crdt.NodeID, addrs []string) {
	if id == f.self || id.IsZero() {
		return
	}
	f.learn(id, addrs, func(l *link) *[]ma.Multiaddr { return &l.found })
}

func (f *Fabric) learn(id crdt.NodeID, addrs []string, in func(*link) *[]ma.Multiaddr) {
	var good []ma.Multiaddr
	for _, s := range addrs {
		if a := f.usable(id, s); a != nil && len(good) < maxAddrsPerPeer {
			good = append(good, a)
		}
	}
	l := f.linkTo(id)
	l.mu.Lock()
	old := *in(l)
	changed := !slices.EqualFunc(old, good, ma.Multiaddr.Equal)
	*in(l) = good
	all := slices.Concat(l.learned, l.found)
	if changed {
		l.out.revive()
		l.punch.anew()
	}
	l.mu.Unlock()
	if changed {
		f.host.Peerstore().SetAddrs(peerIDOf(id), old, 0)
		f.host.Peerstore().SetAddrs(peerIDOf(id), all, peerstore.PermanentAddrTTL)
		f.host.Backoff().Clear(peerIDOf(id))
	}
	f.forgetIdle(l)
}

// usable parses a peer's address, without a trailing /p2p/ID, which must be its own. nil: not usable.
func (f *Fabric) usable(id crdt.NodeID, s string) ma.Multiaddr {
	a, err := ma.NewMultiaddr(s)
	if err == nil {
		var last *ma.Component
		if a, last = ma.SplitLast(a); last != nil && last.Protocol().Code != ma.P_P2P {
			a = a.AppendComponent(last)
		} else if last != nil && last.Value() != id.String() {
			a = nil
		}
	}
	if err != nil || len(a) == 0 || f.host.TransportForDialing(a) == nil && !isNamed(a) || a[0].Protocol().Code == ma.P_P2P {
		f.log.Debug("address not usable", "peer", id, "addr", s, "err", err)
		return nil
	}
	return a
}

// isNamed tells addresses by DNS name, which become IP addresses only when dialled.
func isNamed(a ma.Multiaddr) bool {
	switch a[0].Protocol().Code {
	case ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
		return true
	}
	return false
}

// hidden reports whether all that is known of how the peer is reached is addresses that only its own network knows, as when
// it is behind a NAT.
func (l *link) hidden() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.relays) == 0 && len(l.found) == 0 &&
		!slices.ContainsFunc(l.learned, func(a ma.Multiaddr) bool { return isNamed(a) || manet.IsPublicAddr(a) })
}

func (l *link) connected() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns) > 0
}

// Connected reports whether there is any connection with id.
func (f *Fabric) Connected(id crdt.NodeID) bool {
	l := f.peek(id)
	return l != nil && l.connected()
}

// byWorth lists the connections, that to use first: those that answer before those that do not (see life), direct before
// relayed, QUIC before TCP, new before old. The caller holds the lock.
func (l *link) byWorth() []*conn {
	out := slices.Clone(l.conns)
	if len(out) < 2 { // as most links have; this is asked for every member some times a second
		return out
	}
	slices.Reverse(out)
	slices.SortStableFunc(out, func(a, b *conn) int { return cmp.Compare(a.worth(), b.worth()) })
	return out
}

// worth is lower for better connections.
func (c *conn) worth() int {
	w := 0
	if c.life.suspect {
		w += 4
	}
	if c.relayed() {
		w += 2
	} else if c.quic == nil {
		w++
	}
	return w
}

// relayed reports whether the connection goes through a relay.
func (c *conn) relayed() bool { return !c.via.IsZero() }

// usable lists the connections for new streams, that to use first; direct: without those through relays, and those that
// do not answer.
func (l *link) usable(direct bool) []*conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(l.byWorth(), func(c *conn) bool { return c.IsClosed() || direct && (c.relayed() || c.life.suspect) })
}

// bestQUIC returns the QUIC connection to use; nil: there is none, or only one that does not answer while another
// connection does.
func (l *link) bestQUIC() *quic.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.byWorth() {
		switch {
		case c.quic != nil && c.quic.Context().Err() == nil:
			return c.quic
		case !c.life.suspect && !c.IsClosed():
			return nil
		}
	}
	return nil
}

// RTT returns the newest measured round trip time to id: that of the QUIC connection, or where there is none of the
// datagram stream. false: not measured.
func (f *Fabric) RTT(id crdt.NodeID) (time.Duration, bool) {
	l := f.peek(id)
	if l == nil {
		return 0, false
	}
	if q := l.bestQUIC(); q != nil {
		if rtt := q.ConnectionStats().LatestRTT; rtt > 0 {
			return rtt, true
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rtt, l.rtt > 0
}

// Link is a connected peer as a status page shows it.
type Link struct {
	Peer      crdt.NodeID
	Addr      net.Addr // where it is; *net.UDPAddr for QUIC, *net.TCPAddr for TCP
	Inbound   bool     // it connected to us
	Opened    time.Time
	Streams   int
	Standing  Standing
	RTT       time.Duration // 0: not measured
	Transport string        // "quic", "tcp" or "relay"
	Relay     crdt.NodeID   // the member it goes through; zero: none
	Silent    bool          // it does not answer at present
}

// Links lists the open connections, by peer and age.
func (f *Fabric) Links() []Link {
	var out []Link
	for _, c := range f.host.Conns() {
		out = append(out, f.describe(c))
	}
	slices.SortFunc(out, func(a, b Link) int {
		return cmp.Or(slices.Compare(a.Peer[:], b.Peer[:]), a.Opened.Compare(b.Opened))
	})
	return out
}

// describe shows one connection.
func (f *Fabric) describe(c network.Conn) Link {
	id, _ := nodeIDOf(c.RemotePeer())
	st := c.Stat()
	rtt, _ := f.RTT(id)
	l := Link{Peer: id, Addr: netAddr(c.RemoteMultiaddr()), Inbound: st.Direction == network.DirInbound, Opened: st.Opened,
		Streams: st.NumStreams, Standing: f.cfg.Standing(id), RTT: rtt, Transport: "tcp", Silent: f.silent(id, c)}
	if _, udp := l.Addr.(*net.UDPAddr); udp {
		l.Transport = "quic"
	}
	if via, ok := relayOf(c.RemoteMultiaddr()); ok {
		l.Transport, l.Relay = "relay", via
	}
	return l
}

// netAddr is a as package net has it; for one that is neither TCP nor UDP, which the fabric has not, its text.
func netAddr(a ma.Multiaddr) net.Addr {
	if na, err := manet.ToNetAddr(withoutQUIC(a)); err == nil {
		return na
	}
	return textAddr(a.String())
}

func withoutQUIC(a ma.Multiaddr) ma.Multiaddr {
	rest, last := ma.SplitLast(a)
	if last != nil && last.Protocol().Code == ma.P_QUIC_V1 {
		return rest
	}
	return a
}

type textAddr string

func (textAddr) Network() string  { return "libp2p" }
func (a textAddr) String() string { return string(a) }
