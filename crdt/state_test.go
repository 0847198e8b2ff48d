package crdt

import (
	"crypto/ed25519"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestClockNeverFollowsTheFuture(t *testing.T) {
	var c Clock
	now := testTime()
	first := c.Next(now)
	if c.Observe(StampOf(now.Add(MaxAhead+time.Second)), now) {
		t.Error("followed a stamp 6 s ahead")
	}
	if s := c.Next(now); s != first+1 {
		t.Errorf("after the refused stamp: %v, want %v", s, first+1)
	}
	near := StampOf(now.Add(MaxAhead - time.Second))
	if !c.Observe(near, now) || c.Next(now) <= near {
		t.Error("did not follow a stamp 4 s ahead")
	}
	if s := c.Next(now.Add(-time.Hour)); s <= near {
		t.Error("went back with the wall clock")
	}
}

func TestRemoveWinsAddWins(t *testing.T) {
	w := newWorld(t, 2)
	var id AccountID
	var group GroupID
	key := "ssh-ed25519 AAAA== laptop"
	w.update(t, 0, func(tx *Tx) (err error) {
		if id, err = tx.AddAccount(AccountSpec{Name: "alice", Keys: []string{key}}); err != nil {
			return err
		}
		if group, err = tx.AddGroup("physics", 0); err != nil {
			return err
		}
		return tx.AddToGroup(group, id)
	})
	w.exchange()
	// Cut: one side removes everything, the other adds it anew after having removed it itself.
	w.update(t, 0, func(tx *Tx) error {
		return errors.Join(tx.RemoveAccount(id), tx.SetKeys(id, nil), tx.RemoveFromGroup(group, id))
	})
	w.update(t, 1, func(tx *Tx) error {
		return errors.Join(tx.RemoveAccount(id), tx.SetKeys(id, nil), tx.RemoveFromGroup(group, id))
	})
	w.update(t, 1, func(tx *Tx) error {
		return errors.Join(tx.EnableAccount(id), tx.SetKeys(id, []string{key}), tx.AddToGroup(group, id))
	})
	w.exchange()
	w.requireEqual(t)
	v := w.nodes[0].state.View(w.now)
	a, _ := v.Account(id)
	g, _ := v.Group(group)
	if !a.Removed || !a.Disabled || len(g.Members) != 0 {
		t.Errorf("removal did not win: %+v %+v", a, g)
	}
	if !slices.Equal(a.Keys, []string{key}) {
		t.Errorf("the added key did not win: %v", a.Keys)
	}
	w.update(t, 0, func(tx *Tx) error { return tx.EnableAccount(id) })
	w.update(t, 0, func(tx *Tx) error { return tx.RevokeKey(id, key+" renamed") })
	w.exchange()
	if a, _ := w.nodes[1].state.View(w.now).Account(id); a.Disabled || len(a.Keys) != 0 {
		t.Errorf("after enable and revoke: %+v", a)
	}
}

func TestAccountNumbers(t *testing.T) {
	w := newWorld(t, 2)
	for i := range 2 { // cut apart: both choose the same number
		w.now = w.now.Add(2 * time.Second)
		w.update(t, i, func(tx *Tx) error {
			_, err := tx.AddAccount(AccountSpec{Name: []string{"alice", "bob"}[i], UID: 5000})
			return err
		})
	}
	w.exchange()
	w.requireEqual(t)
	v := w.nodes[1].state.View(w.now)
	c := v.Conflicts()
	if len(c) != 1 || c[0].Kind != ClaimUID || c[0].Value != "5000" || c[0].Winner.Label != "alice" {
		t.Fatalf("conflicts: %+v", c)
	}
	loser, _ := v.AccountNamed("bob")
	if !loser.Disabled || !strings.Contains(loser.Why, "uid 5000 belongs to account alice") {
		t.Fatalf("loser: %+v", loser)
	}
	w.update(t, 1, func(tx *Tx) error { return tx.Settle(ClaimUID, "5000", loser.ID.String()) })
	w.exchange()
	v = w.nodes[0].state.View(w.now)
	if bob, _ := v.AccountNamed("bob"); bob.Disabled {
		t.Fatalf("settled for bob, but: %+v", bob)
	}
	alice, _ := v.AccountNamed("alice")
	w.update(t, 0, func(tx *Tx) error { _, err := tx.RenumberAccount(alice.ID, 0); return err })
	w.update(t, 0, func(tx *Tx) error { return tx.RemoveAccount(loser.ID) })
	v = w.nodes[0].state.View(w.now)
	if alice, _ = v.AccountNamed("alice"); alice.Disabled || alice.UID < firstID || len(v.Conflicts()) != 0 {
		t.Fatalf("renumbered: %+v, conflicts %+v", alice, v.Conflicts())
	}
	if _, err := w.try(t, 0, func(tx *Tx) error {
		_, err := tx.AddAccount(AccountSpec{Name: "bob", UID: 5000})
		return err
	}); !errors.Is(err, ErrTaken) {
		t.Errorf("a removed account's uid was given again: %v", err)
	}
	for _, bad := range []AccountSpec{{Name: "root"}, {Name: "systemd-x"}, {Name: "1abc"}, {Name: "a", UID: 999}, {Name: "a", Shell: "sh"},
		{Name: "a", FullName: "x:0:0"}, {Name: "a", Keys: []string{`command="rm" ssh-ed25519 AAAA`}}, {Name: "a", Keys: []string{"ssh-rsa AAAA\nssh-rsa B"}}} {
		if _, err := w.try(t, 0, func(tx *Tx) error { _, err := tx.AddAccount(bad); return err }); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v, want ErrInvalid", bad, err)
		}
	}
}

func TestEvictionVoidsWhatItsAuthorHadNotSeen(t *testing.T) {
	w := newWorld(t, 3)
	w.update(t, 2, func(tx *Tx) error { return tx.PutHost(HostFacts{Name: "before"}) })
	w.exchange()
	w.update(t, 2, func(tx *Tx) error { return tx.PutHost(HostFacts{Name: "after"}) })
	w.update(t, 2, func(tx *Tx) error { _, err := tx.AddAccount(AccountSpec{Name: "mallory"}); return err })
	w.move(2, 1) // node 1 knows what the evicted wrote concurrently, node 0 does not
	w.update(t, 0, func(tx *Tx) error { return tx.Evict(w.nodes[2].id, "stolen") })
	w.exchange()
	for _, n := range w.nodes[:2] {
		v := n.state.View(w.now)
		if m, _ := v.Member(w.nodes[2].id); m.Standing != Evicted || m.Reason != "stolen" || m.EvictedBy != w.nodes[0].id {
			t.Errorf("member: %+v", m)
		}
		if len(v.Accounts()) != 0 || len(v.Hosts()) != 0 {
			t.Errorf("void records count: %+v %+v", v.Accounts(), v.Hosts())
		}
	}
	w.nodes = w.nodes[:2]
	w.requireEqual(t)
	if _, err := w.try(t, 0, func(tx *Tx) error { return tx.AdmitMember(NodeIDOf(testKey(2)), TokenID{}) }); !errors.Is(err, ErrNotMember) {
		t.Errorf("the evicted was let in again: %v", err)
	}
}

// TestLateEvictionByTheEvicted: an evicted node cannot turn its eviction round with an older stamp, where that is known.
func TestEvictedNodeKeepsItsNameForTheEye(t *testing.T) {
	w := newWorld(t, 2)
	w.update(t, 1, func(tx *Tx) error { return tx.PutHost(HostFacts{Name: "n1"}) })
	w.exchange()
	w.update(t, 0, func(tx *Tx) error { return tx.Evict(w.nodes[1].id, "stolen") })
	v := w.nodes[0].state.View(w.now)
	if _, listed := v.Host(w.nodes[1].id); listed || v.NameOf(w.nodes[1].id) != "n1" {
		t.Errorf("evicted host listed %v, name %q", listed, v.NameOf(w.nodes[1].id))
	}
}

func TestLateEvictionByTheEvicted(t *testing.T) {
	w := newWorld(t, 3)
	evil := w.nodes[2]
	w.update(t, 0, func(tx *Tx) error { return tx.Evict(evil.id, "bad") })
	w.move(0, 1)
	w.now = w.now.Add(-time.Second)
	w.update(t, 2, func(tx *Tx) error { return tx.Evict(w.nodes[0].id, "revenge") })
	w.now = w.now.Add(time.Second)
	late := w.all[len(w.all)-1]
	for i, n := range w.nodes[:2] {
		if err := n.receive(late, w.now); !errors.Is(err, ErrNotMember) {
			t.Errorf("node %d: %v", i, err)
		}
		if got := n.state.View(w.now).Standing(w.nodes[0].id); got != Joined {
			t.Errorf("node %d: the evictor is %v", i, got)
		}
	}
}

func TestEquivocationFreezesTheSameEverywhere(t *testing.T) {
	w := newWorld(t, 3)
	w.update(t, 2, func(tx *Tx) error { return tx.PutHost(HostFacts{Name: "one"}) })
	w.exchange()
	clone := newNode(w.nodes[0].state.Founding(), testKey(2), 9)
	for _, b := range w.nodes[2].have {
		if err := clone.receive(b, w.now); err != nil {
			t.Fatal(err)
		}
	}
	w.nodes = append(w.nodes, clone)
	for i, name := range map[int]string{2: "left", 3: "right"} {
		w.update(t, i, func(tx *Tx) error { return tx.PutHost(HostFacts{Name: name}) })
		w.update(t, i, func(tx *Tx) error { return tx.PutHost(HostFacts{CPUs: i}) })
	}
	w.move(2, 0)
	w.move(3, 1)
	w.exchange()
	for i, n := range w.nodes {
		v := n.state.View(w.now)
		m, _ := v.Member(clone.id)
		if h, _ := v.Host(clone.id); !m.Frozen || h.Asked != "one" || h.CPUs != 0 {
			t.Errorf("node %d: %+v %+v", i, m, h)
		}
	}
	w.requireEqual(t)
}

func TestLeaveAndComeBack(t *testing.T) {
	w := newWorld(t, 3)
	w.update(t, 1, func(tx *Tx) error {
		_, err := tx.ClaimAddress()
		return errors.Join(err, tx.PutHost(HostFacts{Name: "n1"}))
	})
	w.exchange()
	w.update(t, 1, func(tx *Tx) error { tx.MarkLeft(); return nil })
	w.exchange()
	if got := w.nodes[0].state.View(w.now).Standing(w.nodes[1].id); got != Left || !got.Admitted() {
		t.Fatalf("standing %v", got)
	}
	w.update(t, 2, func(tx *Tx) error {
		_, err := tx.ClaimAddress()
		return errors.Join(err, tx.PutHost(HostFacts{Name: "n1"}))
	})
	w.exchange()
	w.update(t, 1, func(tx *Tx) error { return tx.MarkBack() })
	w.exchange()
	w.requireEqual(t)
	v := w.nodes[0].state.View(w.now)
	newer, _ := v.Host(w.nodes[2].id)
	back, _ := v.Host(w.nodes[1].id)
	if v.Standing(back.ID) != Joined || newer.Name != "n1" || back.Name == "n1" || !back.Address.IsValid() {
		t.Errorf("after coming back: %+v, newer %+v", back, newer)
	}
}

func TestFutureStampIsHeldBack(t *testing.T) {
	w := newWorld(t, 2)
	id := w.nodes[0].state.cluster
	rename := func(name string) func(*Tx) error { return func(tx *Tx) error { return tx.SetClusterName(name) } }
	now := w.now
	w.now = now.Add(10 * time.Minute)
	w.update(t, 1, rename("ahead"))
	w.now = now
	w.update(t, 0, rename("right"))
	w.exchange()
	v := w.nodes[0].state.View(w.now)
	if v.Cluster().Name != "right" || len(v.Skews()) != 1 || v.Skews()[0].Author != w.nodes[1].id {
		t.Fatalf("%s: cluster %+v, skews %+v", id, v.Cluster(), v.Skews())
	}
	if v = w.nodes[0].state.View(v.Next()); v.Cluster().Name != "ahead" || !v.Next().IsZero() {
		t.Errorf("when its time has come: %+v, next %v", v.Cluster(), v.Next())
	}
	w.update(t, 0, rename("last")) // what has seen the future wins over it at once
	if v = w.nodes[0].state.View(w.now); v.Cluster().Name != "last" {
		t.Errorf("causal overwrite lost: %+v", v.Cluster())
	}
}

func TestUnknownKindsAndValuesAreKeptAndHarmless(t *testing.T) {
	w := newWorld(t, 2)
	self := string(w.nodes[0].id[:])
	w.update(t, 0, func(tx *Tx) error {
		tx.changes = append(tx.changes,
			Change{Kind: "volume", ID: "x", Field: "size", Op: OpSet, Value: []byte{1}},
			Change{Kind: "volume", ID: "x", Field: "size", Op: 99, Value: []byte{1}},
			Change{Kind: kindHost, ID: self, Field: fieldCPUs, Op: OpSet, Value: []byte("not CBOR")},
			Change{Kind: kindHost, ID: "short", Field: fieldName, Op: OpSet, Value: marshal("x")},
			Change{Kind: kindMember, ID: self, Field: fieldEvicted, Op: OpGrow, Value: []byte{0xff}},
			Change{Kind: kindAccount, ID: "0123456789abcdef", Field: fieldName, Op: OpSet, Value: marshal("root")},
			Change{Kind: kindAccount, ID: "0123456789abcdef", Field: fieldUID, Op: OpSet, Value: marshal(0)},
			Change{Kind: kindAccount, ID: "0123456789abcdef", Field: fieldEnabled, Op: OpAdd, Value: marshal(true)})
		return nil
	})
	w.exchange()
	w.requireEqual(t)
	v := w.nodes[1].state.View(w.now)
	if a := v.Accounts(); len(a) != 1 || !a[0].Disabled {
		t.Errorf("a record made root: %+v", a)
	}
	if len(w.nodes[1].state.objects.kinds["volume"]) != 1 {
		t.Error("an unknown kind was not kept")
	}
}

func TestTokens(t *testing.T) {
	w := newWorld(t, 2)
	public := ed25519.PublicKey(testKey(50)[32:])
	var id TokenID
	expires := w.now.Add(time.Hour)
	w.update(t, 0, func(tx *Tx) (err error) {
		id, err = tx.AddToken(public, expires, false, "kyoto")
		return err
	})
	tok, _ := w.nodes[0].state.View(w.now).Token(id)
	if !tok.Usable(w.now) || tok.Usable(expires) || tok.Site != "kyoto" || tok.Issuer != w.nodes[0].id {
		t.Fatalf("%+v", tok)
	}
	w.update(t, 0, func(tx *Tx) error { return tx.UseToken(id, w.nodes[1].id) })
	if tok, _ = w.nodes[0].state.View(w.now).Token(id); tok.Usable(w.now) || len(tok.UsedBy) != 1 {
		t.Fatalf("used: %+v", tok)
	}
	if _, err := w.try(t, 0, func(tx *Tx) error { return tx.RevokeToken(TokenID{1}) }); !errors.Is(err, ErrNotFound) {
		t.Errorf("revoke of no token: %v", err)
	}
}

func TestAdmissionProof(t *testing.T) {
	w := newWorld(t, 2)
	third := NodeIDOf(testKey(7))
	b := w.update(t, 1, func(tx *Tx) error { return tx.AdmitMember(third, TokenID{}) })
	first := w.nodes[0].have[0]
	f := w.nodes[0].state.Founding()
	proof := Proof{Founding: f.Raw(), Batches: [][]byte{first.Raw(), b.Raw()}}
	if err := VerifyAdmission(f.ID(), proof, third); err != nil {
		t.Fatal(err)
	}
	if path, ok := w.nodes[1].state.View(w.now).AdmissionPath(third); !ok || len(path) != 2 || path[1].Author != w.nodes[1].id {
		t.Errorf("path %v", path)
	}
	other, err := NewFounding("test", testKey(9), w.now, rand.NewChaCha8([32]byte{9}))
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]Proof{
		"gap":             {Founding: f.Raw(), Batches: [][]byte{b.Raw()}},
		"no admission":    {Founding: f.Raw(), Batches: [][]byte{first.Raw()}},
		"other founding":  {Founding: other.Raw(), Batches: proof.Batches},
		"broken founding": {Founding: f.Raw()[1:], Batches: proof.Batches},
		"broken batch":    {Founding: f.Raw(), Batches: [][]byte{first.Raw(), flip(b.Raw())}},
	} {
		if VerifyAdmission(f.ID(), bad, third) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func flip(raw []byte) []byte {
	out := slices.Clone(raw)
	out[len(out)-1] ^= 1
	return out
}

// TestCausalOrderOfClaims: a claim made in sight of another loses to it, whatever its stamp says.
func TestCausalOrderOfClaims(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, 3)
		w.now = w.now.Add(time.Hour)
		w.update(t, 0, func(tx *Tx) error { return tx.PutHost(HostFacts{Name: "n1"}) })
		w.move(0, 1)
		w.update(t, 1, func(tx *Tx) error { return tx.PutHost(HostFacts{Name: "other"}) })
		w.move(1, 2) // node 2 has seen node 1, which had seen node 0; whether it has seen the claim itself does not matter
		w.now = w.now.Add(-time.Duration(rapid.IntRange(1, 3000).Draw(t, "s")) * time.Second)
		w.update(t, 2, func(tx *Tx) error { return tx.PutHost(HostFacts{Name: "n1"}) })
		w.exchange()
		if h, ok := w.nodes[0].state.View(w.now).HostNamed("n1"); !ok || h.ID != w.nodes[0].id {
			t.Fatalf("the later claim won: %+v", h)
		}
	})
}

func TestSiteMadeForANewcomerIsInUseUntilItSettles(t *testing.T) {
	w := newWorld(t, 2)
	newcomer := w.nodes[1].id
	var id SiteID
	w.update(t, 0, func(tx *Tx) (err error) {
		id, err = tx.CreateSiteFor("osaka", newcomer)
		return err
	})
	w.exchange()
	if s, ok := w.nodes[0].state.View(w.now).SiteInUse("osaka"); !ok || s.ID != id || s.Founder != newcomer {
		t.Fatalf("before its founder came: %+v, %v", s, ok)
	}
	w.update(t, 1, func(tx *Tx) error { return tx.PutHost(HostFacts{Name: "n1", Site: id}) })
	w.exchange()
	if _, ok := w.nodes[0].state.View(w.now).SiteInUse("osaka"); !ok {
		t.Error("a site with a node is not in use")
	}
	w.update(t, 1, func(tx *Tx) error { tx.MarkLeft(); return nil })
	w.exchange()
	if _, ok := w.nodes[0].state.View(w.now).SiteInUse("osaka"); ok {
		t.Error("a site that everybody left is in use")
	}
}
