package probe

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
)

// PingID tells pings apart.
type PingID uint32

// Ping is a number of probes of one way, whose answers come as events.
type Ping struct {
	To       ID            // a target; a gateway's path may end at any gateway
	Via      []label.Label // transit gateways in order; empty: the direct link …
	Kind     path.Kind     // … of this kind
	Bytes    int           // of IP packets as large as the probes; 0: as small as they can be
	Count    int           // 0: one
	Interval time.Duration // 0: a second
	Timeout  time.Duration // 0: a second
}

// Most pings at once, and probes of one.
const (
	pingsMax = 16
	pongsMax = 1000
)

// ErrBusy says that too many pings run.
var ErrBusy = errors.New("probe: too many pings at once")

// ErrNoTarget says that a ping is for one that is no target.
var ErrNoTarget = errors.New("probe: no such target")

// Ping begins a ping; its events come from the calls that follow. ErrBusy: too many run. ErrNoTarget: To is none.
func (c *Core) Ping(at time.Time, p Ping) (PingID, error) {
	if len(c.pings) >= pingsMax {
		return 0, ErrBusy
	}
	if t := c.ways[way{id: p.To, kind: p.Kind}]; (t == nil || !t.wanted) && len(p.Via) == 0 {
		return 0, ErrNoTarget
	}
	p.Via = slices.Clone(p.Via)
	q, err := p.start(c.pingID+1, c.since(at), c.oneShot)
	if err != nil {
		return 0, err
	}
	if q.way.over(c.self.Label) || q.way.id == c.self.id(p.To.near) {
		return 0, errors.New("probe: ping of a path that leads back here")
	}
	c.pingID++
	c.oneShot += uint32(q.Count)
	c.pings = append(c.pings, q)
	return q.id, nil
}

// pingOn gives up what is late, sends what is due, and says when all is done.
func (c *Core) pingOn(p *ping, now time.Duration) {
	for {
		e, lost, more := p.judge(now)
		if lost {
			c.out.Events = append(c.out.Events, e)
		}
		if !more {
			break
		}
	}
	if p.judged == p.Count {
		c.out.Events = append(c.out.Events, p.event(PingDone, p.answered, 0))
		return
	}
	if len(p.at) < p.Count && now >= p.sendAt {
		m := message{kind: request, oneShot: true, from: c.self.id(p.To.near), way: p.way, size: p.Bytes, session: c.session, seq: p.base + uint32(len(p.at))}
		p.at = append(p.at, now)
		p.sendAt = now + p.Interval
		c.emit(&m, p.way, c.ways[way{id: p.To, kind: p.Kind}])
	}
}

// ping is a Ping under way.
type ping struct {
	Ping
	id       PingID
	way      way
	base     uint32          // number of the first probe
	at       []time.Duration // when each was sent; 0 from when it was answered or given up
	judged   int             // all before are done
	answered int
	sendAt   time.Duration
}

func (p Ping) start(id PingID, now time.Duration, base uint32) (*ping, error) {
	w, ok := wayTo(p.To, p.Via)
	if len(p.Via) == 0 {
		w, ok = directTo(p.To, p.Kind)
	}
	if !ok {
		return nil, fmt.Errorf("probe: ping %v via %v: no such path", p.To, p.Via)
	}
	p.Count = min(max(p.Count, 1), pongsMax)
	if p.Bytes < 0 || p.Bytes > maxBytes {
		return nil, fmt.Errorf("probe: ping %v: %d bytes: at most %d", p.To, p.Bytes, maxBytes)
	}
	p.Bytes = max(p.Bytes, messageBytes)
	if p.Interval <= 0 {
		p.Interval = time.Second
	}
	p.Interval = max(p.Interval, 10*time.Millisecond)
	if p.Timeout <= 0 {
		p.Timeout = time.Second
	}
	return &ping{Ping: p, id: id, way: w, base: base, at: make([]time.Duration, 0, p.Count), sendAt: now}, nil
}

// answer takes in an answer; false: it was not waited for.
func (p *ping) answer(at time.Duration, from way, seq uint32, hold time.Duration) (Event, bool) {
	i := seq - p.base
	if from != p.way || i >= uint32(len(p.at)) || p.at[i] == 0 {
		return Event{}, false
	}
	rtt := max(at-p.at[i], 0)
	if hold < rtt {
		rtt -= hold
	}
	p.at[i] = 0
	p.answered++
	return p.event(Pong, int(i)+1, rtt), true
}

func (p *ping) event(k EventKind, seq int, rtt time.Duration) Event {
	return Event{Kind: k, ID: p.To, Via: p.Via, RTT: rtt, Ping: p.id, Seq: seq}
}

// due is when there is something to send or to give up; it is past when all is done.
func (p *ping) due() time.Duration {
	due := never
	if len(p.at) < p.Count {
		due = p.sendAt
	}
	if p.judged < len(p.at) {
		if p.at[p.judged] == 0 {
			return 0
		}
		due = min(due, p.at[p.judged]+p.Timeout)
	}
	if p.judged == p.Count {
		return 0
	}
	return due
}

// judge gives up the oldest; false: it is not time.
func (p *ping) judge(now time.Duration) (e Event, lost, more bool) {
	if p.judged == len(p.at) {
		return e, false, false
	}
	switch at := p.at[p.judged]; {
	case at == 0:
		p.judged++
		return e, false, true
	case now < at+p.Timeout:
		return e, false, false
	}
	p.at[p.judged] = 0
	p.judged++
	return p.event(PingLost, p.judged, 0), true, true
}
