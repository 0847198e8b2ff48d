package fabric

import (
	"context"
	"time"

	"vcpeer/crdt"
)

// Way is how a member is reached just now.
type Way struct {
	Link    Link
	Punched bool          // direct, through a hole that both sides made
	RTT     time.Duration // 0: not measured
}

// Way returns the connection that new streams to a member use; false: there is none.
func (f *Fabric) Way(id crdt.NodeID) (Way, bool) {
	l := f.peek(id)
	if l == nil {
		return Way{}, false
	}
	best := l.usable(false)
	if len(best) == 0 {
		return Way{}, false
	}
	w := Way{Link: f.describe(best[0])}
	l.mu.Lock()
	known := l.knows(best[0].RemoteMultiaddr())
	l.mu.Unlock()
	w.Punched = !best[0].relayed() && !known && f.Reach().Open() == No
	w.RTT = w.Link.RTT
	return w, true
}

// Try makes sure that a member answers, connecting first if need be.
func (f *Fabric) Try(ctx context.Context, id crdt.NodeID) error {
	if w, ok := f.Way(id); ok && !w.Link.Silent {
		return nil
	}
	c, err := f.Open(ctx, id, reachProtocol)
	if err == nil {
		reset(c)
	}
	return err
}
