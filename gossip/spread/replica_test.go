package spread_test

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"vcpeer/crdt"
	"vcpeer/crdt/replica"
	"vcpeer/gossip/simnet"
	"vcpeer/gossip/spread"
)

var _ spread.Store = (*replica.Replica)(nil)

func keyOf(n uint64) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	binary.BigEndian.PutUint64(seed, n)
	return ed25519.NewKeyFromSeed(seed)
}

// site is a real replica on the simulated network. Its disk is real too, so this test runs in real time.
type site struct {
	*replica.Replica
	*spread.Spread
	place *simnet.Node
}

func openSite(t *testing.T, net *simnet.Network, key ed25519.PrivateKey) *site {
	t.Helper()
	r, err := replica.Open(replica.Options{Dir: t.TempDir(), Key: key, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return &site{Replica: r, place: net.AddAs(r.Self())}
}

func (s *site) start(t *testing.T, peers func() []crdt.NodeID) {
	t.Helper()
	var err error
	if s.Spread, err = spread.Start(spread.Config{
		Fabric: s.place, Store: s.Replica, Peers: peers, Urgent: func(e []byte) bool { return crdt.EphemeralKind(e) == "down" },
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Spread.Close)
}

func (s *site) update(t *testing.T, f func(tx *crdt.Tx) error) {
	t.Helper()
	if err := s.Replica.Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not after 20 s: %s", what)
		}
	}
}

func TestRealReplicas(t *testing.T) {
	net := simnet.New(simnet.Options{Seed: 1, Delay: simnet.Sites(3, 20*time.Millisecond)})
	var sites []*site
	var ids []crdt.NodeID
	for i := range 3 {
		s := openSite(t, net, keyOf(uint64(i+1)))
		sites, ids = append(sites, s), append(ids, s.Self())
	}
	if _, err := sites[0].Found("test"); err != nil {
		t.Fatal(err)
	}
	founding, _ := sites[0].Founding()
	for _, s := range sites[1:] {
		if err := s.Adopt(founding.Raw()); err != nil {
			t.Fatal(err)
		}
		sites[0].update(t, func(tx *crdt.Tx) error { return tx.AdmitMember(s.Self(), crdt.TokenID{}) })
	}
	for _, s := range sites {
		s.start(t, func() []crdt.NodeID { return ids })
	}
	for _, s := range sites[1:] {
		if err := s.SyncWith(t.Context(), ids[0]); err != nil {
			t.Fatal(err)
		}
		if n := len(s.View().Members()); n != 3 {
			t.Fatalf("%d members right after the first session, want 3", n)
		}
	}
	equal := func() bool {
		return sites[0].Digest() == sites[1].Digest() && sites[1].Digest() == sites[2].Digest()
	}
	for i, s := range sites {
		s.update(t, func(tx *crdt.Tx) error {
			_, err := tx.CreateSite(fmt.Sprintf("site%d", i))
			return err
		})
	}
	eventually(t, "all have all sites", func() bool {
		return equal() && len(sites[2].View().Sites()) == 3
	})

	net.Split(sites[2].place)
	for i := range 20 {
		sites[i%3].update(t, func(tx *crdt.Tx) error { return tx.SetClusterName(fmt.Sprintf("name%d", i)) })
	}
	net.Heal()
	eventually(t, "all are equal after the cut", equal)

	if err := sites[1].SetEphemeral("load", "cpu", []byte("3"), time.Minute); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the load is known everywhere", func() bool {
		return len(sites[0].Ephemeral("load")) == 1 && len(sites[2].Ephemeral("load")) == 1
	})

	heard, stop := sites[2].WatchEphemeral("down")
	defer stop()
	if err := sites[0].SetEphemeral("down", "", []byte("link to 2"), time.Minute); err != nil {
		t.Fatal(err)
	}
	select {
	case <-heard:
	case <-time.After(20 * time.Second):
		t.Fatal("not after 20 s: an urgent entry")
	}
	if sites[0].Stats().Urged == 0 {
		t.Error("an urgent entry went as an ordinary one")
	}
}
