package replica

import (
	"crypto/ed25519"
	"encoding/binary"
	"testing"
	"time"

	"vcpeer/crdt"
)

// keyOf is a key of its own for each n.
func keyOf(n uint64) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	binary.BigEndian.PutUint64(seed, n)
	return ed25519.NewKeyFromSeed(seed)
}

func open(t testing.TB, dir string, key ed25519.PrivateKey) *Replica {
	t.Helper()
	r, err := Open(Options{Dir: dir, Key: key, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func update(t testing.TB, r *Replica, fn func(*crdt.Tx) error) {
	t.Helper()
	if err := r.Update(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

// cluster opens n replicas of one cluster: the first founds it and admits the others.
func cluster(t testing.TB, n int) []*Replica {
	t.Helper()
	rs := make([]*Replica, n)
	for i := range rs {
		rs[i] = open(t, t.TempDir(), keyOf(uint64(i+1)))
	}
	if _, err := rs[0].Found("test"); err != nil {
		t.Fatal(err)
	}
	f, _ := rs[0].Founding()
	for _, r := range rs[1:] {
		if err := r.Adopt(f.Raw()); err != nil {
			t.Fatal(err)
		}
		update(t, rs[0], func(tx *crdt.Tx) error { return tx.AdmitMember(r.Self(), crdt.TokenID{}) })
	}
	syncAll(t, rs)
	return rs
}

// pull moves what to lacks from one replica to another until there is no more, limit bytes at a time.
func pull(t testing.TB, to, from *Replica, limit int) {
	t.Helper()
	for range 10_000 {
		batches, more, err := from.Since(to.Heads(), limit)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := to.Receive(t.Context(), batches); err != nil {
			t.Logf("receive: %v", err)
		}
		if !more {
			return
		}
	}
	t.Fatal("sync does not end")
}

func syncAll(t testing.TB, rs []*Replica) {
	t.Helper()
	for range 3 {
		for _, a := range rs {
			for _, b := range rs {
				if a != b {
					pull(t, a, b, 1<<16)
				}
			}
		}
	}
	for _, r := range rs[1:] {
		if r.Digest() != rs[0].Digest() {
			t.Fatalf("digests differ after sync")
		}
	}
}

func TestTwoSites(t *testing.T) {
	rs := cluster(t, 3)
	for i, r := range rs {
		update(t, r, func(tx *crdt.Tx) error {
			site, err := tx.CreateSite([]string{"kyoto", "osaka", "lab"}[i])
			if err != nil {
				return err
			}
			if _, err := tx.ClaimAddress(); err != nil {
				return err
			}
			return tx.PutHost(crdt.HostFacts{Name: "n1", Site: site, CPUs: 4, Addrs: []string{"/ip4/192.0.2.1/udp/7475/quic-v1"}})
		})
	}
	syncAll(t, rs)
	for _, r := range rs {
		v := r.View()
		if len(v.Hosts()) != 3 || len(v.Sites()) != 3 || len(v.Members()) != 3 {
			t.Fatalf("%d hosts, %d sites, %d members", len(v.Hosts()), len(v.Sites()), len(v.Members()))
		}
		if c := v.Conflicts(); len(c) != 1 || c[0].Kind != crdt.ClaimHostName || len(c[0].Losers) != 2 {
			t.Fatalf("conflicts: %+v", c)
		}
	}
	p, err := rs[0].AdmissionProof(rs[2].Self())
	if err != nil {
		t.Fatal(err)
	}
	if err := crdt.VerifyAdmission(rs[0].ClusterID(), p, rs[2].Self()); err != nil {
		t.Fatal(err)
	}
	if err := crdt.VerifyAdmission(rs[0].ClusterID(), p, crdt.NodeIDOf(keyOf(99))); err == nil {
		t.Fatal("a stranger is proven a member")
	}
}
