package relay

import (
	"context"
	"sync"
	"time"

	"vcpeer/crdt"
)

// shares gives out a rate of bytes in turns: each member that wants some gets one piece before any gets its second. A rate
// of 0 has no limit. Safe for concurrent use.
type shares struct {
	rate  float64 // bytes a second
	burst float64 // bytes that may go at once after a pause

	mu      sync.Mutex
	left    float64 // bytes that may go now
	at      time.Time
	turns   []crdt.NodeID // who waits, in order of their turns
	waiting map[crdt.NodeID][]*wish
	timer   *time.Timer
}

// wish is one piece that waits.
type wish struct {
	bytes   int
	granted chan struct{}
}

func newShares(rate int64) *shares {
	r := float64(rate)
	return &shares{rate: r, burst: r / 20, left: r / 20, at: time.Now(), waiting: map[crdt.NodeID][]*wish{}}
}

// take waits until who may send n bytes.
func (s *shares) take(ctx context.Context, who crdt.NodeID, n int) error {
	if s.rate <= 0 {
		return ctx.Err()
	}
	w := &wish{bytes: n, granted: make(chan struct{})}
	s.mu.Lock()
	if len(s.waiting[who]) == 0 {
		s.turns = append(s.turns, who)
	}
	s.waiting[who] = append(s.waiting[who], w)
	s.grantLocked()
	s.mu.Unlock()
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx) // its grant, when it comes, is lost: at most one piece
	}
}

// grantLocked grants what the rate allows by now, and comes back when it allows more. A piece may overdraw: what it took
// too much is missing for the next.
func (s *shares) grantLocked() {
	now := time.Now()
	s.left = min(s.burst, s.left+now.Sub(s.at).Seconds()*s.rate)
	s.at = now
	for len(s.turns) > 0 && s.left > 0 {
		who := s.turns[0]
		s.turns = s.turns[1:]
		w := s.waiting[who][0]
		s.left -= float64(w.bytes)
		close(w.granted)
		if rest := s.waiting[who][1:]; len(rest) > 0 {
			s.waiting[who] = rest
			s.turns = append(s.turns, who)
		} else {
			delete(s.waiting, who)
		}
	}
	if len(s.turns) > 0 && s.timer == nil {
		wait := time.Duration(-s.left / s.rate * float64(time.Second))
		s.timer = time.AfterFunc(max(wait, time.Millisecond), func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.timer = nil
			s.grantLocked()
		})
	}
}
