package probe

import "time"

// A window is cut into parts, in each of which samples count as one: so a sample may count for one part too long.
const (
	windowParts = 60
	windowMax   = 2*windowParts + 8 // where the span has just become longer, those of before stand more closely
)

// window holds the least samples of the last time: of each part the least, and only those that no later one undercuts,
// so that both time and sample grow from the front to the back (a monotonic queue). The zero value is empty.
type window struct {
	kept []sample
}

type sample struct {
	at  int32  // begin of the part, seconds
	rtt uint32 // microseconds
}

// partOf returns the begin of the part of span that holds at.
func partOf(at, span time.Duration) int32 {
	part := int32(max(span/windowParts/time.Second, 1))
	return int32(at/time.Second) / part * part
}

// add takes a sample and drops what is older than span; at never goes back.
func (w *window) add(at, span time.Duration, rtt uint32) {
	n, from := 0, partOf(at-span, span)
	for n < len(w.kept) && (w.kept[n].at < from || n <= len(w.kept)-windowMax) {
		n++
	}
	w.kept = w.kept[:copy(w.kept, w.kept[n:])]
	for len(w.kept) > 0 && w.kept[len(w.kept)-1].rtt >= rtt {
		w.kept = w.kept[:len(w.kept)-1]
	}
	part := partOf(at, span)
	if n := len(w.kept); n > 0 && w.kept[n-1].at >= part {
		return
	}
	w.kept = append(w.kept, sample{part, rtt})
}

// least returns the least sample not older than span, else the last; 0: there was none.
func (w *window) least(now, span time.Duration) uint32 {
	from := partOf(now-span, span)
	for _, s := range w.kept {
		if s.at >= from {
			return s.rtt
		}
	}
	if n := len(w.kept); n > 0 {
		return w.kept[n-1].rtt
	}
	return 0
}

func (w *window) reset() { w.kept = w.kept[:0] }
