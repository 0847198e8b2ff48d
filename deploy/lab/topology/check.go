package topology

import (
	"fmt"
	"strings"

	"vcpeer/deploy/lab/shape"
)

// needsRouter says why a site cannot be without one; empty: it can.
func (s Site) needsRouter() string {
	switch {
	case len(s.Nodes) > 1:
		return "it has more than one node"
	case s.NAT != NoNAT:
		return "it has NAT"
	case s.NoUDP || s.NoGRE || s.NoInbound:
		return "it has a firewall"
	}
	return ""
}

// limits keep addresses, names and sockets within what the lab's plan has room for.
const (
	maxSites = 16000
	maxNodes = 200 // of one site
	maxName  = 31
)

// finish checks what concerns more than one key.
func (t *Topology) finish() error {
	if len(t.Sites) == 0 || len(t.Sites) > maxSites {
		return fmt.Errorf("sites: want 1 to %d", maxSites)
	}
	seen := map[string]string{}
	for _, s := range t.Sites {
		if err := s.check(); err != nil {
			return fmt.Errorf("site %s: %w", s.Name, err)
		}
		if other, ok := seen[s.Name]; ok {
			return fmt.Errorf("site %s: %s has that name too", s.Name, other)
		}
		seen[s.Name] = "a node of " + s.Name
		seen[s.RouterName()], seen[s.ISPName()] = "its router", "its provider's router"
		for _, n := range s.Nodes {
			if other, ok := seen[n.Name]; ok && n.Name != s.Name || n.Name == s.Name && len(s.Nodes) > 1 {
				return fmt.Errorf("site %s: node %s: %s has that name too", s.Name, n.Name, other)
			}
			seen[n.Name] = "a node of " + s.Name
		}
	}
	names := t.SiteNames()
	for _, l := range t.Links {
		if err := l.Pair.Check(names); err != nil {
			return fmt.Errorf("link %s: %w", l.Pair, err)
		}
		if _, err := (shape.Shape{}).With(l.Words...); err != nil {
			return fmt.Errorf("link %s: %w", l.Pair, err)
		}
	}
	return nil
}

func (s *Site) check() error {
	if err := checkName(s.Name); err != nil {
		return err
	}
	if len(s.Nodes) > maxNodes {
		return fmt.Errorf("nodes: want at most %d", maxNodes)
	}
	for _, n := range s.Nodes {
		if err := checkName(n.Name); err != nil {
			return err
		}
	}
	if s.DoubleNAT && s.NAT == NoNAT {
		return fmt.Errorf("double-nat: want a kind of nat for the inner one too")
	}
	if s.Maps() && s.NAT == NoNAT {
		return fmt.Errorf("port-mapping: want a kind of nat that it is for")
	}
	if s.MTU < 576 || s.MTU > 65535 || s.IP.Has6() && s.MTU < 1280 {
		return fmt.Errorf("mtu %d: want 576 to 65535 bytes, and 1280 for IPv6", s.MTU)
	}
	return nil
}

// reserved are names that the lab uses itself.
var reserved = []string{"wan", shape.Any}

func checkName(name string) error {
	if name == "" || len(name) > maxName || name[0] == '-' || name[len(name)-1] == '-' ||
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("name %q: want lower-case letters, digits and hyphens, at most %d", name, maxName)
	}
	for _, r := range reserved {
		if name == r {
			return fmt.Errorf("name %q is the lab's own", name)
		}
	}
	return nil
}
