package path

import (
	"cmp"
	"slices"
	"time"

	"vcpeer/overlay/label"
)

// Planner makes tables, each in the light of the one before. Not for concurrent use.
type Planner struct {
	config Config
	graph  graph
	search search
	spare  spare
	spares int // searches for backups that this plan may still make
	self   int // slot, as of the last plan; -1: nothing was planned

	dests map[label.Label]*dest
	sites map[string]*siteDest
}

// dest is what was decided for one gateway.
type dest struct {
	steady
	reached bool // there is a path: route
	route   route
	backup  route
	backed  bool // there is a backup
	spare   spared

	cost cost // of route, as of the last plan
	seen bool // in this plan
}

// siteDest is what was decided for one site.
type siteDest struct {
	steady
	reached bool
	dst     label.Label

	seen bool
}

// New makes a planner that has decided nothing yet. It panics on a config that Validate refuses.
func New(c Config) *Planner {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	p := &Planner{config: c, self: -1, dests: map[label.Label]*dest{}, sites: map[string]*siteDest{}}
	p.graph = newGraph(&p.config)
	return p
}

// Plan returns the paths from in.Self to all others, and when to call again though nothing has changed (zero: never). It
// costs a few milliseconds for 1,000 gateways, more when many rows are new.
func (p *Planner) Plan(in Input, now time.Time) (table Table, again time.Time) {
	g := &p.graph
	g.update(&in, now)
	again = g.damp.wake()
	if p.self = g.slot(in.Self); p.self < 0 {
		clear(p.dests)
		clear(p.sites)
		return Table{}, again
	}
	p.search.run(g, p.self)
	p.spares = 2 * p.searches()
	for v := range g.n {
		if v != p.self {
			again = soonest(again, p.decide(v, now))
		}
	}
	for l, d := range p.dests {
		if !d.seen {
			delete(p.dests, l)
		}
		d.seen = false
	}
	again = soonest(again, p.decideSites(now))
	return p.table(), again
}

// candidate is a path that the search found or a decision holds.
type candidate struct {
	route
	cost cost // none: there is no such path
}

// candidates returns what the search found to v: the best, the best with another first link, and the direct path, which
// pays no share for detours and so may beat both.
func (p *Planner) candidates(v int) [3]candidate {
	s, pr := &p.search, &p.graph.prices
	return [...]candidate{
		{0, p.graph.costs[p.self*p.graph.n+v]},
		{s.w1[v].route, pr.whole(s.c1[v], s.w1[v].len())},
		{s.w2[v].route, pr.whole(s.c2[v], s.w2[v].len())},
	}
}

// decide brings what is decided for the gateway in slot v up to date and returns when to look again.
func (p *Planner) decide(v int, now time.Time) (again time.Time) {
	l := p.graph.label(v)
	d := p.dests[l]
	if d == nil {
		d = &dest{}
		p.dests[l] = d
	}
	d.seen = true
	all := p.candidates(v)
	best := cheapest(all[:])
	was := none
	if d.reached {
		was = p.graph.costOf(p.self, v, d.route)
	}
	switch {
	case best.cost >= none:
		d.reached, d.backed, d.cost = false, false, none
		return time.Time{}
	case !d.reached:
		d.begin(now)
	case was >= none:
		d.took(&p.config, now, Failed)
	default:
		var leave bool
		if leave, again = d.weigh(&p.config, now, was.units(), best.cost.units()); !leave {
			best = candidate{d.route, was}
		} else {
			d.took(&p.config, now, d.gained(&p.config, now))
		}
	}
	d.reached, d.route, d.cost = true, best.route, best.cost
	return soonest(again, p.decideBackup(d, v, all[:], now))
}

func cheapest(all []candidate) candidate {
	return slices.MinFunc(all, func(a, b candidate) int { return cmp.Compare(a.cost, b.cost) })
}

// decideSites chooses a gateway for every other site.
func (p *Planner) decideSites(now time.Time) (again time.Time) {
	own := p.graph.gates[p.self].Site
	for _, site := range p.graph.sites {
		if site.name != own {
			again = soonest(again, p.decideSite(site, now))
		}
	}
	for name, d := range p.sites {
		if !d.seen {
			delete(p.sites, name)
		}
		d.seen = false
	}
	return again
}

func (p *Planner) decideSite(site site, now time.Time) (again time.Time) {
	d := p.sites[site.name]
	if d == nil {
		d = &siteDest{}
		p.sites[site.name] = d
	}
	d.seen = true
	best, least, was := label.Label(0), none, none
	for _, v := range site.slots {
		l := p.graph.label(v)
		c := p.dests[l].cost
		if c.units() < least.units() { // of equals the lowest label, whatever their ties
			best, least = l, c
		}
		if l == d.dst {
			was = c
		}
	}
	switch {
	case least >= none:
		d.reached = false
		return time.Time{}
	case !d.reached:
		d.begin(now)
	case was >= none:
		d.took(&p.config, now, Failed)
	default:
		var leave bool
		if leave, again = d.weigh(&p.config, now, was.units(), least.units()); !leave {
			best = d.dst
		} else {
			d.took(&p.config, now, d.gained(&p.config, now))
		}
	}
	d.reached, d.dst = true, best
	return again
}

// table writes down what is decided.
func (p *Planner) table() Table {
	g := &p.graph
	reached, hops := 0, 0
	for _, d := range p.dests {
		if d.reached {
			reached, hops = reached+1, hops+d.route.len()+d.backup.len()
		}
	}
	t := Table{Choices: make([]Choice, 0, reached), Sites: make([]SiteChoice, 0, len(p.sites))}
	via := make([]label.Label, 0, hops) // of all paths
	for v := range g.n {
		d := p.dests[g.label(v)]
		if v == p.self || !d.reached {
			continue
		}
		c := Choice{Since: d.since, Cause: d.cause, Switches: d.switches}
		c.Path, via = g.path(p.self, v, d.route, via)
		if d.backed {
			c.Backup, via = g.path(p.self, v, d.backup, via)
		}
		if g.costs[p.self*g.n+v] < none {
			c.Direct = g.rtt(p.self, v)
		}
		t.Choices = append(t.Choices, c)
	}
	for _, site := range g.sites {
		if d := p.sites[site.name]; d != nil && d.reached {
			c, _ := t.To(d.dst)
			t.Sites = append(t.Sites, SiteChoice{Site: site.name, Path: c.Path, Since: d.since, Cause: d.cause, Switches: d.switches})
		}
	}
	return t
}

// path describes a route that can be used. It puts the transit gateways at the end of via, and returns that.
func (g *graph) path(self, dst int, r route, via []label.Label) (Path, []label.Label) {
	p := Path{Dst: g.label(dst), Cost: g.costOf(self, dst, r).duration()}
	start, at, measured, known := len(via), self, true, true
	link := func(next int) {
		rtt, mtu := g.rtt(at, next), g.mtu(at, next)
		measured, known = measured && rtt > 0, known && mtu > 0
		if p.RTT += rtt; p.MTU == 0 || mtu < p.MTU {
			p.MTU = mtu
		}
		at = next
	}
	for k := range r.len() {
		via = append(via, r.at(k))
		link(g.slot(r.at(k)))
	}
	link(dst)
	if !measured {
		p.RTT = 0
	}
	if !known {
		p.MTU = 0
	}
	if len(via) > start {
		p.Via = via[start:len(via):len(via)]
	}
	return p, via
}
