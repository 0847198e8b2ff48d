package probe

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The window agrees with one that keeps all, of spans that change as those of classes do.
func TestWindowAgainstAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		span := time.Duration(rapid.IntRange(1, 400).Draw(t, "span")) * time.Second
		var w window
		var all []sample
		now := time.Second
		for range rapid.IntRange(1, 300).Draw(t, "n") {
			now += time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond
			s := sample{partOf(now, span), uint32(rapid.IntRange(1, 50).Draw(t, "rtt"))}
			w.add(now, span, s.rtt)
			all = append(all, s)
			want := uint32(1 << 30)
			for _, s := range all {
				if s.at >= partOf(now-span, span) {
					want = min(want, s.rtt)
				}
			}
			if got := w.least(now, span); got != want {
				t.Fatalf("least of %v is %d, want %d; kept %v", span, got, want, w.kept)
			}
			if len(w.kept) > windowMax || !slices.IsSortedFunc(w.kept, func(a, b sample) int { return int(a.rtt) - int(b.rtt) }) {
				t.Fatalf("kept %v", w.kept)
			}
		}
	})
}

// Samples that only grow fill the window: it keeps its bound and its span, also when that becomes longer.
func TestWindowOfGrowingSamples(t *testing.T) {
	var w window
	now, span := time.Second, time.Minute
	for i := range 2000 {
		if i == 500 {
			span = 6 * time.Minute
		}
		now += time.Second
		w.add(now, span, uint32(100+i))
		if got := int(w.least(now, span)); len(w.kept) > windowMax || i > 1000 && (got < 100+i-366 || got > 100+i-354) {
			t.Fatalf("at %d: least %d, %d kept", 100+i, got, len(w.kept))
		}
	}
}
