package userdb

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const (
	localPasswd = "root:x:0:0::/root:/bin/bash\nlocal:x:1000:1000::/home/local:/bin/sh\n# old:x:1005:1\nrubbish\n"
	localGroup  = "root:x:0:\nlocal:x:1000:\nlab:x:3000:local\n"
)

func local() Local { return ParseLocal([]byte(localPasswd), []byte(localGroup)) }

// story prints a snapshot short: "alice/200001:200001 … | physics/200100[alice bob] …".
func story(s *Snapshot) string {
	var a, g []string
	for _, x := range s.accounts {
		a = append(a, fmt.Sprintf("%s/%d:%d", x.Name, x.UID, x.GID))
	}
	for _, x := range s.groups {
		g = append(g, fmt.Sprintf("%s/%d%v", x.Name, x.GID, x.Members))
	}
	return strings.Join(a, " ") + " | " + strings.Join(g, " ")
}

func TestSnapshot(t *testing.T) {
	user := func(name string, uid, gid uint32) Account { return Account{Name: name, UID: uid, GID: gid} }
	gone := func(name string, uid uint32) Account { return Account{Name: name, UID: uid, GID: uid, Disabled: true} }
	for _, tt := range []struct {
		name     string
		accounts []Account
		groups   []Group
		want     string
		refused  int
	}{
		{"nothing", nil, nil, " | ", 0},
		{"private group is made up", []Account{user("alice", 200001, 200001)}, nil, "alice/200001:200001 | alice/200001[]", 0},
		{"group of the gid is there", []Account{user("alice", 200001, 200100)}, []Group{{"physics", 200100, []string{"alice"}}},
			"alice/200001:200100 | physics/200100[alice]", 0},
		{"in order of number", []Account{user("zoe", 200001, 200100), user("al", 200002, 200100)}, []Group{{"b", 200100, nil}, {"a", 200050, nil}},
			"zoe/200001:200100 al/200002:200100 | a/200050[] b/200100[]", 0},
		{"members that are not ours stay out", []Account{user("alice", 200001, 200001)}, []Group{{"physics", 200100, []string{"root", "alice", "local", "alice", "ghost"}}},
			"alice/200001:200001 | alice/200001[] physics/200100[alice]", 0},
		{"system names", []Account{user("root", 200001, 200001), user("systemd-x", 200002, 200002)}, []Group{{"sudo", 200100, nil}, {"docker", 200101, nil}}, " | ", 4},
		{"system numbers", []Account{user("a", 0, 200001), user("b", 999, 200001), user("c", 200001, 0), user("d", 65534, 200001), user("e", 1<<31, 200001), user("f", 61184, 200001)},
			[]Group{{"g", 999, nil}, {"h", 1<<32 - 1, nil}}, " | ", 8},
		{"the machine's own users", []Account{user("local", 200001, 200001), user("twin", 1000, 200001), user("lab", 200002, 200002), user("guest", 200003, 3000)},
			[]Group{{"lab", 200100, nil}, {"mine", 3000, nil}}, "lab/200002:200002 | ", 5},
		{"commented user is free", []Account{user("old", 1005, 1005)}, nil, "old/1005:1005 | old/1005[]", 0},
		{"doubles", []Account{user("b", 200001, 200001), user("a", 200001, 200001), user("b", 200002, 200002)}, []Group{{"g", 200100, nil}, {"g", 200101, nil}, {"h", 200100, nil}},
			"a/200001:200001 b/200002:200002 | a/200001[] b/200002[] g/200100[]", 3},
		{"name of a removed account given away", []Account{gone("al", 200001), user("al", 200003, 200003), gone("zoe", 200002), gone("bo", 200003)}, nil,
			"zoe/200002:200002 al/200003:200003 | zoe/200002[] al/200003[]", 2},
		{"names that are none", []Account{user("", 200001, 200001), user("Al", 200001, 200001), user("a:b", 200001, 200001), user("a\nb", 200001, 200001), user("9a", 200001, 200001), user("-a", 200001, 200001), user(strings.Repeat("a", 32), 200001, 200001)}, nil, " | ", 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := NewSnapshot(tt.accounts, tt.groups, local())
			if got := story(s); got != tt.want || len(s.refused) != tt.refused {
				t.Errorf("\n got %s\nwant %s\nrefused %d (want %d): %v", got, tt.want, len(s.refused), tt.refused, s.refused)
			}
		})
	}
}

func TestAccountFields(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   Account
		want Account
		bad  bool
	}{
		{"defaults", Account{}, Account{Home: "/home/al", Shell: "/bin/sh"}, false},
		{"given", Account{Home: "/data/al", Shell: "/bin/zsh", FullName: "Al Gore"}, Account{Home: "/data/al", Shell: "/bin/zsh", FullName: "Al Gore"}, false},
		{"disabled", Account{Disabled: true, Shell: "/bin/zsh"}, Account{Home: "/home/al", Shell: nologin, Disabled: true}, false},
		{"full name that would break the line", Account{FullName: "A:0:0\nroot,\x1b[1m\xff"}, Account{Home: "/home/al", Shell: "/bin/sh", FullName: "A 0 0root [1m"}, false},
		{"relative home", Account{Home: "home"}, Account{}, true},
		{"home with a colon", Account{Home: "/home:x"}, Account{}, true},
		{"home that goes up", Account{Home: "/home/../etc"}, Account{}, true},
		{"shell with a line end", Account{Shell: "/bin/sh\n"}, Account{}, true},
	} {
		tt.in.Name, tt.in.UID, tt.in.GID = "al", 200001, 200001
		tt.want.Name, tt.want.UID, tt.want.GID = "al", 200001, 200001
		got, err := tt.in.normal()
		if (err != nil) != tt.bad || !tt.bad && got != tt.want {
			t.Errorf("%s: got %+v, %v; want %+v, an error: %v", tt.name, got, err, tt.want, tt.bad)
		}
	}
}

// TestSnapshotProperties: whatever records say, what is given out is unique, clear of the machine's own users, closed under
// membership, and the same for every order of the records.
func TestSnapshotProperties(t *testing.T) {
	name := rapid.OneOf(rapid.SampledFrom([]string{"a", "b", "c", "root", "local", "lab", "sudo"}), rapid.String())
	number := rapid.OneOf(rapid.Uint32Range(200000, 200005), rapid.SampledFrom([]uint32{0, 999, 1000, 3000, 65534, 1 << 31}), rapid.Uint32())
	account := rapid.Custom(func(t *rapid.T) Account {
		return Account{Name: name.Draw(t, "name"), UID: number.Draw(t, "uid"), GID: number.Draw(t, "gid"), FullName: rapid.String().Draw(t, "full"), Disabled: rapid.Bool().Draw(t, "disabled")}
	})
	group := rapid.Custom(func(t *rapid.T) Group {
		return Group{Name: name.Draw(t, "name"), GID: number.Draw(t, "gid"), Members: rapid.SliceOf(name).Draw(t, "members")}
	})
	rapid.Check(t, func(t *rapid.T) {
		accounts, groups := rapid.SliceOf(account).Draw(t, "accounts"), rapid.SliceOf(group).Draw(t, "groups")
		l := local()
		s := NewSnapshot(accounts, groups, l)
		check(t, s, l)
		again := NewSnapshot(rapid.Permutation(accounts).Draw(t, "order"), groups, l)
		if story(again) != story(s) {
			t.Fatalf("another order:\n%s\n%s", story(again), story(s))
		}
		shadow, group, passwd := s.lines()
		if len(shadow) != len(s.accounts) || len(group) != len(s.groups) {
			t.Fatalf("%d shadow and %d group lines", len(shadow), len(group))
		}
		back := ParseLocal([]byte(strings.Join(passwd, "\n")), []byte(strings.Join(group, "\n")))
		for i, a := range s.accounts {
			if strings.Count(passwd[i], ":") != 6 || strings.Count(shadow[i], ":") != 8 || !back.users[a.Name] || !back.uids[a.UID] {
				t.Fatalf("lines of %+v: %q %q", a, passwd[i], shadow[i])
			}
		}
	})
}

func check(t *rapid.T, s *Snapshot, l Local) {
	names, ids := map[string]bool{}, map[uint32]bool{}
	for i, a := range s.accounts {
		if names[a.Name] || ids[a.UID] || l.users[a.Name] || l.uids[a.UID] || a.UID < 1000 || a.GID < 1000 || systemName(a.Name) {
			t.Fatalf("account %+v must not be given out", a)
		}
		names[a.Name], ids[a.UID] = true, true
		if s.accountByName[a.Name] != i || s.accountByUID[a.UID] != i {
			t.Fatalf("account %+v is not found", a)
		}
	}
	groupNames, gids := map[string]bool{}, map[uint32]bool{}
	for i, g := range s.groups {
		if groupNames[g.Name] || gids[g.GID] || l.groups[g.Name] || l.gids[g.GID] || g.GID < 1000 || systemName(g.Name) {
			t.Fatalf("group %+v must not be given out", g)
		}
		groupNames[g.Name], gids[g.GID] = true, true
		if s.groupByName[g.Name] != i || s.groupByGID[g.GID] != i || !slices.IsSorted(g.Members) {
			t.Fatalf("group %+v is not found or not in order", g)
		}
		for _, m := range g.Members {
			if !names[m] || !slices.Contains(s.groupsOf[m], g.Name) {
				t.Fatalf("member %s of %+v", m, g)
			}
		}
	}
}

func TestSnapshotKeepsNothing(t *testing.T) {
	accounts := []Account{{Name: "a", UID: 200001, GID: 200001}}
	groups := []Group{{Name: "g", GID: 200100, Members: []string{"a", "a"}}}
	s := NewSnapshot(accounts, groups, local())
	before := story(s)
	accounts[0].Name, groups[0].Members[0] = "x", "x"
	if story(s) != before || !reflect.DeepEqual(groups[0].Members, []string{"x", "a"}) {
		t.Errorf("the snapshot shares memory with its input: %s, was %s", story(s), before)
	}
}
