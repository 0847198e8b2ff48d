package path

import (
	"math/rand/v2"
	"testing"
	"time"
)

func BenchmarkPlan20(b *testing.B)         { benchmarkPlan(b, 20, 0) }
func BenchmarkPlan100(b *testing.B)        { benchmarkPlan(b, 100, 0) }
func BenchmarkPlan1000Full(b *testing.B)   { benchmarkPlan(b, 1000, 0) }
func BenchmarkPlan1000Sparse(b *testing.B) { benchmarkPlan(b, 1000, 24) }

// BenchmarkPlan1000Uniform is a full mesh without any geometry, in which nearly all paths are detours.
func BenchmarkPlan1000Uniform(b *testing.B) {
	in := uniform(rand.New(rand.NewPCG(1, 1)), 1000).input(1, exact)
	p, now := New(Default()), time.Unix(0, 0)
	p.Plan(in, now)
	for b.Loop() {
		p.Plan(in, now)
	}
}

// benchmarkPlan plans after one row in a hundred changed.
func benchmarkPlan(b *testing.B, n, k int) {
	rng := rand.New(rand.NewPCG(1, 1))
	m := plane(rng, n)
	if k > 0 {
		m = m.sparse(rng, k)
	}
	in := m.input(1, exact)
	noise := func() float64 { return 1 + 0.1*rng.Float64() }
	p, now := New(Default()), time.Unix(0, 0)
	p.Plan(in, now)
	rows := make([]Row, n) // the same rows with other RTTs, each swapped in in turn
	for i := range rows {
		rows[i] = m.row(i, noise)
	}
	b.ReportAllocs()
	at := 0
	for b.Loop() {
		for range max(1, n/100) {
			in.Rows[at], rows[at] = rows[at], in.Rows[at]
			at = (at + 1) % n
		}
		now = now.Add(300 * time.Millisecond)
		p.Plan(in, now)
	}
}

// BenchmarkPlan1000New is the first plan of a planner, with all rows new.
func BenchmarkPlan1000New(b *testing.B) {
	in := plane(rand.New(rand.NewPCG(1, 1)), 1000).input(1, exact)
	b.ReportAllocs()
	for b.Loop() {
		New(Default()).Plan(in, time.Unix(0, 0))
	}
}

// BenchmarkPlan1000Join is a plan after a gateway joined or left.
func BenchmarkPlan1000Join(b *testing.B) {
	in := plane(rand.New(rand.NewPCG(1, 1)), 1000).input(1, exact)
	less := in
	less.Gateways = in.Gateways[:999]
	p, now := New(Default()), time.Unix(0, 0)
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(300 * time.Millisecond)
		in, less = less, in
		p.Plan(in, now)
	}
}

func BenchmarkExplain1000(b *testing.B) {
	p, now := New(Default()), time.Unix(0, 0)
	p.Plan(plane(rand.New(rand.NewPCG(1, 1)), 1000).input(1, exact), now)
	for b.Loop() {
		p.Explain(500, 5, now)
	}
}
