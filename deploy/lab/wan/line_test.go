package wan

import (
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"vcpeer/deploy/lab/shape"
)

func newLine(t *testing.T, words ...string) *line {
	t.Helper()
	s, err := shape.Shape{}.With(words...)
	if err != nil {
		t.Fatal(err)
	}
	return &line{shape: s, rng: rand.New(rand.NewPCG(1, 1))}
}

func TestRateSpacesPacketsAndDropsTheNewest(t *testing.T) {
	l := newLine(t, "rate=8mbit", "queue=10000") // 1000 bytes take 1 ms
	sent := 0
	for range 50 {
		if due, v := l.admit(1000, time.Second); v == pass {
			sent++
			if got, want := due-time.Second, time.Duration(sent)*time.Millisecond; got != want {
				t.Fatalf("packet %d leaves after %v, want %v", sent, got, want)
			}
		}
	}
	if sent != 11 || l.count.Overflow != 39 { // ten waiting and the one on the wire
		t.Errorf("%d packets admitted, %d dropped", sent, l.count.Overflow)
	}
	if due, _ := l.admit(1000, 2*time.Second); due != 2*time.Second+time.Millisecond {
		t.Errorf("an idle wire sends after %v", due-2*time.Second)
	}
}

func TestLossCutAndMTU(t *testing.T) {
	l := newLine(t, "loss=10%", "mtu=1400")
	lost := 0
	for range 10000 {
		if _, v := l.admit(100, 0); v == drop {
			lost++
		}
	}
	if lost < 850 || lost > 1150 || uint64(lost) != l.count.Lost {
		t.Errorf("lost %d of 10000, counted %d", lost, l.count.Lost)
	}
	l.shape.Loss = 0
	if _, v := l.admit(1400, 0); v != pass {
		t.Error("a packet of the MTU did not pass")
	}
	if _, v := l.admit(1401, 0); v != tooBig {
		t.Error("a packet over the MTU passed")
	}
	l.shape.Cut = true
	if _, v := l.admit(100, 0); v != drop {
		t.Error("a packet passed a cut")
	}
}

// TestOrderAndDelay: whatever a line is set to, and whenever, packets leave in order and not before their delay is over.
func TestOrderAndDelay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &line{rng: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))}
		var now, last time.Duration
		for range rapid.IntRange(1, 50).Draw(t, "packets") {
			now += time.Duration(rapid.IntRange(0, 1e6).Draw(t, "gap"))
			if rapid.IntRange(0, 9).Draw(t, "change") == 0 {
				l.reshape(shape.Shape{
					Delay:  time.Duration(rapid.IntRange(0, 1e7).Draw(t, "delay")),
					Jitter: time.Duration(rapid.IntRange(0, 1e6).Draw(t, "jitter")),
					Rate:   float64(rapid.IntRange(0, 1e9).Draw(t, "rate")),
				})
			}
			due, v := l.admit(rapid.IntRange(20, 1500).Draw(t, "size"), now)
			if v != pass {
				continue
			}
			if due < last || due < now || due < now+l.shape.Delay-l.shape.Jitter {
				t.Fatalf("due %v at %v after %v with %v", due, now, last, l.shape)
			}
			last = due
		}
	})
}

func TestFlightsLeaveByTimeThenOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var f flights
		dues := rapid.SliceOf(rapid.IntRange(0, 5)).Draw(t, "dues")
		for i, d := range dues {
			f.push(time.Duration(d), i, nil)
		}
		last := flight{due: -1}
		for range dues {
			due, ok := f.next()
			got, popped := f.pop(due)
			if !ok || !popped || got.due < last.due || got.due == last.due && got.to < last.to || dues[got.to] != int(got.due) {
				t.Fatalf("%v after %v", got, last)
			}
			if _, early := f.pop(got.due - 1); early {
				t.Fatal("one left before its time")
			}
			last = got
		}
		if _, ok := f.pop(time.Hour); ok {
			t.Fatal("more left than came")
		}
	})
}
