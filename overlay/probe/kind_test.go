package probe

import (
	"testing"
	"time"

	"vcpeer/overlay/path"
)

// TestLinksOfTwoKinds: a gateway that is reached by links of both kinds is measured by each, answers come by the link of the
// question, and one that fails says nothing of the other. A link that stands by costs little.
func TestLinksOfTwoKinds(t *testing.T) {
	w, a, b := newWorld(t, 1), Gateway(1), Gateway(2)
	w.add(a)
	w.add(b)
	both := func(id, other ID) {
		w.cores[id].Set(w.now, self(id), []Target{
			{ID: other, Kind: path.GRE, Addr: addrOf(other), Class: Fast}, {ID: other, Kind: path.Sealed, Addr: addrOf(other), Class: Spare},
		})
		w.wake[id] = w.now
	}
	both(a, b)
	both(b, a)
	cut := false
	w.lost = func(f []byte) bool {
		m, err := parse(f[etherBytes:])
		return err == nil && cut && m.way.kind == path.GRE
	}
	up := func() (gre, sealed bool) {
		for _, l := range w.cores[a].Report(w.now).Links {
			if l.Kind == path.Sealed {
				sealed = l.Up
			} else {
				gre = l.Up
			}
		}
		return gre, sealed
	}
	w.run(3 * time.Second)
	if gre, sealed := up(); !gre || !sealed {
		t.Fatalf("GRE up %v, sealed up %v", gre, sealed)
	}
	before := w.sent
	w.run(time.Minute)
	if perSecond := float64(w.sent-before) / 60 / 2; perSecond > 8 {
		t.Errorf("%.1f frames a second of each, of which GRE's are 7", perSecond)
	}
	cut = true
	w.run(2 * time.Second)
	if gre, sealed := up(); gre || !sealed {
		t.Errorf("GRE is cut: GRE up %v, sealed up %v", gre, sealed)
	}
	cut = false
	w.run(5 * time.Second)
	if gre, sealed := up(); !gre || !sealed {
		t.Errorf("GRE is healed: GRE up %v, sealed up %v", gre, sealed)
	}
	w.cores[b].Set(w.now, self(b), []Target{{ID: a, Kind: path.Sealed, Addr: addrOf(a), Class: Fast}})
	w.run(3 * time.Second)
	if gre, sealed := up(); gre || !sealed {
		t.Errorf("the other has no link by GRE: GRE up %v, sealed up %v", gre, sealed)
	}
}
