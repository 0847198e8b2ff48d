package path

import (
	"math"
	"slices"

	"vcpeer/overlay/label"
)

// shared says how much a backup has in common with the path that it stands in for, above all with what is likely to fail
// together with it: the network between two sites, whichever of their gateways the links end at. It is a sum over the
// links and transit gateways of the backup, in the upper half of a key that has the cost in its lower one, so that of
// backups which share equally little the cheapest is the least.
type shared uint64

const (
	sharedGateway shared = 1 << (32 + 4*iota) // a transit gateway of both
	sharedPair                                // a link between two sites that the path has a link between, too
	sharedFirst                               // the same for the path's first link, of all the one whose failure is seen on the spot

	sharedCost shared = 1<<32 - 1
	unshared   shared = math.MaxUint64 // of no path
)

// pairOf is the number of two sites, in any order; -1: both are one, within which nothing is between sites.
func (g *graph) pairOf(i, j int) int {
	a, b := g.siteOf[i], g.siteOf[j]
	if a == b {
		return -1
	}
	return int(min(a, b))*len(g.sites) + int(max(a, b))
}

// avoid is a path from one gateway to another that a backup is compared with.
type avoid struct {
	g         *graph
	self, dst int
	route     route
	first     int // slot
	pairs     [label.MaxTransit + 1]int
	links     int
}

func (g *graph) avoid(self, dst int, r route) avoid {
	a := avoid{g: g, self: self, dst: dst, route: r, first: g.slot(r.first(g.label(dst)))}
	at := self
	for k := range r.len() + 1 {
		next := a.next(r, k)
		a.pairs[k], at = g.pairOf(at, next), next
	}
	a.links = r.len() + 1
	return a
}

// next is where link k of a route to the same gateway leads.
func (a *avoid) next(r route, k int) int {
	if k < r.len() {
		return a.g.slot(r.at(k))
	}
	return a.dst
}

// link says what a link has in common with the path.
func (a *avoid) link(i, j int) (s shared) {
	p := a.g.pairOf(i, j)
	if p < 0 {
		return 0
	}
	if p == a.pairs[0] {
		s += sharedFirst
	}
	if slices.Contains(a.pairs[:a.links], p) {
		s += sharedPair
	}
	return s
}

// near reports whether a link of a gateway may be between two sites that the path has a link between.
func (a *avoid) near(i int) bool {
	site := int(a.g.siteOf[i])
	return slices.ContainsFunc(a.pairs[:a.links], func(p int) bool {
		return p >= 0 && (p/len(a.g.sites) == site || p%len(a.g.sites) == site)
	})
}

// gateway says what a transit gateway has in common with the path.
func (a *avoid) gateway(i int) shared {
	if a.route.through(a.g.label(i)) {
		return sharedGateway
	}
	return 0
}

// of says what a whole route has in common with the path; its gateways take part.
func (a *avoid) of(r route) (s shared) {
	at := a.self
	for k := range r.len() + 1 {
		next := a.next(r, k)
		s += a.link(at, next)
		if k < r.len() {
			s += a.gateway(next)
		}
		at = next
	}
	return s
}

// spare searches for backups, one at a time, as search does for paths: in rounds, each one link longer. What cannot be
// better than the best so far is not made longer, which leaves little.
type spare struct {
	keys   []shared // by slot, of the best path so far: shared, and its cost without share of detours
	routes []route
	lower  []bool // what this round made less
	from   []spareWay
}

// spareWay is a path that others are made of.
type spareWay struct {
	key shared
	route
	slot int
}

// find returns the least shared route with another first link; unshared: there is none. at is one that exists.
func (s *spare) find(a *avoid, at candidate) (candidate, shared) {
	g := a.g
	best, key := at, a.of(at.route)+shared(at.cost)
	s.reset(g.n)
	s.keys[a.self] = 0 // nothing leads back
	s.extend(a, spareWay{slot: a.self}, &best, &key)
	for range label.MaxTransit {
		s.collect(a, key)
		for _, w := range s.from {
			if w.key < key {
				s.extend(a, w, &best, &key)
			}
		}
	}
	return best, key &^ sharedCost
}

func (s *spare) reset(n int) {
	if cap(s.keys) < n {
		s.keys, s.routes, s.lower, s.from = make([]shared, n), make([]route, n), make([]bool, n), make([]spareWay, 0, n)
	}
	s.keys, s.routes, s.lower = s.keys[:n], s.routes[:n], s.lower[:n]
	for i := range s.keys {
		s.keys[i] = unshared
	}
	clear(s.lower)
}

// collect lists what the last round made less and may be gone through, the least first.
func (s *spare) collect(a *avoid, key shared) {
	s.from = s.from[:0]
	for v, lower := range s.lower {
		if k := s.keys[v]; lower && k < key && !a.g.gates[v].NoTransit {
			s.from = append(s.from, spareWay{k + a.gateway(v) + shared(a.g.prices.transit), s.routes[v].then(a.g.label(v)), v})
		}
	}
	clear(s.lower)
	slices.SortFunc(s.from, func(x, y spareWay) int {
		switch {
		case x.key < y.key:
			return -1
		case x.key > y.key:
			return 1
		}
		return x.slot - y.slot
	})
}

// extend makes a path one link longer.
func (s *spare) extend(a *avoid, w spareWay, best *candidate, key *shared) {
	g, near := a.g, a.near(w.slot)
	for v, c := range g.costs[w.slot*g.n : (w.slot+1)*g.n] {
		if c >= none || w.slot == a.self && v == a.first {
			continue
		}
		k := w.key + shared(c)
		if k >= s.keys[v] && v != a.dst {
			continue
		}
		if near {
			k += a.link(w.slot, v)
		}
		if v == a.dst {
			whole := g.prices.whole(cost(k&sharedCost), w.len())
			if k = k&^sharedCost + shared(whole); k < *key {
				*best, *key = candidate{w.route, whole}, k
			}
		} else if k < s.keys[v] {
			s.keys[v], s.routes[v], s.lower[v] = k, w.route, true
		}
	}
}
