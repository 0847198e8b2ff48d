package crdt

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Account is a user of the cluster.
type Account struct {
	ID       AccountID
	Name     string
	UID      uint32 // its primary group has the same number and name
	FullName string
	Home     string
	Shell    string
	Keys     []string // ssh keys in force, sorted
	Groups   []GroupID
	Site     SiteID // where it was made
	Made     time.Time
	Removed  bool   // by an administrator; its number stays its own for ever
	Disabled bool   // not in force: removed, or Why says what is wrong
	Why      string // why it is disabled
}

// Group is a named set of accounts.
type Group struct {
	ID       GroupID
	Name     string
	GID      uint32
	Members  []AccountID // sorted by ID; removed accounts are left out
	Made     time.Time
	Removed  bool
	Disabled bool // not in force: removed, or Why says what is wrong
	Why      string
}

// people is the part of a view about accounts and groups.
type people struct {
	accounts  []Account
	groups    []Group
	book      book
	labels    map[string]string // by ID as text
	conflicts []Conflict
}

// Ranks among the claims on a group's name or number: an account's primary group goes first.
const (
	rankAccount = iota
	rankGroup
)

func (s *State) buildPeople(r *reader) *people {
	p := &people{book: book{}, labels: map[string]string{}}
	for id := range s.objects.kinds[kindAccount] {
		if a, ok := s.account(id, r, p.book); ok {
			p.accounts = append(p.accounts, a)
			p.labels[a.ID.String()] = a.Name
		}
	}
	for id := range s.objects.kinds[kindGroup] {
		if g, ok := s.group(id, r, p.book); ok {
			p.groups = append(p.groups, g)
			p.labels[g.ID.String()] = g.Name
		}
	}
	s.decide(p.book, r.now)
	for i := range p.accounts {
		a := &p.accounts[i]
		a.Why = p.whyAccount(a)
		a.Disabled = a.Why != ""
	}
	for i := range p.groups {
		g := &p.groups[i]
		g.Why = p.whyGroup(g)
		g.Disabled = g.Why != ""
	}
	slices.SortFunc(p.accounts, func(a, b Account) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	slices.SortFunc(p.groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	p.join()
	p.listConflicts()
	return p
}

// personRecord is what one object says of an account or a group.
type personRecord struct {
	ok      bool // it has a name
	text    string
	account Account
	group   Group
	name    fact
	numbers map[string]fact // every number it ever had
}

func (r *reader) account(id string) personRecord {
	name, ok := r.set(kindAccount, id, fieldName)
	if !ok || len(id) != len(AccountID{}) {
		return personRecord{}
	}
	a := Account{
		ID: AccountID([]byte(id)), Name: readText(name.value), UID: uint32(min(r.number(kindAccount, id, fieldUID), endID)),
		FullName: r.text(kindAccount, id, fieldFullName), Home: r.text(kindAccount, id, fieldHome), Shell: r.text(kindAccount, id, fieldShell),
		Removed: !isOn(r.facts(kindAccount, id, fieldEnabled)), Made: name.stamp.Time(), Keys: r.keys(id),
	}
	r.bytes(a.Site[:], kindAccount, id, fieldSite)
	if checkPath("", a.Home) != nil {
		a.Home = "/home/" + a.Name
	}
	if checkPath("", a.Shell) != nil {
		a.Shell = "/bin/bash"
	}
	if checkField("", a.FullName) != nil {
		a.FullName = ""
	}
	return personRecord{ok: true, text: a.ID.String(), account: a, name: name, numbers: r.numbers(kindAccount, id, fieldUID)}
}

func (r *reader) group(id string) personRecord {
	name, ok := r.set(kindGroup, id, fieldName)
	if !ok || len(id) != len(GroupID{}) {
		return personRecord{}
	}
	g := Group{
		ID: GroupID([]byte(id)), Name: readText(name.value), GID: uint32(min(r.number(kindGroup, id, fieldGID), endID)),
		Removed: !isOn(r.facts(kindGroup, id, fieldEnabled)), Made: name.stamp.Time(),
	}
	for _, e := range elements(r.facts(kindGroup, id, fieldMembers), true) {
		var a AccountID
		if readBytes(a[:], e) {
			g.Members = append(g.Members, a)
		}
	}
	return personRecord{ok: true, text: g.ID.String(), group: g, name: name, numbers: r.numbers(kindGroup, id, fieldGID)}
}

// account reads one account and books its claims, those of its own group too. A removed account gives its name free, never
// a number.
func (s *State) account(id string, r *reader, b book) (Account, bool) {
	p := record(r, kindAccount, id, func() personRecord { return r.account(id) })
	a := p.account
	if p.ok && !a.Removed {
		b.add(ClaimAccountName, a.Name, claim{id: p.text, label: a.Name, f: p.name})
		b.add(ClaimGroupName, a.Name, claim{id: p.text, label: a.Name, f: p.name, rank: rankAccount})
	}
	for n, f := range p.numbers {
		b.add(ClaimUID, n, claim{id: p.text, label: a.Name, f: f})
		b.add(ClaimGID, n, claim{id: p.text, label: a.Name, f: f, rank: rankAccount})
	}
	return a, p.ok
}

func (s *State) group(id string, r *reader, b book) (Group, bool) {
	p := record(r, kindGroup, id, func() personRecord { return r.group(id) })
	g := p.group
	g.Members = slices.Clone(g.Members)
	if p.ok && !g.Removed {
		b.add(ClaimGroupName, g.Name, claim{id: p.text, label: g.Name, f: p.name, rank: rankGroup})
	}
	for n, f := range p.numbers {
		b.add(ClaimGID, n, claim{id: p.text, label: g.Name, f: f, rank: rankGroup})
	}
	return g, p.ok
}

// keys returns the ssh keys of an account that are well-formed and not revoked.
func (r *reader) keys(id string) []string {
	revoked := elements(r.facts(kindAccount, id, fieldRevoked), false)
	var out []string
	for _, e := range elements(r.facts(kindAccount, id, fieldKeys), false) {
		if k := readText(e); CheckKey(k) == nil && !slices.Contains(revoked, string(marshal(keyBody(k)))) {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// numbers returns every number the object ever had, as text, with the earliest fact that gave it: a number is never used
// again, so that a file never changes hands.
func (r *reader) numbers(kind Kind, id, field string) map[string]fact {
	out := map[string]fact{}
	note := func(f fact) {
		n := strconv.FormatUint(readNumber(f.value), 10)
		if old, ok := out[n]; readNumber(f.value) != 0 && (!ok || f.compare(old) < 0) {
			out[n] = f
		}
	}
	for _, f := range r.facts(kind, id, fieldRetired) {
		note(f)
	}
	if f, ok := r.set(kind, id, field); ok {
		note(f)
	}
	return out
}

func isOn(facts []fact) bool { return len(elements(facts, true)) > 0 }

// whyAccount returns why an account is not in force; empty if it is.
func (p *people) whyAccount(a *Account) string {
	id, uid := a.ID.String(), strconv.FormatUint(uint64(a.UID), 10)
	switch {
	case a.Removed:
		return "removed"
	case CheckAccountName("account name", a.Name) != nil:
		return CheckAccountName("account name", a.Name).Error()
	case CheckID("uid", a.UID) != nil:
		return CheckID("uid", a.UID).Error()
	case p.book.holder(ClaimAccountName, a.Name) != id:
		return fmt.Sprintf("another account holds the name %s", a.Name)
	case p.book.holder(ClaimUID, uid) != id:
		return fmt.Sprintf("uid %s belongs to account %s", uid, p.labels[p.book.holder(ClaimUID, uid)])
	case p.book.holder(ClaimGroupName, a.Name) != id:
		return fmt.Sprintf("a group was given the name %s", a.Name)
	case p.book.holder(ClaimGID, uid) != id:
		return fmt.Sprintf("gid %s was given to group %s", uid, p.labels[p.book.holder(ClaimGID, uid)])
	}
	return ""
}

func (p *people) whyGroup(g *Group) string {
	id, gid := g.ID.String(), strconv.FormatUint(uint64(g.GID), 10)
	switch {
	case g.Removed:
		return "removed"
	case CheckAccountName("group name", g.Name) != nil:
		return CheckAccountName("group name", g.Name).Error()
	case CheckID("gid", g.GID) != nil:
		return CheckID("gid", g.GID).Error()
	case p.book.holder(ClaimGroupName, g.Name) != id:
		return fmt.Sprintf("another account or group holds the name %s", g.Name)
	case p.book.holder(ClaimGID, gid) != id:
		return fmt.Sprintf("gid %s belongs to %s", gid, p.labels[p.book.holder(ClaimGID, gid)])
	}
	return ""
}

// join fills in the groups of accounts and drops removed accounts from groups.
func (p *people) join() {
	byID := map[AccountID]*Account{}
	for i := range p.accounts {
		byID[p.accounts[i].ID] = &p.accounts[i]
	}
	for i := range p.groups {
		g := &p.groups[i]
		g.Members = slices.DeleteFunc(g.Members, func(id AccountID) bool { a := byID[id]; return a == nil || a.Removed })
		for _, id := range g.Members {
			byID[id].Groups = append(byID[id].Groups, g.ID)
		}
	}
}

func (p *people) listConflicts() {
	why, number := map[string]string{}, map[string]string{}
	for _, a := range p.accounts {
		why[a.ID.String()], number[a.ID.String()] = a.Why, strconv.FormatUint(uint64(a.UID), 10)
	}
	groups := map[string]bool{}
	for _, g := range p.groups {
		groups[g.ID.String()] = true
		why[g.ID.String()], number[g.ID.String()] = g.Why, strconv.FormatUint(uint64(g.GID), 10)
	}
	inForce := func(id string) string {
		if why[id] != "" {
			return ""
		}
		return p.labels[id]
	}
	for _, k := range p.book.contested() {
		numeric := k.kind == ClaimUID || k.kind == ClaimGID
		group := k.kind == ClaimGroupName || k.kind == ClaimGID
		live := func(c claim) bool { return why[c.id] != "removed" && (!numeric || number[c.id] == k.value) }
		isGroup := func(c claim) bool { return groups[c.id] }
		if !slices.ContainsFunc(p.book[k][1:], live) || group && !slices.ContainsFunc(p.book[k], isGroup) {
			continue // nobody misses it; or accounts alone, which is listed as their own kind
		}
		c := p.book.conflict(k, inForce, fmt.Sprintf("vcpeer conflicts settle %s %s WINNER-ID", k.kind, k.value))
		c.InForce = "each loser is disabled; its files keep their number"
		p.conflicts = append(p.conflicts, c)
	}
}
