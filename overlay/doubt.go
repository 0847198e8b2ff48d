package overlay

import (
	"slices"
	"time"

	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
	"vcpeer/overlay/probe"
)

// doubtful is a link of others that this gateway does not believe: a path over it fails from end to end though each gateway
// says that its links are up. The sender sees it first; what the others find out and tell takes longer.
type doubtful struct{ from, to label.Label }

// doubtTime is how long a doubt lasts: by then who owns the link has found out too, or the path is tried again.
const doubtTime = 4 * time.Second

// suspect takes note of paths that do not get through. Of those with more than one link that this gateway does not measure
// itself, any may be the one: all are doubted.
func (s *session) suspect(paths []probe.Link, now time.Time) {
	for _, p := range paths {
		to, far := p.ID.Label()
		if !far || p.Up || !p.Measured || !s.firstUp(p.Via) {
			continue
		}
		hops := append(slices.Clone(p.Via), to)
		for i := 1; i < len(hops); i++ {
			for _, d := range []doubtful{{hops[i-1], hops[i]}, {hops[i], hops[i-1]}} {
				if until, ok := s.doubts[d]; !ok || now.After(until) {
					s.doubts[d] = now.Add(doubtTime)
				}
			}
		}
	}
}

// firstUp reports that the first link of a path is up, so that the path fails behind it.
func (s *session) firstUp(via []label.Label) bool {
	return slices.ContainsFunc(s.links, func(m measured) bool { return m.node.Label == via[0] && m.up })
}

// doubt returns rows without the links that are doubted.
func (s *session) doubt(rows []path.Row, now time.Time) []path.Row {
	for d, until := range s.doubts {
		if now.After(until) {
			delete(s.doubts, d)
		}
	}
	if len(s.doubts) == 0 {
		return rows
	}
	for i, r := range rows {
		rest := slices.Clone(r.Links)
		changed := false
		for j, l := range rest {
			if _, ok := s.doubts[doubtful{r.From, l.To}]; ok && l.Up {
				rest[j].Up, changed = false, true
			}
		}
		if changed {
			rows[i].Links = s.remember(r, rest)
		}
	}
	return rows
}

// remember returns the same memory for the same row, by which the planner knows it again.
func (s *session) remember(r path.Row, rest []path.Link) []path.Link {
	if old := s.doubted[r.From]; slices.Equal(old, rest) {
		return old
	}
	s.doubted[r.From] = rest
	return rest
}
