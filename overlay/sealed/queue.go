package sealed

import (
	"math"
	"time"
)

// packet is a frame on its way out, in memory of a pool.
type packet struct {
	next   *packet
	at     time.Duration // when it came, by the link's clock
	key    uint32
	large  bool
	less   bool // a large packet is to go without its first segment
	size   int  // of segments, if large
	shape  shape
	how    byte // howOpen, or 0
	start  byte
	check  byte
	frame  []byte // within memory
	memory []byte
	home   *pool // of datagrams
}

// Sizes of queues and what they hold back. A frame that is late is of no use: TCP has sent it again, a game has moved on.
const (
	peerQueueBytes  = 4 << 20 // for one peer: 7 ms of 5 Gbit/s; with less speed queueTarget is what counts
	totalQueueBytes = 16 << 20
	queueTarget     = 5 * time.Millisecond   // RFC 8289: what frames may wait all the time
	queueInterval   = 100 * time.Millisecond // and how long more than that is a burst
	quantumBytes    = 64 << 10               // of one peer at a time
)

// queue holds the frames for one peer. It drops the oldest when it is full, and frames that waited too long (CoDel,
// RFC 8289).
type queue struct {
	head, tail *packet
	bytes      int // of memory, which is what is scarce

	closed   bool          // the peer is none any more
	deficit  int           // bytes that it may still send in this round
	waiting  bool          // in the scheduler's ring
	above    time.Duration // since when frames wait longer than the target, plus the interval; 0: they do not
	dropping bool
	dropNext time.Duration
	drops    uint32 // since dropping began
	last     uint32 // drops when dropping ended last

	owner *peer
}

func (q *queue) push(p *packet) {
	p.next = nil
	if q.tail == nil {
		q.head = p
	} else {
		q.tail.next = p
	}
	q.tail = p
	q.bytes += len(p.memory)
}

func (q *queue) shift() *packet {
	p := q.head
	if p == nil {
		return nil
	}
	if q.head = p.next; q.head == nil {
		q.tail = nil
	}
	p.next = nil
	q.bytes -= len(p.memory)
	return p
}

// late takes the next packet and says whether it should go; nil: there is none.
func (q *queue) late(now time.Duration) (p *packet, drop bool) {
	if p = q.shift(); p == nil {
		q.above = 0
		return nil, false
	}
	if now-p.at < queueTarget || q.bytes < quantumBytes {
		q.above = 0
		return p, false
	}
	if q.above == 0 {
		q.above = now + queueInterval
		return p, false
	}
	return p, now >= q.above
}

// pop returns the next packet to send. Of those that are late, as many as CoDel says are lost: a large packet loses its
// first segment, which says the same to its sender as the loss of all; others are given to dropped.
func (q *queue) pop(now time.Duration, dropped func(*packet)) *packet {
	for {
		p, late := q.late(now)
		switch {
		case p == nil || !late:
			q.dropping = false
			return p
		case !q.dropping:
			q.dropping = true
			since := q.drops - q.last
			q.drops = 1
			if since > 1 && now-q.dropNext < 16*queueInterval {
				q.drops = since
			}
			q.dropNext, q.last = now+interval(q.drops), q.drops
		case now >= q.dropNext:
			q.drops++
			q.dropNext += interval(q.drops)
		default:
			return p
		}
		if q.owner.drops.late.Add(1); p.large && !p.less {
			p.less = true
			return p
		}
		dropped(p)
	}
}

func interval(drops uint32) time.Duration {
	return time.Duration(float64(queueInterval) / math.Sqrt(float64(max(drops, 1))))
}

// scheduler shares the link among peers: each that has frames gets its turn, for as many bytes (deficit round robin).
type scheduler struct {
	ring  []*queue // with frames, in the order of their turns
	bytes int      // in all queues

	dropped func(*packet) // gets back what was pushed out
}

// put queues a packet. apart: not for take, but for drain, since somebody empties this queue alone.
func (s *scheduler) put(q *queue, p *packet, apart bool) {
	if q.closed {
		s.dropped(p)
		return
	}
	for q.head != nil && q.bytes+len(p.memory) > peerQueueBytes {
		s.oldest(q)
	}
	for s.bytes+len(p.memory) > totalQueueBytes {
		longest := q
		for _, o := range s.ring {
			if o.bytes > longest.bytes {
				longest = o
			}
		}
		if longest.head == nil {
			break
		}
		s.oldest(longest)
	}
	q.push(p)
	s.bytes += len(p.memory)
	if !q.waiting && !apart {
		q.waiting, q.deficit = true, 0
		s.ring = append(s.ring, q)
	}
}

// oldest drops the first of a queue.
func (s *scheduler) oldest(q *queue) {
	p := q.shift()
	s.bytes -= len(p.memory)
	q.owner.drops.full.Add(1)
	s.dropped(p)
}

// take returns packets of the peer whose turn it is, at most quantumBytes and one; none: all queues are empty.
func (s *scheduler) take(now time.Duration, out []*packet) (*queue, []*packet) {
	for len(s.ring) > 0 {
		q := s.ring[0]
		if out = s.drain(q, now, out); len(out) > 0 {
			copy(s.ring, s.ring[1:])
			s.ring[len(s.ring)-1] = q
			return q, out
		}
		q.waiting, q.deficit = false, 0
		s.ring = append(s.ring[:0], s.ring[1:]...)
	}
	return nil, out
}

// drain takes a turn's packets out of a queue.
func (s *scheduler) drain(q *queue, now time.Duration, out []*packet) []*packet {
	before := q.bytes
	q.deficit = min(q.deficit+quantumBytes, quantumBytes)
	for q.deficit > 0 {
		p := q.pop(now, s.dropped)
		if p == nil {
			break
		}
		q.deficit -= len(p.frame)
		out = append(out, p)
	}
	s.bytes -= before - q.bytes
	return out
}

// forget empties a queue.
func (s *scheduler) forget(q *queue) {
	for q.head != nil {
		p := q.shift()
		s.bytes -= len(p.memory)
		s.dropped(p)
	}
	for i, o := range s.ring {
		if o == q {
			s.ring = append(s.ring[:i], s.ring[i+1:]...)
			break
		}
	}
	q.waiting = false
}
