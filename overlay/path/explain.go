package path

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"vcpeer/overlay/label"
)

// Explanation is why the path to a gateway is what the last plan made it.
type Explanation struct {
	Dst    label.Label
	Chosen Choice  // not existing: there is no path
	Kinds  []Kind  // of its links, in order
	Losers []Loser // other paths that were taken or would be if they were better or could be used, the best first
}

// Loser is a path that was not chosen. What cannot be used has the RTT, MTU and cost that it would have.
type Loser struct {
	Path
	Why []string // "worse by 12.0 ms", "link g3>g7 is down", "no transit through g5", "link g1>g5 is not encrypted"
}

// Explain tells why the last plan sends to dst as it does, with the best losers, among them the direct path: for every
// first link the best path that can be used, and the best that cannot and would have been better. It changes nothing and
// takes some ten times as long as a plan. False: dst is no gateway, or the one that plans.
func (p *Planner) Explain(dst label.Label, losers int, now time.Time) (Explanation, bool) {
	v := p.graph.slot(dst)
	if p.self < 0 || v < 0 || v == p.self {
		return Explanation{}, false
	}
	e := Explanation{Dst: dst}
	d := p.dests[dst]
	if e.Chosen, _ = p.table().To(dst); e.Chosen.Exists() {
		e.Kinds = p.graph.kinds(p.self, v, d.route)
	}

	var found []Loser
	open := p.graph.opened()
	usable, all := firstLinks(&p.graph, p.self, v), firstLinks(open, p.self, v)
	for f := range usable {
		if c := usable[f]; c.cost < none && !(d.reached && c.route == d.route) {
			l := Loser{Why: append([]string{p.whyWorse(d, c, now)}, p.obstacles(v, c.route, now)...)}
			l.Path, _ = p.graph.path(p.self, v, c.route, nil)
			found = append(found, l)
		}
		if c := all[f]; c.cost < none && (c.cost < d.cost || c.len() == 0) && (usable[f].cost >= none || c.route != usable[f].route) {
			if why := p.obstacles(v, c.route, now); len(why) > 0 {
				l := Loser{Why: why}
				l.Path, _ = open.path(p.self, v, c.route, nil)
				found = append(found, l)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Loser) int {
		return cmp.Or(cmp.Compare(a.Cost, b.Cost), cmp.Compare(len(a.Via), len(b.Via)), slices.Compare(a.Via, b.Via))
	})
	for i, l := range found {
		if i < losers || len(l.Via) == 0 {
			e.Losers = append(e.Losers, l)
		}
	}
	return e, true
}

// kinds are those of the links of a route: sealed is what no end calls clear text.
func (g *graph) kinds(self, dst int, r route) (out []Kind) {
	at := self
	for k := range r.len() + 1 {
		next := dst
		if k < r.len() {
			next = g.slot(r.at(k))
		}
		a, b := g.halves[at*g.n+next], g.halves[next*g.n+at]
		switch {
		case !sealed(a, b):
			out = append(out, GRE)
		case a.stream() || b.stream():
			out = append(out, Stream)
		default:
			out = append(out, Sealed)
		}
		at = next
	}
	return out
}

// whyWorse says why a path that can be used is not.
func (p *Planner) whyWorse(d *dest, c candidate, now time.Time) string {
	have, other := d.cost.units(), c.cost.units()
	switch {
	case other < have:
		return d.why(&p.config, now, have, other)
	case other == have:
		return "as good"
	default:
		return fmt.Sprintf("worse by %.1f ms", float64(other-have)/10)
	}
}

// obstacles lists all for which a route cannot be used; links that are a last resort are among it.
func (p *Planner) obstacles(dst int, r route, now time.Time) (why []string) {
	g := &p.graph
	at := p.self
	for k := range r.len() + 1 {
		next := dst
		if k < r.len() {
			next = g.slot(r.at(k))
		}
		a, b := g.halves[at*g.n+next], g.halves[next*g.n+at]
		link := fmt.Sprintf("link %v>%v", g.label(at), g.label(next))
		switch {
		case a.down() && b.down():
			why = append(why, link+" is down")
		case a.down():
			why = append(why, fmt.Sprintf("%s is down, says %v", link, g.label(at)))
		case b.down():
			why = append(why, fmt.Sprintf("%s is down, says %v", link, g.label(next)))
		}
		if !g.allowed(at, next, a, b) {
			why = append(why, link+" is not encrypted")
		}
		if e := g.damp.of[pair{min(g.label(at), g.label(next)), max(g.label(at), g.label(next))}]; e != nil && e.active {
			why = append(why, fmt.Sprintf("%s was down %d times, a last resort for %v more", link, e.level,
				max(0, e.due.Sub(now)).Round(time.Second)))
		}
		if k < r.len() && g.gates[next].NoTransit {
			why = append(why, fmt.Sprintf("no transit through %v", g.label(next)))
		}
		at = next
	}
	return why
}

// opened returns the graph as it were if every link that is known were up and allowed, and every gateway a transit one.
func (g *graph) opened() *graph {
	o := &graph{prices: g.prices, damp: newDampers(g.damp.config), n: g.n, slots: g.slots, rows: g.rows}
	o.gates = slices.Clone(g.gates)
	for i := range o.gates {
		o.gates[i].NoTransit = false
	}
	o.halves = slices.Clone(g.halves)
	for i, h := range o.halves {
		if h.known() {
			o.halves[i] = h | halfUp
		}
	}
	o.costs = make([]cost, len(g.costs))
	o.recost()
	return o
}

// firstLinks returns for every slot the best path from self to dst that goes there first: the link, and what is the best
// way on without self.
func firstLinks(g *graph, self, dst int) []candidate {
	out := make([]candidate, g.n)
	least := slices.Repeat([]cost{none}, g.n) // from dst, without share of detours
	ways := make([]route, g.n)                // the other way round: the last gateway first
	least[dst] = 0
	for range label.MaxTransit {
		before, had := slices.Clone(least), slices.Clone(ways)
		for u := range g.n {
			if before[u] >= none || u == self || u != dst && g.gates[u].NoTransit {
				continue
			}
			c, w := before[u], had[u]
			if u != dst {
				c, w = c+g.prices.transit, w.then(g.label(u))
			}
			for v, link := range g.costs[u*g.n : (u+1)*g.n] {
				if v != self && v != dst && c+link < least[v] {
					least[v], ways[v] = c+link, w
				}
			}
		}
	}
	for f := range g.n {
		out[f].cost = none
		link := g.costs[self*g.n+f]
		switch {
		case link >= none || least[f] >= none:
		case f == dst:
			out[f].cost = link
		case !g.gates[f].NoTransit:
			out[f].route = out[f].then(g.label(f))
			for k := ways[f].len() - 1; k >= 0; k-- {
				out[f].route = out[f].then(ways[f].at(k))
			}
			out[f].cost = g.prices.whole(link+g.prices.transit+least[f], out[f].len())
		}
	}
	return out
}
