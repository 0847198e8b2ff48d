package overlay

import (
	"maps"
	"slices"
	"time"

	"vcpeer/overlay/flow"
	"vcpeer/overlay/label"
)

// traffic is which gateways programs and guests of this site send to. Links that nobody waits for are probed and watched
// more seldom: among twenty sites a node uses few of its links at any time.
type traffic struct {
	began time.Time
	sent  map[label.Label]time.Time // last, to each gateway
}

// A gateway of a small cluster takes all its links to be in use when it starts: there that costs little.
const (
	idleAfter = 2 * time.Minute // without a frame to a gateway nobody waits for the links to it
	small     = 8               // gateways of other sites
)

func (t *traffic) note(to []label.Label, now time.Time) {
	for _, l := range to {
		t.sent[l] = now
	}
	maps.DeleteFunc(t.sent, func(_ label.Label, last time.Time) bool { return now.Sub(last) > idleAfter })
}

// lately reports whether frames to a gateway went out not long ago; of is how many gateways there are.
func (t *traffic) lately(to label.Label, of int, now time.Time) bool {
	if of <= small && now.Sub(t.began) <= idleAfter {
		return true
	}
	last, ok := t.sent[to]
	return ok && now.Sub(last) <= idleAfter
}

// behindWhich are the gateways of other sites behind which hosts are, in order.
func behindWhich(w flow.Want, hosts []flow.Slot) (out []label.Label) {
	for _, h := range w.Hosts {
		if _, ok := slices.BinarySearch(hosts, h.Slot); ok && h.Far.Valid() {
			out = append(out, h.Far)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// inUse are the gateways whose direct links paths begin with that frames went over lately.
func (s *session) inUse(now time.Time) map[label.Label]bool {
	out := map[label.Label]bool{}
	for l := range s.peers.far {
		if !s.traffic.lately(l, len(s.peers.far), now) {
			continue
		}
		first := l
		if c, ok := s.table.To(l); ok {
			first = c.First()
		}
		out[first] = true
	}
	return out
}
