package path

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"vcpeer/overlay/label"
)

// following is a config without any hysteresis.
func following() Config {
	c := Default()
	c.Margin, c.MarginMin, c.SmallMargin, c.SmallMin, c.Startup = 0, 0, 0, 0, 1000*time.Hour
	c.Damp, c.DampMax = 0, 0
	return c
}

// dumb finds the least cost from self to dst, and of paths whose first link is not the one to avoid, by trying all.
func dumb(in Input, pr prices, dst, avoid label.Label) cost {
	said := map[[2]label.Label]half{}
	for _, r := range in.Rows {
		for i := range r.Links {
			said[[2]label.Label{r.From, r.Links[i].To}] = halfOf(&r.Links[i])
		}
	}
	best := none
	var walk func(at Gateway, visited []label.Label, sum cost)
	walk = func(at Gateway, visited []label.Label, sum cost) {
		for _, next := range in.Gateways {
			a, b := said[[2]label.Label{at.Label, next.Label}], said[[2]label.Label{next.Label, at.Label}]
			switch {
			case slices.Contains(visited, next.Label), len(visited) == 1 && next.Label == avoid, !usable(a, b),
				in.SealedOnly && !sealed(a, b) && at.Site != next.Site:
				continue
			}
			c := sum + cost(pr.link(a, b))<<tieBits
			if via := len(visited) - 1; next.Label == dst {
				best = min(best, pr.whole(c, via))
			} else if !next.NoTransit && via < label.MaxTransit {
				walk(next, append(slices.Clone(visited), next.Label), c+pr.transit)
			}
		}
	}
	for _, g := range in.Gateways {
		if g.Label == in.Self {
			walk(g, []label.Label{in.Self}, 0)
		}
	}
	return best
}

// change draws one thing that happens to a network.
func change(t *rapid.T, w *world) {
	n := rapid.IntRange(1, 7)
	link := fmt.Sprintf("%d%s%d", n.Draw(t, "a"), rapid.SampledFrom([]string{"-", ">"}).Draw(t, "ends"), n.Draw(t, "b"))
	switch rapid.IntRange(0, 9).Draw(t, "what") {
	case 0:
		w.change(link + " down")
	case 1:
		w.change(fmt.Sprintf("%s loss=%d", link, rapid.IntRange(0, 100).Draw(t, "loss")))
	case 2:
		w.change(link + " sealed")
	case 3:
		w.change(fmt.Sprintf("%d gone", n.Draw(t, "gone")))
	case 4:
		w.change(fmt.Sprintf("%d notransit", n.Draw(t, "who")))
	case 5:
		w.change(fmt.Sprintf("%d site=%d", n.Draw(t, "who"), n.Draw(t, "site")))
	case 6:
		w.in.SealedOnly = rapid.Bool().Draw(t, "sealed only")
	default:
		w.change(fmt.Sprintf("%s=%d", link, rapid.IntRange(1, 300).Draw(t, "RTT")))
	}
	w.in.Rows = w.rows()
}

func TestWithoutHysteresisThePathIsTheBest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, following(), 1)
		pr := w.p.config.prices()
		for range rapid.IntRange(1, 20).Draw(t, "plans") {
			for range rapid.IntRange(1, 20).Draw(t, "changes") {
				change(t, w)
			}
			w.now = w.now.Add(time.Second)
			table, _ := w.p.Plan(w.in, w.now)
			checkTable(t, w.in, table)
			for _, g := range w.in.Gateways {
				if g.Label == w.in.Self {
					continue
				}
				c, ok := table.To(g.Label)
				if best := dumb(w.in, pr, g.Label, 0); ok != (best < none) || ok && c.Cost != best.duration() {
					t.Fatalf("to %v: %v of cost %v, the best costs %v", g.Label, c.Path, c.Cost, best.duration())
				}
				if ok && c.Backup.Exists() != (dumb(w.in, pr, g.Label, c.First()) < none) {
					t.Fatalf("to %v: %v, backup %v", g.Label, c.Path, c.Backup)
				}
			}
		}
	})
}

func TestTheBackupOfAFirstPathIsTheBest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, Default(), 1)
		for range rapid.IntRange(1, 50).Draw(t, "changes") {
			change(t, w)
		}
		table, _ := w.p.Plan(w.in, w.now)
		checkTable(t, w.in, table)
		for _, c := range table.Choices {
			best := dumb(w.in, w.p.config.prices(), c.Dst, c.First())
			if c.Backup.Exists() && c.Backup.Cost != best.duration() || !c.Backup.Exists() && best < none {
				t.Fatalf("%v: backup %v of cost %v, the best costs %v", c.Path, c.Backup, c.Backup.Cost, best.duration())
			}
		}
	})
}

// TestEqualInputsGiveEqualTables runs two planners, one of which gets all in another order and in new memory each time,
// and is asked to explain itself.
func TestEqualInputsGiveEqualTables(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, other := newWorld(t, Default(), 1), New(Default())
		for range rapid.IntRange(1, 40).Draw(t, "plans") {
			for range rapid.IntRange(0, 6).Draw(t, "changes") {
				change(t, w)
			}
			w.now = w.now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "tenths")) * 100 * time.Millisecond)
			in := w.in
			in.Gateways, in.Rows = slices.Clone(in.Gateways), slices.Clone(in.Rows)
			slices.SortFunc(in.Gateways, func(a, b Gateway) int { return cmp.Compare(b.Label, a.Label) })
			slices.SortFunc(in.Rows, func(a, b Row) int { return cmp.Compare(b.From, a.From) })
			for i, r := range in.Rows {
				in.Rows[i].Links = slices.Clone(r.Links)
			}
			a, againA := w.p.Plan(w.in, w.now)
			b, againB := other.Plan(in, w.now)
			if !reflect.DeepEqual(a, b) || !againA.Equal(againB) {
				t.Fatalf("%v, again %v\nand %v, again %v", a, againA, b, againB)
			}
			if !againA.IsZero() && !againA.After(w.now) {
				t.Fatalf("planned at %v, again at %v", w.now, againA)
			}
			for _, g := range in.Gateways {
				other.Explain(g.Label, 3, w.now)
			}
			checkTable(t, w.in, a)
		}
	})
}
