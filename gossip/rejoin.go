package gossip

import (
	"math/rand/v2"
	"time"

	"vcpeer/crdt"
)

// rejoin decides whom to contact so that the pool stays one: pure, its owner is keepTogether. Serf tries again those it
// has seen fail; rejoin is for those that Serf does not know, or all when nobody is left.
type rejoin struct {
	preset Preset
	rng    *rand.Rand
	absent map[crdt.NodeID]absence
	alone  absence
}

// absence is how long somebody has been out of view and what was done about it.
type absence struct {
	since time.Time
	tries int
	next  time.Time // not before
}

// atOnce is how many are contacted in one round. When alone any one will do; the others fill in later.
const atOnce = 2

func newRejoin(p Preset, rng *rand.Rand) *rejoin {
	return &rejoin{preset: p, rng: rng, absent: map[crdt.NodeID]absence{}}
}

// step returns whom to contact now. known are the nodes that ought to be there, without this one; state tells how each
// is seen, 0 for not at all; alive is how many others are alive.
func (r *rejoin) step(now time.Time, known []crdt.NodeID, state func(crdt.NodeID) State, alive int) []crdt.NodeID {
	known = append([]crdt.NodeID(nil), known...)
	r.rng.Shuffle(len(known), func(i, j int) { known[i], known[j] = known[j], known[i] })
	if alive == 0 {
		return r.stepAlone(now, known)
	}
	r.alone = absence{}
	var contact []crdt.NodeID
	missing := map[crdt.NodeID]absence{}
	for _, id := range known {
		if state(id) != 0 {
			continue
		}
		a, ok := r.absent[id]
		if !ok {
			a = absence{since: now, next: now.Add(r.preset.MissingAfter)}
		}
		if !now.Before(a.next) && len(contact) < atOnce {
			contact = append(contact, id)
			a = r.tried(a, now, r.preset.MissingAfter)
		}
		missing[id] = a
	}
	r.absent = missing
	return contact
}

// stepAlone tries anybody, soon at first.
func (r *rejoin) stepAlone(now time.Time, known []crdt.NodeID) []crdt.NodeID {
	if now.Before(r.alone.next) || len(known) == 0 {
		return nil
	}
	r.alone = r.tried(r.alone, now, r.preset.RejoinCheck)
	return known[:min(atOnce, len(known))]
}

// tried doubles the pause from first up to BackOffMax, a quarter more or less so that nodes do not keep step. Who is
// alone does not wait longer than a reconnect of the others would take.
func (r *rejoin) tried(a absence, now time.Time, first time.Duration) absence {
	limit := r.preset.BackOffMax
	if a.since.IsZero() {
		limit = max(3*r.preset.Reconnect, first)
	}
	pause := min(first<<min(a.tries, 16), limit)
	pause += time.Duration((r.rng.Float64() - 0.5) / 2 * float64(pause))
	a.tries, a.next = a.tries+1, now.Add(pause)
	return a
}
