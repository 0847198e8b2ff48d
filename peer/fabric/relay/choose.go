package relay

import (
	"cmp"
	"slices"
	"time"

	"vcpeer/crdt"
)

// Candidate is a member that might be a relay for this node.
type Candidate struct {
	ID   crdt.NodeID
	Site crdt.SiteID
	RTT  time.Duration // 0: not measured
	Held bool          // this node has a place there
}

// much tells whether a round trip is so much shorter than another that moving is worth it.
func much(shorter, longer time.Duration) bool { return shorter+shorter/2+5*time.Millisecond < longer }

// Choose picks the relays to have places at: the nearest of different sites, and of one site only when there are not enough
// sites. A place that is held is given up only for a relay that is much nearer.
func Choose(candidates []Candidate, want int) []crdt.NodeID {
	rest := slices.Clone(candidates)
	slices.SortFunc(rest, func(a, b Candidate) int {
		return cmp.Or(cmp.Compare(far(a), far(b)), slices.Compare(a.ID[:], b.ID[:]))
	})
	var out []crdt.NodeID
	var sites []crdt.SiteID
	take := func(anySite bool) bool {
		best := -1
		for i, c := range rest {
			switch {
			case !anySite && slices.Contains(sites, c.Site):
			case best < 0:
				best = i
			case c.Held && !rest[best].Held && !much(far(rest[best]), far(c)):
				best = i
			}
		}
		if best < 0 {
			return false
		}
		out, sites = append(out, rest[best].ID), append(sites, rest[best].Site)
		rest = slices.Delete(rest, best, best+1)
		return true
	}
	for _, anySite := range []bool{false, true} {
		for len(out) < want && take(anySite) {
		}
	}
	return out
}

// far is the round trip that a candidate is judged by: one that is not measured is a far one.
func far(c Candidate) time.Duration { return cmp.Or(c.RTT, time.Second) }
