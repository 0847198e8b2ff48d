package ovs

import "slices"

// Owned lists the bridges of this owner that the database holds, by name.
func (s *Switch) Owned() []string {
	var out []string
	for name, b := range s.view.Load().bridges {
		if b.externalIDs[ownerKey] == s.cfg.Owner {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Noted lists the ports of this owner's bridges that have a key in their external_ids, by name, with its value.
func (s *Switch) Noted(key string) map[string]string {
	out := map[string]string{}
	for _, b := range s.view.Load().bridges {
		if b.externalIDs[ownerKey] != s.cfg.Owner {
			continue
		}
		for _, p := range b.ports {
			if value, ok := p.externalIDs[key]; ok && p.externalIDs[ownerKey] == s.cfg.Owner {
				out[p.name] = value
			}
		}
	}
	return out
}

// Made reports whether this owner or another one of this machine made the bridge of that name.
func (s *Switch) Made(bridge string) bool {
	b := s.view.Load().bridges[bridge]
	return b != nil && b.externalIDs[ownerKey] != ""
}
