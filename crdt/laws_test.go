package crdt

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// drawWrite draws one change of the records; what the transaction refuses is refused.
func drawWrite(t *rapid.T, w *world, i int) func(*Tx) error {
	v := w.nodes[i].state.View(w.now)
	name := rapid.SampledFrom([]string{"alice", "bob", "carol"}).Draw(t, "name")
	key := fmt.Sprintf("ssh-ed25519 %s== %s", name, name)
	other := w.nodes[rapid.IntRange(0, len(w.nodes)-1).Draw(t, "other")].id
	account := func() (id AccountID) {
		if a := v.Accounts(); len(a) > 0 {
			id = a[rapid.IntRange(0, len(a)-1).Draw(t, "account")].ID
		}
		return id
	}
	group := func() (id GroupID) {
		if g := v.Groups(); len(g) > 0 {
			id = g[rapid.IntRange(0, len(g)-1).Draw(t, "group")].ID
		}
		return id
	}
	guest := func() (id GuestID) {
		if g := v.Guests(); len(g) > 0 {
			id = g[rapid.IntRange(0, len(g)-1).Draw(t, "guest")].ID
		}
		return id
	}
	switch rapid.IntRange(0, 26).Draw(t, "what") {
	case 0:
		return func(tx *Tx) error { _, err := tx.CreateSite(name); return err }
	case 1:
		return func(tx *Tx) error {
			return tx.PutHost(HostFacts{Name: name, CPUs: rapid.IntRange(1, 4).Draw(t, "cpus")})
		}
	case 2:
		return func(tx *Tx) error { _, err := tx.ClaimAddress(); return err }
	case 3:
		return func(tx *Tx) error { _, err := tx.AddAccount(AccountSpec{Name: name, Keys: []string{key}}); return err }
	case 4:
		uid := rapid.Uint32Range(2000, 2002).Draw(t, "uid")
		return func(tx *Tx) error { _, err := tx.AddAccount(AccountSpec{Name: name, UID: uid}); return err }
	case 5:
		return func(tx *Tx) error { return tx.RemoveAccount(account()) }
	case 6:
		return func(tx *Tx) error { return tx.EnableAccount(account()) }
	case 7:
		return func(tx *Tx) error { return tx.SetKeys(account(), []string{key}) }
	case 8:
		gid := rapid.Uint32Range(1999, 2002).Draw(t, "gid")
		return func(tx *Tx) error { _, err := tx.AddGroup(name, gid); return err }
	case 9:
		return func(tx *Tx) error { return tx.AddToGroup(group(), account()) }
	case 10:
		return func(tx *Tx) error { return tx.RemoveFromGroup(group(), account()) }
	case 11:
		return func(tx *Tx) error { _, err := tx.RenumberAccount(account(), 0); return err }
	case 12:
		return func(tx *Tx) error { return tx.Evict(other, "test") }
	case 13:
		return func(tx *Tx) error {
			if tx.View().Standing(tx.Self()) == Left {
				return tx.MarkBack()
			}
			tx.MarkLeft()
			return nil
		}
	case 14:
		return func(tx *Tx) error { return tx.RevokeKey(account(), key) }
	case 15:
		mtu := rapid.IntRange(0, 2).Draw(t, "mtu")
		return func(tx *Tx) error {
			return tx.PutUnderlay(UnderlayFacts{Overlay: mtu, UnderlayMTU: mtu, NoTransit: mtu == 1, Underlay: someAddrs(mtu)})
		}
	case 16:
		return func(tx *Tx) error { _, err := tx.ClaimLabel(); return err }
	case 17:
		return func(tx *Tx) error { tx.ReleaseLabel(); return nil }
	case 18:
		return func(tx *Tx) error { _, _, err := tx.AttachGuest(name, name == "bob"); return err }
	case 19:
		return func(tx *Tx) error { return tx.DetachGuest(guest()) }
	case 20:
		return func(tx *Tx) error { return tx.ForgetGuest(guest()) }
	case 21:
		return func(tx *Tx) error { _, err := tx.ClaimGuestAddress(guest()); return err }
	case 22:
		return func(tx *Tx) error { return tx.RenameGuest(guest(), name) }
	case 23, 24, 25: // the hash of a key seldom collides: claim numbers that do
		n := rapid.Uint64Range(0, 2).Draw(t, "number")
		id := guest()
		return func(tx *Tx) error {
			tx.force(kindHost, string(tx.self[:]), fieldLabel, n)
			tx.force(kindHost, string(tx.self[:]), fieldAddress, n)
			tx.force(kindGuest, string(id[:]), fieldAddress, n)
			tx.SetEncrypt(n == 1)
			return nil
		}
	default:
		return func(tx *Tx) error {
			c := v.Conflicts()
			if len(c) == 0 {
				return nil
			}
			return tx.Settle(c[0].Kind, c[0].Value, c[0].Losers[0].ID)
		}
	}
}

// someAddrs returns n addresses of both families.
func someAddrs(n int) (list []netip.Addr) {
	for i := range n {
		list = append(list, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), netip.AddrFrom16([16]byte{0x20, 1, 15: byte(i)}))
	}
	return list
}

// drawHistory writes and moves at random. Some clocks are wrong.
func drawHistory(t *rapid.T, w *world, evictions bool) {
	for range rapid.IntRange(5, 40).Draw(t, "steps") {
		i := rapid.IntRange(0, len(w.nodes)-1).Draw(t, "node")
		if rapid.IntRange(0, 3).Draw(t, "move") == 0 {
			w.move(i, rapid.IntRange(0, len(w.nodes)-1).Draw(t, "to"))
			continue
		}
		write := drawWrite(t, w, i)
		if _, err := w.try(t, i, func(tx *Tx) error {
			if err := write(tx); err != nil {
				return err
			}
			if !evictions && slices.ContainsFunc(tx.changes, func(c Change) bool { return c.Field == fieldEvicted }) {
				return ErrInvalid
			}
			return nil
		}); err == nil && rapid.Bool().Draw(t, "tick") {
			w.now = w.now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
		}
	}
}

// TestConverge: any order, repeated and late, gives equal views and heads, and the invariants hold at every node at any time.
func TestConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, 4)
		drawHistory(t, w, false)
		for _, n := range w.nodes {
			requireInvariants(t, n.state.View(w.now))
		}
		w.exchange()
		w.requireEqual(t)
		requireInvariants(t, w.nodes[0].state.View(w.now))
		requireReplay(t, w)
	})
}

// requireReplay checks that a node which gets all batches in a random order, some twice, ends equal, as does a restart.
func requireReplay(t *rapid.T, w *world) {
	n := w.nodes[0]
	late := newNode(n.state.Founding(), testKey(77), 0)
	todo := rapid.Permutation(slices.Concat(n.have, n.have)).Draw(t, "order")
	for range len(todo) + 1 {
		left := todo[:0:0]
		for _, b := range todo {
			if late.receive(b, w.now) != nil && late.state.Check(b) != nil {
				left = append(left, b)
			}
		}
		todo = left
	}
	if d := diffViews(n.state.View(w.now), late.state.View(w.now)); d != "" {
		t.Fatalf("late joiner differs: %s", d)
	}
	restarted := NewState(n.state.Founding())
	restarted.StartBulk()
	for _, b := range byAuthor(n.have) {
		if err := restarted.AppendStored(b); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range n.forks {
		restarted.AddFork(b)
	}
	restarted.EndBulk()
	if restarted.Stale() {
		restarted.Rebuild(slices.Values(byAuthor(n.have)))
	}
	if d := diffViews(n.state.View(w.now), restarted.View(w.now)); d != "" {
		t.Fatalf("restart differs: %s", d)
	}
}

// TestConvergeEvictions: the same with evictions, mutual ones too. After the exchange the nodes that are still members write
// once more (as they do all the time), so that they witness what they saw of the evicted.
func TestConvergeEvictions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, 4)
		drawHistory(t, w, true)
		for range 3 {
			w.exchange()
			for i := range w.nodes {
				_, _ = w.try(t, i, func(tx *Tx) error { return tx.PutHost(HostFacts{Version: w.now.String()}) })
			}
		}
		w.exchange()
		for i, a := range w.nodes {
			for _, b := range w.nodes[i+1:] {
				if !a.state.MayWrite(a.id) || !a.state.MayWrite(b.id) || !b.state.MayWrite(a.id) || !b.state.MayWrite(b.id) {
					continue // the evicted hear nothing, and need not
				}
				if d := diffViews(a.state.View(w.now), b.state.View(w.now)); d != "" {
					t.Fatalf("members differ: %s", d)
				}
				requireInvariants(t, a.state.View(w.now))
			}
		}
	})
}
