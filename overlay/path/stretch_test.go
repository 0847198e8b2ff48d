package path

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"vcpeer/overlay/label"
)

func quantile(x []float64, q float64) float64 {
	slices.Sort(x)
	return x[int(q*float64(len(x)-1))]
}

// TestStretch holds paths over random matrices against the shortest of any number of links, from exact measurements and,
// for up to 20 gateways, from measurements with noise of 5 % after two minutes, in which paths were kept.
func TestStretch(t *testing.T) {
	const plans = 40
	for _, kind := range []struct {
		name string
		make func(*rand.Rand, int) matrix
	}{{"uniform", uniform}, {"exponential", exponential}, {"plane", plane}} {
		for _, n := range []int{8, 12, 20, 40} {
			t.Run(fmt.Sprintf("%s %d", kind.name, n), func(t *testing.T) {
				var ideal, noisy, direct []float64
				switches := 0
				for seed := range uint64(max(2, 40/n)) {
					rng := rand.New(rand.NewPCG(seed, 7))
					m := kind.make(rng, n)
					shortest := m.lengths()
					noise := func() float64 { return math.Exp(0.05 * rng.NormFloat64()) }
					in := m.input(0, exact)
					var planners []*Planner
					for self := range label.Label(n) {
						in.Self = self + 1
						p := New(Default())
						table, _ := p.Plan(in, time.Unix(0, 0))
						ideal = m.stretches(ideal, table, in.Self, shortest)
						planners = append(planners, New(Default()))
						for j := range n {
							if j != int(self) {
								direct = append(direct, m[self][j]/shortest[self][j])
							}
						}
					}
					for s := 0; s < plans && n <= 20; s++ {
						in := m.input(0, noise)
						for self, p := range planners {
							in.Self = label.Label(self + 1)
							table, _ := p.Plan(in, time.Unix(int64(3*s), 0))
							if s < plans-1 {
								continue
							}
							noisy = m.stretches(noisy, table, in.Self, shortest)
							for _, c := range table.Choices {
								switches += c.Switches
							}
						}
					}
				}
				t.Logf("direct p50 %.3f p95 %.3f; exact p50 %.3f p95 %.3f max %.3f",
					quantile(direct, .5), quantile(direct, .95), quantile(ideal, .5), quantile(ideal, .95), slices.Max(ideal))
				if quantile(ideal, .5) > 1.005 || quantile(ideal, .95) > 1.05 && n <= 20 {
					t.Error("paths are too long")
				}
				if n > 20 {
					return
				}
				t.Logf("with noise p50 %.3f p95 %.3f max %.3f, %.2f switches a pair",
					quantile(noisy, .5), quantile(noisy, .95), slices.Max(noisy), float64(switches)/float64(len(noisy)))
				if quantile(noisy, .95) > 1.05 {
					t.Error("with noise, paths are too long")
				}
			})
		}
	}
}

// matrix is symmetric RTTs in ms; 0: no link.
type matrix [][]float64

func newMatrix(n int, rtt func(i, j int) float64) matrix {
	m := make(matrix, n)
	for i := range m {
		m[i] = make([]float64, n)
	}
	for i := range n {
		for j := range i {
			m[i][j] = rtt(i, j)
			m[j][i] = m[i][j]
		}
	}
	return m
}

// plane puts gateways on a plane of 150 ms width; detours of the underlay make paths longer by an exponential factor.
func plane(rng *rand.Rand, n int) matrix {
	x, y := make([]float64, n), make([]float64, n)
	for i := range n {
		x[i], y[i] = 150*rng.Float64(), 150*rng.Float64()
	}
	return newMatrix(n, func(i, j int) float64 {
		return (2 + math.Hypot(x[i]-x[j], y[i]-y[j])) * (1 + 0.4*rng.ExpFloat64())
	})
}

func uniform(rng *rand.Rand, n int) matrix {
	return newMatrix(n, func(i, j int) float64 { return 5 + 295*rng.Float64() })
}

func exponential(rng *rand.Rand, n int) matrix {
	return newMatrix(n, func(i, j int) float64 { return 5 + 60*rng.ExpFloat64() })
}

// sparse keeps every gateway's k/2 nearest links and k/2 by chance.
func (m matrix) sparse(rng *rand.Rand, k int) matrix {
	out := newMatrix(len(m), func(int, int) float64 { return 0 })
	for i := range m {
		order := rng.Perm(len(m))
		slices.SortFunc(order[k/2:], func(a, b int) int { return int(1e6 * (m[i][a] - m[i][b])) })
		for _, j := range order[:k+1] {
			out[i][j], out[j][i] = m[i][j], m[i][j]
		}
	}
	return out
}

// row is what gateway i says; noise multiplies each RTT.
func (m matrix) row(i int, noise func() float64) Row {
	r := Row{From: label.Label(i + 1)}
	for j, rtt := range m[i] {
		if rtt > 0 {
			rtt := time.Duration(rtt * noise() * float64(time.Millisecond))
			r.Links = append(r.Links, Link{To: label.Label(j + 1), RTT: rtt, MTU: 1458, Up: true})
		}
	}
	return r
}

func exact() float64 { return 1 }

func (m matrix) input(self label.Label, noise func() float64) Input {
	in := Input{Self: self}
	for i := range m {
		in.Gateways = append(in.Gateways, Gateway{Label: label.Label(i + 1), Site: fmt.Sprintf("site-%d", i)})
		in.Rows = append(in.Rows, m.row(i, noise))
	}
	return in
}

// lengths returns the length of all shortest paths of any number of links.
func (m matrix) lengths() matrix {
	d := make(matrix, len(m))
	for i := range m {
		d[i] = slices.Clone(m[i])
	}
	for k := range d {
		for i := range d {
			for j := range d {
				d[i][j] = min(d[i][j], d[i][k]+d[k][j])
			}
		}
	}
	return d
}

// stretches appends, for all that self reaches by the table, the true length of the path in parts of the shortest.
func (m matrix) stretches(out []float64, table Table, self label.Label, shortest matrix) []float64 {
	for _, c := range table.Choices {
		sum, at := 0.0, self
		for _, l := range append(slices.Clone(c.Via), c.Dst) {
			sum += m[at-1][l-1]
			at = l
		}
		out = append(out, sum/shortest[self-1][c.Dst-1])
	}
	return out
}
