package spread

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"time"

	"vcpeer/crdt"
)

// box is what waits for one peer. However slow the peer, it stays one bounded value: at boxBytes the payload goes and
// the note stays that a session is owed, which sends what is missing by then.
type box struct {
	batches, ephemeral [][]byte
	bytes              int // of both
	owed               bool
	due                time.Time // gather until then

	busy     bool // something is under way to the peer
	failures int
	closed   time.Time // nothing before this, after a failure
	stuck    int       // sessions in a row that moved nothing though they should have
	quiet    time.Time // no session before this, after one of those
}

func (b *box) empty() bool { return len(b.batches)+len(b.ephemeral) == 0 && !b.owed }

// boxes are all of them. Invariant: bytes = Σ of.bytes ≤ limit.allBoxBytes.
type boxes struct {
	limit   limits
	of      map[crdt.NodeID]*box
	bytes   int
	running int // pushes and owed sessions under way
}

func (bs *boxes) get(id crdt.NodeID) *box {
	b := bs.of[id]
	if b == nil {
		b = &box{}
		bs.of[id] = b
	}
	return b
}

// add puts payload into a peer's box, to go at due or with what goes earlier.
func (bs *boxes) add(id crdt.NodeID, due time.Time, batches, ephemeral [][]byte) {
	b := bs.get(id)
	if b.empty() || due.Before(b.due) {
		b.due = due
	}
	size := total(batches) + total(ephemeral)
	switch {
	case b.owed:
		return // the session will bring it
	case b.bytes+size > bs.limit.boxBytes || bs.bytes+size > bs.limit.allBoxBytes:
		bs.owe(b)
		return
	}
	b.batches, b.ephemeral = append(b.batches, batches...), append(b.ephemeral, ephemeral...)
	b.bytes, bs.bytes = b.bytes+size, bs.bytes+size
}

// owe drops the payload of a box for a session.
func (bs *boxes) owe(b *box) {
	bs.bytes -= b.bytes
	b.batches, b.ephemeral, b.bytes, b.owed = nil, nil, 0, true
}

// holds reports whether something waits for a peer or is on its way.
func (bs *boxes) holds(id crdt.NodeID) bool {
	b := bs.of[id]
	return b != nil && (b.busy || !b.empty())
}

// ready reports whether a session with a peer may begin now.
func (bs *boxes) ready(now time.Time, id crdt.NodeID) bool {
	b := bs.of[id]
	return b == nil || !b.busy && !now.Before(bs.opens(id))
}

// opens returns when a peer that is not busy may have a session, the zero time if at once.
func (bs *boxes) opens(id crdt.NodeID) time.Time {
	b := bs.of[id]
	if b == nil {
		return time.Time{}
	}
	return later(b.closed, b.quiet)
}

// begin marks a peer as busy with a session that was not owed. It settles what was.
func (bs *boxes) begin(id crdt.NodeID) {
	b := bs.get(id)
	b.busy, b.owed = true, false
	bs.running++
}

// due returns the pushes and owed sessions whose time has come, oldest box first.
func (bs *boxes) due(now time.Time, live map[crdt.NodeID]bool) (effects []effect) {
	ids := slices.SortedFunc(maps.Keys(bs.of), func(x, y crdt.NodeID) int {
		if c := bs.of[x].due.Compare(bs.of[y].due); c != 0 {
			return c
		}
		return bytes.Compare(x[:], y[:])
	})
	for _, id := range ids {
		b := bs.of[id]
		if bs.running >= bs.limit.pushes {
			break
		}
		if b.busy || b.empty() || now.Before(b.due) || now.Before(b.closed) || !live[id] {
			continue
		}
		b.busy = true
		bs.running++
		if b.owed {
			b.owed = false
			effects = append(effects, syncWith{id})
			continue
		}
		effects = append(effects, push{id, b.batches, b.ephemeral})
		bs.bytes -= b.bytes
		b.batches, b.ephemeral, b.bytes = nil, nil, 0
	}
	return effects
}

// ended notes how what was under way to a peer ended. After a failure the peer gets nothing for a while, and then one
// session if it lost batches.
func (bs *boxes) ended(now time.Time, id crdt.NodeID, err error, lost bool) {
	b := bs.of[id]
	if b == nil || !b.busy {
		return
	}
	b.busy = false
	bs.running--
	if err == nil {
		b.failures, b.closed = 0, time.Time{}
		return
	}
	pause := min(bs.limit.backOff<<min(b.failures, 16), bs.limit.backOffMax)
	if errors.Is(err, errBusy) {
		pause = bs.limit.backOff / 2 // it is well, only not now
	} else {
		b.failures++
	}
	b.closed = now.Add(pause)
	if lost || len(b.batches) > 0 {
		bs.owe(b)
	}
}

// session notes what a session with a peer did. Trying again soon what moved nothing would only cost the chunk that was
// refused; the peer may take it when it knows more.
func (bs *boxes) session(now time.Time, id crdt.NodeID, did outcome) {
	b := bs.of[id]
	if b == nil {
		return
	}
	if did != stuck {
		b.stuck, b.quiet = 0, time.Time{}
		return
	}
	b.quiet = now.Add(min(bs.limit.backOff<<min(b.stuck, 16), bs.limit.backOffMax))
	b.stuck++
}

// forget drops the boxes of peers that are not live and have nothing under way.
func (bs *boxes) forget(live map[crdt.NodeID]bool) {
	for id, b := range bs.of {
		if !live[id] && !b.busy {
			bs.bytes -= b.bytes
			delete(bs.of, id)
		}
	}
}

// next returns when the next box is due, or the given time if that is earlier.
func (bs *boxes) next(now, next time.Time) time.Time {
	if bs.running >= bs.limit.pushes {
		return next // an end wakes us
	}
	for _, b := range bs.of {
		if !b.busy && !b.empty() {
			next = earlier(next, later(b.due, b.closed))
		}
	}
	return next
}

func total(bs [][]byte) (n int) {
	for _, b := range bs {
		n += len(b)
	}
	return n
}
