package overlay

import (
	"time"

	"vcpeer/overlay/label"
)

// uplink chooses the gateway by which a node that is none reaches other sites: the nearest that answers, and the one in
// use as long as that answers, since the difference within a site is small and a change costs whoever sends just then.
type uplink struct{ current label.Label }

// candidate is a gateway of the own site.
type candidate struct {
	l   label.Label
	up  bool
	rtt time.Duration // 0: not measured
}

// choose returns the gateway to use; label.Site if there is none. Before anything is measured the first is as good as any.
func (u *uplink) choose(gateways []candidate) label.Label {
	best := candidate{}
	for _, c := range gateways {
		if c.l == u.current && c.up {
			return c.l
		}
		switch {
		case best.l == 0, c.up && !best.up:
			best = c
		case c.up == best.up && compareKnown(c.rtt, best.rtt) < 0:
			best = c
		}
	}
	u.current = best.l
	return best.l
}
