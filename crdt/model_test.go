package crdt

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"pgregory.net/rapid"
)

// A world is a cluster in memory: sites that write and exchange batches in whatever order a test chooses.
type world struct {
	now   time.Time
	nodes []*node
	all   []*Batch // everything anybody ever signed
}

// node is one replica without a disk.
type node struct {
	key   ed25519.PrivateKey
	id    NodeID
	state *State
	clock Clock
	rng   *rand.ChaCha8
	have  []*Batch // in the order of arrival: its store
	forks []*Batch
	heads map[NodeID]Head
}

func testKey(n int) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	binary.BigEndian.PutUint64(seed, uint64(n)+1)
	return ed25519.NewKeyFromSeed(seed)
}

func testTime() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) }

// newWorld founds a cluster of n nodes, all admitted by the first and all knowing that.
func newWorld(t rapid.TB, n int) *world {
	w := &world{now: testTime()}
	f, err := NewFounding("test", testKey(0), w.now, rand.NewChaCha8([32]byte{}))
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		w.nodes = append(w.nodes, newNode(f, testKey(i), byte(i)))
	}
	for _, nd := range w.nodes[1:] {
		w.update(t, 0, func(tx *Tx) error { return tx.AdmitMember(nd.id, TokenID{}) })
	}
	w.exchange()
	return w
}

func newNode(f Founding, key ed25519.PrivateKey, seed byte) *node {
	return &node{key: key, id: NodeIDOf(key), state: NewState(f), rng: rand.NewChaCha8([32]byte{seed}), heads: map[NodeID]Head{}}
}

// update has node i write; it returns the batch, nil if nothing was written or fn failed.
func (w *world) update(t rapid.TB, i int, fn func(*Tx) error) *Batch {
	b, err := w.try(t, i, fn)
	if err != nil {
		t.Fatalf("node %d: %v", i, err)
	}
	return b
}

func (w *world) try(t rapid.TB, i int, fn func(*Tx) error) (*Batch, error) {
	n := w.nodes[i]
	if !n.state.MayWrite(n.id) {
		return nil, ErrNotMember
	}
	tx := n.state.Begin(n.id, &n.clock, w.now, n.rng)
	if err := fn(tx); err != nil {
		return nil, err
	}
	b, err := tx.Sign(n.key)
	if err != nil {
		t.Fatal(err)
	}
	if b == nil {
		return nil, nil
	}
	w.now = w.now.Add(10 * time.Millisecond)
	w.all = append(w.all, b)
	if err := n.receive(b, w.now); err != nil {
		t.Fatalf("own batch: %v", err)
	}
	return b, nil
}

// receive does what a replica does with a batch.
func (n *node) receive(b *Batch, now time.Time) error {
	err := n.state.Check(b)
	var fork *ForkError
	if errors.As(err, &fork) {
		if n.state.AddFork(b) {
			n.forks = append(n.forks, b)
		}
	} else if err != nil {
		return err
	} else {
		n.clock.Observe(b.Stamp, now)
		n.state.Apply(b)
		n.have = append(n.have, b)
	}
	if n.state.Stale() {
		n.state.Rebuild(slices.Values(byAuthor(n.have)))
	}
	return nil
}

// byAuthor is the order in which a store gives batches back.
func byAuthor(bs []*Batch) []*Batch {
	out := slices.Clone(bs)
	slices.SortFunc(out, func(a, b *Batch) int { return Dot{a.Author, a.First}.Compare(Dot{b.Author, b.First}) })
	return out
}

// exchange brings all batches that the nodes hold to all nodes, as far as each takes them.
func (w *world) exchange() {
	for changed := true; changed; {
		changed = false
		for _, from := range w.nodes {
			for _, to := range w.nodes {
				for _, b := range slices.Concat(from.have, from.forks) {
					changed = to.receive(b, w.now) == nil || changed
				}
			}
		}
	}
}

// move brings what from holds to to, once, in from's order of arrival.
func (w *world) move(from, to int) {
	for _, b := range slices.Concat(w.nodes[from].have, w.nodes[from].forks) {
		_ = w.nodes[to].receive(b, w.now) // what is refused comes again
	}
}

func (n *node) headList() map[NodeID]Head {
	n.state.TakeHeads(n.heads)
	return n.heads
}

// visible is all of a view that must be the same everywhere.
func visible(v *View) map[string]any {
	return map[string]any{
		"cluster": v.Cluster(), "members": v.Members(), "sites": v.Sites(), "hosts": v.Hosts(), "guests": v.Guests(), "accounts": v.Accounts(),
		"groups": v.Groups(), "tokens": v.Tokens(), "conflicts": v.Conflicts(), "skews": v.Skews(), "next": v.Next(),
	}
}

func diffViews(a, b *View) string {
	x, y := visible(a), visible(b)
	for k := range x {
		if !reflect.DeepEqual(x[k], y[k]) {
			return fmt.Sprintf("%s:\n%+v\n%+v", k, x[k], y[k])
		}
	}
	return ""
}

// requireEqual fails unless all nodes show the same and have the same heads.
func (w *world) requireEqual(t rapid.TB) {
	t.Helper()
	first := w.nodes[0]
	for i, n := range w.nodes[1:] {
		if d := diffViews(first.state.View(w.now), n.state.View(w.now)); d != "" {
			t.Fatalf("nodes 0 and %d differ: %s", i+1, d)
		}
		if a, b := first.headList(), n.headList(); !reflect.DeepEqual(a, b) {
			t.Fatalf("heads of nodes 0 and %d differ:\n%+v\n%+v", i+1, a, b)
		}
	}
}

// requireInvariants checks what must hold in every view.
func requireInvariants(t rapid.TB, v *View) {
	t.Helper()
	uids, people, gids := map[uint32]string{}, map[string]bool{}, map[uint32]string{}
	for _, a := range v.Accounts() {
		if a.Disabled {
			continue
		}
		if uids[a.UID] != "" || people[a.Name] || a.UID < 1000 {
			t.Fatalf("account %s (%s) with uid %d is live beside another", a.Name, a.ID, a.UID)
		}
		uids[a.UID], people[a.Name], gids[a.UID] = a.Name, true, a.Name
	}
	for _, g := range v.Groups() {
		if g.Disabled {
			continue
		}
		if gids[g.GID] != "" || people[g.Name] {
			t.Fatalf("group %s with gid %d is live beside another", g.Name, g.GID)
		}
		gids[g.GID], people[g.Name] = g.Name, true
	}
	names, addrs, labels := map[string]bool{}, map[netip.Addr]bool{}, map[uint16]bool{}
	once := func(name string, a, a6 netip.Addr) {
		t.Helper()
		if names[name] || name == "" || a.IsValid() != a6.IsValid() || a.IsValid() && (addrs[a] || addrs[a6]) {
			t.Fatalf("%q with %s and %s beside another", name, a, a6)
		}
		names[name], addrs[a], addrs[a6] = true, true, true
	}
	for _, h := range v.Hosts() {
		once(h.Name, h.Address, h.Address6)
		if h.Label != 0 && labels[h.Label] {
			t.Fatalf("label %d twice", h.Label)
		}
		labels[h.Label] = true
	}
	for _, g := range v.Guests() {
		once(g.Name, g.Address, g.Address6)
		if byID, ok := v.Guest(g.ID); !ok || byID != g {
			t.Fatalf("guest %+v by its ID: %+v", g, byID)
		}
	}
	for _, c := range v.Conflicts() {
		if c.Winner.ID == "" || len(c.Losers) == 0 || c.Settle == "" || c.InForce == "" {
			t.Fatalf("conflict says too little: %+v", c)
		}
	}
}
