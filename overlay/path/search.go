package path

import (
	"slices"

	"vcpeer/overlay/label"
)

// route is the transit gateways of a path in one word: label.MaxTransit times 16 bits, the first lowest, and their number
// above.
type route uint64

func (r route) len() int             { return int(r >> (16 * label.MaxTransit)) }
func (r route) at(i int) label.Label { return label.Label(r >> (16 * i)) }

// then returns the route with one more gateway at its end.
func (r route) then(l label.Label) route {
	return r + 1<<(16*label.MaxTransit) + route(l)<<(16*r.len())
}

// first is what a path that takes this route to dst goes to first.
func (r route) first(dst label.Label) label.Label {
	if r.len() > 0 {
		return r.at(0)
	}
	return dst
}

// through reports whether l is a transit gateway of the route.
func (r route) through(l label.Label) bool {
	for i := range r.len() {
		if r.at(i) == l {
			return true
		}
	}
	return false
}

// way is how a gateway is reached.
type way struct {
	route
	first label.Label
}

// search finds, from one gateway to all others, the cheapest path of at most 1+label.MaxTransit links, and the cheapest
// whose first link is another. Bellman-Ford in rounds, each one link longer, over what the round before made cheaper; two
// entries with different first links suffice, for the second-best path of another first link consists of such. After
// k rounds no path repeats a gateway, since every link costs something. Time: links times rounds.
type search struct {
	c1, c2 []cost // by slot; without share of detours. c1 <= c2
	w1, w2 []way  // w1.first != w2.first

	lower1, lower2 []bool // what this round made cheaper
	from           []extension
	order          []uint64
}

// extension is a gateway that paths are made longer from.
type extension struct {
	slot   int
	c1, c2 cost
	w1, w2 way
}

func (s *search) reset(n int) {
	if cap(s.c1) < n {
		s.c1, s.c2 = make([]cost, n), make([]cost, n)
		s.w1, s.w2 = make([]way, n), make([]way, n)
		s.lower1, s.lower2 = make([]bool, n), make([]bool, n)
		s.from, s.order = make([]extension, 0, n), make([]uint64, 0, n)
	}
	s.c1, s.c2, s.w1, s.w2 = s.c1[:n], s.c2[:n], s.w1[:n], s.w2[:n]
	s.lower1, s.lower2 = s.lower1[:n], s.lower2[:n]
	clear(s.w1)
	clear(s.w2)
	clear(s.lower2)
	for i := range n {
		s.c2[i] = none
	}
}

func (s *search) run(g *graph, self int) {
	s.reset(g.n)
	copy(s.c1, g.costs[self*g.n:])
	for v, c := range s.c1 {
		s.w1[v].first = g.label(v)
		s.lower1[v] = c < none
	}
	s.c1[self], s.c2[self] = 0, 0 // nothing leads back
	for range label.MaxTransit {
		if !s.extend(g) {
			return
		}
	}
}

// extend makes all paths that the last round made cheaper one link longer; false: there were none.
func (s *search) extend(g *graph) bool {
	s.collect(g)
	worst := slices.Max(s.c2)
	for k := range s.from {
		x := &s.from[k]
		if x.c1 >= worst { // nor does any that follows
			break
		}
		c2s := s.c2
		for v, c := range g.costs[x.slot*g.n : x.slot*g.n+len(c2s)] {
			if x.c1+c < c2s[v] {
				s.offer(v, x.c1+c, x.w1)
				if x.c2+c < c2s[v] {
					s.offer(v, x.c2+c, x.w2)
				}
			}
		}
	}
	return len(s.from) > 0
}

// collect lists what the last round made cheaper and may be gone through, the cheapest first: then few later ones matter.
func (s *search) collect(g *graph) {
	s.order, s.from = s.order[:0], s.from[:0]
	for v := range s.c1 {
		if (s.lower1[v] || s.lower2[v]) && !g.gates[v].NoTransit {
			c := s.c1[v]
			if !s.lower1[v] {
				c = s.c2[v]
			}
			s.order = append(s.order, uint64(c)<<32|uint64(v))
		}
	}
	slices.Sort(s.order)
	for _, o := range s.order {
		v := int(uint32(o))
		l := g.label(v)
		x := extension{slot: v, c1: s.c1[v], c2: s.c2[v], w1: s.w1[v], w2: s.w2[v]}
		if !s.lower1[v] { // longer by the round before
			x.c1, x.w1, x.c2 = x.c2, x.w2, none
		}
		x.c1, x.w1.route = x.c1+g.prices.transit, x.w1.then(l)
		if x.c2 < none {
			x.c2, x.w2.route = x.c2+g.prices.transit, x.w2.then(l)
		}
		s.from = append(s.from, x)
	}
	clear(s.lower1)
	clear(s.lower2)
}

// offer takes a path to v if it is one of the two to keep.
func (s *search) offer(v int, c cost, w way) {
	switch {
	case c < s.c1[v]:
		if w.first != s.w1[v].first {
			s.c2[v], s.w2[v], s.lower2[v] = s.c1[v], s.w1[v], true
		}
		s.c1[v], s.w1[v], s.lower1[v] = c, w, true
	case w.first != s.w1[v].first && c < s.c2[v]:
		s.c2[v], s.w2[v], s.lower2[v] = c, w, true
	}
}
