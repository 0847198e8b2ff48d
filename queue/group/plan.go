package group

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"vcpeer/crdt"
)

// Membership is what a leader knows of its group when it plans. Members are in any order.
type Membership struct {
	Self    uint64 // the leader's raft ID
	Members []MemberState
	Busy    bool // a change is on its way, or the configuration is joint
}

// MemberState is one raft ID of the configuration.
type MemberState struct {
	ID     uint64
	Node   crdt.NodeID
	Voter  bool          // else learner
	Silent time.Duration // since it last answered; 0: active
	Lag    uint64        // entries it still lacks
	InStep time.Duration // for how long it has been active and close behind
}

// Applicant is a node of the site as gossip and the group's own questions know it.
type Applicant struct {
	Node  crdt.NodeID
	ID    uint64 // the raft ID its directory has now; 0: it has not answered
	Alive bool
	Gone  bool // left or evicted
}

// Change is one configuration change, through joint consensus when it has more than one step. The zero value is none.
type Change struct {
	Learn   []MemberState // raft IDs to add as learners
	Promote []uint64      // learners that become voters
	Demote  []uint64      // voters that become learners
	Remove  []uint64
}

// IsZero reports whether the change changes nothing.
func (c Change) IsZero() bool {
	return len(c.Learn)+len(c.Promote)+len(c.Demote)+len(c.Remove) == 0
}

// Policy of growth and healing.
type Policy struct {
	ReplaceAfter time.Duration
	StableFor    time.Duration
}

// promotableLag is how many entries a learner may lack when it becomes a voter: it will have them in one message.
const promotableLag = 250

// votersFor returns how many voters a site of n usable nodes should have. Two voters survive no more than one does, and
// one voter less can stop them.
func votersFor(n int) int {
	switch {
	case n >= 7:
		return 5
	case n >= 3:
		return 3
	}
	return 1
}

// PlanMembership returns the one change that brings the group closer to what it should be; the zero Change when nothing is
// to be done or can be done yet. It never makes the number of voters even, never removes a voter before its replacement
// votes, and never takes the last one.
func PlanMembership(have Membership, site []Applicant, p Policy) Change {
	if have.Busy {
		return Change{}
	}
	v := survey(have, site, p)
	for _, plan := range []func() Change{v.replace, v.grow, v.invite, v.shrink, v.tidy} {
		if c := plan(); !c.IsZero() {
			return c
		}
	}
	return Change{}
}

// view sorts members and applicants by what can be done with them. Slices are in a fixed order, best first.
type view struct {
	self      uint64
	voters    []MemberState // all
	lost      []MemberState // voters to be replaced, those that never come back first
	ready     []MemberState // learners that can be promoted
	learners  []MemberState // usable, ready or not
	dead      []MemberState // learners that never come back
	idle      []MemberState // learners that have been silent for too long
	spare     []Applicant   // nodes that can be added
	want      int           // voters
	neverBack map[uint64]bool
}

func survey(have Membership, site []Applicant, p Policy) view {
	v := view{self: have.Self, neverBack: map[uint64]bool{}}
	seats := map[crdt.NodeID]Applicant{}
	for _, a := range site {
		seats[a.Node] = a
	}
	usable := map[crdt.NodeID]bool{}
	for _, m := range have.Members {
		a := seats[m.Node]
		// A node that answers with another raft ID has a new disk: the old member's is no more.
		gone := a.Gone || a.ID != 0 && a.ID != m.ID
		silent := m.ID != have.Self && m.Silent >= p.ReplaceAfter
		v.neverBack[m.ID] = gone
		if !gone && !silent {
			usable[m.Node] = true
		}
		switch {
		case m.Voter:
			v.voters = append(v.voters, m)
			if gone || silent {
				v.lost = append(v.lost, m)
			}
		case gone:
			v.dead = append(v.dead, m)
		case silent:
			v.idle = append(v.idle, m)
		default:
			v.learners = append(v.learners, m)
			if m.Lag <= promotableLag && m.Silent == 0 && m.InStep >= p.StableFor {
				v.ready = append(v.ready, m)
			}
		}
	}
	for _, a := range site {
		member := slices.ContainsFunc(have.Members, func(m MemberState) bool { return m.ID == a.ID })
		if a.ID == 0 || !a.Alive || a.Gone || member {
			continue
		}
		usable[a.Node] = true
		v.spare = append(v.spare, a)
	}
	v.want = votersFor(len(usable))
	v.order()
	return v
}

// order makes equal knowledge give equal plans.
func (v *view) order() {
	byLag := func(a, b MemberState) int { return cmp.Or(cmp.Compare(a.Lag, b.Lag), cmp.Compare(a.ID, b.ID)) }
	for _, s := range [][]MemberState{v.voters, v.ready, v.learners, v.dead, v.idle} {
		slices.SortFunc(s, byLag)
	}
	slices.SortFunc(v.lost, func(a, b MemberState) int {
		if v.neverBack[a.ID] != v.neverBack[b.ID] {
			if v.neverBack[a.ID] {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(b.Silent, a.Silent), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(v.spare, func(a, b Applicant) int { return bytes.Compare(a.Node[:], b.Node[:]) })
}

// replace puts a learner in the place of a lost voter in one step.
func (v view) replace() Change {
	if len(v.lost) == 0 || len(v.ready) == 0 {
		return Change{}
	}
	return Change{Promote: []uint64{v.ready[0].ID}, Remove: []uint64{v.lost[0].ID}}
}

// grow promotes two learners at once, or one where the number of voters is even.
func (v view) grow() Change {
	n := 2
	if len(v.voters)%2 == 0 {
		n = 1
	}
	if len(v.voters)+n > v.want || len(v.ready) < n {
		return Change{}
	}
	c := Change{}
	for _, m := range v.ready[:n] {
		c.Promote = append(c.Promote, m.ID)
	}
	return c
}

// invite adds a learner while there are fewer members than should vote or, in a site of two, hold a copy.
func (v view) invite() Change {
	alive := len(v.voters) - len(v.lost) + len(v.learners)
	if len(v.spare) == 0 || alive >= max(v.want, 2) {
		return Change{}
	}
	a := v.spare[0]
	return Change{Learn: []MemberState{{ID: a.ID, Node: a.Node}}}
}

// shrink removes a voter that never comes back and has no replacement, with another made a learner so that the number
// stays odd. A voter that is only silent keeps its seat: it may come back, and nobody else could take it.
func (v view) shrink() Change {
	if len(v.lost) == 0 || !v.neverBack[v.lost[0].ID] {
		return Change{}
	}
	if len(v.voters)-len(v.lost) < v.want && len(v.learners)+len(v.spare) > 0 {
		return Change{} // a replacement is on its way
	}
	c := Change{Remove: []uint64{v.lost[0].ID}}
	rest := slices.DeleteFunc(slices.Clone(v.voters), func(m MemberState) bool { return m.ID == v.lost[0].ID })
	if len(rest) == 0 {
		return Change{}
	}
	if len(rest)%2 == 1 {
		return c
	}
	// The one to step back: never to come back too, else silent, else far behind; never the leader.
	rest = slices.DeleteFunc(rest, func(m MemberState) bool { return m.ID == v.self && len(rest) > 1 })
	slices.SortStableFunc(rest, func(a, b MemberState) int {
		return cmp.Or(-compareBool(v.neverBack[a.ID], v.neverBack[b.ID]), cmp.Compare(b.Silent, a.Silent), cmp.Compare(b.Lag, a.Lag))
	})
	if v.neverBack[rest[0].ID] {
		c.Remove = append(c.Remove, rest[0].ID)
	} else {
		c.Demote = []uint64{rest[0].ID}
	}
	return c
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// tidy removes one learner that never comes back, or a silent one where others stand by.
func (v view) tidy() Change {
	switch {
	case len(v.dead) > 0:
		return Change{Remove: []uint64{v.dead[0].ID}}
	case len(v.idle) > 0 && len(v.spare)+len(v.learners) > 0:
		return Change{Remove: []uint64{v.idle[0].ID}}
	}
	return Change{}
}
