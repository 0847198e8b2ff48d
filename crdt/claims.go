package crdt

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"
)

// Kinds of claimed values, as [Conflict.Kind] and [Tx.Settle] name them.
const (
	ClaimHostName    = "hostname"
	ClaimSiteName    = "sitename"
	ClaimAddress     = "address"
	ClaimLabel       = "label"
	ClaimAccountName = "account"
	ClaimUID         = "uid"
	ClaimGroupName   = "groupname"
	ClaimGID         = "gid"
)

// Conflict is a value that more than one object claims.
type Conflict struct {
	Kind    string // one of the Claim constants
	Value   string
	Winner  Claimant
	Losers  []Claimant
	Since   time.Time // when the second claim was made, by its author's clock
	InForce string    // what holds now, in words
	Settle  string    // the command that settles it
}

// Claimant is one side of a conflict.
type Claimant struct {
	ID      string // of the object, as text
	Label   string // what people call it
	Author  NodeID // who made the claim
	At      time.Time
	InForce string // what it goes by now; empty: nothing
}

// claim is one object's wish for a value.
type claim struct {
	id    string // of the object, as text
	label string
	f     fact
	rank  int // lower wins before anything else but a settlement: what is live before what has gone
}

// claimKey names a claimed value.
type claimKey struct{ kind, value string }

// book is all claims of some kinds, value by value.
type book map[claimKey][]claim

func (b book) add(kind, value string, c claim) {
	if value != "" {
		k := claimKey{kind, value}
		b[k] = append(b[k], c) // mostly the only one
	}
}

// decide sorts the claims of each contested value so that the winner is first. The winner is a pure function of the merged
// records: (1) whom an administrator named; (2) the better rank; (3) a claim that another had not seen when it was
// made goes before one that had; (4) the earlier stamp, in whole seconds; (5) the lower hash.
func (s *State) decide(b book, now time.Time) {
	for k, claims := range b {
		if len(claims) > 1 {
			s.sortClaims(k, claims, now)
		}
	}
}

func (s *State) sortClaims(k claimKey, claims []claim, now time.Time) {
	slices.SortFunc(claims, func(a, b claim) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), compareBool(a.f.stamp.ahead(now), b.f.stamp.ahead(now)),
			cmp.Compare(a.f.stamp.Time().Unix(), b.f.stamp.Time().Unix()), bytes.Compare(claimHash(k, a), claimHash(k, b)))
	})
	best := s.settled(k, claims, now)
	if best < 0 {
		best = slices.IndexFunc(claims, func(c claim) bool { return !s.beaten(c, claims) })
	}
	w := claims[max(best, 0)]
	claims = slices.Delete(claims, max(best, 0), max(best, 0)+1)
	_ = slices.Insert(claims, 0, w) // in place: the room is there
}

// settled returns the place of the claimant that a settlement names; -1 without one.
func (s *State) settled(k claimKey, claims []claim, now time.Time) int {
	f, ok := winner(s.objects.facts(fieldKey{kindClaim, k.kind + "\x00" + k.value, fieldWinner}), now)
	if !ok {
		return -1
	}
	id := readText(f.value)
	return slices.IndexFunc(claims, func(c claim) bool { return c.id == id })
}

// beaten reports whether c was made in sight of another claim of its rank.
func (s *State) beaten(c claim, claims []claim) bool {
	return slices.ContainsFunc(claims, func(o claim) bool {
		return o.rank <= c.rank && o.f.dot != c.f.dot && s.sees(c.f.dot, o.f.dot)
	})
}

// claimHash breaks the last tie by what no claimant chooses alone.
func claimHash(k claimKey, c claim) []byte {
	h := sha256.New()
	h.Write([]byte(k.kind + "\x00" + k.value + "\x00"))
	h.Write(c.f.dot.Author[:])
	_ = binary.Write(h, binary.BigEndian, c.f.dot.Seq) // a hash takes all
	return h.Sum(nil)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// conflict makes the report on one contested value. now in force is asked from inForce for each claimant's ID.
func (b book) conflict(k claimKey, inForce func(id string) string, settle string) Conflict {
	claims := b[k]
	out := Conflict{Kind: k.kind, Value: k.value, Settle: settle}
	var stamps []Stamp
	for i, c := range claims {
		cl := Claimant{ID: c.id, Label: c.label, Author: c.f.dot.Author, At: c.f.stamp.Time(), InForce: inForce(c.id)}
		stamps = append(stamps, c.f.stamp)
		if i == 0 {
			out.Winner = cl
		} else {
			out.Losers = append(out.Losers, cl)
		}
	}
	slices.Sort(stamps)
	out.Since = stamps[1].Time()
	return out
}

// contested returns the values with more than one claim, in order.
func (b book) contested() []claimKey {
	var keys []claimKey
	for k, c := range b {
		if len(c) > 1 {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b claimKey) int { return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.value, b.value)) })
	return keys
}

// holder returns the ID of the object that holds a value; empty if nobody does.
func (b book) holder(kind, value string) string {
	if c := b[claimKey{kind, value}]; len(c) > 0 {
		return c[0].id
	}
	return ""
}
