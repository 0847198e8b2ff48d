package probe

import (
	"cmp"
	"slices"
	"time"
)

// Set replaces all targets. What is known of those that stay is kept, and for a while of those that go. A target that
// cannot be, or stands twice, is left out.
func (c *Core) Set(at time.Time, self Self, targets []Target) {
	now := c.since(at)
	c.self = self
	spread := min(c.config.Rest, time.Duration(len(targets))*firstGap)
	want := map[*track]bool{}
	for _, g := range targets {
		w, ok := directTo(g.ID, g.Kind)
		if t := c.ways[w]; !ok || g.Class >= classes || g.PathClass >= classes || !self.id(g.ID.near).Valid() || g.ID == self.id(g.ID.near) || t != nil && want[t] {
			continue
		}
		t := c.want(now, w, g.Class, spread)
		want[t] = true
		if g.Addr = g.Addr.Unmap(); t.addr != g.Addr {
			if t.addr.IsValid() { // the same gateway, but another way through the underlay
				t.rtt.reset()
				t.sendAt, t.mtu.due = now, now
			}
			t.addr = g.Addr
		}
		t.mtu.want(now, g.MTU)
		for _, via := range g.Paths[:min(len(g.Paths), MaxPaths)] {
			if w, ok := wayTo(g.ID, via); ok && w.n > 0 && !w.over(self.Label) {
				want[c.want(now, w, g.PathClass, spread)] = true
			}
		}
	}
	for _, t := range c.tracks {
		if t.wanted && !want[t] {
			t.wanted, t.unused = false, now
		}
	}
	c.order()
}

// firstGap is the least time between the first probes of targets of class Rest.
const firstGap = 10 * time.Millisecond

// want returns the track of w, which is made if it is new. Those of one class do not begin together.
func (c *Core) want(now time.Duration, w way, class Class, spread time.Duration) *track {
	t := c.ways[w]
	if t == nil {
		// A number higher than any that was used for this way before it was forgotten: the other remembers them.
		t = newTrack(w, now, uint32(now/(10*time.Millisecond)))
		c.ways[w] = t
		c.tracks = append(c.tracks, t)
	}
	if !t.wanted || class < t.class {
		first := c.config.interval(class) / 3
		if class == Rest {
			first = spread
		}
		t.sendAt = min(t.sendAt, now+c.upTo(first))
	}
	if !t.wanted {
		t.missed, t.replies, t.judged = 0, 0, t.next
		t.mtu.due = now
	}
	if class < t.class {
		t.mtu.due = min(t.mtu.due, now+c.upTo(c.config.verify(class)))
	}
	t.wanted, t.class = true, class
	return t
}

func (c *Core) upTo(d time.Duration) time.Duration { return time.Duration(c.rng.Int64N(int64(d) + 1)) }

// inOrder is the order of tracks.
func inOrder(a, b *track) int {
	return cmp.Or(a.way.id.Compare(b.way.id), cmp.Compare(a.way.n, b.way.n), cmp.Compare(a.way.kind, b.way.kind), slices.Compare(a.via, b.via))
}

// order sorts tracks and works out when each is due.
func (c *Core) order() {
	slices.SortFunc(c.tracks, inOrder)
	c.redueAll()
}

// redueAll works out when each track is due.
func (c *Core) redueAll() {
	c.due = c.due[:0]
	for _, t := range c.tracks {
		c.due = append(c.due, t.due(&c.config))
	}
}

// redue corrects when a track is due.
func (c *Core) redue(t *track) {
	i, ok := slices.BinarySearchFunc(c.tracks, t, inOrder)
	if !ok {
		panic("probe: a track that is not in order")
	}
	c.due[i] = t.due(&c.config)
}
