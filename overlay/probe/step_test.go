package probe

import (
	"math"
	"testing"
	"time"
)

// queue is a bottleneck of a link: what it holds at a moment, as delay.
type queue func(since time.Duration) time.Duration

// sawtooth is what a loss-based TCP makes of a deep buffer: it fills it, loses, backs off, and fills it again along the
// curve of CUBIC (RFC 9438), flat around the top.
func sawtooth(low, high, period time.Duration) queue {
	return func(since time.Duration) time.Duration {
		x := float64(since%period)/float64(period)*1.4 - 1 // the flat part is at 0
		y := 1 + x*x*x                                     // 0 at -1, 1 at 0, above at the end
		return low + time.Duration(float64(high-low)*y/(1+math.Pow(0.4, 3)))
	}
}

// bloated makes one pair with a queue on the way from a to b from the tenth second on, and says what its RTT is said to be.
func bloated(t *testing.T, seed uint64, class Class, base time.Duration, q queue, d time.Duration) (w *world, a, b ID, said []time.Duration) {
	w, a, b = pair(t, seed, class, 0)
	w.symmetric(base)
	w.run(30 * time.Second)
	start := w.now
	w.carry = func(from, _ ID, _ int) (time.Duration, bool) {
		out := base/2 + w.noise()
		if from == a {
			out += q(w.now.Sub(start))
		}
		return out, true
	}
	for range d / time.Second {
		w.run(time.Second)
		said = append(said, w.link(a, b).RTT)
	}
	return w, a, b, said
}

// A queue that rises and falls is not followed, for as long as the window remembers what the link is without.
func TestBufferbloatIsNotFollowed(t *testing.T) {
	base := 20 * time.Millisecond
	for _, tt := range []struct {
		name string
		q    queue
	}{
		{"CUBIC, 200 ms deep, 8 s", sawtooth(120*time.Millisecond, 200*time.Millisecond, 8*time.Second)},
		{"CUBIC, 50 ms deep, 5 s", sawtooth(30*time.Millisecond, 50*time.Millisecond, 5*time.Second)},
		{"CUBIC, 500 ms deep, 20 s", sawtooth(300*time.Millisecond, 500*time.Millisecond, 20*time.Second)},
		{"on and off", func(s time.Duration) time.Duration {
			return time.Duration(s/(5*time.Second)%2) * 100 * time.Millisecond
		}},
	} {
		for seed := range uint64(10) {
			w, a, _, said := bloated(t, seed, Fast, base, tt.q, 50*time.Second)
			for s, rtt := range said {
				if rtt > base+3*time.Millisecond {
					t.Errorf("%s, seed %d: followed to %v after %d s: %q", tt.name, seed, rtt, s, w.events(a, "step"))
					break
				}
			}
			if down := w.events(a, "down"); len(down) > 0 {
				t.Errorf("%s, seed %d: %q", tt.name, seed, down)
			}
		}
	}
}

// Another route is followed within ten seconds where probes are fast, and at once where it is shorter.
func TestRouteChangeIsFollowed(t *testing.T) {
	for _, tt := range []struct {
		name        string
		class       Class
		before, now time.Duration
		within      time.Duration
	}{
		{"longer by 5 ms", Fast, 20 * time.Millisecond, 25 * time.Millisecond, 10 * time.Second},
		{"twice", Fast, 40 * time.Millisecond, 80 * time.Millisecond, 10 * time.Second},
		{"around the world", Fast, 20 * time.Millisecond, 280 * time.Millisecond, 11 * time.Second},
		{"longer, near class", Near, 20 * time.Millisecond, 60 * time.Millisecond, 25 * time.Second},
		{"shorter", Fast, 80 * time.Millisecond, 40 * time.Millisecond, time.Second},
		{"too little to tell", Fast, 40 * time.Millisecond, 42 * time.Millisecond, 63 * time.Second},
	} {
		var worst time.Duration
		for seed := range uint64(20) {
			w, a, b := pair(t, seed, tt.class, 0)
			w.symmetric(tt.before)
			w.run(30 * time.Second)
			w.symmetric(tt.now)
			start := w.now
			for (w.link(a, b).RTT-tt.now).Abs() > time.Millisecond && w.now.Sub(start) < 2*time.Minute {
				w.run(100 * time.Millisecond)
			}
			worst = max(worst, w.now.Sub(start))
		}
		t.Logf("%s: followed after at most %v", tt.name, worst)
		if worst > tt.within {
			t.Errorf("%s: %v to %v followed after %v, want %v", tt.name, tt.before, tt.now, worst, tt.within)
		}
	}
}

// A queue that a sender keeps full looks like a route, and is taken for one. When it drains the RTT is back at once, and
// the next has to last longer.
func TestFullQueueIsFollowedLessAndLess(t *testing.T) {
	flood := func(s time.Duration) time.Duration {
		if s%(30*time.Second) < 20*time.Second {
			return 100 * time.Millisecond
		}
		return 0
	}
	w, a, _, _ := bloated(t, 1, Fast, 20*time.Millisecond, flood, 5*time.Minute)
	steps := w.events(a, "step")
	t.Logf("%d steps in 10 floods of 20 s: %q", len(steps), steps)
	if len(steps) == 0 || len(steps) > 3 {
		t.Errorf("%d steps: %q", len(steps), steps)
	}
}

func TestStepThatLosesIsNone(t *testing.T) {
	w, a, b := pair(t, 1, Fast, 0)
	w.symmetric(20 * time.Millisecond)
	w.run(30 * time.Second)
	w.carry = func(_, _ ID, _ int) (time.Duration, bool) { // a full queue
		return 60*time.Millisecond + w.noise(), w.rng.IntN(100) >= 12
	}
	w.run(40 * time.Second)
	if s := w.events(a, "step"); len(s) > 0 {
		t.Errorf("%q, link %+v", s, w.link(a, b))
	}
}

// One slow sample, or one in a while, changes nothing.
func TestTailsCountForNothing(t *testing.T) {
	w, a, b := pair(t, 1, Fast, 0)
	w.symmetric(10 * time.Millisecond)
	w.run(10 * time.Minute)
	if l := w.link(a, b); l.RTT > 11*time.Millisecond || l.Flaps > 0 || len(w.events(a, "step")) > 0 {
		t.Errorf("%+v, %q", l, w.seen)
	}
}
