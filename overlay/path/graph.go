package path

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"vcpeer/overlay/label"
)

// graph is the links that all rows together speak of, kept from plan to plan so that only what changed costs time.
// Gateways are numbered by label: number i is gates[i].
type graph struct {
	prices     prices
	damp       dampers
	sealedOnly bool

	n      int
	gates  []Gateway
	sites  []site   // by name
	siteOf []int32  // by slot, in sites
	slots  []int32  // by label; -1: no gateway
	rows   [][]Link // what halves were made of; nil: no row
	// halves[i*n+j] is i's word on its link to j, and costs[i*n+j] == costs[j*n+i] what the two words make of it.
	halves []half
	costs  []cost

	scratch []half
	fresh   []bool // rows that this update has seen
	dirty   []bool // rows with words that are new
	sorted  []Gateway
}

// site is a site by its gateways, by label.
type site struct {
	name  string
	slots []int
}

func newGraph(c *Config) graph {
	g := graph{prices: c.prices(), damp: newDampers(c), slots: make([]int32, label.Last+1)}
	for i := range g.slots {
		g.slots[i] = -1
	}
	return g
}

// slot returns the number of a gateway, or -1.
func (g *graph) slot(l label.Label) int {
	if int(l) >= len(g.slots) {
		return -1
	}
	return int(g.slots[l])
}

func (g *graph) label(i int) label.Label { return g.gates[i].Label }

// update takes in all that changed since the last one.
func (g *graph) update(in *Input, now time.Time) {
	g.sorted = append(g.sorted[:0], in.Gateways...)
	slices.SortStableFunc(g.sorted, func(a, b Gateway) int {
		return cmp.Or(cmp.Compare(a.Label, b.Label), strings.Compare(a.Site, b.Site))
	})
	g.sorted = slices.CompactFunc(g.sorted, func(a, b Gateway) bool { return a.Label == b.Label })
	g.sorted = slices.DeleteFunc(g.sorted, func(x Gateway) bool { return !x.Label.Valid() })
	if !slices.Equal(g.sorted, g.gates) {
		g.renumber(g.sorted)
	}
	if g.sealedOnly != in.SealedOnly {
		g.sealedOnly = in.SealedOnly
		g.recost()
	}

	clear(g.fresh)
	for _, r := range in.Rows {
		if i := g.slot(r.From); i >= 0 && !g.fresh[i] {
			g.fresh[i] = true
			g.setRow(i, r.Links)
		}
	}
	for i, fresh := range g.fresh {
		if !fresh && g.rows[i] != nil {
			g.setRow(i, nil)
		}
	}
	g.settle(now)
	g.damp.expire(now, func(a, b label.Label) bool { // true: both still take part
		i, j := g.slot(a), g.slot(b)
		if i < 0 || j < 0 {
			return false
		}
		g.price(i, j)
		return true
	})
}

// renumber makes room for these gateways and keeps what is known of those that stay.
func (g *graph) renumber(gates []Gateway) {
	old := *g
	n := len(gates)
	g.n, g.gates = n, slices.Clone(gates)
	g.rows, g.fresh, g.dirty, g.scratch = make([][]Link, n), make([]bool, n), make([]bool, n), make([]half, n)
	g.halves, g.costs = make([]half, n*n), make([]cost, n*n)
	was := make([]int, n) // -1: new
	for i, x := range gates {
		was[i] = old.slot(x.Label)
	}
	for _, x := range old.gates {
		g.slots[x.Label] = -1
	}
	for i, x := range gates {
		g.slots[x.Label] = int32(i)
	}
	for i, oi := range was {
		if oi < 0 {
			continue
		}
		g.rows[i] = old.rows[oi]
		for j, oj := range was {
			if oj >= 0 {
				g.halves[i*n+j], g.costs[i*n+j] = old.halves[oi*old.n+oj], old.costs[oi*old.n+oj]
			} else if l, ok := find(g.rows[i], gates[j].Label); ok {
				g.halves[i*n+j], g.dirty[i] = halfOf(l)|halfNew, true
			}
		}
	}
	g.sites, g.siteOf = nil, make([]int32, n)
	byName := map[string][]int{}
	for i, x := range gates {
		byName[x.Site] = append(byName[x.Site], i)
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		for _, i := range byName[name] {
			g.siteOf[i] = int32(len(g.sites))
		}
		g.sites = append(g.sites, site{name, byName[name]})
	}
	if g.sealedOnly { // some site may have another name
		g.recost()
		return
	}
	for i, oi := range was {
		for j := 0; oi < 0 && j < n; j++ {
			g.costs[i*n+j], g.costs[j*n+i] = none, none // till there is word of it
		}
	}
}

// find returns what a row says of a link.
func find(links []Link, to label.Label) (*Link, bool) {
	i, ok := slices.BinarySearchFunc(links, to, func(l Link, to label.Label) int { return cmp.Compare(l.To, to) })
	if !ok {
		return nil, false
	}
	return &links[i], true
}

// setRow takes in i's word on all its links.
func (g *graph) setRow(i int, links []Link) {
	if was := g.rows[i]; len(was) == len(links) && (len(links) == 0 || &was[0] == &links[0]) {
		return
	}
	if !slices.IsSortedFunc(links, func(a, b Link) int { return cmp.Compare(a.To, b.To) }) {
		links = slices.SortedStableFunc(slices.Values(links), func(a, b Link) int { return cmp.Compare(a.To, b.To) })
	}
	g.rows[i] = links
	clear(g.scratch)
	for k := range links {
		if j := g.slot(links[k].To); j >= 0 && j != i {
			g.scratch[j] = halfOf(&links[k])
		}
	}
	row := g.halves[i*g.n : (i+1)*g.n]
	for j, h := range g.scratch {
		if was := row[j]; was&^halfMarks != h {
			row[j] = h | halfNew | was&halfUsable
			g.dirty[i] = true
		}
	}
}

// settle draws the consequences of changed words when all are in: of two that change at once, neither comes first.
func (g *graph) settle(now time.Time) {
	for i, dirty := range g.dirty {
		for j := 0; dirty && j < g.n; j++ {
			if h := &g.halves[i*g.n+j]; *h&halfNew != 0 {
				*h &^= halfNew
				g.settleLink(i, j, now)
			}
		}
	}
	clear(g.dirty)
}

func (g *graph) settleLink(i, j int, now time.Time) {
	a, b := &g.halves[min(i, j)*g.n+max(i, j)], &g.halves[max(i, j)*g.n+min(i, j)]
	before, after := *a&halfUsable != 0, usable(*a, *b)
	switch {
	case after && !before:
		*a |= halfUsable
		g.damp.recovered(g.label(i), g.label(j), now)
	case before && !after:
		*a &^= halfUsable
		if a.down() || b.down() {
			g.damp.failed(g.label(i), g.label(j), now)
		}
	}
	g.price(i, j)
}

// price reckons what the link between i and j costs.
func (g *graph) price(i, j int) {
	c := none
	if a, b := g.halves[i*g.n+j], g.halves[j*g.n+i]; i != j && usable(a, b) && g.allowed(i, j, a, b) {
		u := g.prices.link(a, b)
		if g.damp.active(g.label(i), g.label(j)) {
			u += dampedCost
		}
		c = cost(u)<<tieBits | tie(g.label(i), g.label(j))
	}
	g.costs[i*g.n+j], g.costs[j*g.n+i] = c, c
}

// allowed reports whether the link's kind may be used.
func (g *graph) allowed(i, j int, a, b half) bool {
	return !g.sealedOnly || sealed(a, b) || g.gates[i].Site == g.gates[j].Site
}

// recost prices all links anew.
func (g *graph) recost() {
	for i := range g.n {
		for j := range i + 1 {
			g.price(i, j)
		}
	}
}

// rtt is the mean of what both ends of a link measured; 0: not measured.
func (g *graph) rtt(i, j int) time.Duration {
	return time.Duration(ticksBetween(g.halves[i*g.n+j], g.halves[j*g.n+i])) * tick
}

// mtu is the lower of what both ends of a link found, or what one did; 0: unknown.
func (g *graph) mtu(i, j int) int {
	a, b := g.mtuSaid(i, j), g.mtuSaid(j, i)
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// mtuSaid is the MTU in i's word on its link to j.
func (g *graph) mtuSaid(i, j int) int {
	links, to := g.rows[i], g.label(j)
	// A row that lacks few gateways has j not far before place j: in a full mesh that saves most of the search.
	lo, hi := max(0, j-max(0, g.n-len(links))), min(j+1, len(links))
	if lo < hi && links[lo].To <= to && to <= links[hi-1].To {
		links = links[lo:hi]
	}
	if l, ok := find(links, to); ok {
		return l.MTU
	}
	return 0
}

// costOf returns what a route from slot self to slot dst costs now; none: it cannot be used.
func (g *graph) costOf(self, dst int, r route) cost {
	var sum cost
	at := self
	for k := range r.len() {
		next := g.slot(r.at(k))
		if next < 0 || g.gates[next].NoTransit {
			return none
		}
		c := g.costs[at*g.n+next]
		if c >= none {
			return none
		}
		sum += c + g.prices.transit
		at = next
	}
	c := g.costs[at*g.n+dst]
	if c >= none {
		return none
	}
	return g.prices.whole(sum+c, r.len())
}
