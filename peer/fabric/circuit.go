package fabric

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"vcpeer/crdt"
	"vcpeer/peer/fabric/relay"
)

const (
	circuitTimeout   = 10 * time.Second // to get a circuit from a relay
	maxEarlyCircuits = 32               // circuits that were brought and are not taken over yet
)

// circuits is the libp2p transport whose connections go through a relay: TLS (or Noise) and streams inside one stream to
// the relay. For all above it such a connection is like any other, save that direct ones go first. Its addresses are
// /p2p/RELAY/p2p-circuit.
type circuits struct {
	f        *Fabric
	upgrader transport.Upgrader
	limits   network.ResourceManager
	brought  chan *circuit              // by relays
	adopted  chan transport.CapableConn // made by the fabric itself; see adopt
}

var (
	_ transport.Transport    = (*circuits)(nil)
	_ transport.SkipResolver = (*circuits)(nil)
)

var circuitEnd = ma.Cast(ma.ProtocolWithCode(ma.P_CIRCUIT).VCode)

// circuitAddr is the address of whoever is behind that relay.
func circuitAddr(via crdt.NodeID) ma.Multiaddr {
	c, err := ma.NewComponent("p2p", via.String())
	if err != nil {
		panic(fmt.Sprintf("fabric: %s is no peer ID: %v", via, err)) // a NodeID always is
	}
	return ma.Join(c.Multiaddr(), circuitEnd)
}

// relayOf returns the relay of a circuit's address; false: it is none.
func relayOf(a ma.Multiaddr) (id crdt.NodeID, ok bool) {
	if len(a) != 2 || a[0].Protocol().Code != ma.P_P2P || a[1].Protocol().Code != ma.P_CIRCUIT {
		return id, false
	}
	p, err := peer.Decode(a[0].Value())
	if err != nil {
		return id, false
	}
	return nodeIDOf(p)
}

// Dial implements transport.Transport.
func (t *circuits) Dial(ctx context.Context, a ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	via, ok := relayOf(a)
	to, known := nodeIDOf(p)
	if !ok || !known || via == t.f.self || via == to {
		return nil, fmt.Errorf("fabric: %s is not behind %s", p, a)
	}
	scope, err := t.limits.OpenConnection(network.DirOutbound, false, a)
	if err != nil {
		return nil, err
	}
	c, err := t.dial(ctx, via, to, p, scope)
	if err != nil {
		scope.Done()
		return nil, err
	}
	return c, nil
}

func (t *circuits) dial(ctx context.Context, via, to crdt.NodeID, p peer.ID, scope network.ConnManagementScope) (transport.CapableConn, error) {
	if err := scope.SetPeer(p); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, circuitTimeout)
	defer cancel()
	s, err := t.f.openDirect(ctx, via, relay.Protocol)
	if err != nil {
		return nil, fmt.Errorf("relay %s: %w", via.Short(), err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	_ = s.SetDeadline(time.Now().Add(circuitTimeout))
	if err := relay.Connect(s, to); err != nil {
		_ = s.Reset()
		return nil, fmt.Errorf("relay %s: %w", via.Short(), err)
	}
	_ = s.SetDeadline(time.Time{})
	return t.upgrader.Upgrade(ctx, t, &circuit{s, via}, network.DirOutbound, p, scope)
}

// serve takes a circuit that a relay brings.
func (t *circuits) serve(_ context.Context, via crdt.NodeID, c net.Conn) {
	s, ok := c.(*stream)
	if !ok {
		c.Close()
		return
	}
	_ = s.SetDeadline(time.Now().Add(negotiateTimeout))
	_, err := relay.Accept(s, func(from crdt.NodeID) error {
		switch {
		case t.f.cfg.Standing(from) == Evicted || from == t.f.self:
			return relay.ErrRefused
		case len(t.brought) == cap(t.brought):
			return relay.ErrFull
		}
		return nil // who it is will be proven inside
	})
	if err == nil {
		_ = s.SetDeadline(time.Time{})
		select {
		case t.brought <- &circuit{s, via}:
			return
		default:
			err = relay.ErrFull
		}
	}
	t.f.log.Debug("a circuit not taken", "relay", via, "err", err)
	_ = s.Reset()
}

// Listen implements transport.Transport: it accepts what relays bring.
func (t *circuits) Listen(ma.Multiaddr) (transport.Listener, error) {
	ctx, cancel := context.WithCancel(t.f.ctx)
	up := t.upgrader.UpgradeGatedMaListener(t, t.upgrader.GateMaListener(&circuitListener{t, ctx, cancel}))
	l := &allListener{Listener: up, ctx: ctx, adopted: t.adopted, accepted: make(chan transport.CapableConn)}
	t.f.running.Go(l.run)
	return l, nil
}

// allListener joins the circuits that were brought with the connections that the fabric has made past the swarm.
type allListener struct {
	transport.Listener
	ctx               context.Context
	adopted, accepted chan transport.CapableConn
}

func (l *allListener) run() {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return
		}
		select {
		case l.accepted <- c:
		case <-l.ctx.Done():
			c.Close()
			return
		}
	}
}

// Accept implements transport.Listener.
func (l *allListener) Accept() (transport.CapableConn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case c := <-l.adopted:
		return c, nil
	case <-l.ctx.Done():
		return nil, transport.ErrListenerClosed
	}
}

// adopt gives the swarm a connection that it did not dial: the swarm dials a peer only while it has no connection with it,
// and at all of its addresses. It counts as an incoming one.
func (t *circuits) adopt(c transport.CapableConn) {
	select {
	case t.adopted <- c:
	case <-t.f.ctx.Done():
		c.Close()
	}
}

// CanDial implements transport.Transport.
func (t *circuits) CanDial(a ma.Multiaddr) bool { _, ok := relayOf(a); return ok }

// Protocols implements transport.Transport.
func (t *circuits) Protocols() []int { return []int{ma.P_CIRCUIT} }

// Proxy implements transport.Transport: libp2p takes these connections for worse than direct ones.
func (t *circuits) Proxy() bool { return true }

// SkipResolve implements transport.SkipResolver.
func (t *circuits) SkipResolve(context.Context, ma.Multiaddr) bool { return true }

type circuitListener struct {
	t      *circuits
	ctx    context.Context
	cancel context.CancelFunc
}

func (l *circuitListener) Accept() (manet.Conn, error) {
	select {
	case c := <-l.t.brought:
		return c, nil
	case <-l.ctx.Done():
		return nil, transport.ErrListenerClosed
	}
}

func (l *circuitListener) Close() error            { l.cancel(); return nil }
func (l *circuitListener) Addr() net.Addr          { return textAddr(circuitEnd.String()) }
func (l *circuitListener) Multiaddr() ma.Multiaddr { return circuitEnd }

// circuit is a stream to a relay that goes on to somebody else.
type circuit struct {
	*stream
	via crdt.NodeID
}

func (c *circuit) RemoteMultiaddr() ma.Multiaddr { return circuitAddr(c.via) }
func (c *circuit) LocalMultiaddr() ma.Multiaddr  { return c.Conn().LocalMultiaddr() }
func (c *circuit) RemoteAddr() net.Addr          { return textAddr(c.RemoteMultiaddr().String()) }

// errNoDirect says that a relay would have to be reached through a relay.
var errNoDirect = errors.New("no direct connection")

// openDirect opens a stream to a member that does not go through a relay.
func (f *Fabric) openDirect(ctx context.Context, to crdt.NodeID, proto string) (*stream, error) {
	s, err := f.open(ctx, to, proto, true)
	if err != nil {
		return nil, oneLine(ctx, err)
	}
	return s, nil
}
