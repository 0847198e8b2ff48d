package spread

import (
	"context"
	"errors"
	"time"

	"vcpeer/crdt"
)

// Stats are figures since Start, for status.
type Stats struct {
	LastSync  time.Time // end of the last session that this node opened and that went well
	Sessions  uint64    // opened by this node, went well
	Equal     uint64    // of these, nothing had to be moved
	Failed    uint64    // opened by this node, went wrong
	Pushed    uint64    // batches given to a peer at once; one counts for each peer
	Announced uint64    // digests sent
	Urged     uint64    // datagrams with urgent entries sent
	BytesIn   uint64    // on streams, both kinds
	BytesOut  uint64
	Known     int // live peers whose digest has been seen
	Behind    int // of these, not equal to this node's: behind, ahead or apart
	Waiting   int // bytes of payload that wait for peers
}

// Converged reports whether every live peer that showed its digest had this node's.
func (st Stats) Converged() bool { return st.Behind == 0 }

// Stats returns the figures now.
func (s *Spread) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Known, st.Behind, st.Waiting = len(s.plan.shown), s.plan.behind(), s.plan.boxes.bytes
	return st
}

func (s *Spread) count(f func(*Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.stats)
}

func (s *Spread) countSession(did outcome, err error) {
	s.count(func(st *Stats) {
		switch {
		case err != nil:
			st.Failed++
			return
		case did == equal:
			st.Equal++
		}
		st.Sessions++
		st.LastSync = time.Now()
	})
}

// SyncWith holds a whole session with one peer, live or not, and returns when both have what either had when it began.
// While the peer is busy with others it tries again until ctx ends.
func (s *Spread) SyncWith(ctx context.Context, id crdt.NodeID) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		_, err := s.session(ctx, id)
		switch {
		case s.ctx.Err() != nil:
			return ErrClosed
		case !errors.Is(err, errBusy):
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}
