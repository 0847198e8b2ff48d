package path

import "vcpeer/overlay/label"

// Around returns the transit gateway of the cheapest path of just one to dst, by the last plan, whose own choice comes
// first if it is such a path; label.Site: there is none. It changes nothing.
func (p *Planner) Around(dst label.Label) label.Label {
	g, v := &p.graph, p.graph.slot(dst)
	if p.self < 0 || v < 0 || v == p.self {
		return label.Site
	}
	if d := p.dests[dst]; d != nil && d.reached && d.route.len() == 1 {
		return d.route.at(0)
	}
	best, least := label.Site, none
	for x, c := range g.costs[p.self*g.n : (p.self+1)*g.n] {
		if on := g.costs[x*g.n+v]; c < none && on < none && c+on < least && x != p.self && x != v && !g.gates[x].NoTransit {
			best, least = g.label(x), c+on
		}
	}
	return best
}
