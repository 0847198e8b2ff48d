package probe

import (
	"time"

	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
)

// Link is what is known of the direct link to a target, or of one path to it.
type Link struct {
	ID       ID
	Kind     path.Kind     // of a direct link
	Via      []label.Label // transit gateways; nil: the direct link. Never written to
	Class    Class
	Up       bool
	Measured bool // it was up at some time
	Since    time.Time
	Flaps    int // times that it went down

	// When the newest probe was sent that was answered, and when the first of those that were missed in a row; zero: none was.
	Answered, Missing time.Time

	RTT     time.Duration // without queues and noise; 0: not measured
	Recent  time.Duration // the least of the last seconds: above RTT, there is a queue or a new route
	Smooth  time.Duration // what a packet sees at present
	Sigma   time.Duration
	LossOut float64 // 0 to 1, of the last 32 probes, on the way there
	LossIn  float64 // the same on the way back
	MTU     int     // largest IP packet that passed, bytes; 0: not known, not searched, or a path
	Samples uint64
}

// Report is all links and paths that are wanted, by ID, paths by length and gateways. It never changes once returned.
type Report struct {
	Links []Link
	Paths []Link
}

// Report returns what is known now. It makes one allocation of 150 bytes for each link.
func (c *Core) Report(at time.Time) (r Report) {
	now := c.since(at)
	links, paths := 0, 0
	for _, t := range c.tracks {
		if t.wanted && t.way.n == 0 {
			links++
		} else if t.wanted {
			paths++
		}
	}
	r.Links, r.Paths = make([]Link, 0, links), make([]Link, 0, paths)
	for _, t := range c.tracks {
		switch {
		case !t.wanted:
		case t.way.n == 0:
			r.Links = append(r.Links, c.link(t, now))
		default:
			r.Paths = append(r.Paths, c.link(t, now))
		}
	}
	return r
}

func (c *Core) link(t *track, now time.Duration) Link {
	every := c.config.interval(t.class)
	l := Link{
		ID: t.way.id, Kind: t.way.kind, Via: t.via, Class: t.class, Up: t.up, Measured: t.known, Since: c.wall(t.since), Flaps: t.flaps,
		RTT: t.rtt.least(now, &c.config, every), Recent: t.rtt.recent(now, &c.config, every),
		Smooth: t.rtt.smooth, Sigma: t.rtt.sigma(), MTU: t.mtu.mtu, Samples: t.rtt.count,
	}
	if t.lastSent >= 0 {
		l.Answered = c.wall(t.lastSent)
	}
	if t.missed > 0 {
		l.Missing = c.wall(t.missing)
	}
	l.LossOut, l.LossIn = t.loss(c.heard[t.way.back()], &c.config)
	return l
}
