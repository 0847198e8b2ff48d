package probe

import (
	"math/bits"
	"time"
)

// heard is what came from one asker by one way: what its answers and own questions tell it.
type heard struct {
	session uint32
	ack     ack
	count   uint8 // of the 32 numbers up to the highest, those since the first that came
	stale   uint8 // in a row behind all that is remembered
	at      time.Duration
}

// staleMax is how many numbers in a row may lie behind: then the highest was a lie, or a bit that flipped.
const staleMax = 8

// take notes a number; false: it came before, or is too old to tell.
func (h *heard) take(now time.Duration, session, seq uint32) bool {
	h.at = now
	ahead := int32(seq - h.ack.high)
	switch {
	case h.count == 0 || session != h.session: // an asker that restarted; one that is late from before costs the count
		*h = heard{session: session, ack: ack{seq, 1}, count: 1, at: now}
		return true
	case ahead > 0:
		h.ack = ack{seq, h.ack.bits<<min(ahead, 32) | 1}
		h.count = uint8(min(int64(h.count)+int64(ahead), 32))
	case ahead <= -32:
		if h.stale++; h.stale >= staleMax {
			h.count = 0
		}
		return false
	default:
		if h.ack.bits&(1<<-ahead) != 0 {
			return false
		}
		h.ack.bits |= 1 << -ahead
		h.count = max(h.count, uint8(1-ahead))
	}
	h.stale = 0
	return true
}

// loss is the share of the last numbers that did not come.
func (h *heard) loss() float64 {
	if h.count == 0 {
		return 0
	}
	return 1 - float64(bits.OnesCount32(h.ack.bits))/float64(h.count)
}
