package sealed

// window tells datagrams that came before, or are too old to tell, from new ones (RFC 6479: a ring of words, of which the
// oldest is cleared when the newest moves on). The zero value has seen nothing.
type window struct {
	next uint64 // all counters from here on are new
	bits [windowWords]uint64
}

const (
	windowWords = 128
	// windowSize is how far behind the newest a datagram may come: 0.1 s of 600 Mbit/s, which no network reorders by.
	windowSize = (windowWords - 1) * 64
)

// fresh reports whether a counter has not been seen and is not too old.
func (w *window) fresh(c uint64) bool {
	if c >= w.next {
		return true
	}
	return w.next-c <= windowSize && w.bits[c/64%windowWords]&(1<<(c%64)) == 0
}

// see notes that a fresh counter was seen; true: it is the highest so far.
func (w *window) see(c uint64) (newest bool) {
	if c >= w.next {
		word, last := c/64, w.next/64
		if w.next > 0 {
			last = (w.next - 1) / 64
		}
		for n := min(word-last, windowWords); n > 0; n-- {
			w.bits[(word-n+1)%windowWords] = 0
		}
		w.next = c + 1
		newest = true
	}
	w.bits[c/64%windowWords] |= 1 << (c % 64)
	return newest
}
