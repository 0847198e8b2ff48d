package spread

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"time"

	"vcpeer/crdt"
)

// Urgent entries go as datagrams, at once, and to so many peers that they reach all with high probability: a node that hears
// one for the first time tells ln n + urgentMore peers, and a little later, by when what was lost on the way shows, a few
// others. Among few nodes who has something to say tells all himself, twice, and the others pass it on to a few, once: that
// takes half as many datagrams. Nobody answers, so nothing waits for a peer that is slow or dead. Of n nodes about
// n·exp(-peers told) are missed, and hear of it in a session. How peers told and misses relate: Kermarrec, Massoulié and
// Ganesh, Probabilistic Reliable Dissemination in Large-Scale Systems (2003).

// urge is a datagram with urgent entries, no answer.
type urge struct {
	to      crdt.NodeID
	entries [][]byte
}

func (u urge) target() crdt.NodeID { return u.to }

// urgent is the part of the planner for entries that must not wait. A node that gets too many treats those above its rate as
// ordinary ones, so that the cost is bounded whatever others do.
type urgent struct {
	waiting []rumour
	bytes   int     // Σ len(waiting.b) ≤ limit.boxBytes
	tokens  float64 // entries that may be urgent now, at most limit.urgentBurst
	filled  time.Time
}

// rumour is an entry that goes out at due.
type rumour struct {
	entry
	due   time.Time
	again bool // the second time
}

// freshUrgent takes in an urgent entry that is new to this node; false: it is to go as an ordinary one.
func (p *planner) freshUrgent(now time.Time, from crdt.NodeID, b []byte) bool {
	u := &p.urgent
	u.tokens = min(u.tokens+now.Sub(u.filled).Seconds()*p.limit.urgentRate, float64(p.limit.urgentBurst))
	u.filled = now
	if u.tokens < 1 || len(b) > p.limit.urgentBytes || u.bytes+len(b) > p.limit.boxBytes {
		return false
	}
	u.tokens--
	u.bytes += len(b)
	u.waiting = append(u.waiting, rumour{entry{from, b}, now.Add(p.limit.gatherUrgent), false})
	return true
}

// urges returns the datagrams whose time has come.
func (p *planner) urges(now time.Time, peers []peer) []effect {
	u := &p.urgent
	if len(u.waiting) == 0 {
		return nil
	}
	var first, second []entry
	u.waiting = slices.DeleteFunc(u.waiting, func(r rumour) bool {
		switch {
		case now.Before(r.due):
			return false
		case r.again:
			second = append(second, r.entry)
			u.bytes -= len(r.b)
			return true
		}
		first = append(first, r.entry)
		return true
	})
	few := len(peers) <= p.limit.urgentAll
	for _, e := range first {
		if few && !e.from.IsZero() {
			u.bytes -= len(e.b) // it is passed on but once
			continue
		}
		u.waiting = append(u.waiting, rumour{e, now.Add(p.jitter(p.limit.urgentGap)), true})
	}
	if few {
		mine := slices.DeleteFunc(append(slices.Clone(first), second...), func(e entry) bool { return !e.from.IsZero() })
		others := slices.DeleteFunc(first, func(e entry) bool { return e.from.IsZero() })
		return append(p.urge(mine, len(peers), peers), p.urge(others, p.limit.urgentAgain, peers)...)
	}
	n := int(math.Ceil(math.Log(float64(len(peers)+1)))) + p.limit.urgentMore
	if linked := slices.DeleteFunc(slices.Clone(peers), func(q peer) bool { return !q.linked }); len(linked) >= 2*n {
		peers = linked // enough to choose from by chance, and none has to be dialled first
	}
	return append(p.urge(first, n, peers), p.urge(second, p.limit.urgentAgain, peers)...)
}

// urge sends entries to n peers, as many in a datagram as fit, none back to where it came from.
func (p *planner) urge(entries []entry, n int, peers []peer) (effects []effect) {
	if len(entries) == 0 {
		return nil
	}
	fits := func(id crdt.NodeID) bool {
		return slices.ContainsFunc(entries, func(e entry) bool { return e.from != id })
	}
	for _, id := range p.choose(n, peers, fits) {
		u, size := urge{to: id}, 0
		for _, e := range entries {
			if e.from == id {
				continue
			}
			if size += 2 + len(e.b); size > p.limit.urgentBytes+2 {
				effects = append(effects, u)
				u, size = urge{to: id}, 2+len(e.b)
			}
			u.entries = append(u.entries, e.b)
		}
		effects = append(effects, u)
	}
	return effects
}

// next returns when the next one is due, or the given time if that is earlier.
func (u *urgent) next(next time.Time) time.Time {
	for _, r := range u.waiting {
		next = earlier(next, r.due)
	}
	return next
}

// urgentVersion begins a datagram with urgent entries, each behind its length in two bytes.
const urgentVersion = 2

var errUrgent = errors.New("spread: not urgent entries")

func encodeUrgent(entries [][]byte) []byte {
	b := []byte{urgentVersion}
	for _, e := range entries {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(e))), e...)
	}
	return b
}

// decodeUrgent reads them back. They share b's memory.
func decodeUrgent(b []byte) (entries [][]byte, err error) {
	if len(b) == 0 || b[0] != urgentVersion {
		return nil, errUrgent
	}
	for b = b[1:]; len(b) > 0; {
		if len(b) < 2 {
			return nil, errUrgent
		}
		n := int(binary.BigEndian.Uint16(b))
		if b = b[2:]; n == 0 || n > len(b) {
			return nil, errUrgent
		}
		entries, b = append(entries, b[:n:n]), b[n:]
	}
	return entries, nil
}

// heardUrgent is a datagram with urgent entries that waits for the store.
type heardUrgent struct {
	from crdt.NodeID
	b    []byte
}

// Datagrams that wait for the store: in all, and of one peer, so that none keeps the others out. More are dropped.
const (
	maxHeard     = 256
	maxHeardPeer = 32
)

// onUrgent takes a datagram. It must not wait, so it copies it and lets hearUrgent look.
func (s *Spread) onUrgent(from crdt.NodeID, b []byte) {
	if !s.serving.hear(from, time.Now()) {
		return
	}
	select {
	case s.heardUrgent <- heardUrgent{from, slices.Clone(b)}:
	default:
		s.serving.heard(from)
	}
}

// hearUrgent gives the store what came, until Close.
func (s *Spread) hearUrgent() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case h := <-s.heardUrgent:
			entries, err := decodeUrgent(h.b)
			if err == nil {
				var fresh [][]byte
				fresh, err = s.cfg.Store.ReceiveEphemeral(entries)
				s.got(h.from, nil, fresh, true)
			}
			s.serving.heard(h.from)
			if errors.Is(err, errUrgent) || isRubbish(err) {
				s.serving.strike(h.from, time.Now())
			}
		}
	}
}
