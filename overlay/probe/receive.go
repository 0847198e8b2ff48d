package probe

import (
	"time"

	"vcpeer/overlay/path"
)

// Receive takes in the payload of a frame of EtherType that arrived at arrived, which is not after now. It does not keep
// it. What is no message, for another, or from one that is no target, is only counted.
func (c *Core) Receive(at, arrived time.Time, payload []byte) Out {
	now, came := c.since(at), c.since(arrived)
	c.begin()
	m, err := parse(payload)
	if err != nil || m.way.id != c.self.id(m.way.id.near) {
		c.refused++
		return c.out
	}
	from := m.way
	from.id = m.from
	switch m.kind {
	case request:
		c.asked(&m, from, now, came)
	case reply:
		c.answered(&m, from, now, came)
	}
	return c.end()
}

// asked answers a request: a gateway only if it is a target, a node of the own site always, since the flows let only
// those through. from is the way of the request, seen from here.
func (c *Core) asked(m *message, from way, now, came time.Duration) {
	direct := c.ways[way{id: m.from, kind: m.way.kind}]
	if !m.from.near && !c.wants(from) {
		c.refused++
		return
	}
	r := message{kind: reply, oneShot: m.oneShot, from: m.way.id, way: m.way, size: messageBytes, session: m.session, seq: m.seq}
	r.way.id = m.from
	r.aux = uint32(min(max(now-came, 0)/time.Microsecond, maxHold))
	back := from.back()
	if !m.oneShot {
		h := c.listen(from, now)
		if h != nil {
			if !h.take(now, m.session, m.seq) {
				return
			}
			r.ack = h.ack
		}
		if t := c.ways[back]; t != nil {
			t.heardAt = now
			if m.aux == c.session {
				t.confirm(m.ack)
			}
			t.nudge(now, &c.config)
			c.redue(t)
		}
	}
	c.emit(&r, back, direct)
}

// wants reports whether a gateway may ask by a way: directly by a link of a kind that it is a target by, over others if it
// is one at all.
func (c *Core) wants(from way) bool {
	is := func(kind path.Kind) bool {
		t := c.ways[way{id: from.id, kind: kind}]
		return t != nil && t.wanted
	}
	if from.n == 0 {
		return is(from.kind)
	}
	return is(path.GRE) || is(path.Sealed)
}

// answered takes in an answer by the way on which it was asked for.
func (c *Core) answered(m *message, from way, now, came time.Duration) {
	if m.session != c.session {
		c.refused++
		return
	}
	hold := time.Duration(m.aux) * time.Microsecond
	t := c.ways[from]
	if m.oneShot {
		for _, p := range c.pings {
			if e, ok := p.answer(came, from, m.seq, hold); ok {
				c.out.Events = append(c.out.Events, e)
				return
			}
		}
		if t != nil && t.wanted {
			if t.mtu.answer(now, m.seq, c.config.verify(t.class), &c.config) {
				c.event(t, Event{Kind: MTU, Bytes: t.mtu.mtu})
			}
			c.redue(t)
		}
		return
	}
	if t == nil || !t.wanted {
		c.refused++
		return
	}
	t.heardAt = now
	t.confirm(m.ack)
	r := t.answer(now, came, m.seq, hold, &c.config)
	if r.up {
		c.event(t, Event{Kind: Up, RTT: r.rtt})
	}
	if r.to != 0 {
		c.event(t, Event{Kind: Step, From: r.from, RTT: r.to})
	}
	c.redue(t)
}

// heardMax is how many askers' ways are remembered, besides some for each track: more are answered without acks.
const heardMax = 1024

// listen returns what is known of an asker; nil: there is no room.
func (c *Core) listen(from way, now time.Duration) *heard {
	h := c.heard[from]
	if h == nil && len(c.heard) < heardMax+2*len(c.tracks) {
		h = &heard{at: now}
		c.heard[from] = h
	}
	return h
}

// heardFor is how long an asker is remembered; several times the longest interval.
const heardFor = 10 * time.Minute
