package probe

import "time"

// grain is the width of the buckets that samples of a window fall into: a sample may count for so much too long.
const grain = time.Second

// windowMax is what one minute at one sample a second takes, with room for the window of a slower class behind it.
const windowMax = 72

// window holds the least samples of the last time: of each bucket the least, and only those that no later one undercuts,
// so that both bucket and sample grow from the front to the back (a monotonic queue). The zero value is empty.
type window struct {
	kept []sample
}

type sample struct {
	bucket int32  // in grains
	rtt    uint32 // microseconds
}

func bucketOf(at time.Duration) int32 { return int32(at / grain) }

// add takes a sample; at never goes back.
func (w *window) add(at time.Duration, rtt uint32) {
	b := bucketOf(at)
	for len(w.kept) > 0 && w.kept[len(w.kept)-1].rtt >= rtt {
		w.kept = w.kept[:len(w.kept)-1]
	}
	if n := len(w.kept); n > 0 && (w.kept[n-1].bucket == b || n == windowMax) {
		w.kept[n-1].bucket = b // the least of the bucket stays; where there is no room, so does what would leave later
		return
	}
	w.kept = append(w.kept, sample{b, rtt})
}

// expire drops what is older than span.
func (w *window) expire(now, span time.Duration) {
	n, from := 0, bucketOf(now-span)
	for n < len(w.kept)-1 && w.kept[n].bucket < from { // the last sample stays till there is another
		n++
	}
	if n > 0 {
		w.kept = w.kept[:copy(w.kept, w.kept[n:])]
	}
}

// least returns the least sample not older than span, else the last; 0: there was none.
func (w *window) least(now, span time.Duration) uint32 {
	from := bucketOf(now - span)
	for _, s := range w.kept {
		if s.bucket >= from {
			return s.rtt
		}
	}
	if n := len(w.kept); n > 0 {
		return w.kept[n-1].rtt
	}
	return 0
}

func (w *window) reset() { w.kept = w.kept[:0] }
