package overlay

import (
	"cmp"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"vcpeer/crdt"
	"vcpeer/overlay/flow"
	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
)

// Records is what the cluster's records say of the network, as of one moment.
type Records struct {
	Self    crdt.NodeID
	Net4    netip.Prefix // the network's addresses, a /16
	Net6    netip.Prefix // the same for IPv6, a /64
	Encrypt bool         // between sites, encrypted links only
	Nodes   []Node       // members, this one included; those that left or were evicted are not
	Guests  []Guest
}

// Node is a member as the network sees it.
type Node struct {
	ID          crdt.NodeID
	Name        string
	Site        crdt.SiteID
	SiteName    string
	Address     netip.Addr   // in the network; not valid: none yet
	Label       label.Label  // label.Site: no gateway
	Underlay    []netip.Addr // where it takes tunnels; empty: nowhere
	UnderlayMTU int          // of those addresses' interfaces, the smallest, bytes
	Takes       bool         // it takes part in a network of our version
	NoTransit   bool         // it forwards for nobody
}

// Guest is a machine that is attached to the network and no member.
type Guest struct {
	ID      string
	Name    string
	Address netip.Addr
	At      crdt.NodeID // where it is attached; zero: nowhere
}

// slotOf is the number of an address; false: it has none.
func slotOf(a netip.Addr) (flow.Slot, bool) {
	if !a.Is4() {
		return 0, false
	}
	b := a.As4()
	return flow.Slot(b[2])<<8 | flow.Slot(b[3]), true
}

// macOf is the Ethernet address of a machine by its IPv6 address, of which the flows hand over only those of the network.
func macOf(a netip.Addr) (net.HardwareAddr, bool) {
	b := a.As16()
	return flow.Slot(binary.BigEndian.Uint16(b[14:])).MAC(), true
}

// site is the nodes of one site that take part, by ID.
type site struct {
	id       crdt.SiteID
	key      string // id as text, as package path and flow know it
	name     string
	nodes    []Node
	gateways []Node // those with a label, by label
}

// sort puts in order what was collected.
func (s *site) sort() {
	slices.SortFunc(s.nodes, func(a, b Node) int { return a.ID.Compare(b.ID) })
	for _, n := range s.nodes {
		if n.Label.Valid() {
			s.gateways = append(s.gateways, n)
		}
	}
	slices.SortFunc(s.gateways, func(a, b Node) int { return cmp.Compare(a.Label, b.Label) })
}

// topology is the records put in order for one node.
type topology struct {
	self   Node
	own    site
	others []site // by ID
	byID   map[crdt.NodeID]Node
	plan   []path.Gateway // this one and those of other sites, as package path knows them
}

func (r Records) topology() topology {
	t := topology{byID: map[crdt.NodeID]Node{}}
	for _, n := range r.Nodes {
		t.byID[n.ID] = n
	}
	t.self = t.byID[r.Self]
	sites := map[crdt.SiteID]*site{}
	for _, n := range r.Nodes {
		if !n.Takes || !n.Address.IsValid() || n.Site.IsZero() {
			continue
		}
		s := sites[n.Site]
		if s == nil {
			s = &site{id: n.Site, key: n.Site.String(), name: n.SiteName}
			sites[n.Site] = s
		}
		s.nodes = append(s.nodes, n)
	}
	for id, s := range sites {
		s.sort()
		if id == t.self.Site {
			t.own = *s
		} else {
			t.others = append(t.others, *s)
		}
	}
	slices.SortFunc(t.others, func(a, b site) int { return slices.Compare(a.id[:], b.id[:]) })
	t.plan = append(t.plan, path.Gateway{Label: t.self.Label, Site: t.own.key, NoTransit: t.self.NoTransit})
	for _, s := range t.others {
		for _, g := range s.gateways {
			t.plan = append(t.plan, path.Gateway{Label: g.Label, Site: s.key, NoTransit: g.NoTransit})
		}
	}
	return t
}

// GatewaysPerSite is how many nodes of a site have links to other sites: one, and one for when it fails.
const GatewaysPerSite = 2

// ShallBeGateway says whether the node ought to hold a label: it is among the first of its site, by ID, of those that take
// part and are alive. Every node of the site concludes the same from the same records and the same members; where they
// differ for a while there is a gateway more or less, which harms nothing.
func ShallBeGateway(r Records, alive func(crdt.NodeID) bool) bool {
	t := r.topology()
	rank := 0
	for _, n := range t.own.nodes {
		switch {
		case n.ID == r.Self:
			return rank < GatewaysPerSite
		case alive(n.ID) && len(n.Underlay) > 0:
			rank++
		}
	}
	return false
}
