package crdt

import (
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// readRecords reads a founding record and the batches after it, a line of hexadecimal digits each.
func readRecords(t *testing.T, file string) *State {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var s *State
	for i, line := range strings.Fields(string(text)) {
		raw, err := hex.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			f, err := DecodeFounding(raw)
			if err != nil {
				t.Fatal(err)
			}
			s = NewState(f)
			continue
		}
		b, err := DecodeBatch(raw)
		if err == nil {
			err = errors.Join(b.Verify(), s.Check(b))
		}
		if err != nil {
			t.Fatal(err)
		}
		s.Apply(b)
	}
	return s
}

// TestRecordsBeforeTheOverlay reads what was signed by the last version without underlay, labels, guests and ranges: three
// sites with a host each of one name, one of which left, an evicted member, an account in a group.
func TestRecordsBeforeTheOverlay(t *testing.T) {
	s := readRecords(t, "testdata/before-overlay.hex")
	v := s.View(testTime().Add(time.Hour))
	if id := v.Cluster().ID.String(); id != "ca9714ab5366075abb54c682bf1b69adf6f60325286dabacc25cd0b19e6a62cc" {
		t.Errorf("cluster %s", id)
	}
	if c := v.Cluster(); c.Range != DefaultRange() || c.Encrypt {
		t.Errorf("cluster %+v", c)
	}
	requireInvariants(t, v)
	var got []string
	for _, h := range v.Hosts() {
		got = append(got, h.Name+" "+h.Address.String())
		if h.Label != 0 || !reflect.DeepEqual(h.UnderlayFacts, UnderlayFacts{}) || !h.Address6.IsValid() {
			t.Errorf("host %+v", h)
		}
	}
	if want := []string{"n1 10.77.253.30", "n1-216bad 10.77.102.192", "n1-27976b 10.77.186.14"}; !slices.Equal(got, want) {
		t.Errorf("hosts %v, want %v", got, want)
	}
	if len(v.Guests()) != 0 || len(v.Members()) != 4 || len(v.Accounts()) != 1 || len(v.Accounts()[0].Groups) != 1 {
		t.Errorf("guests %v, members %v, accounts %v", v.Guests(), v.Members(), v.Accounts())
	}
}

func TestRangeIsFoundedWithTheCluster(t *testing.T) {
	found := func(p string) (Founding, error) {
		return NewFoundingIn(netip.MustParsePrefix(p), "test", testKey(0), testTime(), rand.NewChaCha8([32]byte{}))
	}
	for _, bad := range []string{"10.77.0.0/15", "10.77.0.0/24", "10.77.1.0/16", "8.8.0.0/16", "fd00::/16", "::ffff:10.77.0.0/112"} {
		if _, err := found(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", bad, err)
		}
	}
	if CheckRange(netip.Prefix{}) == nil {
		t.Error("no range is a range")
	}
	plain, err := NewFounding("test", testKey(0), testTime(), rand.NewChaCha8([32]byte{}))
	if err != nil {
		t.Fatal(err)
	}
	if same, err := found("10.77.0.0/16"); err != nil || same.ID() != plain.ID() {
		t.Errorf("the default range said: %v, %v", same, err)
	}
	f, err := found("172.20.0.0/16")
	if err != nil || f.Range.String() != "172.20.0.0/16" || f.ID() == plain.ID() || f.Name != "test" || f.Founder != plain.Founder || f.Nonce != plain.Nonce {
		t.Fatalf("%+v, %v", f, err)
	}
	w := &world{now: testTime(), nodes: []*node{newNode(f, testKey(0), 0)}}
	w.update(t, 0, func(tx *Tx) error {
		_, _, err := tx.AttachGuest("vm1", false)
		return errors.Join(err, tx.PutUnderlay(UnderlayFacts{Underlay: []netip.Addr{addr("10.77.0.1")}}))
	})
	w.update(t, 0, func(tx *Tx) error { _, err := tx.ClaimAddress(); return err })
	v := w.nodes[0].state.View(w.now)
	h, g := v.Hosts()[0], v.Guests()[0]
	if !f.Range.Contains(h.Address) || !f.Range.Contains(g.Address) || v.Cluster().Range != f.Range || len(h.Underlay) != 1 {
		t.Errorf("host %+v, guest %+v, cluster %+v", h, g, v.Cluster())
	}
}
