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
