package path

import "vcpeer/overlay/label"

// Around returns the transit gateways of a path to dst that has some, by the last plan: just one if that can be, of which the
// plan's own choice comes first and then the cheapest, else those of the plan's choice; none: there is no such path. It
// changes nothing.
func (p *Planner) Around(dst label.Label) []label.Label {
	g, v := &p.graph, p.graph.slot(dst)
	if p.self < 0 || v < 0 || v == p.self {
		return nil
	}
	var chosen []label.Label
	if d := p.dests[dst]; d != nil && d.reached {
		for k := range d.route.len() {
			chosen = append(chosen, d.route.at(k))
		}
	}
	if len(chosen) == 1 {
		return chosen
	}
	best, least := label.Site, none
	for x, c := range g.costs[p.self*g.n : (p.self+1)*g.n] {
		if on := g.costs[x*g.n+v]; c < none && on < none && c+on < least && x != p.self && x != v && !g.gates[x].NoTransit {
			best, least = g.label(x), c+on
		}
	}
	if best != label.Site {
		return []label.Label{best}
	}
	return chosen
}
