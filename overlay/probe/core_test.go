package probe

import (
	"slices"
	"testing"
	"time"

	"vcpeer/overlay/flow"
	"vcpeer/overlay/label"
)

func TestLinkComesUpWithinASecond(t *testing.T) {
	w, a, b := pair(t, 1, Fast, 1458)
	w.symmetric(40 * time.Millisecond)
	w.run(time.Second)
	for _, l := range []Link{w.link(a, b), w.link(b, a)} {
		if !l.Up || l.MTU != 1458 || l.RTT < 40*time.Millisecond || l.RTT > 42*time.Millisecond || l.LossOut != 0 || l.LossIn != 0 {
			t.Errorf("%+v\n%q", l, w.seen)
		}
	}
}

func TestLateComerIsAskedAtOnce(t *testing.T) {
	w, a, b := pair(t, 1, Fast, 0)
	alive := false
	w.carry = func(_, _ ID, _ int) (time.Duration, bool) { return 20 * time.Millisecond, alive }
	w.run(20 * time.Minute)
	alive = true
	w.add(b) // with new numbers, and asking fast
	w.know(b, Fast, 0, a)
	w.run(time.Second)
	if !w.link(a, b).Up || !w.link(b, a).Up {
		t.Errorf("not up a second later: %+v %+v", w.link(a, b), w.link(b, a))
	}
}

func TestWhatWasSentBeforeTheOtherWasThereIsNoLoss(t *testing.T) {
	w, a, b := pair(t, 1, Fast, 0)
	alive := false
	w.carry = func(from, _ ID, _ int) (time.Duration, bool) { return 20 * time.Millisecond, alive || from == b }
	w.run(5 * time.Second)
	alive = true
	w.run(time.Second)
	for _, l := range []Link{w.link(a, b), w.link(b, a)} {
		if !l.Up || l.LossOut != 0 || l.LossIn != 0 {
			t.Errorf("%+v", l)
		}
	}
}

// Also a link that loses so much that it goes down time and again shows its loss while it is up.
func TestLossOfALinkThatComesAndGoes(t *testing.T) {
	w, a, b := pair(t, 3, Fast, 0)
	w.carry = func(from, _ ID, _ int) (time.Duration, bool) {
		return 20 * time.Millisecond, from == b || w.rng.Float64() >= 0.4
	}
	var sum float64
	looks := 0
	for range 600 {
		w.run(time.Second)
		if l := w.link(a, b); l.Up {
			sum, looks = sum+l.LossOut, looks+1
			if l.LossIn > 0.15 {
				t.Errorf("loss on the way back, where there is none: %+v", l)
			}
		}
	}
	l := w.link(a, b)
	t.Logf("up at %d of 600 looks, with a loss of %.2f; failed %d times", looks, sum/float64(looks), l.Flaps)
	if l.Flaps == 0 || sum/float64(looks) < 0.2 || sum/float64(looks) > 0.5 {
		t.Errorf("%+v", l)
	}
}

func TestRestartOfTheOtherIsNoLoss(t *testing.T) {
	w, a, b := pair(t, 1, Fast, 0)
	w.symmetric(20 * time.Millisecond)
	w.run(time.Minute)
	w.add(b)
	w.know(b, Fast, 0, a)
	w.run(3 * time.Second)
	if l := w.link(a, b); !l.Up || l.Flaps != 0 || l.LossOut != 0 || l.LossIn != 0 {
		t.Errorf("%+v", l)
	}
	if l := w.link(b, a); !l.Up || l.LossOut != 0 || l.LossIn != 0 {
		t.Errorf("%+v", l)
	}
}

func TestDownWithinASecond(t *testing.T) {
	for _, rtt := range []time.Duration{time.Millisecond, 40 * time.Millisecond, 80 * time.Millisecond} {
		var worst time.Duration
		for seed := range uint64(50) {
			w, a, b := pair(t, seed, Fast, 0)
			w.symmetric(rtt)
			w.run(10*time.Second + time.Duration(seed)*7*time.Millisecond)
			cut := w.now
			w.carry = func(_, _ ID, _ int) (time.Duration, bool) { return 0, false }
			w.run(2 * time.Second)
			for _, l := range []Link{w.link(a, b), w.link(b, a)} {
				if l.Up {
					t.Fatalf("seed %d: still up", seed)
				}
				worst = max(worst, l.Since.Sub(cut))
			}
			w.symmetric(rtt)
			w.run(time.Second)
			if l := w.link(a, b); !l.Up || l.Flaps != 1 {
				t.Errorf("seed %d: not up again within a second: %+v", seed, l)
			} else if l.LossOut != 0 || l.LossIn != 0 {
				t.Errorf("seed %d: what was lost while the link was down counts when it is up: %+v", seed, l)
			}
		}
		t.Logf("RTT %v: down after at most %v", rtt, worst)
		if worst > time.Second {
			t.Errorf("RTT %v: down after %v", rtt, worst)
		}
	}
}

func TestLossAloneIsNotDown(t *testing.T) {
	w, a, b := pair(t, 1, Fast, 0)
	w.carry = func(_, _ ID, _ int) (time.Duration, bool) { return 10 * time.Millisecond, w.rng.IntN(100) >= 5 }
	w.run(10 * time.Minute)
	if l := w.link(a, b); l.Flaps > 3 { // 10 % of probes are lost: three in a row once in 1,000, and some 2,500 are sent
		t.Errorf("%d flaps: %q", l.Flaps, w.events(a, "down"))
	}
}

// Loss on the way from a to b is seen as such by both.
func TestOneWayLoss(t *testing.T) {
	w, a, b := pair(t, 3, Fast, 0)
	lossy := 40
	w.carry = func(from, _ ID, _ int) (time.Duration, bool) {
		return 10 * time.Millisecond, from != a || w.rng.IntN(100) >= lossy
	}
	var sum [4]float64
	for range 60 {
		w.run(10 * time.Second)
		la, lb := w.link(a, b), w.link(b, a)
		for i, v := range []float64{la.LossOut, la.LossIn, lb.LossOut, lb.LossIn} {
			sum[i] += v / 60
		}
	}
	t.Logf("a: out %.2f in %.2f; b: out %.2f in %.2f", sum[0], sum[1], sum[2], sum[3])
	if sum[0] < 0.3 || sum[0] > 0.5 || sum[3] < 0.3 || sum[3] > 0.5 || sum[1] > 0.04 || sum[2] > 0.04 {
		t.Errorf("40 %% from a to b: a: out %.2f in %.2f; b: out %.2f in %.2f", sum[0], sum[1], sum[2], sum[3])
	}
	// All of it: a still hears b ask, and that b hears nothing. b hears nothing and can say no more than that.
	lossy = 100
	w.run(20 * time.Second)
	if l := w.link(a, b); l.Up || l.LossOut != 1 || l.LossIn != 0 {
		t.Errorf("nothing arrives from a: a says %+v", l)
	}
	if l := w.link(b, a); l.Up || l.LossIn != 1 {
		t.Errorf("nothing arrives from a: b says %+v", l)
	}
}

func TestPathsAreProbedEndToEnd(t *testing.T) {
	w := newWorld(t, 1)
	a, d, transits := Gateway(1), Gateway(9), []label.Label{2, 3, 4}
	w.add(a)
	w.add(d)
	leg := map[[2]ID]bool{}
	cut := false
	w.carry = func(from, to ID, _ int) (time.Duration, bool) {
		leg[[2]ID{from, to}] = true
		return 5 * time.Millisecond, !(cut && from == Gateway(3))
	}
	w.cores[a].Set(w.now, self(a), []Target{{ID: d, Addr: addrOf(d), Class: Rest, Paths: [][]label.Label{transits, {2}, {2, 2}}}})
	w.cores[d].Set(w.now, self(d), []Target{{ID: a, Addr: addrOf(a), Class: Rest}})
	w.run(5 * time.Second)
	p := w.cores[a].Report(w.now).Paths
	if len(p) != 2 || !p[0].Up || p[0].RTT != 20*time.Millisecond || !p[1].Up || p[1].RTT != 40*time.Millisecond || !slices.Equal(p[1].Via, transits) {
		t.Fatalf("%+v", p)
	}
	for _, l := range [][2]ID{{a, Gateway(2)}, {Gateway(2), Gateway(3)}, {Gateway(3), Gateway(4)}, {Gateway(4), d}, {d, Gateway(4)}, {Gateway(2), a}} {
		if !leg[l] {
			t.Errorf("no frame went from %v to %v", l[0], l[1])
		}
	}
	cut = true
	w.run(time.Second)
	if p := w.cores[a].Report(w.now).Paths; !p[0].Up || p[1].Up {
		t.Errorf("a link of the longer path is cut: %+v", p)
	}
	if !w.link(a, d).Up {
		t.Errorf("the direct link went down too")
	}
}

func TestNodesOfASite(t *testing.T) {
	w := newWorld(t, 1)
	n, g := Node(7), Node(1000)
	w.add(n)
	w.cores[g] = New(Default(), w.rng, w.now)
	w.order, w.wake[g] = append(w.order, g), w.now
	w.cores[g].Set(w.now, Self{Label: 1, Slot: 1000}, nil) // does not probe its nodes, and answers them
	w.know(n, Fast, 1458, g)
	w.run(2 * time.Second)
	if l := w.link(n, g); !l.Up || l.MTU != 1458 {
		t.Errorf("%+v", l)
	}
}

func TestWhoIsNoTargetIsNotAnswered(t *testing.T) {
	w, a, b := pair(t, 1, Fast, 0)
	w.cores[b].Set(w.now, self(b), nil)
	w.run(5 * time.Second)
	if l := w.link(a, b); l.Measured || w.cores[b].Refused() == 0 {
		t.Errorf("%+v, %d refused", l, w.cores[b].Refused())
	}
}

// What is known of a target outlives its absence from the records for a while, and its numbers are never used again.
func TestTargetsComeAndGo(t *testing.T) {
	w, a, b := pair(t, 1, Fast, 0)
	w.run(10 * time.Second)
	w.know(a, Fast, 0)
	w.run(time.Minute)
	if len(w.cores[a].Report(w.now).Links) != 0 {
		t.Errorf("a link that nobody wants")
	}
	w.know(a, Fast, 0, b)
	if l := w.link(a, b); l.Samples == 0 {
		t.Errorf("forgotten after a minute")
	}
	w.know(a, Fast, 0)
	w.run(4 * time.Minute)
	if n := len(w.cores[a].tracks); n != 0 {
		t.Errorf("%d tracks kept", n)
	}
	w.know(a, Fast, 0, b)
	w.run(time.Second)
	if l := w.link(a, b); !l.Up || l.Samples == 0 {
		t.Errorf("%+v", l)
	}
}

func TestPing(t *testing.T) {
	w, a, b := pair(t, 1, Rest, 0)
	w.carry = func(_, _ ID, bytes int) (time.Duration, bool) { return 10 * time.Millisecond, bytes <= 1400 }
	ping := func(p Ping) []string {
		t.Helper()
		w.seen = nil
		if _, err := w.cores[a].Ping(w.now, p); err != nil {
			t.Fatal(err)
		}
		w.wake[a] = w.now
		w.run(10 * time.Second)
		var out []string
		for _, s := range w.seen {
			if i := slices.Index([]byte(s), ':'); !slices.Contains([]string{"up", "down"}, s[i+2:i+4]) {
				out = append(out, s[i+2:])
			}
		}
		return out
	}
	for _, tt := range []struct {
		name string
		ping Ping
		want []string
	}{
		{"one", Ping{To: b}, []string{"pong g2 #1 20ms", "done g2 #1"}},
		{"over a path", Ping{To: b, Via: []label.Label{5}, Count: 2}, []string{"pong g2 via g5 #1 40ms", "pong g2 via g5 #2 40ms", "done g2 via g5 #2"}},
		{"too large", Ping{To: b, Bytes: 1401, Count: 2}, []string{"lost g2 #1", "lost g2 #2", "done g2 #0"}},
		{"just right", Ping{To: b, Bytes: 1400}, []string{"pong g2 #1 20ms", "done g2 #1"}},
	} {
		if got := ping(tt.ping); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	for _, p := range []Ping{{To: Gateway(3)}, {To: Node(flow.Slot(1))}, {To: b, Via: []label.Label{1}}, {To: b, Bytes: 99999}} {
		if _, err := w.cores[a].Ping(w.now, p); err == nil {
			t.Errorf("%+v: no error", p)
		}
	}
	for range pingsMax {
		w.cores[a].Ping(w.now, Ping{To: b})
	}
	if _, err := w.cores[a].Ping(w.now, Ping{To: b}); err != ErrBusy {
		t.Errorf("%d pings at once: %v", pingsMax+1, err)
	}
}
