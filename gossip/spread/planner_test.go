package spread

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"vcpeer/crdt"
)

var errTest = errors.New("test")

func someID(n int) crdt.NodeID { return crdt.NodeID{0: byte(n + 1)} }

func somePeers(n int) (peers []peer) {
	for i := range n {
		peers = append(peers, peer{id: someID(i), near: i%3 == 0})
	}
	return peers
}

func newTestPlanner(now time.Time) *planner {
	return newPlanner(standard(), rand.New(rand.NewPCG(1, 2)), now)
}

func targets[E effect](effects []effect) (ids []crdt.NodeID) {
	for _, e := range effects {
		if _, ok := e.(E); ok {
			ids = append(ids, e.target())
		}
	}
	return ids
}

func TestPushGoesOnButNotBack(t *testing.T) {
	now := time.Unix(0, 0)
	p, peers := newTestPlanner(now), somePeers(10)
	from := someID(3)
	p.fresh(now, from, [][]byte{[]byte("b")}, nil, peers)
	effects, _ := p.step(now.Add(time.Second), [16]byte{1}, peers)
	to := targets[push](effects)
	if len(to) != p.limit.relay || slices.Contains(to, from) {
		t.Errorf("pushed to %v, want %d peers without %v", to, p.limit.relay, from)
	}
	if !slices.ContainsFunc(to, func(id crdt.NodeID) bool { return (int(id[0])-1)%3 == 0 }) {
		t.Errorf("pushed to %v: nobody of this site", to)
	}
	for _, id := range targets[announce](effects) {
		if slices.Contains(to, id) {
			t.Errorf("%v gets the batch and the digest", id)
		}
	}
}

func TestDigestThatIsKnownIsNotAskedFor(t *testing.T) {
	now := time.Unix(0, 0)
	old, own, ahead := [16]byte{1}, [16]byte{2}, [16]byte{3}
	p, peers := newTestPlanner(now), somePeers(2)
	p.step(now, old, peers)
	p.step(now, own, peers)
	p.heard(now, someID(0), old, own)
	p.heard(now, someID(1), ahead, own)
	effects, _ := p.step(now.Add(time.Second), own, peers)
	if got := targets[syncWith](effects); !slices.Equal(got, []crdt.NodeID{someID(1)}) {
		t.Errorf("sessions with %v, want only the peer with an unknown digest", got)
	}
	if got := targets[announce](effects); !slices.Contains(got, someID(0)) {
		t.Errorf("announced to %v: the peer that is behind is not told", got)
	}
	if n := p.behind(); n != 2 {
		t.Errorf("%d peers differ, want 2", n)
	}
}

func TestFailureCostsOneSession(t *testing.T) {
	now := time.Unix(0, 0)
	p, peers := newTestPlanner(now), somePeers(1)
	p.sessionDue = now.Add(time.Hour)
	p.fresh(now, crdt.NodeID{}, [][]byte{[]byte("b")}, nil, peers)
	now = now.Add(time.Second)
	effects, _ := p.step(now, [16]byte{1}, peers)
	e, ok := effects[len(effects)-1].(push)
	if !ok {
		t.Fatalf("effects %v, want a push", effects)
	}
	p.pushed(now, e, [16]byte{}, errTest)
	p.fresh(now, crdt.NodeID{}, [][]byte{[]byte("c")}, nil, peers)
	if effects, _ = p.step(now.Add(p.limit.backOff/2), [16]byte{2}, peers); len(targets[push](effects))+len(targets[syncWith](effects)) > 0 {
		t.Errorf("%v right after a failure", effects)
	}
	effects, _ = p.step(now.Add(p.limit.backOff), [16]byte{2}, peers)
	if len(targets[syncWith](effects)) != 1 || len(targets[push](effects)) != 0 {
		t.Errorf("after the back-off %v, want one session in place of both batches", effects)
	}
}

// TestPlannerInvariants lets anything happen in any order.
func TestPlannerInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(0, 0)
		l := standard()
		l.boxBytes, l.allBoxBytes, l.pushes = 300, 1000, 3
		p := newPlanner(l, rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)), now)
		all := somePeers(6)
		digest := byte(0)
		busy := map[crdt.NodeID]effect{}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			live := all[:rapid.IntRange(0, len(all)).Draw(t, "live")]
			id := all[rapid.IntRange(0, len(all)-1).Draw(t, "peer")].id
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				digest++
				b := make([]byte, rapid.IntRange(1, 400).Draw(t, "size"))
				p.fresh(now, id, [][]byte{b}, [][]byte{b}, live)
				p.freshUrgent(now, id, b)
			case 1:
				p.heard(now, id, [16]byte{byte(rapid.IntRange(0, 255).Draw(t, "digest"))}, [16]byte{digest})
			case 2:
				var err error
				if rapid.Bool().Draw(t, "fails") {
					err = errTest
				}
				switch e := busy[id].(type) {
				case push:
					p.pushed(now, e, [16]byte{digest}, err)
				case syncWith:
					p.synced(now, id, outcome(rapid.IntRange(0, 2).Draw(t, "outcome")), err)
				}
				delete(busy, id)
			}
			effects, next := p.step(now, [16]byte{digest}, live)
			if !next.After(now) {
				t.Fatalf("next step at %v, now %v", next, now)
			}
			for _, e := range effects {
				switch e := e.(type) {
				case announce:
					continue
				case urge:
					if len(encodeUrgent(e.entries)) > l.urgentBytes+3 || len(e.entries) == 0 {
						t.Fatalf("a datagram of %d entries, %d bytes", len(e.entries), total(e.entries))
					}
					continue
				}
				if busy[e.target()] != nil {
					t.Fatalf("%v while %v is under way", e, busy[e.target()])
				}
				busy[e.target()] = e
			}
			urgent := 0
			for _, r := range p.urgent.waiting {
				urgent += len(r.b)
			}
			if urgent != p.urgent.bytes || urgent > l.boxBytes || p.urgent.tokens > float64(l.urgentBurst) {
				t.Fatalf("%d urgent bytes, counted %d, %v tokens", urgent, p.urgent.bytes, p.urgent.tokens)
			}
			sum := 0
			for _, b := range p.boxes.of {
				if sum += b.bytes; b.bytes > l.boxBytes || b.bytes != total(b.batches)+total(b.ephemeral) {
					t.Fatalf("box of %d bytes", b.bytes)
				}
			}
			if sum != p.boxes.bytes || sum > l.allBoxBytes {
				t.Fatalf("boxes hold %d bytes, counted %d", sum, p.boxes.bytes)
			}
			if p.boxes.running != len(busy) {
				t.Fatalf("%d under way, counted %d", len(busy), p.boxes.running)
			}
		}
	})
}

func TestHistory(t *testing.T) {
	h := history{size: 3, has: map[[16]byte]int{}}
	for i := range 10 {
		h.add([16]byte{byte(i)})
	}
	for i := range 10 {
		if got, want := h.contains([16]byte{byte(i)}), i >= 7; got != want {
			t.Errorf("contains %d: %v, want %v", i, got, want)
		}
	}
	if len(h.has) != 3 {
		t.Errorf("%d digests kept", len(h.has))
	}
}

func TestStrikes(t *testing.T) {
	g, now := newGate(2, 3), time.Unix(0, 0)
	id := someID(0)
	for i, want := range []bool{true, true, false} {
		if got := g.enter(id, now); got != want {
			t.Errorf("stream %d of a peer: %v, want %v", i, got, want)
		}
	}
	if !g.enter(someID(1), now) || g.enter(someID(2), now) {
		t.Error("want three streams in all")
	}
	g.leave(id)
	g.leave(id)
	for range 12 {
		g.strike(id, now)
	}
	if g.enter(id, now.Add(20*time.Second)) {
		t.Error("a peer that sends only rubbish is served")
	}
	if !g.enter(id, now.Add(time.Minute)) {
		t.Error("a peer is shut out for more than a minute")
	}
}
