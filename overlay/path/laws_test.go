package path

import (
	"cmp"
	"fmt"
	"math/rand/v2"
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
	best := none
	each(in, pr, dst, avoid, func(_ Path, c cost) { best = min(best, c) })
	return best
}

// each calls try for every path from self to dst whose first link is not the one to avoid.
func each(in Input, pr prices, dst, avoid label.Label, try func(Path, cost)) {
	said := map[[2]label.Label]half{}
	for _, r := range in.Rows {
		for i := range r.Links {
			said[[2]label.Label{r.From, r.Links[i].To}] = halfOf(&r.Links[i])
		}
	}
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
				try(Path{Dst: dst, Via: slices.Clone(visited[1:])}, pr.whole(c, via))
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

// inCommon counts what a backup has in common with a path: links between the two sites of the path's first link, links
// between any two sites of the path's, and transit gateways.
func inCommon(in Input, p, backup Path) [3]int {
	site := map[label.Label]string{}
	for _, g := range in.Gateways {
		site[g.Label] = g.Site
	}
	pairs := func(p Path) (out [][2]string) {
		at := in.Self
		for _, l := range append(slices.Clone(p.Via), p.Dst) {
			if a, b := site[at], site[l]; a != b {
				out = append(out, [2]string{min(a, b), max(a, b)})
			} else {
				out = append(out, [2]string{})
			}
			at = l
		}
		return out
	}
	var n [3]int
	of := pairs(p)
	for _, pair := range pairs(backup) {
		if pair != [2]string{} && pair == of[0] {
			n[0]++
		}
		if pair != [2]string{} && slices.Contains(of, pair) {
			n[1]++
		}
	}
	for _, l := range backup.Via {
		if slices.Contains(p.Via, l) {
			n[2]++
		}
	}
	return n
}

// dumbBackup finds what the backup of a path should have in common with it and cost, by trying all.
func dumbBackup(in Input, pr prices, p Path) (common [3]int, least cost) {
	least = none
	each(in, pr, p.Dst, p.First(), func(backup Path, c cost) {
		n := inCommon(in, p, backup)
		if d := slices.Compare(n[:], common[:]); least >= none || d < 0 || d == 0 && c < least {
			common, least = n, c
		}
	})
	return common, least
}

func checkBackups(t *rapid.T, w *world, table Table, cheapest bool) {
	for _, c := range table.Choices {
		common, least := dumbBackup(w.in, w.p.config.prices(), c.Path)
		if !c.Backup.Exists() {
			if least < none {
				t.Fatalf("%v has no backup, but one of cost %v", c.Path, least.duration())
			}
			continue
		}
		if got := inCommon(w.in, c.Path, c.Backup); got != common || cheapest && c.Backup.Cost != least.duration() {
			t.Fatalf("%v: backup %v of cost %v has %v in common, the best %v for %v", c.Path, c.Backup, c.Backup.Cost, got, common, least.duration())
		}
	}
}

func TestTheBackupOfAFirstPathIsTheBest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, Default(), 1)
		for range rapid.IntRange(1, 50).Draw(t, "changes") {
			change(t, w)
		}
		table, _ := w.p.Plan(w.in, w.now)
		checkTable(t, w.in, table)
		checkBackups(t, w, table, true)
	})
}

func TestBackupsShareAsLittleAsTheyCan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, Default(), 1)
		for range rapid.IntRange(1, 10).Draw(t, "plans") {
			for range rapid.IntRange(1, 20).Draw(t, "changes") {
				change(t, w)
			}
			w.wait(3 * time.Second)
			checkBackups(t, w, w.table, false)
		}
	})
}

// TestAllBackupsAreSearchedFor: where there are more to search for than one plan has time for, others do it.
func TestAllBackupsAreSearchedFor(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	in := plane(rng, 600).sparse(rng, 8).input(1, exact)
	p, now := New(Default()), time.Unix(0, 0)
	table, again := p.Plan(in, now)
	plans := 1
	for ; !again.IsZero() && plans < 1000; plans++ {
		now = again
		table, again = p.Plan(in, now)
	}
	if plans == 1 || plans == 1000 {
		t.Errorf("%d plans", plans)
	}
	for _, c := range table.Choices {
		d, v := p.dests[c.Dst], p.graph.slot(c.Dst)
		a := p.graph.avoid(p.self, v, d.route)
		if _, least := p.spare.find(&a, candidate{d.backup, p.graph.costOf(p.self, v, d.backup)}); d.backed && a.of(d.backup) != least {
			t.Errorf("%v: backup %v shares %#x, might %#x", c.Path, c.Backup, a.of(d.backup), least)
		}
	}
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
