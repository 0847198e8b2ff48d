package overlay

import "vcpeer/overlay/label"

// around says of each link that does not work by which transit gateways a broadcast gets there; none: it does not.
func (s *session) around(links []measured) map[label.Label][]label.Label {
	out := map[label.Label][]label.Label{}
	if !s.topology.self.Label.Valid() {
		return out
	}
	for _, m := range links {
		if m.known && !m.up {
			out[m.node.Label] = s.planner.Around(m.node.Label)
		}
	}
	return out
}
