package probe

import (
	"testing"
	"time"
)

// narrow makes the link carry IP packets of so many bytes at most, and lose a share of all.
func (w *world) narrow(mtu *int, lossPercent int) {
	w.carry = func(_, _ ID, bytes int) (time.Duration, bool) {
		return 20*time.Millisecond + w.noise(), bytes <= *mtu && w.rng.IntN(100) >= lossPercent
	}
}

func TestMTUIsFound(t *testing.T) {
	for _, tt := range []struct {
		name          string
		largest, true int
		least         int
		within        time.Duration
	}{
		{"as large as it could be", 1458, 1458, 1458, time.Second},
		{"jumbo frames", 8958, 8958, 8958, time.Second},
		{"jumbo frames here, not there", 8958, 1458, 1458, 5 * time.Second},
		{"PPPoE", 1458, 1450, 1442, 5 * time.Second},
		{"a tunnel on the way", 1458, 1400, 1400, 5 * time.Second},
		{"nothing usual", 1458, 1333, 1325, 6 * time.Second},
		{"small", 1458, 600, 592, 15 * time.Second},
	} {
		for seed := range uint64(10) {
			w, a, b := pair(t, seed, Fast, tt.largest)
			w.narrow(&tt.true, 0)
			start := w.now
			for w.now.Sub(start) < tt.within && (w.link(a, b).MTU < tt.least || w.link(a, b).MTU > tt.true) {
				w.run(50 * time.Millisecond)
			}
			took := w.now.Sub(start)
			w.run(20 * time.Second)
			if l := w.link(a, b); l.MTU < tt.least || l.MTU > tt.true || took >= tt.within || l.Flaps > 0 {
				t.Errorf("%s, seed %d: MTU %d after %v, want %d to %d: %q", tt.name, seed, l.MTU, took, tt.least, tt.true, w.seen)
			} else if seed == 0 {
				t.Logf("%s: %d after %v: %q", tt.name, l.MTU, took, w.events(a, "mtu"))
			}
		}
	}
}

// A link that carries less than before becomes a black hole for what is large. It is found, and forgotten when it is gone.
func TestBlackHole(t *testing.T) {
	mtu := 1458
	w, a, b := pair(t, 1, Fast, 1458)
	w.narrow(&mtu, 0)
	w.run(time.Minute)
	mtu = 1392
	w.run(36 * time.Second)
	if l := w.link(a, b); l.MTU > 1392 || l.MTU < 1372 || l.Flaps > 0 {
		t.Errorf("36 s after: %+v", l)
	}
	mtu = 1458
	w.run(11 * time.Minute)
	if l := w.link(a, b); l.MTU != 1458 {
		t.Errorf("11 min later: %d", l.MTU)
	}
	t.Logf("%q", w.events(a, "mtu"))
}

// Losses are not taken for a small MTU.
func TestMTUUnderLoss(t *testing.T) {
	mtu, lowered := 1458, 0
	for seed := range uint64(20) {
		w, a, b := pair(t, seed, Fast, mtu)
		w.narrow(&mtu, 10)
		w.run(10 * time.Minute)
		if l := w.link(a, b); l.MTU != mtu {
			lowered++
			t.Logf("seed %d: %q", seed, w.events(a, "mtu"))
		}
	}
	if lowered > 2 {
		t.Errorf("%d of 20 links that lose 10 %% carry less than they do", lowered)
	}
}

func TestMTUOfDownLinkIsNotSearched(t *testing.T) {
	mtu := 1458
	w, a, b := pair(t, 1, Fast, 1458)
	w.narrow(&mtu, 0)
	w.run(10 * time.Second)
	w.narrow(&mtu, 100)
	sent := w.bytes
	w.run(10 * time.Minute)
	if l := w.link(a, b); l.Up || l.MTU != 1458 {
		t.Errorf("%+v", l)
	}
	if rate := float64(w.bytes-sent) / 600; rate > 300 {
		t.Errorf("two ends send %.0f bytes a second to a dead link", rate)
	}
}
