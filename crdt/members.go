package crdt

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Standing is what a node is to the cluster.
type Standing uint8

// The standings. A stranger is the zero value, so that what nobody knows is let into nothing.
const (
	Stranger Standing = iota
	Joined            // a member
	Left              // a member that left cleanly; it may come back with its key
	Evicted           // put out for good
)

func (s Standing) String() string {
	switch s {
	case Joined:
		return "member"
	case Left:
		return "left"
	case Evicted:
		return "evicted"
	}
	return "stranger"
}

// Admitted reports whether the node may connect: a member, or one that left and may come back.
func (s Standing) Admitted() bool { return s == Joined || s == Left }

// Member is a node that was let in.
type Member struct {
	ID         NodeID
	Standing   Standing
	Founder    bool
	AdmittedBy NodeID    // zero for the founder
	Token      TokenID   // by which it came; zero for the founder
	Joined     time.Time // by the admitting member's clock
	LeftAt     time.Time // of one that left
	EvictedBy  NodeID
	EvictedAt  time.Time
	Reason     string // of the eviction
	Frozen     bool   // it signed two batches for one place in its log: what it writes no longer counts (a copied disk?)
}

func (s *State) buildMembers(v *View, r *reader) {
	t := &s.trust
	v.admitted = make(map[NodeID]admitted, len(t.members))
	v.members = make([]Member, 0, len(t.members))
	for n, a := range t.members {
		v.admitted[n] = a
		v.members = append(v.members, s.member(n, a, r))
	}
	slices.SortFunc(v.members, func(a, b Member) int { return a.ID.Compare(b.ID) })
	v.byNode = make(map[NodeID]int, len(v.members))
	for i := range v.members {
		v.byNode[v.members[i].ID] = i
	}
}

func (s *State) member(n NodeID, a admitted, r *reader) Member {
	m := Member{ID: n, Standing: Joined, AdmittedBy: a.dot.Author, Token: a.token, Joined: a.stamp.Time(), Frozen: s.Frozen(n)}
	if n == s.founding.Founder {
		m.Founder, m.Joined = true, s.founding.Time
	}
	var left bool
	if f, ok := r.set(kindMember, string(n[:]), fieldLeft); ok && readValue(f.value, &left) && left {
		m.Standing, m.LeftAt = Left, f.stamp.Time()
	}
	if out := s.trust.out[n]; len(out) > 0 {
		m.Standing, m.EvictedBy, m.EvictedAt, m.Reason = Evicted, out[0].dot.Author, out[0].stamp.Time(), out[0].reason
	}
	return m
}

// Token is a join token as the records know it: its public half.
type Token struct {
	ID       TokenID
	Issuer   NodeID
	Made     time.Time
	Expires  time.Time
	Reusable bool
	Site     string   // proposed to the newcomer; may be empty
	UsedBy   []NodeID // more than one for a token that is not reusable: it was used at two sites that could not hear each other
	Revoked  bool
}

// Usable reports whether the token still admits a node that has not used it.
func (t Token) Usable(now time.Time) bool {
	return !t.Revoked && now.Before(t.Expires) && (t.Reusable || len(t.UsedBy) == 0)
}

func (s *State) buildTokens(r *reader) []Token {
	var out []Token
	for id := range s.objects.kinds[kindToken] {
		f, ok := r.set(kindToken, id, fieldExpires)
		if !ok || len(id) != len(TokenID{}) {
			continue
		}
		sec := min(readNumber(f.value), math.MaxInt32*8)
		out = append(out, Token{
			ID: TokenID([]byte(id)), Issuer: f.dot.Author, Made: f.stamp.Time(), Expires: time.Unix(int64(sec), 0),
			Reusable: r.bool(kindToken, id, fieldReusable), Site: r.text(kindToken, id, fieldSite),
			UsedBy: readNodes(elements(r.facts(kindToken, id, fieldUsedBy), false)), Revoked: len(r.facts(kindToken, id, fieldTokenOff)) > 0,
		})
	}
	slices.SortFunc(out, func(a, b Token) int { return cmp.Or(b.Made.Compare(a.Made), cmp.Compare(a.ID.String(), b.ID.String())) })
	return out
}

func readNodes(values []string) []NodeID {
	var out []NodeID
	for _, v := range values {
		var n NodeID
		if readBytes(n[:], v) {
			out = append(out, n)
		}
	}
	return out
}
