package wan

import (
	"math/rand/v2"
	"time"

	"vcpeer/deploy/lab/shape"
)

// line is one direction between two sites: pure, its clock and its chance come from outside.
type line struct {
	shape  shape.Shape
	rng    *rand.Rand
	freeAt time.Duration // when the wire of the rate limit is idle again
	last   time.Duration // due time of the last packet; keeps order under jitter
	count  Count
}

// Count is what passed in one direction since the lab is up.
type Count struct {
	Packets  uint64 `json:"packets"`
	Bytes    uint64 `json:"bytes"` // of IP packets
	Lost     uint64 `json:"lost"`  // by loss, by a cut
	Overflow uint64 `json:"overflow"`
	TooBig   uint64 `json:"tooBig"`
}

// verdict says what becomes of a packet.
type verdict int

const (
	pass verdict = iota
	drop
	tooBig
)

// admit says when an IP packet of size bytes that comes now leaves the line, or why it does not. Times count from any
// fixed moment.
func (l *line) admit(size int, now time.Duration) (due time.Duration, v verdict) {
	s := &l.shape
	switch {
	case s.Cut || s.Loss > 0 && l.rng.Float64() < s.Loss:
		l.count.Lost++
		return 0, drop
	case s.MTUBytes > 0 && size > s.MTUBytes:
		l.count.TooBig++
		return 0, tooBig
	}
	due = now
	if s.Rate > 0 {
		wait := max(0, l.freeAt-now)
		queue := s.QueueBytes
		if queue == 0 {
			queue = shape.DefaultQueueBytes
		}
		if wait.Seconds()*s.Rate/8 > float64(queue) {
			l.count.Overflow++
			return 0, drop
		}
		l.freeAt = now + wait + time.Duration(float64(size*8)/s.Rate*1e9)
		due = l.freeAt
	}
	due += s.Delay
	if s.Jitter > 0 {
		due += time.Duration((l.rng.Float64()*2 - 1) * float64(s.Jitter))
	}
	due = max(due, l.last, now)
	l.last = due
	l.count.Packets++
	l.count.Bytes += uint64(size)
	return due, pass
}

// reshape changes what the line does from now on. What is under way keeps its time, and what comes next stays behind it.
func (l *line) reshape(s shape.Shape) {
	l.shape = s
	l.freeAt = 0
}
