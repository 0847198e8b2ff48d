package fabric

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"vcpeer/crdt"
)

const (
	maxStrangers      = 32               // strangers connected at once
	maxStrangersPerIP = 4                // of them from one address (IPv6: one /64)
	strangerTime      = 15 * time.Second // how long a stranger may stay; enforced to the second by the sweep
)

// Why a peer is turned away.
var (
	ErrEvicted   = errors.New("evicted from the cluster")
	ErrNotMember = errors.New("not a member of the cluster")
	ErrBusy      = errors.New("too many strangers are connected")

	// ErrShutOut and ErrFull are the same seen from the other side: what the peer's gate said to this node.
	ErrShutOut = errors.New("the peer refuses this node's key: evicted from its cluster")
	ErrFull    = errors.New("the peer has too many strangers connected")
)

// gate decides who may be connected. It implements libp2p's connmgr.ConnectionGater; the deciding hooks are those that
// run once the peer's key is proven. Safe for concurrent use.
type gate struct {
	standing func(crdt.NodeID) Standing
	refused  func(crdt.NodeID, error)
	pending  *pending
	walled   func(crdt.NodeID, ma.Multiaddr) bool // addresses that must not be dialled: a test's NAT; nil: none

	mu      sync.Mutex
	permits map[crdt.NodeID]int         // strangers that this node itself wants to reach, and how often
	inside  map[network.Conn]netip.Addr // strangers' connections that count against the limits
	perIP   map[netip.Addr]int          // = number of connections in inside from that address
	told    map[crdt.NodeID]time.Time   // when refused was last called for a peer
	clock   func() time.Time            // of told
}

func newGate(standing func(crdt.NodeID) Standing, refused func(crdt.NodeID, error)) *gate {
	return &gate{
		standing: standing, refused: refused, pending: newPending(), clock: time.Now,
		permits: map[crdt.NodeID]int{}, inside: map[network.Conn]netip.Addr{}, perIP: map[netip.Addr]int{}, told: map[crdt.NodeID]time.Time{},
	}
}

// permit lets this node connect to the stranger id until release is called.
func (g *gate) permit(id crdt.NodeID) (release func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.permits[id]++
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.permits[id]--; g.permits[id] <= 0 {
			delete(g.permits, id)
		}
	})
}

func (g *gate) permitted(id crdt.NodeID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.permits[id] > 0
}

// mayReach reports why this node must not talk to id of its own accord; nil: it may.
func (g *gate) mayReach(id crdt.NodeID) error {
	switch g.standing(id) {
	case Member:
		return nil
	case Evicted:
		return ErrEvicted
	}
	if g.permitted(id) {
		return nil
	}
	return ErrNotMember
}

// InterceptPeerDial is asked before anything is dialled.
func (g *gate) InterceptPeerDial(p peer.ID) bool {
	id, ok := nodeIDOf(p)
	return ok && g.mayReach(id) == nil
}

// InterceptAddrDial allows every address: addresses prove nothing.
func (g *gate) InterceptAddrDial(p peer.ID, a ma.Multiaddr) bool {
	id, _ := nodeIDOf(p)
	return g.walled == nil || !g.walled(id, a)
}

// InterceptAccept allows every address; how many connections one may open is the resource manager's matter.
func (g *gate) InterceptAccept(network.ConnMultiaddrs) bool { return true }

// InterceptSecured is asked when the peer has proven its key, in both directions. Incoming connections are decided a step
// later, in InterceptUpgraded, before any stream: there a refusal can carry a code that tells the peer why.
func (g *gate) InterceptSecured(dir network.Direction, p peer.ID, addrs network.ConnMultiaddrs) bool {
	id, ok := nodeIDOf(p)
	if dir == network.DirInbound {
		g.pending.proven(netAddr(addrs.RemoteMultiaddr()))
		return ok
	}
	return ok && g.mayReach(id) == nil
}

// InterceptUpgraded is asked when the connection is complete but not in use. From here on libp2p tells when it ends, so a
// stranger's place is taken here. One for which there is no place passes, and is closed by [Fabric.connected] with a
// code of its own: a refusal here always says that the peer is gated, which it takes for evicted.
func (g *gate) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	id, ok := nodeIDOf(c.RemotePeer())
	if !ok {
		return false, 0
	}
	err := g.mayReach(id)
	if errors.Is(err, ErrNotMember) && c.Stat().Direction == network.DirInbound {
		g.enter(c)
		return true, 0
	}
	if err != nil {
		g.tell(id, err)
	}
	return err == nil, 0
}

// admits reports whether a new connection may stay: that of a peer this node may talk to, or of a stranger that got a
// place.
func (g *gate) admits(id crdt.NodeID, c network.Conn) error {
	err := g.mayReach(id)
	if !errors.Is(err, ErrNotMember) {
		return err
	}
	g.mu.Lock()
	_, inside := g.inside[c]
	g.mu.Unlock()
	if inside {
		return nil
	}
	g.tell(id, ErrBusy)
	return ErrBusy
}

// enter gives a stranger's connection a place, if there is one.
func (g *gate) enter(c network.Conn) {
	ip := addressOf(c)
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.inside) < maxStrangers && g.perIP[ip] < maxStrangersPerIP {
		g.inside[c] = ip
		g.perIP[ip]++
	}
}

// leave gives a stranger's place back: it went, or was admitted. Any number of times.
func (g *gate) leave(c network.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	ip, ok := g.inside[c]
	if !ok {
		return
	}
	delete(g.inside, c)
	if g.perIP[ip]--; g.perIP[ip] <= 0 {
		delete(g.perIP, ip)
	}
}

// tell reports a refusal, once a minute for each peer and for 256 peers at most, so that nobody can flood the log.
func (g *gate) tell(id crdt.NodeID, why error) {
	if g.refused == nil {
		return
	}
	now := g.clock()
	g.mu.Lock()
	for other, t := range g.told {
		if now.Sub(t) >= time.Minute {
			delete(g.told, other)
		}
	}
	_, again := g.told[id]
	quiet := again || len(g.told) >= 256
	if !quiet {
		g.told[id] = now
	}
	g.mu.Unlock()
	if !quiet {
		g.refused(id, why)
	}
}

// addressOf is the address that a connection's stranger is counted under.
func addressOf(c network.ConnMultiaddrs) netip.Addr {
	return socketOf(netAddr(c.RemoteMultiaddr())).key().ip
}
