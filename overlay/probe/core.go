package probe

import (
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

	// In order, and when each is due, which is looked through at every Tick: for a thousand that is faster than a heap.
	tracks []*track
	due    []time.Duration
	ways   map[way]*track
	heard  map[way]*heard // by asker and the way of its questions
	swept  time.Duration  // when tracks and heard were last looked through for what is to be forgotten

	pings   []*ping
	pingID  PingID
	oneShot uint32 // number of the next probe of its own

	promised time.Duration // when Tick was to be called; 0: not said yet
	late     lateness

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
	if c.promised > 0 {
		c.wait(c.late.slack(now, now-c.promised))
	}
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
	c.promised = max(soonest, now)
	return c.end(), c.wall(c.promised)
}

// wait has answers waited for so much longer than is usual.
func (c *Core) wait(slack time.Duration) {
	if slack == c.config.slack {
		return
	}
	c.config.slack = slack
	c.redueAll()
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
	c.promised = max(soonest, now)
	return c.wall(c.promised)
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
