package fabric

import (
	"math/rand/v2"
	"net"
	"time"
)

const (
	outboxConnected    = 64 // datagrams waiting for a connected peer (its connection is congested)
	outboxDialling     = 8  // datagrams waiting for a connection
	retryFirst         = time.Second
	retryMost          = time.Minute
	maxDatagramOnWire  = maxFrameBytes // class and payload
	datagramSendBudget = 5 * time.Second
)

// outbox holds the datagrams for one peer that are not sent yet, and when a peer that cannot be reached is tried again.
// Owned by its link, under its lock. The zero value is ready.
type outbox struct {
	queue    [][]byte // class and payload, oldest first
	draining bool     // a goroutine is sending queue
	fails    int      // dials in a row that failed
	retry    time.Time
	cancel   func()    // ends the dial under way; nil: there is none
	revived  uint64    // how often revive was called
	stream   net.Conn  // to the peer's datagramProtocol; used by the draining goroutine only
	pinged   time.Time // when the last ping went out on stream
	nonce    uint64    // of that ping; 0: answered
	dropped  uint64    // datagrams given up, for Dropped
}

// put queues d and reports whether a goroutine must be started to drain. When the queue is full the oldest goes: the
// newest is worth most to gossip. Nothing is queued for a peer whose next dial is not due yet.
func (o *outbox) put(d []byte, connected bool, now time.Time) (start bool) {
	room := outboxConnected
	if !connected {
		room = outboxDialling
		if now.Before(o.retry) {
			o.dropped++
			return false
		}
	}
	for len(o.queue) >= room {
		o.queue[0] = nil
		o.queue = o.queue[1:]
		o.dropped++
	}
	o.queue = append(o.queue, d)
	if o.draining {
		return false
	}
	o.draining = true
	return true
}

// take removes the oldest datagram. nil: there is none, and draining is over.
func (o *outbox) take() []byte {
	if len(o.queue) == 0 {
		o.queue, o.draining = nil, false
		return nil
	}
	d := o.queue[0]
	o.queue[0] = nil
	o.queue = o.queue[1:]
	return d
}

// fail notes that the peer cannot be reached: what waits is given up, and the next dial put off, twice as long each time
// and spread by a quarter so that a site that comes back is not dialled by all in one moment.
func (o *outbox) fail(now time.Time) {
	o.dropped += uint64(len(o.queue))
	o.queue = nil
	wait := min(retryFirst<<min(o.fails, 16), retryMost)
	o.fails++
	o.retry = now.Add(wait - wait/8 + rand.N(wait/4))
}

// revive forgets failures: the peer has connected, or has new addresses. A dial under way, which cannot know, is ended.
func (o *outbox) revive() {
	o.fails, o.retry = 0, time.Time{}
	o.revived++
	if o.cancel != nil {
		o.cancel()
	}
}
