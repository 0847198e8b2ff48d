package gossip

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/hashicorp/memberlist"

	"vcpeer/crdt"
)

// port is what stands in Serf's addresses; nothing listens there.
const port = 7946

// addressOf returns what Serf takes for a node's address: a ULA (RFC 4193) whose bits are a hash of the node's peer ID,
// so that it is unique and everybody finds the same. It is never dialled.
func addressOf(id crdt.NodeID) netip.Addr {
	sum := sha256.Sum256(id.Bytes())
	a := [16]byte{0: 0xfd}
	copy(a[1:], sum[:])
	return netip.AddrFrom16(a)
}

// joinAddress returns how Serf is told to join a node. The literal address keeps it from asking the DNS.
func joinAddress(id crdt.NodeID) string {
	return id.String() + "/" + netip.AddrPortFrom(addressOf(id), port).String()
}

// book finds the node that memberlist means. It keeps every node it has met, since parsing a name costs more than a
// packet and some answers name only the address. It forgets all when it is full: it is a cache and a lie costs nothing.
type book struct {
	mu      sync.RWMutex
	byName  map[string]crdt.NodeID
	byAddr  map[string]crdt.NodeID
	udpAddr map[crdt.NodeID]*net.UDPAddr
}

// bookSize bounds the book: far more than a pool has nodes, and under 100 MB if every name in it were made up.
const bookSize = 1 << 16

func newBook() *book {
	b := &book{}
	b.reset()
	return b
}

func (b *book) reset() {
	b.byName, b.byAddr = map[string]crdt.NodeID{}, map[string]crdt.NodeID{}
	b.udpAddr = map[crdt.NodeID]*net.UDPAddr{}
}

// learn enters a node and returns its address, which nobody may change.
func (b *book) learn(id crdt.NodeID) *net.UDPAddr {
	b.mu.RLock()
	addr := b.udpAddr[id]
	b.mu.RUnlock()
	if addr != nil {
		return addr
	}
	addr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(addressOf(id), port))
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.byName) >= bookSize {
		b.reset()
	}
	b.byName[id.String()], b.byAddr[addr.String()], b.udpAddr[id] = id, id, addr
	return addr
}

// find returns the node at a memberlist address: by name, or by address alone for a node that was met before.
func (b *book) find(a memberlist.Address) (crdt.NodeID, error) {
	b.mu.RLock()
	id, ok := b.byName[a.Name]
	if a.Name == "" {
		id, ok = b.byAddr[a.Addr]
	}
	b.mu.RUnlock()
	if ok {
		return id, nil
	}
	if a.Name == "" {
		return crdt.NodeID{}, fmt.Errorf("gossip: no node is known at %s", a.Addr)
	}
	id, err := crdt.ParseNodeID(a.Name)
	if err != nil {
		return crdt.NodeID{}, fmt.Errorf("gossip: member name: %w", err)
	}
	b.learn(id)
	return id, nil
}
