package probe

import (
	"math/rand/v2"
	"testing"
	"time"

	"vcpeer/overlay/label"
)

// loaded is two cores of which one knows n gateways, and the other is one of them.
func loaded(n int) (asks, answers *Core, now time.Time) {
	now = time.Unix(1e9, 0)
	asks = New(Default(), rand.New(rand.NewPCG(1, 1)), now)
	answers = New(Default(), rand.New(rand.NewPCG(2, 1)), now)
	var targets []Target
	for i := range n {
		targets = append(targets, Target{ID: Gateway(label.Label(i + 2)), Class: Rest, MTU: 1458})
	}
	targets[0].Class = Fast
	asks.Set(now, Self{Label: 1}, targets)
	answers.Set(now, Self{Label: 2}, []Target{{ID: Gateway(1), Class: Rest}})
	return asks, answers, now
}

func BenchmarkProbe24(b *testing.B)   { benchmarkProbe(b, 24) }
func BenchmarkProbe1000(b *testing.B) { benchmarkProbe(b, 1000) }

// benchmarkProbe is one probe from Tick to its answer, with all that other targets cost in the same time.
func benchmarkProbe(b *testing.B, n int) {
	c, other, now := loaded(n)
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(300 * time.Millisecond)
		out, _ := c.Tick(now)
		for _, f := range out.Frames {
			if back := other.Receive(now, now, f[etherBytes:]); len(back.Frames) > 0 {
				c.Receive(now, now, back.Frames[0][etherBytes:])
				break // the others are down
			}
		}
	}
}

// BenchmarkAnswer is what a question costs the one that is asked.
func BenchmarkAnswer(b *testing.B) {
	_, c, now := loaded(1)
	m := message{kind: request, from: Gateway(1), way: way{id: Gateway(2)}, size: messageBytes, session: 7}
	p := make([]byte, messageBytes)
	b.ReportAllocs()
	for b.Loop() {
		m.seq++
		m.put(p)
		if out := c.Receive(now, now, p); len(out.Frames) != 1 {
			b.Fatal("no answer")
		}
	}
}

func BenchmarkReport1000(b *testing.B) {
	c, _, now := loaded(1000)
	b.ReportAllocs()
	for b.Loop() {
		c.Report(now)
	}
}

func BenchmarkClassify1000(b *testing.B) {
	all, rtt := gateways(1000)
	for b.Loop() {
		classesOf(1, all, rtt, all[1:9])
	}
}

// Answering and asking allocate nothing once all is known.
func TestNoAllocation(t *testing.T) {
	c, other, now := loaded(1)
	c.Set(now, Self{Label: 1}, []Target{{ID: Gateway(2), Class: Fast}})
	step := func() {
		now = now.Add(300 * time.Millisecond)
		out, _ := c.Tick(now)
		for _, f := range out.Frames {
			for _, back := range other.Receive(now, now, f[etherBytes:]).Frames {
				c.Receive(now, now, back[etherBytes:])
			}
		}
	}
	for range 1000 {
		step()
	}
	if n := testing.AllocsPerRun(1000, step); n != 0 {
		t.Errorf("%v allocations for a probe and its answer", n)
	}
}
