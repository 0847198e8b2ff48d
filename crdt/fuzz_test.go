package crdt

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// FuzzDecodeBatch: no bytes make the decoder panic, keep more than they hold, or give a batch that verifies unless its author signed it.
func FuzzDecodeBatch(f *testing.F) {
	w := newWorld(f, 3)
	w.update(f, 0, func(tx *Tx) error { return tx.PutHost(HostFacts{Name: "n1", CPUs: 4, Addrs: []string{"a", "b"}}) })
	w.update(f, 1, func(tx *Tx) error { return tx.PutHost(HostFacts{Name: "n2"}) })
	signed := map[Hash]bool{}
	for _, b := range w.all {
		f.Add(b.Raw())
		f.Add(b.Raw()[:len(b.Raw())/2])
		signed[b.hash] = true
	}
	f.Add([]byte{0x83, 0x40, 0x40, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := DecodeBatch(raw)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error of no type: %v", err)
			}
			return
		}
		if !bytes.Equal(b.Raw(), raw) || b.Last() < b.First {
			t.Fatalf("batch %d to %d", b.First, b.Last())
		}
		if b.Verify() == nil && !signed[b.hash] {
			t.Fatal("a forged batch verifies")
		}
		s := NewState(w.nodes[0].state.Founding())
		if s.Check(b) == nil { // whatever gets this far must not harm
			s.Apply(b)
			s.View(w.now)
		}
	})
}

// FuzzFields: whatever a member writes into a field, views can be built, hold the invariants, and do not depend on the order.
func FuzzFields(f *testing.F) {
	fields := []struct {
		kind  Kind
		field string
	}{
		{kindHost, fieldName}, {kindHost, fieldAddress}, {kindHost, fieldLabel}, {kindHost, fieldUnderlay}, {kindHost, fieldUnderlayMTU},
		{kindHost, fieldOverlay}, {kindHost, fieldNoTransit}, {kindHost, fieldAddrs}, {kindGuest, fieldName}, {kindGuest, fieldAddress},
		{kindGuest, fieldNode}, {kindCluster, fieldEncrypt}, {kindSite, fieldName}, {kindMember, fieldLeft}, {kindAccount, fieldUID},
	}
	self := NodeIDOf(testKey(0))
	for i := range fields {
		for _, v := range []any{"n1", uint64(1), true, self[:], [][]byte{{192, 0, 2, 1}}, map[string]int{"x": 1}} {
			f.Add(uint8(i), uint8(OpSet), marshal(v), uint8(i+1), uint8(OpDrop), marshal(v))
		}
	}
	f.Fuzz(func(t *testing.T, i, op uint8, value []byte, i2, op2 uint8, value2 []byte) {
		w := newWorld(t, 2)
		for n, c := range []Change{{Field: fields[int(i)%len(fields)].field, Kind: fields[int(i)%len(fields)].kind, Op: Op(op), Value: value},
			{Field: fields[int(i2)%len(fields)].field, Kind: fields[int(i2)%len(fields)].kind, Op: Op(op2), Value: value2}} {
			w.update(t, n, func(tx *Tx) error {
				_, _, err := tx.AttachGuest("", false)
				for _, id := range []string{string(tx.self[:]), string(tx.s.cluster[:]), "0123456789abcdef"} {
					if c.ID = id; c.check() == nil {
						tx.changes = append(tx.changes, c)
					}
				}
				return err
			})
		}
		w.exchange()
		w.requireEqual(t)
		requireInvariants(t, w.nodes[0].state.View(w.now))
		w.update(t, 0, func(tx *Tx) error { // and all can be written over
			_, err := tx.ClaimLabel()
			for _, g := range tx.v.Guests() {
				err = errors.Join(err, tx.ForgetGuest(g.ID))
			}
			return errors.Join(err, tx.PutUnderlay(UnderlayFacts{Overlay: 1}), tx.PutHost(HostFacts{Name: "n2"}))
		})
		if v := w.nodes[0].state.View(w.now); len(v.Guests()) != 0 {
			t.Fatalf("not forgotten: %+v", v.Guests())
		}
	})
}

func FuzzDecodeHeads(f *testing.F) {
	w := newWorld(f, 3)
	var list []Head
	for _, h := range w.nodes[0].headList() {
		list = append(list, h)
	}
	f.Add(EncodeHeads(list))
	f.Add([]byte{0x9a, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		heads, err := DecodeHeads(raw)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error of no type: %v", err)
			}
			return
		}
		var list []Head
		for a, h := range heads {
			h.Author = a
			list = append(list, h)
		}
		again, err := DecodeHeads(EncodeHeads(list))
		if err != nil || len(again) != len(heads) {
			t.Fatalf("heads do not survive: %d, %d, %v", len(heads), len(again), err)
		}
	})
}

func FuzzDecodeEphemeral(f *testing.F) {
	cluster := ClusterID{1}
	e, err := SignEphemeral(cluster, testKey(1), Ephemeral{Kind: "load", Key: "k", Value: []byte{1}, Version: 3, TTL: time.Second})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Raw())
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := DecodeEphemeral(cluster, raw)
		if err == nil && d.Verify() == nil && (d.Version != 3 || d.Kind != "load") {
			t.Fatal("a forged entry verifies")
		}
		if kind := EphemeralKind(raw); err == nil && kind != d.Kind {
			t.Fatalf("kind %q of one of %q", kind, d.Kind)
		}
	})
}

func FuzzDecodeFounding(f *testing.F) {
	w := newWorld(f, 1)
	good := w.nodes[0].state.Founding()
	f.Add(good.Raw())
	ranged, err := NewFoundingIn(netip.MustParsePrefix("172.20.0.0/16"), "test", testKey(0), w.now, rand.NewChaCha8([32]byte{}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ranged.Raw())
	f.Fuzz(func(t *testing.T, raw []byte) {
		if d, err := DecodeFounding(raw); err == nil && (d.Founder != good.Founder || CheckRange(d.Range) != nil) {
			t.Fatal("a forged founding verifies")
		}
	})
}
