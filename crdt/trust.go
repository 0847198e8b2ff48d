package crdt

import (
	"cmp"
	"math"
	"slices"
)

// trust is who may write, and up to where. It is a function of all admissions and evictions that are here, counted or
// not, so that the order of arrival does not matter.
type trust struct {
	founder   NodeID
	admits    map[NodeID][]admitted // by the admitting author
	known     map[NodeID]bool       // somebody admitted it, or it founded the cluster
	evictions []evicted

	members map[NodeID]admitted  // who is a member, by which admission; the founder by none
	limits  map[NodeID]uint64    // the last change that counts, for those that are put out or frozen
	out     map[NodeID][]evicted // the evictions that stand, by the evicted
}

// admitted is an admission: author (in dot) let node in.
type admitted struct {
	node  NodeID
	dot   Dot
	last  uint64 // of its batch
	stamp Stamp
	token TokenID
	level int // steps from the founder
}

// evicted is an eviction: author (in dot) put node out.
type evicted struct {
	node   NodeID
	dot    Dot
	last   uint64 // of its batch
	stamp  Stamp
	cutoff uint64
	reason string
}

func newTrust(founder NodeID) trust {
	return trust{
		founder: founder, admits: map[NodeID][]admitted{}, known: map[NodeID]bool{founder: true},
		members: map[NodeID]admitted{founder: {node: founder}}, limits: map[NodeID]uint64{}, out: map[NodeID][]evicted{},
	}
}

func (t *trust) everAdmitted(n NodeID) bool { return t.known[n] }

// noteTrust takes admissions and evictions from a batch, counted or not.
func (s *State) noteTrust(b *Batch) {
	again := false
	for i := range b.Changes {
		c := &b.Changes[i]
		if c.Kind != kindMember || c.Op != OpGrow || len(c.ID) != len(NodeID{}) {
			continue
		}
		node, dot := NodeID([]byte(c.ID)), Dot{b.Author, b.First + uint64(i)}
		switch c.Field {
		case fieldAdmitted:
			again = s.noteAdmission(node, dot, b, c.Value) || again
		case fieldEvicted:
			var v eviction
			if unmarshal(c.Value, &v, "eviction") == nil {
				e := evicted{node: node, dot: dot, last: b.Last(), stamp: b.Stamp, cutoff: v.Cutoff, reason: v.Reason}
				s.trust.evictions = append(s.trust.evictions, e)
				again = true
			}
		}
	}
	if again {
		s.resolve(b)
	}
}

// noteAdmission returns whether trust must be resolved again. The common case, a member that lets a stranger in, needs not.
func (s *State) noteAdmission(node NodeID, dot Dot, b *Batch, value []byte) (again bool) {
	var v admission
	if unmarshal(value, &v, "admission") != nil {
		return false
	}
	a := admitted{node: node, dot: dot, last: b.Last(), stamp: b.Stamp}
	if len(v.Token) == len(a.token) {
		copy(a.token[:], v.Token)
	}
	t := &s.trust
	t.admits[dot.Author] = append(t.admits[dot.Author], a)
	first := !t.known[node]
	t.known[node] = true
	by, ok := t.members[dot.Author]
	if _, limited := t.limits[dot.Author]; !first || !ok || limited || s.bulk {
		return true
	}
	a.level = by.level + 1
	t.members[node] = a
	return false
}

// limit returns the last change of author that counts; MaxUint64 for a member in good standing. During a load everything
// counts at first.
func (s *State) limit(author NodeID) uint64 {
	if s.bulk {
		return math.MaxUint64
	}
	if l, ok := s.trust.limits[author]; ok {
		return l
	}
	if _, ok := s.trust.members[author]; !ok {
		return 0
	}
	return math.MaxUint64
}

// extent returns the last change of author that is kept and passed on. Beyond the limit nothing counts, but what a member
// had seen before it heard of the eviction is kept, since an eviction among it may be the earlier of two that put each
// other's author out. What the evicted wrote without such a witness is refused.
func (s *State) extent(author NodeID) uint64 {
	limit := s.limit(author)
	log := s.logs[author]
	if limit == math.MaxUint64 || log == nil {
		return limit
	}
	extent := max(limit, log.vouched, log.voted)
	if log.fork != 0 {
		extent = min(extent, log.fork-1)
	}
	return extent
}

// vouch notes what a member had seen, as the context of a batch that counts says.
func (s *State) vouch(by NodeID, c Context) {
	for _, d := range c {
		l := s.log(d.Author)
		if d.Author == by {
			continue
		}
		s.covered[d.Author] = max(s.covered[d.Author], d.Seq)
		if d.Seq > l.vouched {
			l.vouched = d.Seq
			s.touched[d.Author] = true
		}
	}
}

// resolve decides who is a member and up to where each author counts. Forks come first; then evictions in the order of
// (stamp, author, number), each of which stands unless its author was put out by one before it. So of two that put
// each other out the earlier stands. Then stale says whether the objects fit.
func (s *State) resolve(next *Batch) {
	if s.bulk {
		return
	}
	t := &s.trust
	t.limits, t.out = map[NodeID]uint64{}, map[NodeID][]evicted{}
	for a, l := range s.logs {
		l.voted = 0
		if l.fork != 0 {
			t.limits[a] = l.fork - 1
		}
	}
	t.members = t.admittedUnder(t.limits)
	slices.SortFunc(t.evictions, func(a, b evicted) int { return cmp.Or(cmp.Compare(a.stamp, b.stamp), a.dot.Compare(b.dot)) })
	for _, e := range t.evictions {
		author := e.dot.Author
		if _, ok := t.members[author]; !ok {
			continue
		}
		if l, ok := t.limits[author]; ok && e.last > l {
			continue
		}
		t.out[e.node] = append(t.out[e.node], e)
		s.log(author).voted = max(s.log(author).voted, e.last)
		if l, ok := t.limits[e.node]; !ok || e.cutoff < l {
			t.limits[e.node] = e.cutoff
			t.members = t.admittedUnder(t.limits)
		}
	}
	s.afterResolve(next)
}

// afterResolve finds whether the objects hold just what counts.
func (s *State) afterResolve(next *Batch) {
	for a, l := range s.logs {
		s.touched[a] = true
		want := s.limit(a)
		if next != nil && next.Author == a {
			want = min(want, next.First-1)
		}
		if l.applied != l.upTo(want) {
			s.stale = true
		}
	}
	s.dirty[kindMember] = true
}

// admittedUnder returns everybody whom a chain of admissions that count joins to the founder: by the shortest chain, then
// the earliest admission.
func (t *trust) admittedUnder(limits map[NodeID]uint64) map[NodeID]admitted {
	members := map[NodeID]admitted{t.founder: {node: t.founder}}
	for ring, level := []NodeID{t.founder}, 1; len(ring) > 0; level++ {
		next := map[NodeID]admitted{}
		for _, author := range ring {
			limit, limited := limits[author]
			for _, a := range t.admits[author] {
				if _, have := members[a.node]; have || limited && a.last > limit {
					continue
				}
				a.level = level
				if old, ok := next[a.node]; !ok || a.before(old) {
					next[a.node] = a
				}
			}
		}
		ring = ring[:0]
		for n, a := range next {
			members[n] = a
			ring = append(ring, n)
		}
	}
	return members
}

func (a admitted) before(b admitted) bool {
	return cmp.Or(cmp.Compare(a.stamp, b.stamp), a.dot.Compare(b.dot)) < 0
}
