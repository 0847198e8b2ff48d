package site

import (
	"context"
	"errors"
	"time"

	"vcpeer/crdt"
)

// A node that is stopped, or cut off without a word, takes questions and never answers. What is known elsewhere ends them
// long before their time is up: the raft group names another leader, or gossip gives the node up.

var (
	// errMoved ends a question that was sent to a node of this site as its leader when the site has another one. Whoever
	// asked asks again, with the time of then.
	errMoved = errors.New("queue/site: another node leads by now")
	// errLost ends a question to a node that gossip has given up.
	errLost = errors.New("queue/site: the node is not heard any more")
)

// turn numbers the leaders of this site as they become known, from 1; 0 stands for a question that is not for the leader
// of this site.
type turn uint64

// lostTimeout is how long a question to a node that gossip has given up may take: gossip may be wrong.
const lostTimeout = 2 * time.Second

// call is a question under way.
type call struct {
	to     crdt.NodeID
	during turn
	cancel context.CancelCauseFunc
}

// current returns the turn in which a question for this site's leader is asked. It is taken before looking who leads, so
// that a question to the one before cannot slip through.
func (p *peers) current() turn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.turn
}

// begin registers a question; end takes it out. The context ends when the question should.
func (p *peers) begin(ctx context.Context, to crdt.NodeID, parked time.Duration, during turn) (_ context.Context, end func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if during != 0 && during != p.turn {
		return nil, nil, errMoved
	}
	most := parked + askTimeout
	if p.lost[to] {
		most = lostTimeout
	}
	ctx, stop := context.WithTimeout(ctx, most)
	ctx, cancel := context.WithCancelCause(ctx)
	c := &call{to, during, cancel}
	p.calls[c] = struct{}{}
	return ctx, func() {
		p.mu.Lock()
		delete(p.calls, c)
		p.mu.Unlock()
		cancel(nil)
		stop()
	}, nil
}

// moved ends the questions to this site's leader that are under way to another node than the one that leads now.
func (p *peers) moved(leader crdt.NodeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn++
	for c := range p.calls {
		if c.during != 0 && c.to != leader {
			c.cancel(errMoved)
			p.drop(c.to)
		}
	}
}

// setLost takes the nodes that gossip has given up, and ends the questions to those that it had not before.
func (p *peers) setLost(lost map[crdt.NodeID]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.lost
	p.lost = lost
	for n := range lost {
		if !before[n] {
			p.drop(n)
		}
	}
	for c := range p.calls {
		if lost[c.to] && !before[c.to] {
			c.cancel(errLost)
		}
	}
}

func (p *peers) isLost(n crdt.NodeID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost[n]
}

// drop closes the kept streams to a node: they may lead nowhere. p.mu is held.
func (p *peers) drop(n crdt.NodeID) {
	for _, c := range p.idle[n] {
		c.Close()
	}
	delete(p.idle, n)
}
