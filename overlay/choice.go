package overlay

import (
	"time"

	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
)

// choices say for each gateway whether frames to it go over GRE or sealed. GRE is preferred as long as it is about as good:
// it costs the least. Both ends take what comes by either, and what fails is left by each that sees it; else the end with the
// higher label does as the other says that it does, so that what watches a link from end to end has one to watch.
type choices map[label.Label]*choice

type choice struct {
	kind  path.Kind
	since time.Time // it is of this kind
	left  int       // times that GRE was left, until it has been in use for long
}

const (
	// A GRE link that never answered is given up after patience: where it works an answer comes at once.
	patience = time.Second
	// backAfter is how long a GRE link must have worked before it is taken again, four times as long with every time that it was
	// left, up to backMost, and forgotten when it has been in use for backForget.
	backAfter  = 2 * time.Second
	backMost   = time.Minute
	backForget = 5 * time.Minute
	// lossWindow is how long a link must be up before enough was sent over it to tell how much it loses.
	lossWindow = 10 * time.Second
)

// kind is what is in use to a gateway.
func (c choices) kind(l label.Label) path.Kind {
	if o := c[l]; o != nil {
		return o.kind
	}
	return path.GRE
}

// both are the links that a gateway may have; nil: it has none of the kind.
type both struct {
	gre, seal *measured
	led       bool      // the other end decides, and says …
	word      path.Kind // … that it uses this
}

// choose returns the link to use; nil: there is none.
func (c choices) choose(l label.Label, b both, now time.Time) *measured {
	o := c[l]
	if o == nil {
		o = &choice{since: now}
		c[l] = o
	}
	next := o.next(b, now)
	switch {
	case next != o.kind:
		if next == path.Sealed && b.gre != nil {
			o.left++
		}
		o.kind, o.since = next, now
	case next == path.GRE && now.Sub(o.since) > backForget:
		o.left = 0
	}
	if o.kind == path.Sealed {
		return b.seal
	}
	return b.gre
}

// next is what is to be used from now on.
func (o *choice) next(b both, now time.Time) path.Kind {
	gre, seal := b.gre, b.seal
	switch {
	case gre == nil:
		return path.Sealed
	case seal == nil:
		return path.GRE
	case !gre.up && !seal.up:
		return o.kind
	case !gre.up && !gre.ever && now.Sub(gre.since) > patience, !gre.up && gre.ever && outlasts(seal, gre):
		return path.Sealed
	case !seal.up && (o.kind == path.GRE || outlasts(gre, seal)):
		return path.GRE
	case !gre.up || !seal.up:
		return o.kind // it is early to say that the other still works
	case b.led:
		return b.word
	case o.kind == path.GRE && isWorse(gre, seal, seal.rtt/5+3*time.Millisecond, 0.1, now):
		return path.Sealed
	case o.kind == path.Sealed && (!o.back(gre, now) || isWorse(gre, seal, seal.rtt/10+time.Millisecond, 0.03, now)):
		return path.Sealed
	}
	return path.GRE
}

// outlasts reports that a link has answered to what was sent after another had fallen silent: that one was seldom probed, or
// is judged a moment later, and both may have been cut at once.
func outlasts(m, silent *measured) bool { return m.answered.After(silent.missing) }

// back reports whether a GRE link has worked for long enough to be taken again.
func (o *choice) back(gre *measured, now time.Time) bool {
	rest := min(backAfter<<(2*min(max(o.left-1, 0), 5)), backMost)
	return now.Sub(gre.since) >= rest && now.Sub(o.since) >= rest
}

// isWorse reports whether a GRE link that works takes longer than a sealed one by more than that, beyond what both vary by
// anyhow, or loses more.
func isWorse(gre, seal *measured, longer time.Duration, more float64, now time.Time) bool {
	slower := gre.rtt > 0 && seal.rtt > 0 && gre.rtt > seal.rtt+longer+gre.jitter+seal.jitter
	return slower || lossOf(gre, now)-lossOf(seal, now) > more
}

func lossOf(m *measured, now time.Time) float64 {
	if now.Sub(m.since) < lossWindow {
		return 0
	}
	return max(m.lossOut, m.lossIn)
}

// forget drops what is kept of gateways that are none any more.
func (c choices) forget(gateways map[label.Label]bool) {
	for l := range c {
		if !gateways[l] {
			delete(c, l)
		}
	}
}
