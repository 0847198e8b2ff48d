package simnet

import (
	"context"
	"fmt"
	"maps"
	"net"
	"sync"
	"time"

	"vcpeer/crdt"
)

// Node is one place on a Network and does what the fabric does for its owner.
type Node struct {
	net *Network
	id  crdt.NodeID
	num int

	mu       sync.Mutex
	receive  map[byte]func(crdt.NodeID, []byte)
	handlers map[string]func(context.Context, crdt.NodeID, net.Conn)
	met      map[crdt.NodeID]bool // peers with a connection that stands
	count    Count
}

// Count is what a node sent.
type Count struct {
	Datagrams     int
	DatagramBytes int
	Streams       int // opened by this node
	StreamBytes   int
}

// Sub returns c less an earlier count.
func (c Count) Sub(o Count) Count {
	return Count{c.Datagrams - o.Datagrams, c.DatagramBytes - o.DatagramBytes, c.Streams - o.Streams, c.StreamBytes - o.StreamBytes}
}

// Count returns what the node has sent so far.
func (n *Node) Count() Count {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.count
}

// Self returns the node's identity.
func (n *Node) Self() crdt.NodeID { return n.id }

// Number returns the place of the node in the order of Add, from 0.
func (n *Node) Number() int { return n.num }

// MaxDatagram returns the payload bytes that surely fit.
func (n *Node) MaxDatagram() int { return MaxDatagram }

// Receive registers what gets datagrams of a class.
func (n *Node) Receive(class byte, h func(from crdt.NodeID, b []byte)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	next := maps.Clone(n.receive)
	if next == nil {
		next = map[byte]func(crdt.NodeID, []byte){}
	}
	next[class] = h
	n.receive = next
}

// Handle registers what serves streams of a protocol.
func (n *Node) Handle(proto string, h func(ctx context.Context, from crdt.NodeID, c net.Conn)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.handlers == nil {
		n.handlers = map[string]func(context.Context, crdt.NodeID, net.Conn){}
	}
	n.handlers[proto] = h
}

// Send passes a copy of b on; it may be lost. A datagram over MaxDatagram always is.
func (n *Node) Send(to crdt.NodeID, class byte, b []byte) {
	n.mu.Lock()
	n.count.Datagrams++
	n.count.DatagramBytes += len(b)
	n.mu.Unlock()
	peer := n.net.find(to)
	if peer == nil || len(b) > MaxDatagram || !n.net.joined(n, peer) {
		return
	}
	delay, lost := n.net.roll(n, peer)
	if lost {
		return
	}
	b = append([]byte(nil), b...)
	time.AfterFunc(delay, func() {
		if !n.net.joined(n, peer) {
			return
		}
		peer.mu.Lock()
		h := peer.receive[class]
		peer.mu.Unlock()
		if h != nil {
			h(n.id, b)
		}
	})
}

// Open returns a stream to a peer. The first to a peer costs one round trip, the others none. To a peer that is down or
// cut off it waits for ctx, as a dial into a black hole does.
func (n *Node) Open(ctx context.Context, to crdt.NodeID, proto string) (net.Conn, error) {
	peer := n.net.find(to)
	if peer == nil {
		return nil, fmt.Errorf("simnet: open %s to %s: no such node", proto, to.Short())
	}
	if err := n.connect(ctx, peer); err != nil {
		return nil, fmt.Errorf("simnet: open %s to %s: %w", proto, to.Short(), err)
	}
	peer.mu.Lock()
	h := peer.handlers[proto]
	peer.mu.Unlock()
	if h == nil {
		return nil, fmt.Errorf("simnet: open %s to %s: protocol not served", proto, to.Short())
	}
	n.mu.Lock()
	n.count.Streams++
	n.mu.Unlock()
	near, far := pipe(n, peer)
	delay, _ := n.net.roll(n, peer)
	time.AfterFunc(delay, func() {
		if !n.net.joined(n, peer) {
			far.Close()
			return
		}
		h(context.Background(), n.id, far)
	})
	return near, nil
}

// connect waits one round trip unless a connection stands.
func (n *Node) connect(ctx context.Context, peer *Node) error {
	if !n.net.joined(n, peer) {
		n.forget(peer)
		<-ctx.Done()
		return ctx.Err()
	}
	n.mu.Lock()
	known := n.met[peer.id]
	n.mu.Unlock()
	if known {
		return ctx.Err()
	}
	out, _ := n.net.roll(n, peer)
	back, _ := n.net.roll(peer, n)
	select {
	case <-time.After(out + back):
	case <-ctx.Done():
		return ctx.Err()
	}
	n.meet(peer.id)
	peer.meet(n.id)
	return nil
}

func (n *Node) meet(id crdt.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.met[id] = true
}

func (n *Node) forget(peer *Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.met, peer.id)
}

func (n *Node) sent(bytes int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.count.StreamBytes += bytes
}
