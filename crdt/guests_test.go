package crdt

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// attach has node i attach a guest.
func (w *world) attach(t *testing.T, i int, name string, takeOver bool) (id GuestID, a netip.Addr) {
	t.Helper()
	w.update(t, i, func(tx *Tx) (err error) {
		id, a, err = tx.AttachGuest(name, takeOver)
		return err
	})
	return id, a
}

func (w *world) guest(t *testing.T, id GuestID) Guest {
	t.Helper()
	w.exchange()
	w.requireEqual(t)
	g, _ := w.nodes[0].state.View(w.now).Guest(id)
	return g
}

func TestGuestMovesWithItsAddress(t *testing.T) {
	w := newWorld(t, 3)
	id, a := w.attach(t, 1, "vm1", false)
	g := w.guest(t, id)
	if g.Name != "vm1" || g.Address != a || g.Node != w.nodes[1].id || g.MAC() != MACOf(a) || !g.Address6.IsValid() {
		t.Fatalf("attached: %+v", g)
	}
	if again, b := w.attach(t, 1, "vm1", false); again != id || b != a {
		t.Errorf("attached again: %s %s", again, b)
	}
	if _, err := w.try(t, 2, func(tx *Tx) error { _, _, err := tx.AttachGuest("vm1", false); return err }); !errors.Is(err, ErrTaken) {
		t.Errorf("attached elsewhere without a word: %v, want ErrTaken", err)
	}
	if moved, b := w.attach(t, 2, "vm1", true); moved != id || b != a || w.guest(t, id).Node != w.nodes[2].id {
		t.Errorf("moved: %s %s", moved, b)
	}
	w.update(t, 2, func(tx *Tx) error { return tx.DetachGuest(id) })
	if g := w.guest(t, id); !g.Node.IsZero() || g.Address != a || g.Name != "vm1" {
		t.Errorf("detached: %+v", g)
	}
	w.update(t, 0, func(tx *Tx) error { return tx.PutHost(HostFacts{Name: "vm1"}) })
	w.exchange()
	if h, _ := w.nodes[1].state.View(w.now).Host(w.nodes[0].id); h.Name == "vm1" {
		t.Error("a host took the name of a guest")
	}
	if moved, b := w.attach(t, 0, "vm1", false); moved != id || b != a {
		t.Errorf("attached where it was free to go: %s %s", moved, b)
	}
	w.update(t, 0, func(tx *Tx) error { return tx.RenameGuest(id, "vm2") })
	w.exchange()
	if h, ok := w.nodes[1].state.View(w.now).HostNamed("vm1"); !ok || h.ID != w.nodes[0].id {
		t.Error("the name that the guest gave up is not the host's")
	}
	if _, err := w.try(t, 0, func(tx *Tx) error { return tx.RenameGuest(id, "vm1") }); !errors.Is(err, ErrTaken) {
		t.Errorf("renamed to a host's name: %v, want ErrTaken", err)
	}
}

func TestGuestIsForgotten(t *testing.T) {
	w := newWorld(t, 3)
	id, _ := w.attach(t, 1, "vm1", false)
	w.exchange()
	w.update(t, 0, func(tx *Tx) error { return tx.ForgetGuest(id) })
	w.exchange()
	for _, n := range w.nodes {
		if v := n.state.View(w.now); len(v.Guests()) != 0 || len(n.state.objects.kinds[kindGuest]) != 0 {
			t.Errorf("left of a guest: %+v, %d objects", v.Guests(), len(n.state.objects.kinds[kindGuest]))
		}
	}
	for what, f := range map[string]func(*Tx) error{
		"detach": func(tx *Tx) error { return tx.DetachGuest(id) }, "forget": func(tx *Tx) error { return tx.ForgetGuest(id) },
		"rename": func(tx *Tx) error { return tx.RenameGuest(id, "x") }, "address": func(tx *Tx) error { _, err := tx.ClaimGuestAddress(id); return err },
	} {
		if _, err := w.try(t, 0, f); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", what, err)
		}
	}
	if other, _ := w.attach(t, 2, "vm1", false); other == id {
		t.Error("the same guest again")
	}
}

// TestForgetAgainstWork: what happens at the same time elsewhere decides whether a forgotten guest is there.
func TestForgetAgainstWork(t *testing.T) {
	for _, tt := range []struct {
		name  string
		work  func(tx *Tx, id GuestID) error
		there bool
	}{
		{"attached elsewhere", func(tx *Tx, id GuestID) error { _, _, err := tx.AttachGuest("vm1", true); return err }, true},
		{"renamed", func(tx *Tx, id GuestID) error { return tx.RenameGuest(id, "vm2") }, false},
		{"detached", func(tx *Tx, id GuestID) error { return tx.DetachGuest(id) }, false},
		{"forgotten too", func(tx *Tx, id GuestID) error { return tx.ForgetGuest(id) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 3)
			id, a := w.attach(t, 1, "vm1", false)
			w.exchange()
			w.update(t, 0, func(tx *Tx) error { return tx.ForgetGuest(id) })
			w.update(t, 2, func(tx *Tx) error { return tt.work(tx, id) })
			g := w.guest(t, id)
			if (g.ID == id) != tt.there {
				t.Fatalf("there is %+v", g)
			}
			if !tt.there {
				return
			}
			if g.Address.IsValid() || !strings.HasPrefix(g.Name, "guest-") {
				t.Errorf("before the repair: %+v", g)
			}
			w.update(t, 2, func(tx *Tx) error {
				_, err := tx.ClaimGuestAddress(id)
				return errors.Join(err, tx.RenameGuest(id, "vm1"))
			})
			if g := w.guest(t, id); g.Address != a || g.Name != "vm1" {
				t.Errorf("after the repair: %+v, had %s", g, a)
			}
		})
	}
}

// TestGuestsAndHostsShareNamesAndAddresses has a host and a guest that cannot hear each other claim the same.
func TestGuestsAndHostsShareNamesAndAddresses(t *testing.T) {
	w := newWorld(t, 2)
	var a netip.Addr
	w.update(t, 0, func(tx *Tx) (err error) {
		a, err = tx.ClaimAddress()
		return errors.Join(err, tx.PutHost(HostFacts{Name: "n1"}))
	})
	w.now = w.now.Add(2 * time.Second)
	id, _ := w.attach(t, 1, "n1", false)
	w.update(t, 1, func(tx *Tx) error {
		tx.force(kindGuest, string(id[:]), fieldAddress, uint64(a.As4()[2])<<8|uint64(a.As4()[3]))
		return nil
	})
	g := w.guest(t, id)
	v := w.nodes[0].state.View(w.now)
	if g.Name == "n1" || g.Asked != "n1" || g.Address.IsValid() {
		t.Fatalf("the later one: %+v", g)
	}
	c := v.Conflicts()
	if len(c) != 2 || c[0].Kind != ClaimAddress || c[1].Kind != ClaimHostName || c[1].Losers[0].InForce != g.Name ||
		c[1].Settle != "vcpeer guest rename "+g.Name+" NEWNAME" || c[0].Winner.InForce != a.String() {
		t.Fatalf("conflicts: %+v", c)
	}
	w.update(t, 1, func(tx *Tx) error { _, err := tx.ClaimGuestAddress(id); return err })
	if g = w.guest(t, id); !g.Address.IsValid() || g.Address == a {
		t.Errorf("after the repair: %+v", g)
	}
	if moved, b := w.attach(t, 0, g.Name, true); moved != id || b != g.Address {
		t.Errorf("moved by the name it goes by: %s %s", moved, b)
	}
}

// TestGuestOfANodeThatIsGone: its name and address are free for the living, and it may be attached elsewhere.
func TestGuestOfANodeThatIsGone(t *testing.T) {
	for _, how := range []string{"left", "evicted"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t, 3)
			id, a := w.attach(t, 2, "vm1", false)
			taken, _ := w.attach(t, 2, "vm2", false)
			w.exchange()
			if how == "left" {
				w.update(t, 2, func(tx *Tx) error { tx.MarkLeft(); return nil })
			} else {
				w.update(t, 0, func(tx *Tx) error { return tx.Evict(w.nodes[2].id, "stolen") })
			}
			w.exchange()
			w.update(t, 1, func(tx *Tx) error { return tx.PutHost(HostFacts{Name: "vm2"}) })
			if moved, b := w.attach(t, 0, "vm1", false); moved != id || b != a {
				t.Errorf("moved away from a node that %s: %s %s", how, moved, b)
			}
			w.move(1, 0)
			v := w.nodes[0].state.View(w.now)
			if h, ok := v.HostNamed("vm2"); !ok || h.ID != w.nodes[1].id {
				t.Errorf("a guest that is gone keeps a name from a host")
			}
			if g, _ := v.Guest(taken); g.Name == "vm2" || len(v.Conflicts()) != 0 {
				t.Errorf("guest %+v, conflicts %+v", g, v.Conflicts())
			}
			if how == "evicted" {
				return
			}
			w.exchange()
			w.update(t, 2, (*Tx).MarkBack)
			w.exchange()
			w.requireEqual(t)
			v = w.nodes[2].state.View(w.now)
			if h, ok := v.HostNamed("vm2"); !ok || h.ID != w.nodes[1].id {
				t.Error("a guest that came back took its name from a host")
			}
			if g, _ := v.Guest(id); g.Node != w.nodes[0].id {
				t.Errorf("the guest that went away meanwhile: %+v", g)
			}
		})
	}
}

func TestGuestWithoutAName(t *testing.T) {
	w := newWorld(t, 1)
	id, a := w.attach(t, 0, "", false)
	other, b := w.attach(t, 0, "", false)
	g := w.guest(t, id)
	if id == other || a == b || !strings.HasPrefix(g.Name, "guest-") || g.Asked != "" || CheckLabel("name", g.Name) != nil {
		t.Errorf("%s at %s and %s at %s: %+v", id, a, other, b, g)
	}
	if _, err := w.try(t, 0, func(tx *Tx) error { _, _, err := tx.AttachGuest("No", false); return err }); !errors.Is(err, ErrInvalid) {
		t.Errorf("a bad name: %v", err)
	}
	if parsed, err := ParseGuestID(id.String()); err != nil || parsed != id {
		t.Errorf("ID as text: %v, %v", parsed, err)
	}
}
