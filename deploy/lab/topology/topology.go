// Package topology is the description of a lab: its sites, their nodes, and what the network between them does. It reads
// a small YAML file, in which an unknown key is an error that names the nearest, and opens nothing itself.
//
//	name: three-sites
//	sites:
//	  kyoto: {nodes: 2}
//	  osaka:
//	  home: {nodes: [laptop], nat: port-restricted}
//	links:
//	  default: delay=10ms
//	  kyoto<>osaka: delay=4ms jitter=200us
//	  kyoto>home: {delay: 30ms, loss: 0.5%}
//
// Delays are one way: RTT is the sum of both directions.
package topology

import (
	"fmt"
	"slices"

	"vcpeer/deploy/lab/shape"
)

// NAT is how a site's router translates addresses (the kinds of RFC 3489).
type NAT string

// The kinds of NAT. What Linux does for each is told in package lab.
const (
	NoNAT          NAT = "none"
	FullCone       NAT = "full-cone"
	Restricted     NAT = "restricted"
	PortRestricted NAT = "port-restricted"
	Symmetric      NAT = "symmetric"
)

var nats = []string{string(NoNAT), string(FullCone), string(Restricted), string(PortRestricted), string(Symmetric)}

// PortMapping is by which protocols a router passes ports on when it is asked.
type PortMapping string

// The protocols. One server speaks PCP and NAT-PMP.
const (
	NoMapping  PortMapping = "none"
	PCP        PortMapping = "pcp" // and NAT-PMP
	UPnP       PortMapping = "upnp"
	AllMapping PortMapping = "all"
)

var portMappings = []string{string(NoMapping), string(PCP), string(UPnP), string(AllMapping)}

// IP is which families a site has.
type IP string

// Families of a site.
const (
	V4   IP = "v4"
	V6   IP = "v6"
	Both IP = "both"
)

var families = []string{string(V4), string(V6), string(Both)}

// Has4 reports whether the site has IPv4.
func (p IP) Has4() bool { return p != V6 }

// Has6 reports whether the site has IPv6.
func (p IP) Has6() bool { return p != V4 }

// Shared reports whether two sites have a family in common.
func (p IP) Shared(q IP) bool { return p.Has4() && q.Has4() || p.Has6() && q.Has6() }

// Topology is a lab as it is wanted. Parse and New return only valid ones.
type Topology struct {
	Name  string
	Sites []Site // in the order of the file
	Links []Link // in the order of the file, the default first: later ones change what earlier ones said
}

// Site is a place with nodes.
type Site struct {
	Name      string
	Nodes     []Node
	Router    bool // nodes are on a LAN behind it; false: the only node is on the network between the sites itself
	NAT       NAT  // of IPv4; IPv6 is never translated, but then nothing comes in unasked
	Mapping   PortMapping
	DoubleNAT bool // one more NAT of the provider (100.64.0.0/10) outside the site's own
	IP        IP
	MTU       int  // of the interface to the network between the sites, in bytes
	NoUDP     bool // the router drops UDP, both ways
	NoGRE     bool // the router drops GRE, both ways
	NoInbound bool // the router lets in only answers
}

// Reachable reports whether nodes of other sites can open connections to those of this site.
func (s Site) Reachable() bool { return s.NAT == NoNAT && !s.NoInbound }

// Maps reports whether the router passes ports on when it is asked.
func (s Site) Maps() bool { return s.Mapping != NoMapping }

// RouterName is what the machine between the nodes and the other sites is called, where there is one.
func (s Site) RouterName() string { return s.Name + "-router" }

// ISPName is what the outer router of a double NAT is called.
func (s Site) ISPName() string { return s.Name + "-isp" }

// Node is a machine.
type Node struct {
	Name    string
	Start   bool     // vcpeer, when the lab comes up
	OVS     bool     // an Open vSwitch of its own
	Overlay string   // --overlay of vcpeer; empty: not given
	Args    []string // further arguments of vcpeer start
}

// Link changes the shape of a pair.
type Link struct {
	Pair  shape.Pair
	Words []string // as delay=20ms
}

// DefaultMTU is that of Ethernet.
const DefaultMTU = 1500

// Site returns a site by its name.
func (t *Topology) Site(name string) (Site, bool) {
	for _, s := range t.Sites {
		if s.Name == name {
			return s, true
		}
	}
	return Site{}, false
}

// SiteNames lists the sites in order.
func (t *Topology) SiteNames() []string {
	var names []string
	for _, s := range t.Sites {
		names = append(names, s.Name)
	}
	return names
}

// Shapes returns what the links say of each direction, by the order of the sites: from, then to.
func (t *Topology) Shapes() ([][]shape.Shape, error) {
	number := map[string]int{}
	all := make([][]shape.Shape, len(t.Sites))
	for i, s := range t.Sites {
		number[s.Name] = i
		all[i] = make([]shape.Shape, len(t.Sites))
	}
	change := func(l Link, i, j int) (err error) {
		if all[i][j], err = all[i][j].With(l.Words...); err != nil {
			err = fmt.Errorf("link %s: %w", l.Pair, err)
		}
		return err
	}
	for _, l := range t.Links {
		if l.Pair.From != shape.Any && l.Pair.To != shape.Any && !l.Pair.Both { // a matrix is many of these
			if err := change(l, number[l.Pair.From], number[l.Pair.To]); err != nil {
				return nil, err
			}
			continue
		}
		for i, a := range t.Sites {
			for j, b := range t.Sites {
				if l.Pair.Has(a.Name, b.Name) {
					if err := change(l, i, j); err != nil {
						return nil, err
					}
				}
			}
		}
	}
	return all, nil
}

// Shape returns what the links say of one direction.
func (t *Topology) Shape(from, to string) (shape.Shape, error) {
	all, err := t.Shapes()
	if err != nil {
		return shape.Shape{}, err
	}
	names := t.SiteNames()
	i, j := slices.Index(names, from), slices.Index(names, to)
	if i < 0 || j < 0 {
		return shape.Shape{}, fmt.Errorf("no sites %s and %s", from, to)
	}
	return all[i][j], nil
}

// WithDefault returns t with a shape for every pair, which its links for some pairs still change.
func (t Topology) WithDefault(words ...string) (Topology, error) {
	if len(words) == 0 {
		return t, nil
	}
	every := Link{shape.Pair{From: shape.Any, To: shape.Any, Both: true}, words}
	first := slices.IndexFunc(t.Links, func(l Link) bool { return l.Pair != every.Pair })
	if first < 0 {
		first = len(t.Links)
	}
	t.Links = slices.Insert(slices.Clone(t.Links), first, every)
	return t, t.finish()
}

// Options are for a topology without a file.
type Options struct {
	Name  string
	Sites int
	Nodes int      // of each site; 0: 1
	Words []string // shape of every pair
}

// New makes sites site1, site2, … with as many nodes each.
func New(o Options) (Topology, error) {
	t := Topology{Name: o.Name}
	for i := range o.Sites {
		s := newSite(fmt.Sprintf("site%d", i+1))
		s.number(max(1, o.Nodes), nodeDefaults())
		s.Router = s.needsRouter() != ""
		t.Sites = append(t.Sites, s)
	}
	if err := t.finish(); err != nil {
		return t, err
	}
	return t.WithDefault(o.Words...)
}

func newSite(name string) Site {
	return Site{Name: name, NAT: NoNAT, Mapping: NoMapping, IP: V4, MTU: DefaultMTU}
}

func nodeDefaults() Node { return Node{Start: true, OVS: true} }

// number gives the site n nodes named after it.
func (s *Site) number(n int, like Node) {
	s.Nodes = nil
	for i := range n {
		node := like
		node.Name = fmt.Sprintf("%s-%d", s.Name, i+1)
		s.Nodes = append(s.Nodes, node)
	}
}
