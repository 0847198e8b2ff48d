package probe

import (
	"testing"
	"time"
)

func TestSlack(t *testing.T) {
	var l lateness
	const ms = time.Millisecond
	for _, s := range []struct{ now, late, want time.Duration }{
		{1000 * ms, -50 * ms, 0}, // sooner than need be
		{1100 * ms, 9 * ms, 0},
		{1200 * ms, 50 * ms, 200 * ms},
		{1300 * ms, 20 * ms, 200 * ms},
		{3100 * ms, 0, 200 * ms},
		{3200 * ms, 0, 100 * ms},
		{3300 * ms, 30 * ms, 120 * ms},
		{3400 * ms, time.Minute, slackMost},
		{100_000 * ms, 0, 0},
	} {
		if got := l.slack(s.now, s.late); got != s.want {
			t.Errorf("at %v, %v late: %v, want %v", s.now, s.late, got, s.want)
		}
	}
}

// A machine that hardly gets to its work does not take its links for dead, and one that does sees it as soon as ever.
func TestBusyMachineWaits(t *testing.T) {
	down := func(pause time.Duration) time.Duration {
		w := newWorld(t, 1)
		a, b := Gateway(1), Gateway(2)
		w.add(a)
		w.add(b)
		w.know(a, Fast, 0, b)
		w.know(b, Fast, 0, a)
		w.run(5 * time.Second)
		c := w.cores[a]
		cut := w.now
		for now := cut; now.Before(cut.Add(10 * time.Second)); now = now.Add(pause) {
			out, _ := c.Tick(now)
			for _, e := range out.Events {
				if e.Kind == Down {
					return now.Sub(cut)
				}
			}
			c.Next(now)
		}
		return 0
	}
	if calm := down(time.Millisecond); calm == 0 || calm > time.Second {
		t.Errorf("with time enough: down after %v", calm)
	}
	if busy := down(150 * time.Millisecond); busy < time.Second || busy > 4*time.Second {
		t.Errorf("always 150 ms late: down after %v", busy)
	}
}
