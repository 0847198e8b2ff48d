// Package simnet is a network of nodes inside one process, for tests of what runs over the fabric: datagrams that are
// late, lost or cut off, and streams with flow control, by node ID. Nothing leaves the process and nothing blocks on the
// system, so a whole cluster runs in the virtual time of a bubble.
//
//	net := simnet.New(simnet.Options{Seed: 1, Delay: simnet.Sites(10, 150*time.Millisecond), Loss: 0.02})
//	a, b := net.Add(), net.Add()
//	b.Receive(1, func(from crdt.NodeID, p []byte) { … })
//	a.Send(b.Self(), 1, []byte("hello"))
//
// It only models what a protocol must survive; it is no model of congestion.
package simnet

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"

	"vcpeer/crdt"
)

// MaxDatagram is what Send carries at most, in bytes, like the real fabric.
const MaxDatagram = 1150

// Options describe every link of a network.
type Options struct {
	Seed   uint64                       // of losses, jitter and identities
	Delay  func(a, b int) time.Duration // one way, by the number of the nodes; nil: none
	Jitter float64                      // each delay grows by a random share of itself up to this
	Loss   float64                      // of datagrams, 0 to 1; a lost piece of a stream comes two delays later instead
}

// Network is the ground on which nodes stand. All methods may be called at any time from any goroutine.
type Network struct {
	opt Options

	mu    sync.Mutex
	rng   *rand.Rand
	nodes []*Node
	byID  map[crdt.NodeID]*Node
	group map[*Node]int // who can hear whom: the same number; see Split
	down  map[*Node]bool
}

// New returns an empty network.
func New(opt Options) *Network {
	return &Network{
		opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, 0x5eed)),
		byID: map[crdt.NodeID]*Node{}, group: map[*Node]int{}, down: map[*Node]bool{},
	}
}

// Sites returns a delay for nodes spread over n sites (node i is at site i mod n): under a millisecond within a site,
// and between 10 ms and limit one way between two sites, fixed for each pair.
func Sites(n int, limit time.Duration) func(a, b int) time.Duration {
	const least = 10 * time.Millisecond
	return func(a, b int) time.Duration {
		a, b = a%n, b%n
		if a == b {
			return 250 * time.Microsecond
		}
		pair := rand.New(rand.NewPCG(uint64(min(a, b)), uint64(max(a, b))))
		return least + time.Duration(pair.Int64N(int64(limit-least)+1))
	}
}

// Add puts a new node, up and with an identity of its own, on the network.
func (n *Network) Add() *Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	var id crdt.NodeID
	for i := 0; i < len(id); i += 8 {
		binary.BigEndian.PutUint64(id[i:], n.rng.Uint64())
	}
	return n.put(id)
}

// AddAs is Add with a given identity.
func (n *Network) AddAs(id crdt.NodeID) *Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.put(id)
}

// Restart takes the node of that identity away, with all that reached it, and puts a fresh one in its place: a process
// that was started again.
func (n *Network) Restart(old *Node) *Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down[old] = true
	node := &Node{net: n, id: old.id, num: old.num, met: map[crdt.NodeID]bool{}}
	n.nodes[old.num], n.byID[old.id], n.group[node] = node, node, n.group[old]
	return node
}

func (n *Network) put(id crdt.NodeID) *Node {
	node := &Node{net: n, id: id, num: len(n.nodes), met: map[crdt.NodeID]bool{}}
	n.nodes, n.byID[id] = append(n.nodes, node), node
	return node
}

// Down takes nodes off the network without a word, as a power cut does. Up puts them back.
func (n *Network) Down(nodes ...*Node) { n.setDown(true, nodes) }

// Up puts nodes back that Down took off.
func (n *Network) Up(nodes ...*Node) { n.setDown(false, nodes) }

func (n *Network) setDown(down bool, nodes []*Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, node := range nodes {
		n.down[node] = down
	}
}

// Split cuts these nodes off from all others; they still hear each other.
func (n *Network) Split(nodes ...*Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	last := 0
	for _, g := range n.group {
		last = max(last, g)
	}
	for _, node := range nodes {
		n.group[node] = last + 1
	}
}

// Heal undoes every Split.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.group)
}

// joined reports whether what a sends now can reach b.
func (n *Network) joined(a, b *Node) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.down[a] && !n.down[b] && n.group[a] == n.group[b]
}

// roll draws the delay of one piece from a to b and whether it is lost.
func (n *Network) roll(a, b *Node) (delay time.Duration, lost bool) {
	if n.opt.Delay != nil {
		delay = n.opt.Delay(a.num, b.num)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delay += time.Duration(n.rng.Float64() * n.opt.Jitter * float64(delay))
	return delay, n.rng.Float64() < n.opt.Loss
}

func (n *Network) find(id crdt.NodeID) *Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.byID[id]
}
