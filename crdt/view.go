package crdt

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// View is an immutable typed snapshot of the merged records. What its methods return is shared: read it, do not change
// it. Safe for concurrent use. Two states with the same batches give equal views at the same time.
type View struct {
	at       time.Time
	next     time.Time
	cluster  Cluster
	members  []Member
	byNode   map[NodeID]int
	admitted map[NodeID]admitted
	places   *places
	people   *people
	tokens   []Token
	ahead    map[Kind]map[NodeID]Stamp // per built kind: the furthest future stamp of each author
	conflict []Conflict
}

// Cluster is the cluster itself.
type Cluster struct {
	ID      ClusterID
	Name    string
	Founder NodeID
	Founded time.Time
	Range   netip.Prefix // of the overlay's addresses, fixed for good
	Range6  netip.Prefix // the same for IPv6; see [OverlayPrefix6]
	Encrypt bool         // traffic between sites goes over encrypted links only
}

// Skew is an author whose stamps lie in the future: its clock is wrong, or ours. What it wrote is kept, and wins over
// concurrent writes only when its time has come.
type Skew struct {
	Author NodeID
	Until  time.Time // its furthest stamp
}

// Cluster returns the cluster.
func (v *View) Cluster() Cluster { return v.cluster }

// Members returns everybody who was ever a member, the evicted and those who left included, by ID.
func (v *View) Members() []Member { return v.members }

// Sites returns the sites by name in force.
func (v *View) Sites() []Site { return v.places.sites }

// Hosts returns the hosts of all members that are not evicted, by name in force. See [Host.Standing] for those who left.
func (v *View) Hosts() []Host { return v.places.hosts }

// Accounts returns the accounts by name, removed ones included.
func (v *View) Accounts() []Account { return v.people.accounts }

// Groups returns the groups by name, removed ones included.
func (v *View) Groups() []Group { return v.people.groups }

// Tokens returns the join tokens, the newest first.
func (v *View) Tokens() []Token { return v.tokens }

// Conflicts returns every contested value, by kind and value.
func (v *View) Conflicts() []Conflict { return v.conflict }

// Next returns when the view will change by the passing of time alone, because a stamp from the future comes due; zero: never.
func (v *View) Next() time.Time { return v.next }

// Skews returns the authors who stamp from the future, by ID.
func (v *View) Skews() []Skew {
	furthest := map[NodeID]Stamp{}
	for _, m := range v.ahead {
		for a, s := range m {
			furthest[a] = max(furthest[a], s)
		}
	}
	out := make([]Skew, 0, len(furthest))
	for a, s := range furthest {
		out = append(out, Skew{a, s.Time()})
	}
	slices.SortFunc(out, func(a, b Skew) int { return a.Author.Compare(b.Author) })
	return out
}

// Member returns one member; false for a stranger.
func (v *View) Member(n NodeID) (Member, bool) {
	i, ok := v.byNode[n]
	if !ok {
		return Member{}, false
	}
	return v.members[i], true
}

// Standing says what n is to the cluster.
func (v *View) Standing(n NodeID) Standing {
	if i, ok := v.byNode[n]; ok {
		return v.members[i].Standing
	}
	return Stranger
}

// Host returns the host record of a node; false without one.
func (v *View) Host(n NodeID) (Host, bool) {
	i, ok := v.places.hostByID[n]
	if !ok {
		return Host{}, false
	}
	return v.places.hosts[i], true
}

// NameOf returns what people call a node: its host's name in force, or for an evicted node the one it had asked for; empty
// if it never said one. Only names of members that are not evicted are unique.
func (v *View) NameOf(n NodeID) string {
	if h, ok := v.Host(n); ok {
		return h.Name
	}
	return v.places.evicted[n]
}

// HostNamed returns the host that holds a name in force.
func (v *View) HostNamed(name string) (Host, bool) {
	i := slices.IndexFunc(v.places.hosts, func(h Host) bool { return h.Name == name })
	if i < 0 {
		return Host{}, false
	}
	return v.places.hosts[i], true
}

// Guests returns the guests of the overlay by name in force, also those that are detached or whose host has gone.
func (v *View) Guests() []Guest { return v.places.guests }

// Guest returns one guest.
func (v *View) Guest(id GuestID) (Guest, bool) {
	i, ok := v.places.guestByID[id]
	if !ok {
		return Guest{}, false
	}
	return v.places.guests[i], true
}

// GuestNamed returns the guest that holds a name in force. Guests and hosts share the names.
func (v *View) GuestNamed(name string) (Guest, bool) {
	i := slices.IndexFunc(v.places.guests, func(g Guest) bool { return g.Name == name })
	if i < 0 {
		return Guest{}, false
	}
	return v.places.guests[i], true
}

// Site returns one site.
func (v *View) Site(id SiteID) (Site, bool) {
	i := slices.IndexFunc(v.places.sites, func(s Site) bool { return s.ID == id })
	if i < 0 {
		return Site{}, false
	}
	return v.places.sites[i], true
}

// SiteNamed returns the site that holds a name in force.
func (v *View) SiteNamed(name string) (Site, bool) {
	i := slices.IndexFunc(v.places.sites, func(s Site) bool { return s.Name == name })
	if i < 0 {
		return Site{}, false
	}
	return v.places.sites[i], true
}

// SiteInUse returns the site of a name that has nodes, or whose founder was let in and has yet to say where it is.
func (v *View) SiteInUse(name string) (Site, bool) {
	s, ok := v.SiteNamed(name)
	if !ok || s.Nodes > 0 {
		return s, ok
	}
	_, settled := v.Host(s.Founder)
	return s, v.Standing(s.Founder) == Joined && !settled
}

// AccountNamed returns the account that holds a name; removed accounts hold none.
func (v *View) AccountNamed(name string) (Account, bool) {
	i := slices.IndexFunc(v.people.accounts, func(a Account) bool { return a.ID.String() == v.people.book.holder(ClaimAccountName, name) })
	if i < 0 {
		return Account{}, false
	}
	return v.people.accounts[i], true
}

// Account returns one account.
func (v *View) Account(id AccountID) (Account, bool) {
	i := slices.IndexFunc(v.people.accounts, func(a Account) bool { return a.ID == id })
	if i < 0 {
		return Account{}, false
	}
	return v.people.accounts[i], true
}

// Group returns one group.
func (v *View) Group(id GroupID) (Group, bool) {
	i := slices.IndexFunc(v.people.groups, func(g Group) bool { return g.ID == id })
	if i < 0 {
		return Group{}, false
	}
	return v.people.groups[i], true
}

// GroupNamed returns the group in force by that name.
func (v *View) GroupNamed(name string) (Group, bool) {
	i := slices.IndexFunc(v.people.groups, func(g Group) bool { return g.Name == name && !g.Removed })
	if i < 0 {
		return Group{}, false
	}
	return v.people.groups[i], true
}

// Token returns one join token.
func (v *View) Token(id TokenID) (Token, bool) {
	i := slices.IndexFunc(v.tokens, func(t Token) bool { return t.ID == id })
	if i < 0 {
		return Token{}, false
	}
	return v.tokens[i], true
}

// build makes a view from the one before and what has changed since.
func (s *State) build(now time.Time) *View {
	v := &View{ahead: map[Kind]map[NodeID]Stamp{}}
	if s.view != nil {
		*v = *s.view
		v.ahead = maps.Clone(s.view.ahead)
	}
	v.at = now
	changed := func(kinds ...Kind) bool { return slices.ContainsFunc(kinds, func(k Kind) bool { return s.dirty[k] }) }
	if changed(kindCluster) {
		v.cluster = s.buildCluster(v.reader(s, kindCluster, now))
	}
	if changed(kindMember) {
		s.buildMembers(v, v.reader(s, kindMember, now))
	}
	if changed(kindMember, kindSite, kindHost, kindGuest, kindClaim) {
		v.places = s.buildPlaces(v, v.reader(s, kindHost, now))
	}
	if changed(kindAccount, kindGroup, kindClaim) {
		v.people = s.buildPeople(v.reader(s, kindAccount, now))
	}
	if changed(kindToken) {
		v.tokens = s.buildTokens(v.reader(s, kindToken, now))
	}
	v.conflict = slices.Concat(v.places.conflicts, v.people.conflicts)
	slices.SortStableFunc(v.conflict, func(a, b Conflict) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Value, b.Value)) })
	v.next = time.Time{}
	for _, m := range v.ahead {
		for _, due := range m {
			if t := due.Time().Add(-MaxAhead + time.Millisecond); v.next.IsZero() || t.Before(v.next) {
				v.next = t
			}
		}
	}
	return v
}

func (s *State) buildCluster(r *reader) Cluster {
	id := string(s.cluster[:])
	c := Cluster{
		ID: s.cluster, Name: s.founding.Name, Founder: s.founding.Founder, Founded: s.founding.Time,
		Range: s.founding.Range, Range6: s.range6, Encrypt: r.bool(kindCluster, id, fieldEncrypt),
	}
	if name := r.text(kindCluster, id, fieldName); CheckLabel("", name) == nil {
		c.Name = name
	}
	return c
}

// EmptyView is what a node sees that belongs to no cluster yet.
func EmptyView() *View { return &View{places: &places{}, people: &people{}} }
