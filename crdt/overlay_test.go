package crdt

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestUnderlayIsSaidAndTakenBack(t *testing.T) {
	w := newWorld(t, 2)
	self := w.nodes[0].id
	full := UnderlayFacts{Overlay: 1, Underlay: []netip.Addr{addr("192.0.2.1"), addr("2001:db8::1")}, UnderlayMTU: 1500, NoTransit: true}
	for _, u := range []UnderlayFacts{full, {Overlay: 1, Underlay: full.Underlay[:1], UnderlayMTU: 9000}, {}, full, {NoTransit: true}} {
		w.update(t, 0, func(tx *Tx) error { return tx.PutUnderlay(u) })
		w.exchange()
		if h, _ := w.nodes[1].state.View(w.now).Host(self); !reflect.DeepEqual(h.UnderlayFacts, u) {
			t.Errorf("said %+v, shown %+v", u, h.UnderlayFacts)
		}
		if b := w.update(t, 0, func(tx *Tx) error { return tx.PutUnderlay(u) }); b != nil {
			t.Errorf("said again: %d changes", len(b.Changes))
		}
	}
	if n := len(w.nodes[1].state.objects.kinds[kindHost][string(self[:])].fields); n != 1 {
		t.Errorf("%d fields left, want one", n)
	}
	range6 := w.nodes[0].state.View(w.now).Cluster().Range6
	for _, bad := range []string{"127.0.0.1", "0.0.0.0", "10.77.3.4", "224.0.0.1", "::1", "fe80::1", "fe80::1%eth0", "::ffff:192.0.2.1", Address6(range6, addr("10.77.0.1")).String()} {
		if _, err := w.try(t, 0, func(tx *Tx) error { return tx.PutUnderlay(UnderlayFacts{Underlay: []netip.Addr{addr(bad)}}) }); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", bad, err)
		}
	}
	for _, bad := range []UnderlayFacts{{Underlay: slices.Repeat(full.Underlay, 5)}, {Overlay: 256}, {UnderlayMTU: -1}, {Underlay: make([]netip.Addr, 1)}} {
		if _, err := w.try(t, 0, func(tx *Tx) error { return tx.PutUnderlay(bad) }); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v, want ErrInvalid", bad, err)
		}
	}
}

// TestUnderlayOfAnybody: what a broken or hostile node says of its underlay reads as far as it makes sense.
func TestUnderlayOfAnybody(t *testing.T) {
	w := newWorld(t, 2)
	good, bad := addr("192.0.2.1"), addr("127.0.0.1")
	w.update(t, 1, func(tx *Tx) error {
		id := string(tx.self[:])
		tx.set(kindHost, id, fieldUnderlay, [][]byte{bad.AsSlice(), good.AsSlice(), {1, 2, 3}, nil})
		tx.set(kindHost, id, fieldOverlay, uint64(1)<<60)
		tx.set(kindHost, id, fieldUnderlayMTU, uint64(1)<<60)
		tx.set(kindHost, id, fieldNoTransit, "yes")
		tx.set(kindHost, id, fieldLabel, uint64(16_383))
		return nil
	})
	w.exchange()
	h, _ := w.nodes[0].state.View(w.now).Host(w.nodes[1].id)
	want := UnderlayFacts{Overlay: maxOverlay, Underlay: []netip.Addr{good}, UnderlayMTU: maxMTU}
	if !reflect.DeepEqual(h.UnderlayFacts, want) || h.Label != 0 {
		t.Errorf("shown %+v, label %d, want %+v", h.UnderlayFacts, h.Label, want)
	}
}

func TestLabels(t *testing.T) {
	w := newWorld(t, 3)
	claim := func(i int) (label uint16) {
		w.update(t, i, func(tx *Tx) (err error) {
			if label, err = tx.ClaimLabel(); err != nil {
				return err
			}
			again, err := tx.ClaimLabel()
			if again != label {
				t.Errorf("claimed %d, then %d", label, again)
			}
			return err
		})
		return label
	}
	label := func(i int) uint16 {
		h, _ := w.nodes[0].state.View(w.now).Host(w.nodes[i].id)
		return h.Label
	}
	first := claim(0)
	if first < 1 || first > gatewayLabels || label(0) != first || claim(0) != first {
		t.Fatalf("label %d, shown %d", first, label(0))
	}
	// Cut apart, another takes the same one; the later loses it and claims another.
	w.now = w.now.Add(2 * time.Second)
	w.update(t, 1, func(tx *Tx) error {
		tx.force(kindHost, string(tx.self[:]), fieldLabel, uint64(first))
		return nil
	})
	w.exchange()
	c := w.nodes[0].state.View(w.now).Conflicts()
	if label(0) != first || label(1) != 0 || len(c) != 1 || c[0].Kind != ClaimLabel || c[0].Losers[0].InForce != "" || c[0].Winner.InForce == "" {
		t.Fatalf("labels %d and %d, conflicts %+v", label(0), label(1), c)
	}
	second := claim(1)
	w.exchange()
	if label(1) != second || second == first || len(w.nodes[2].state.View(w.now).Conflicts()) != 0 {
		t.Fatalf("after the repair: %d and %d", label(0), label(1))
	}
	// One that leaves keeps its label only until somebody needs it, and gives it up when it comes back.
	w.update(t, 1, func(tx *Tx) error { tx.MarkLeft(); return nil })
	w.update(t, 2, func(tx *Tx) error {
		tx.force(kindHost, string(tx.self[:]), fieldLabel, uint64(second))
		return nil
	})
	w.exchange()
	if label(1) != 0 || label(2) != second {
		t.Errorf("the host that left has %d, the newcomer %d", label(1), label(2))
	}
	w.update(t, 1, (*Tx).MarkBack)
	w.exchange()
	if label(1) != 0 || label(2) != second || len(w.nodes[0].state.View(w.now).Conflicts()) != 0 {
		t.Errorf("the host that came back has %d, the other %d", label(1), label(2))
	}
	w.update(t, 2, func(tx *Tx) error {
		tx.ReleaseLabel()
		_, err := tx.ClaimLabel()
		tx.ReleaseLabel()
		return err
	})
	w.exchange()
	if label(2) != 0 {
		t.Errorf("released, and yet %d", label(2))
	}
}

// TestNumbersThatRunOut: live claims are never doubled; those of what has gone are taken when nothing else is left.
func TestNumbersThatRunOut(t *testing.T) {
	w := newWorld(t, 2)
	text := func(n uint64) string { return labelText(n) }
	w.update(t, 1, func(tx *Tx) error {
		tx.force(kindHost, string(tx.self[:]), fieldLabel, uint64(1))
		return nil
	})
	w.exchange()
	claim := func() (n uint64, err error) {
		_, err = w.try(t, 0, func(tx *Tx) error {
			n, err = tx.claimNumber(ClaimLabel, fieldKey{kindHost, string(tx.self[:]), fieldLabel}, tx.self.String(), 1, text)
			return err
		})
		return n, err
	}
	if _, err := claim(); !errors.Is(err, ErrTaken) {
		t.Errorf("the only number, held by a member: %v, want ErrTaken", err)
	}
	w.update(t, 1, func(tx *Tx) error { tx.MarkLeft(); return nil })
	w.exchange()
	if n, err := claim(); n != 1 || err != nil {
		t.Errorf("held by one that left: %d, %v", n, err)
	}
}

func TestAddressesThatGoTogether(t *testing.T) {
	id := ClusterID{1, 2, 3}
	p := OverlayPrefix6(id)
	if p.Bits() != 64 || p != p.Masked() || p.Addr().As16()[0] != 0xfd || p.Addr().As16()[6] != 0 || p.Addr().As16()[7] != 0 || p == OverlayPrefix6(ClusterID{}) {
		t.Errorf("prefix %v", p)
	}
	a := addr("10.77.18.52")
	if got := Address6(p, a); !p.Contains(got) || got.As16()[14] != 18 || got.As16()[15] != 52 {
		t.Errorf("address %v", got)
	}
	if got := MACOf(a).String(); got != "02:76:00:00:12:34" {
		t.Errorf("MAC %s", got)
	}
	if Address6(p, netip.Addr{}).IsValid() || MACOf(netip.Addr{}) != (MAC{}) {
		t.Error("something goes with no address")
	}
	w := newWorld(t, 1)
	w.update(t, 0, func(tx *Tx) error { _, err := tx.ClaimAddress(); return err })
	v := w.nodes[0].state.View(w.now)
	h, c := v.Hosts()[0], v.Cluster()
	if !c.Range.Contains(h.Address) || h.Address6 != Address6(c.Range6, h.Address) || h.MAC() != MACOf(h.Address) || c.Range6 != OverlayPrefix6(c.ID) {
		t.Errorf("host %+v of %+v", h, c)
	}
}

func TestEncryptIsOnWhereItIsContested(t *testing.T) {
	w := newWorld(t, 2)
	set := func(i int, on bool) { w.update(t, i, func(tx *Tx) error { tx.SetEncrypt(on); return nil }) }
	want := func(on bool) {
		t.Helper()
		w.exchange()
		w.requireEqual(t)
		if got := w.nodes[0].state.View(w.now).Cluster().Encrypt; got != on {
			t.Fatalf("encrypt is %v, want %v", got, on)
		}
	}
	want(false)
	set(0, true)
	want(true)
	set(1, false)
	want(false)
	set(0, true)
	set(1, true)
	set(1, false)
	want(true)
	set(1, false)
	want(false)
}
