package gossip_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"vcpeer/crdt"
	"vcpeer/gossip"
	"vcpeer/gossip/simnet"
)

// wan is the network the preset is made for: ten sites, up to 300 ms and a little jitter there and back, 2% loss.
func wan(seed uint64) simnet.Options {
	return simnet.Options{Seed: seed, Delay: simnet.Sites(10, 150*time.Millisecond), Jitter: 0.05, Loss: 0.02}
}

// lan is the same within one site.
func lan(seed uint64) simnet.Options {
	return simnet.Options{Seed: seed, Delay: simnet.Sites(1, time.Millisecond)}
}

// cluster is a pool of real Serf nodes over a simulated network, in the bubble of a test.
type cluster struct {
	t     *testing.T
	net   *simnet.Network
	nodes []*node
	cfg   func(*gossip.Config) // may change what a node starts with
}

type node struct {
	*simnet.Node
	*gossip.Membership

	mu     sync.Mutex
	events []gossip.Event
}

func newCluster(t *testing.T, opt simnet.Options) *cluster {
	return &cluster{t: t, net: simnet.New(opt), cfg: func(*gossip.Config) {}}
}

// start adds a node that knows all before it; it joins by its own rejoining.
func (c *cluster) start() *node { return c.startOn(c.net.Add(), c.ids()) }

func (c *cluster) startOn(at *simnet.Node, known []crdt.NodeID) *node {
	c.t.Helper()
	cfg := gossip.Config{
		Fabric: at, Cluster: "test", Name: "host",
		Rejoin: func() []crdt.NodeID { return known },
	}
	c.cfg(&cfg)
	m, err := gossip.Start(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	n := &node{Node: at, Membership: m}
	events, _ := m.Events()
	go func() {
		for e := range events {
			n.mu.Lock()
			n.events = append(n.events, e)
			n.mu.Unlock()
		}
	}()
	c.nodes = append(c.nodes, n)
	return n
}

// grow starts nodes until there are n, a few at a time, and waits until all see all.
func (c *cluster) grow(n int) {
	c.t.Helper()
	for len(c.nodes) < n {
		c.start()
		if len(c.nodes)%10 == 0 {
			time.Sleep(time.Second)
		}
	}
	c.eventually(3*time.Minute, "all see all", func() bool { return c.full(c.nodes, len(c.nodes)) })
}

func (c *cluster) ids() []crdt.NodeID {
	ids := make([]crdt.NodeID, len(c.nodes))
	for i, n := range c.nodes {
		ids[i] = n.Self()
	}
	return ids
}

// full reports whether each of nodes sees n members alive, itself included.
func (c *cluster) full(nodes []*node, n int) bool {
	return !slices.ContainsFunc(nodes, func(m *node) bool { return len(m.Alive())+1 != n })
}

// sees reports whether each of nodes has that opinion of a member.
func (c *cluster) sees(nodes []*node, id crdt.NodeID, want gossip.State) bool {
	return !slices.ContainsFunc(nodes, func(n *node) bool {
		m, _ := n.Member(id)
		return m.State != want
	})
}

// eventually waits in virtual time and returns how long it took.
func (c *cluster) eventually(limit time.Duration, what string, ok func() bool) time.Duration {
	c.t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			c.t.Fatalf("not after %v: %s", limit, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(start)
}

// crash ends a node without a word, to the network first, and does not wait for the rest.
func (c *cluster) crash(n *node) {
	c.net.Down(n.Node)
	go n.Close()
	c.nodes = slices.DeleteFunc(c.nodes, func(o *node) bool { return o == n })
}

// stop ends all nodes and waits until what Serf started has ended too: in a bubble no goroutine may be left.
func (c *cluster) stop() {
	for _, n := range c.nodes {
		if err := n.Close(); err != nil {
			c.t.Errorf("close: %v", err)
		}
	}
	time.Sleep(time.Minute)
}

// forget drops the events seen so far.
func (c *cluster) forget() {
	for _, n := range c.nodes {
		n.mu.Lock()
		n.events = nil
		n.mu.Unlock()
	}
}

// count returns how many events of all nodes say that a member came to be so.
func (c *cluster) count(state gossip.State) (n int) {
	for _, m := range c.nodes {
		m.mu.Lock()
		for _, e := range m.events {
			if e.Member.State == state && e.Was != state {
				n++
			}
		}
		m.mu.Unlock()
	}
	return n
}

// split cuts these nodes off from the others.
func (c *cluster) split(nodes []*node) {
	var places []*simnet.Node
	for _, n := range nodes {
		places = append(places, n.Node)
	}
	c.net.Split(places...)
}

func (c *cluster) any() *node { return c.nodes[rand.IntN(len(c.nodes))] }

func within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}
