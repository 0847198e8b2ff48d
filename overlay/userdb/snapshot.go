package userdb

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Local is what the machine itself has in /etc/passwd and /etc/group; cluster accounts keep clear of it.
type Local struct {
	users, groups map[string]bool
	uids, gids    map[uint32]bool
}

// ParseLocal reads the contents of /etc/passwd and /etc/group. Lines that make no sense are skipped.
func ParseLocal(passwd, group []byte) Local {
	l := Local{users: map[string]bool{}, groups: map[string]bool{}, uids: map[uint32]bool{}, gids: map[uint32]bool{}}
	collect := func(file []byte, names map[string]bool, ids map[uint32]bool) {
		for line := range strings.Lines(string(file)) {
			f := strings.SplitN(line, ":", 4)
			if len(f) < 3 || f[0] == "" || f[0][0] == '#' {
				continue
			}
			names[f[0]] = true
			if id, err := strconv.ParseUint(strings.TrimSpace(f[2]), 10, 32); err == nil {
				ids[uint32(id)] = true
			}
		}
	}
	collect(passwd, l.users, l.uids)
	collect(group, l.groups, l.gids)
	return l
}

// Refused is an account or group that is not given to the machine, with the reason.
type Refused struct {
	Kind   string // "account" or "group"
	Name   string
	Reason string
}

func (r Refused) String() string { return r.Kind + " " + r.Name + ": " + r.Reason }

// Snapshot is all that is given to the machine at one time. It never changes, so that any number of lookups may use it
// while the next one is made. The zero value is empty.
type Snapshot struct {
	accounts []Account // by uid
	groups   []Group   // by gid, members by name

	accountByName, groupByName map[string]int
	accountByUID, groupByGID   map[uint32]int
	groupsOf                   map[string][]string // account name to group names, in order
	refused                    []Refused
}

// NewSnapshot takes what is safe to give to a machine with these local users. Of two with one name or number an account in
// force is taken before a disabled one, else the first in order of number, then name. It keeps nothing of the arguments.
func NewSnapshot(accounts []Account, groups []Group, local Local) *Snapshot {
	s := &Snapshot{
		accountByName: map[string]int{}, groupByName: map[string]int{},
		accountByUID: map[uint32]int{}, groupByGID: map[uint32]int{},
		groupsOf: map[string][]string{},
	}
	byClaim := func(a, b Account) int {
		return cmp.Or(compareDisabled(a, b), cmp.Compare(a.UID, b.UID), strings.Compare(a.Name, b.Name), strings.Compare(a.FullName, b.FullName))
	}
	for _, a := range slices.SortedStableFunc(slices.Values(accounts), byClaim) {
		s.addAccount(a, local)
	}
	s.sortAccounts()
	byGID := func(a, b Group) int { return cmp.Or(cmp.Compare(a.GID, b.GID), strings.Compare(a.Name, b.Name)) }
	for _, g := range slices.SortedStableFunc(slices.Values(groups), byGID) {
		s.addGroup(g, local)
	}
	for _, a := range s.accounts {
		s.addPrivateGroup(a, local)
	}
	s.sortGroups()
	return s
}

func (s *Snapshot) addAccount(a Account, local Local) {
	a, err := a.normal()
	_, nameTaken := s.accountByName[a.Name]
	_, uidTaken := s.accountByUID[a.UID]
	switch {
	case err != nil:
	case local.users[a.Name]:
		err = fmt.Errorf("this machine has a user of that name in /etc/passwd")
	case local.uids[a.UID]:
		err = fmt.Errorf("uid %d is a user of this machine in /etc/passwd", a.UID)
	case local.gids[a.GID]:
		err = fmt.Errorf("gid %d is a group of this machine in /etc/group", a.GID)
	case nameTaken:
		err = fmt.Errorf("another account has that name")
	case uidTaken:
		err = fmt.Errorf("another account has uid %d", a.UID)
	}
	if err != nil {
		s.refused = append(s.refused, Refused{Kind: "account", Name: printable(a.Name), Reason: err.Error()})
		return
	}
	s.accountByName[a.Name] = len(s.accounts)
	s.accountByUID[a.UID] = len(s.accounts)
	s.accounts = append(s.accounts, a)
}

func (s *Snapshot) addGroup(g Group, local Local) {
	err := checkName(g.Name)
	if idErr := checkID(g.GID); err == nil && idErr != nil {
		err = fmt.Errorf("gid %w", idErr)
	}
	_, nameTaken := s.groupByName[g.Name]
	_, gidTaken := s.groupByGID[g.GID]
	switch {
	case err != nil:
	case local.groups[g.Name]:
		err = fmt.Errorf("this machine has a group of that name in /etc/group")
	case local.gids[g.GID]:
		err = fmt.Errorf("gid %d is a group of this machine in /etc/group", g.GID)
	case nameTaken:
		err = fmt.Errorf("another group has that name")
	case gidTaken:
		err = fmt.Errorf("another group has gid %d", g.GID)
	}
	if err != nil {
		s.refused = append(s.refused, Refused{Kind: "group", Name: printable(g.Name), Reason: err.Error()})
		return
	}
	members := slices.DeleteFunc(slices.Clone(g.Members), func(m string) bool { _, ours := s.accountByName[m]; return !ours })
	slices.Sort(members)
	s.putGroup(Group{Name: g.Name, GID: g.GID, Members: slices.Compact(members)})
}

// addPrivateGroup makes up the group behind an account's gid, so that `id` and `ls -l` show a name and not a number.
func (s *Snapshot) addPrivateGroup(a Account, local Local) {
	_, gidTaken := s.groupByGID[a.GID]
	_, nameTaken := s.groupByName[a.Name]
	if gidTaken || nameTaken || local.groups[a.Name] {
		return
	}
	s.putGroup(Group{Name: a.Name, GID: a.GID})
}

func (s *Snapshot) putGroup(g Group) {
	s.groupByName[g.Name] = len(s.groups)
	s.groupByGID[g.GID] = len(s.groups)
	s.groups = append(s.groups, g)
}

// compareDisabled puts accounts in force first: the name of a removed account may have been given to another since.
func compareDisabled(a, b Account) int {
	switch {
	case a.Disabled == b.Disabled:
		return 0
	case a.Disabled:
		return 1
	}
	return -1
}

// sortAccounts brings the disabled ones into their places.
func (s *Snapshot) sortAccounts() {
	slices.SortFunc(s.accounts, func(a, b Account) int { return cmp.Compare(a.UID, b.UID) })
	for i, a := range s.accounts {
		s.accountByName[a.Name], s.accountByUID[a.UID] = i, i
	}
}

// sortGroups brings the made-up groups into their places and notes who is in which group.
func (s *Snapshot) sortGroups() {
	slices.SortFunc(s.groups, func(a, b Group) int { return cmp.Compare(a.GID, b.GID) })
	for i, g := range s.groups {
		s.groupByName[g.Name], s.groupByGID[g.GID] = i, i
		for _, m := range g.Members {
			s.groupsOf[m] = append(s.groupsOf[m], g.Name)
		}
	}
}

// account looks up by name, by uid, or by both; conflict: one of the two is another account, or none.
func (s *Snapshot) account(name *string, uid *uint32) (a Account, found, conflict bool) {
	i, found, conflict := lookup(s.accountByName, s.accountByUID, name, uid)
	if !found {
		return Account{}, false, conflict
	}
	return s.accounts[i], true, false
}

func (s *Snapshot) group(name *string, gid *uint32) (g Group, found, conflict bool) {
	i, found, conflict := lookup(s.groupByName, s.groupByGID, name, gid)
	if !found {
		return Group{}, false, conflict
	}
	return s.groups[i], true, false
}

func lookup(names map[string]int, ids map[uint32]int, name *string, id *uint32) (index int, found, conflict bool) {
	var byName, byID int
	var nameThere, idThere bool
	if name != nil {
		byName, nameThere = names[*name]
	}
	if id != nil {
		byID, idThere = ids[*id]
	}
	switch {
	case name != nil && id != nil:
		same := nameThere && idThere && byName == byID
		return byName, same, !same && (nameThere || idThere)
	case name != nil:
		return byName, nameThere, false
	default:
		return byID, idThere, false
	}
}
