package overlay

import (
	"time"

	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
)

// choices say for each gateway whether frames to it go over GRE or sealed. GRE is preferred as long as it is about as good:
// it costs the least. Each end chooses for what it sends, and takes what comes by either.
type choices map[label.Label]*choice

type choice struct {
	kind  path.Kind
	left  int       // times that GRE was left for having failed …
	since time.Time // … since when the link is of its kind
}

const (
	// A GRE link that never answered is given up after patience: where it works an answer comes at once.
	patience = time.Second
	// backAfter is how long a GRE link must have worked before it is taken again, doubled with every time that it failed, up
	// to backMost, and forgotten when it has been in use for backForget.
	backAfter  = 2 * time.Second
	backMost   = time.Minute
	backForget = 5 * time.Minute
)

// kind is what is in use to a gateway.
func (c choices) kind(l label.Label) path.Kind {
	if o := c[l]; o != nil {
		return o.kind
	}
	return path.GRE
}

// choose returns the link to use of the two that a gateway may have; nil: it has none of the kind.
func (c choices) choose(l label.Label, gre, seal *measured, now time.Time) *measured {
	o := c[l]
	if o == nil {
		o = &choice{since: now}
		c[l] = o
	}
	if gre == nil || seal == nil {
		if gre != nil {
			o.to(path.GRE, now)
			return gre
		}
		o.to(path.Sealed, now)
		return seal
	}
	switch o.kind {
	case path.GRE:
		switch {
		case gre.up && !(seal.up && muchWorse(gre, seal)):
			if now.Sub(o.since) > backForget {
				o.left = 0
			}
		case seal.up && (gre.up || gre.ever || now.Sub(gre.since) > patience):
			o.left++
			o.to(path.Sealed, now)
		}
	case path.Sealed:
		back := min(backAfter<<min(max(o.left-1, 0), 10), backMost)
		if gre.up && (!seal.up || now.Sub(gre.since) >= back && now.Sub(o.since) >= back && !notYet(gre, seal)) {
			o.to(path.GRE, now)
		}
	}
	if o.kind == path.Sealed {
		return seal
	}
	return gre
}

func (o *choice) to(k path.Kind, now time.Time) {
	if o.kind != k {
		o.kind, o.since = k, now
	}
}

// muchWorse reports whether a GRE link that works is to be left for a sealed one.
func muchWorse(gre, seal *measured) bool {
	return lossOf(gre)-lossOf(seal) > 0.1 || slower(gre.rtt, seal.rtt+seal.rtt/5+3*time.Millisecond)
}

// notYet reports whether it is too early to take it again.
func notYet(gre, seal *measured) bool {
	return lossOf(gre)-lossOf(seal) > 0.03 || slower(gre.rtt, seal.rtt+seal.rtt/10+time.Millisecond)
}

func lossOf(m *measured) float64 { return max(m.lossOut, m.lossIn) }

func slower(a, b time.Duration) bool { return a > 0 && a > b }

// forget drops what is kept of gateways that are none any more.
func (c choices) forget(gateways map[label.Label]bool) {
	for l := range c {
		if !gateways[l] {
			delete(c, l)
		}
	}
}
