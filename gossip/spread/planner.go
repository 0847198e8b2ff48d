package spread

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"time"

	"vcpeer/crdt"
)

// peer is a live node as the planner is told of it.
type peer struct {
	id     crdt.NodeID
	near   bool // of this site
	linked bool // a connection stands
}

// An effect is what the shell does next. A push or session comes back as pushed or synced; until then its peer gets no
// other one.
type effect interface{ target() crdt.NodeID }

type (
	announce struct { // one datagram, no answer
		to     crdt.NodeID
		digest [16]byte
	}
	push struct {
		to                 crdt.NodeID
		batches, ephemeral [][]byte
	}
	syncWith struct{ to crdt.NodeID }
)

func (a announce) target() crdt.NodeID { return a.to }
func (p push) target() crdt.NodeID     { return p.to }
func (s syncWith) target() crdt.NodeID { return s.to }

// planner decides what goes to whom and when. It is pure: time, digests and randomness are handed in.
type planner struct {
	limit limits
	rng   *rand.Rand

	digest  [16]byte // of the store, when last looked at
	history history  // digests it had before: who shows one of them is behind, not ahead

	boxes    boxes
	eph      []entry // fresh ephemeral entries that have no targets yet
	ephBytes int
	ephDue   time.Time
	urgent   urgent

	rounds      int                       // of announcements of this digest that were made
	announceDue time.Time                 // zero: nothing to announce
	announced   time.Time                 // the last round
	told        map[crdt.NodeID]time.Time // when a peer that is behind was last told so
	tell        []crdt.NodeID             // who is to be told
	wants       map[crdt.NodeID]want      // digests that peers have and this store never had
	shown       map[crdt.NodeID][16]byte  // what each live peer last showed

	syncing    bool // one session of our own at a time
	sessionDue time.Time
	pause      time.Duration
}

// entry is an ephemeral entry and the peer it came from.
type entry struct {
	from crdt.NodeID
	b    []byte
}

// want is a digest worth asking for unless it is met by then.
type want struct {
	digest [16]byte
	at     time.Time
}

func newPlanner(l limits, rng *rand.Rand, now time.Time) *planner {
	p := &planner{
		limit: l, rng: rng, boxes: boxes{limit: l, of: map[crdt.NodeID]*box{}}, pause: l.session,
		told: map[crdt.NodeID]time.Time{}, wants: map[crdt.NodeID]want{}, shown: map[crdt.NodeID][16]byte{},
		urgent:  urgent{tokens: float64(l.urgentBurst), filled: now},
		history: history{size: l.history, has: map[[16]byte]int{}},
	}
	p.sessionDue = now.Add(p.jitter(l.session))
	return p
}

// jitter returns d, a fifth more or less.
func (p *planner) jitter(d time.Duration) time.Duration {
	return d + time.Duration((p.rng.Float64()-0.5)*0.4*float64(d))
}

// fresh takes in what is new to this node and chooses who gets it: one peer of this site, the rest by chance, never from.
func (p *planner) fresh(now time.Time, from crdt.NodeID, batches, ephemeral [][]byte, peers []peer) {
	if len(batches) > 0 {
		n := p.limit.fanout
		if !from.IsZero() {
			n = p.limit.relay
		}
		for _, id := range p.choose(n, peers, func(id crdt.NodeID) bool { return id != from }) {
			p.boxes.add(id, now.Add(p.limit.gather), batches, nil)
		}
	}
	for _, b := range ephemeral {
		if p.ephBytes+len(b) > p.limit.boxBytes {
			break // what is lost here goes with a session
		}
		if len(p.eph) == 0 {
			p.ephDue = now.Add(p.jitter(p.limit.gatherEph))
		}
		p.eph, p.ephBytes = append(p.eph, entry{from, b}), p.ephBytes+len(b)
	}
}

// choose draws up to n different peers that fit, the first from this site if there is one.
func (p *planner) choose(n int, peers []peer, fits func(crdt.NodeID) bool) []crdt.NodeID {
	near := slices.DeleteFunc(slices.Clone(peers), func(q peer) bool { return !q.near })
	ids := p.draw(min(1, n), near, fits)
	return append(ids, p.draw(n-len(ids), peers, func(id crdt.NodeID) bool { return fits(id) && !slices.Contains(ids, id) })...)
}

// draw is choose without regard to sites.
func (p *planner) draw(n int, peers []peer, fits func(crdt.NodeID) bool) []crdt.NodeID {
	pool := slices.Clone(peers)
	p.rng.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
	var ids []crdt.NodeID
	for _, q := range pool {
		if len(ids) < n && fits(q.id) {
			ids = append(ids, q.id)
		}
	}
	return ids
}

// heard takes in the digest that a peer showed, with the store's own at that time.
func (p *planner) heard(now time.Time, from crdt.NodeID, theirs, own [16]byte) {
	p.look(now, own)
	p.shown[from] = theirs
	switch {
	case theirs == own:
		delete(p.wants, from)
	case p.history.contains(theirs):
		if now.Sub(p.told[from]) >= 5*p.limit.announceGap {
			p.told[from], p.tell = now, append(p.tell, from)
		}
	default:
		if _, waiting := p.wants[from]; !waiting {
			p.wants[from] = want{theirs, now.Add(p.jitter(p.limit.settle))}
		} else {
			p.wants[from] = want{theirs, p.wants[from].at}
		}
	}
}

// look notes the store's digest and, when it changed, that this is to be announced.
func (p *planner) look(now time.Time, own [16]byte) {
	if own == p.digest {
		return
	}
	p.history.add(p.digest)
	p.digest = own
	soon := later(now.Add(p.limit.gather), p.announced.Add(p.limit.announceGap))
	if p.announceDue.IsZero() || p.rounds > 0 {
		p.announceDue = soon
	}
	p.rounds = 0
}

// settled takes in the last digest that a peer showed in a session. Whatever it had announced before is met.
func (p *planner) settled(now time.Time, with crdt.NodeID, theirs, own [16]byte) {
	p.look(now, own)
	p.shown[with] = theirs
	delete(p.wants, with)
}

// pushed takes in how a push ended: theirs is the peer's digest after it.
func (p *planner) pushed(now time.Time, e push, theirs [16]byte, err error) {
	p.boxes.ended(now, e.to, err, len(e.batches) > 0)
	if err == nil {
		p.heard(now, e.to, theirs, p.digest)
	}
}

// synced takes in how a session ended.
func (p *planner) synced(now time.Time, to crdt.NodeID, did outcome, err error) {
	p.syncing = false
	p.boxes.ended(now, to, err, false)
	p.boxes.session(now, to, did)
	switch {
	case err != nil:
	case did != moved:
		p.pause = min(p.pause*3/2, p.limit.sessionMax)
	default:
		p.pause = p.limit.session
	}
	p.sessionDue = now.Add(p.jitter(p.pause))
}

// step returns what to do now and when to call again at the latest.
func (p *planner) step(now time.Time, own [16]byte, peers []peer) (effects []effect, next time.Time) {
	p.look(now, own)
	live := make(map[crdt.NodeID]bool, len(peers))
	for _, q := range peers {
		live[q.id] = true
	}
	p.forget(live)
	p.flushEphemeral(now, peers)
	effects = append(p.urges(now, peers), p.announcements(now, peers)...)
	effects = append(effects, p.boxes.due(now, live)...)
	effects = append(effects, p.sessions(now, peers, live)...)
	return effects, p.next(now)
}

// forget drops what is kept of peers that are not live.
func (p *planner) forget(live map[crdt.NodeID]bool) {
	for id := range p.shown {
		if !live[id] {
			delete(p.shown, id)
		}
	}
	for id := range p.told {
		if !live[id] {
			delete(p.told, id)
		}
	}
	for id := range p.wants {
		if !live[id] {
			delete(p.wants, id)
		}
	}
	p.boxes.forget(live)
}

func (p *planner) flushEphemeral(now time.Time, peers []peer) {
	if len(p.eph) == 0 || now.Before(p.ephDue) {
		return
	}
	for _, id := range p.choose(p.limit.ephemeral, peers, func(crdt.NodeID) bool { return true }) {
		var out [][]byte
		for _, e := range p.eph {
			if e.from != id {
				out = append(out, e.b)
			}
		}
		p.boxes.add(id, now, nil, out)
	}
	p.eph, p.ephBytes = nil, 0
}

func (p *planner) announcements(now time.Time, peers []peer) (effects []effect) {
	for _, id := range p.tell {
		effects = append(effects, announce{id, p.digest})
	}
	p.tell = nil
	if p.announceDue.IsZero() || now.Before(p.announceDue) {
		return effects
	}
	p.announceDue, p.announced = time.Time{}, now
	if p.rounds++; p.rounds < p.limit.rounds {
		p.announceDue = now.Add(p.jitter(p.limit.roundGap))
	}
	unaware := func(id crdt.NodeID) bool { return p.shown[id] != p.digest && !p.boxes.holds(id) }
	ids := p.draw(p.limit.lazy, peers, unaware)
	if len(ids) == 0 {
		ids = p.draw(1, peers, func(crdt.NodeID) bool { return true })
	}
	for _, id := range ids {
		effects = append(effects, announce{id, p.digest})
	}
	return effects
}

// sessions returns at most one: with a peer that has what this store never had, else, when due, with any.
func (p *planner) sessions(now time.Time, peers []peer, live map[crdt.NodeID]bool) []effect {
	var ahead []crdt.NodeID
	for id, w := range p.wants {
		switch {
		case w.digest == p.digest || p.history.contains(w.digest):
			delete(p.wants, id)
		case !now.Before(w.at) && p.boxes.ready(now, id):
			ahead = append(ahead, id)
		}
	}
	if p.syncing {
		return nil
	}
	slices.SortFunc(ahead, func(a, b crdt.NodeID) int { return bytes.Compare(a[:], b[:]) })
	if len(ahead) > 0 {
		id := ahead[p.rng.IntN(len(ahead))]
		p.wants[id] = want{p.wants[id].digest, now.Add(p.jitter(2 * p.limit.settle))} // if the session fails
		return p.begin(id)
	}
	if now.Before(p.sessionDue) {
		return nil
	}
	p.sessionDue = now.Add(p.jitter(p.pause))
	if p.announceDue.IsZero() { // keeps what others know of this node fresh, also when nothing happens
		p.announceDue = now
	}
	ready := func(id crdt.NodeID) bool { return p.boxes.ready(now, id) }
	apart := func(id crdt.NodeID) bool { d, seen := p.shown[id]; return seen && d != p.digest && ready(id) }
	ids := p.draw(1, peers, apart)
	if len(ids) == 0 || p.rng.IntN(2) == 0 { // one that stays apart must not take every turn
		ids = p.draw(1, peers, ready)
	}
	if len(ids) == 0 {
		return nil
	}
	return p.begin(ids[0])
}

func (p *planner) begin(id crdt.NodeID) []effect {
	p.syncing = true
	p.boxes.begin(id)
	return []effect{syncWith{id}}
}

// next returns when something is due, at least a millisecond ahead.
func (p *planner) next(now time.Time) time.Time {
	next := p.boxes.next(now, p.sessionDue)
	if p.syncing { // its end wakes us
		next = p.boxes.next(now, now.Add(p.limit.session))
	}
	if len(p.eph) > 0 {
		next = earlier(next, p.ephDue)
	}
	next = p.urgent.next(next)
	if !p.announceDue.IsZero() {
		next = earlier(next, p.announceDue)
	}
	if !p.syncing {
		for id, w := range p.wants {
			next = earlier(next, later(w.at, p.boxes.opens(id)))
		}
	}
	return later(next, now.Add(time.Millisecond))
}

// behind counts live peers that last showed another digest than the store's.
func (p *planner) behind() (n int) {
	for _, d := range p.shown {
		if d != p.digest {
			n++
		}
	}
	return n
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// history is the last digests that a store had.
type history struct {
	size int
	ring [][16]byte
	at   int
	has  map[[16]byte]int // how often it is in ring
}

func (h *history) add(d [16]byte) {
	if len(h.ring) < h.size {
		h.ring = append(h.ring, d)
	} else {
		old := h.ring[h.at]
		if h.has[old]--; h.has[old] == 0 {
			delete(h.has, old)
		}
		h.ring[h.at] = d
		h.at = (h.at + 1) % h.size
	}
	h.has[d]++
}

func (h *history) contains(d [16]byte) bool { return h.has[d] > 0 }
