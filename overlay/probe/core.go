package probe

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// Out is what a call wants done. It stays valid until the next call of the same Core.
type Out struct {
	Frames [][]byte // to write to the control port, in order
	Events []Event
}

// Core measures. It is not for concurrent use.
type Core struct {
	config  Config
	rng     *rand.Rand
	epoch   time.Time
	self    Self
	session uint32

	tracks []*track // by target, then by path
	due    []time.Duration
	ways   map[way]*track
	heard  map[way]*heard // by asker and the way of its questions
	swept  time.Duration  // when tracks and heard were last looked through for what is to be forgotten

	pings   []*ping
	pingID  PingID
	oneShot uint32 // number of the next probe of its own

	refused uint64
	arena   []byte
	ends    []int
	out     Out
}

// New returns a Core without targets, whose clock begins at now. rng draws the session and the jitter.
func New(config Config, rng *rand.Rand, now time.Time) *Core {
	return &Core{
		config: config, rng: rng, epoch: now, session: rng.Uint32() | 1, oneShot: rng.Uint32(),
		ways: map[way]*track{}, heard: map[way]*heard{},
	}
}

// since is the time inside: it starts at a second, so that 0 is none.
func (c *Core) since(now time.Time) time.Duration { return now.Sub(c.epoch) + time.Second }

func (c *Core) wall(at time.Duration) time.Time { return c.epoch.Add(at - time.Second) }

// Set replaces all targets. What is known of those that stay is kept, and for a while of those that go. A target that
// cannot be, or stands twice, is left out.
func (c *Core) Set(at time.Time, self Self, targets []Target) {
	now := c.since(at)
	c.self = self
	spread := min(c.config.Rest, time.Duration(len(targets))*firstGap)
	want := map[*track]bool{}
	for _, g := range targets {
		w, ok := wayTo(g.ID, nil)
		if t := c.ways[w]; !ok || g.Class >= classes || !self.id(g.ID.near).Valid() || g.ID == self.id(g.ID.near) || t != nil && want[t] {
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
				want[c.want(now, w, Fast, spread)] = true
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

// order sorts tracks and works out when each is due.
func (c *Core) order() {
	slices.SortFunc(c.tracks, func(a, b *track) int {
		return cmp.Or(a.way.id.Compare(b.way.id), cmp.Compare(a.way.n, b.way.n), slices.Compare(a.via, b.via))
	})
	c.due = c.due[:0]
	for _, t := range c.tracks {
		c.due = append(c.due, t.due(&c.config))
	}
}

// due is when a track has to be looked at.
func (t *track) due(c *Config) time.Duration {
	if !t.wanted {
		return never
	}
	due := min(t.sendAt, t.expiry(c))
	if t.way.n == 0 && t.mtu.largest != 0 && t.known {
		due = min(due, t.mtu.due)
	}
	return due
}

// batch is how many probes one Tick sends at most, so that answers are not left waiting.
const batch = 64

// Tick does what the time has come for. It is to be called again at next, or earlier.
func (c *Core) Tick(at time.Time) (out Out, next time.Time) {
	now := c.since(at)
	c.begin()
	c.sweep(now)
	soonest := c.swept + sweepEvery
	for i, due := range c.due {
		if due <= now {
			if len(c.ends) >= batch {
				soonest = now
				break
			}
			c.look(c.tracks[i], now)
			due = c.tracks[i].due(&c.config)
			c.due[i] = due
		}
		soonest = min(soonest, due)
	}
	for _, p := range c.pings {
		c.pingOn(p, now)
		soonest = min(soonest, p.due())
	}
	c.pings = slices.DeleteFunc(c.pings, func(p *ping) bool { return p.judged == p.Count })
	return c.end(), c.wall(max(soonest, now))
}

// Next is when Tick is to be called, which a Receive, Set or Ping can have brought forward.
func (c *Core) Next(at time.Time) time.Time {
	now := c.since(at)
	soonest := c.swept + sweepEvery
	for _, due := range c.due {
		soonest = min(soonest, due)
	}
	for _, p := range c.pings {
		soonest = min(soonest, p.due())
	}
	return c.wall(max(soonest, now))
}

// look does what is due on one track.
func (c *Core) look(t *track, now time.Duration) {
	if t.judge(now, &c.config) {
		c.event(t, Event{Kind: Down})
	}
	if now >= t.sendAt {
		every := t.interval(now, &c.config)
		t.sendAt = now + every - c.upTo(every/10)
		if t.class == Rest && t.count == 0 { // the first probes came closer together than the others shall
			t.sendAt = now + c.upTo(every)
		}
		m := message{kind: request, from: c.self.id(t.way.id.near), way: t.way, size: messageBytes, session: c.session, seq: t.send(now)}
		if h := c.heard[t.way.back()]; h != nil {
			m.ack, m.aux = h.ack, h.session
		}
		c.emit(&m, t.way, t)
	}
	if t.way.n > 0 || !t.known {
		return
	}
	before := t.mtu.mtu
	if size := t.mtu.next(now, t.up && t.missed == 0, t.lastSent, t.rtt.timeout(&c.config), &c.config); size != 0 {
		t.mtu.went(c.oneShot)
		c.emitOne(t.way, t, size)
		if t.mtu.sent == copies { // whether small ones pass at the same time
			t.sendAt = min(t.sendAt, now)
		}
	}
	if t.mtu.mtu != before {
		c.event(t, Event{Kind: MTU, Bytes: t.mtu.mtu})
	}
}

// emitOne sends a probe that is in no sequence.
func (c *Core) emitOne(w way, t *track, size int) {
	m := message{kind: request, oneShot: true, from: c.self.id(w.id.near), way: w, size: size, session: c.session, seq: c.oneShot}
	c.oneShot++
	c.emit(&m, w, t)
}

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
	direct := c.ways[way{id: m.from}]
	if !m.from.near && (direct == nil || !direct.wanted) {
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

// redue corrects when a track is due.
func (c *Core) redue(t *track) {
	i, ok := slices.BinarySearchFunc(c.tracks, t, func(a, b *track) int {
		return cmp.Or(a.way.id.Compare(b.way.id), cmp.Compare(a.way.n, b.way.n), slices.Compare(a.via, b.via))
	})
	if !ok {
		panic("probe: a track that is not in order")
	}
	c.due[i] = t.due(&c.config)
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

const sweepEvery = time.Minute

// sweep forgets what has not been needed for long.
func (c *Core) sweep(now time.Duration) {
	if now-c.swept < sweepEvery {
		return
	}
	c.swept = now
	for w, h := range c.heard {
		if now-h.at > heardFor {
			delete(c.heard, w)
		}
	}
	kept := len(c.tracks)
	c.tracks = slices.DeleteFunc(c.tracks, func(t *track) bool {
		old := !t.wanted && now-t.unused > c.config.Forget
		if old {
			delete(c.ways, t.way)
		}
		return old
	})
	if len(c.tracks) < kept {
		c.order()
	}
}

// Ping begins a ping; its events come from the calls that follow. ErrBusy: too many run. ErrNoTarget: To is none.
func (c *Core) Ping(at time.Time, p Ping) (PingID, error) {
	if len(c.pings) >= pingsMax {
		return 0, ErrBusy
	}
	if t := c.ways[way{id: p.To}]; (t == nil || !t.wanted) && len(p.Via) == 0 {
		return 0, ErrNoTarget
	}
	p.Via = slices.Clone(p.Via)
	q, err := p.start(c.pingID+1, c.since(at), c.oneShot)
	if err != nil {
		return 0, err
	}
	if q.way.over(c.self.Label) || q.way.id == c.self.id(p.To.near) {
		return 0, errors.New("probe: ping of a path that leads back here")
	}
	c.pingID++
	c.oneShot += uint32(q.Count)
	c.pings = append(c.pings, q)
	return q.id, nil
}

// pingOn gives up what is late, sends what is due, and says when all is done.
func (c *Core) pingOn(p *ping, now time.Duration) {
	for {
		e, lost, more := p.judge(now)
		if lost {
			c.out.Events = append(c.out.Events, e)
		}
		if !more {
			break
		}
	}
	if p.judged == p.Count {
		c.out.Events = append(c.out.Events, p.event(PingDone, p.answered, 0))
		return
	}
	if len(p.at) < p.Count && now >= p.sendAt {
		m := message{kind: request, oneShot: true, from: c.self.id(p.To.near), way: p.way, size: p.Bytes, session: c.session, seq: p.base + uint32(len(p.at))}
		p.at = append(p.at, now)
		p.sendAt = now + p.Interval
		c.emit(&m, p.way, c.ways[way{id: p.To}])
	}
}

// begin empties what the last call returned.
func (c *Core) begin() {
	c.arena, c.ends = c.arena[:0], c.ends[:0]
	c.out = Out{c.out.Frames[:0], c.out.Events[:0]}
}

// emit adds a frame that goes by w. t says where w's target has its address; nil: nowhere that is known.
func (c *Core) emit(m *message, w way, t *track) {
	start, n := len(c.arena), etherBytes+m.size
	c.arena = slices.Grow(c.arena, n)[:start+n]
	var addr netip.Addr
	if t != nil {
		addr = t.addr
	}
	header(c.arena[start:], w, addr, c.self)
	m.put(c.arena[start+etherBytes:])
	c.ends = append(c.ends, start+n)
}

func (c *Core) event(t *track, e Event) {
	e.ID, e.Via = t.way.id, t.via
	c.out.Events = append(c.out.Events, e)
}

func (c *Core) end() Out {
	start := 0
	for _, end := range c.ends {
		c.out.Frames = append(c.out.Frames, c.arena[start:end:end])
		start = end
	}
	return c.out
}

// Refused counts frames that were no message, for another, or from no target.
func (c *Core) Refused() uint64 { return c.refused }
