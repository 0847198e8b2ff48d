package path

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"vcpeer/overlay/label"
)

// TestBufferbloat has two equal detours, each with a queue that grows while the path is used and drains while it is not:
// whoever measures sees the other as better all the time.
func TestBufferbloat(t *testing.T) {
	for _, queueMS := range []float64{20, 60, 300, 2000} {
		t.Run(fmt.Sprintf("%v ms", queueMS), func(t *testing.T) {
			w := newWorld(t, Default(), 1)
			w.play("1-2=400; 1-3=20; 3-2=20; 1-4=20; 4-2=20")
			w.dst = 2
			const step, window = 300 * time.Millisecond, 10 * time.Second
			queue, seen := map[label.Label]float64{}, map[label.Label][]float64{}
			var last time.Time
			switches := 0
			c, _ := w.table.To(2)
			for range int(time.Hour / step) {
				for _, l := range []label.Label{3, 4} {
					if slices.Contains(c.Via, l) {
						queue[l] = min(queueMS, queue[l]+queueMS/10)
					} else {
						queue[l] = max(0, queue[l]-queueMS/10)
					}
					seen[l] = append(seen[l], 20+queue[l])
					if n := int(window / step); len(seen[l]) > n {
						seen[l] = seen[l][1:]
					}
					w.change(fmt.Sprintf("1-%d=%.2f", l, slices.Min(seen[l])))
				}
				w.now = w.now.Add(step)
				was := c.Path
				w.plan()
				if c, _ = w.table.To(2); words(was) == words(c.Path) {
					continue
				}
				if switches++; !last.IsZero() && w.now.Sub(last) < 2*time.Minute {
					t.Fatalf("%v: %s after %v with %s", w.now.Sub(w.start), words(c.Path), w.now.Sub(last), words(was))
				}
				if w.now.After(w.start.Add(w.p.config.Startup)) {
					last = w.now
				}
			}
			if switches > 12 {
				t.Errorf("%d switches in an hour", switches)
			}
			t.Logf("%d switches in an hour", switches)
		})
	}
}

// TestFlapping has the best path's link fail and recover all the time.
func TestFlapping(t *testing.T) {
	for _, tt := range []struct {
		up, down time.Duration
		most     int // switches in an hour
	}{
		{time.Second, time.Second, 12},
		{5 * time.Second, 5 * time.Second, 16},
		{30 * time.Second, 5 * time.Second, 20},
		{2 * time.Minute, 10 * time.Second, 24},
		{10 * time.Minute, 10 * time.Second, 12},
	} {
		t.Run(fmt.Sprintf("%v up, %v down", tt.up, tt.down), func(t *testing.T) {
			w := newWorld(t, Default(), 1).play("1-2=100; 1-3=20; 3-2=20; 1-4=30; 4-2=30; wait 1m")
			for w.now.Before(w.start.Add(time.Hour)) {
				w.change("1-3 down")
				w.wait(tt.down)
				w.change("1-3 up")
				w.wait(tt.up)
			}
			c, _ := w.table.To(2)
			if t.Logf("%d switches in an hour", c.Switches); c.Switches > tt.most {
				t.Errorf("%d switches, want at most %d", c.Switches, tt.most)
			}
			w.wait(30 * time.Minute)
			if c, _ = w.table.To(2); words(c.Path) != "g3" {
				t.Errorf("half an hour later: %s", words(c.Path))
			}
		})
	}
}
