package overlay

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"vcpeer/overlay/flow"
	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
	"vcpeer/overlay/underlay"
)

// OpenFlow ports of the bridge. Those above firstProtected and firstGuest are given out in order.
const (
	portControl    = 1
	portGRE        = 2
	firstProtected = 100
	firstGuest     = 1000
	portLocal      = 0xfffe
)

// peers are the addresses that tunnels go to, for one node.
type peers struct {
	clear  map[label.Label]netip.Addr // gateways of other sites, in clear text …
	sealed map[label.Label]netip.Addr // … and by sealed links …
	far    map[label.Label]netip.Addr // … of which this is in use
	near   map[flow.Slot]netip.Addr   // nodes of the own site
	uplink netip.Addr                 // the own gateway, for a node that is none
}

// choosePeers picks an address for each peer that can be reached from the given local ones. seal: there are sealed links.
func choosePeers(r Records, t topology, local []underlay.Local, uplink label.Label, seal bool) peers {
	p := peers{clear: map[label.Label]netip.Addr{}, sealed: map[label.Label]netip.Addr{}, near: map[flow.Slot]netip.Addr{}}
	each(t, func(g Node) {
		if a, ok := underlay.Choose(local, g.Underlay, false); ok && !r.Encrypt {
			p.clear[g.Label] = a
		}
		if seal && t.self.Label.Valid() {
			p.sealed[g.Label] = sealedAddr(g.Label)
		}
	})
	for _, n := range t.own.nodes {
		if n.ID == t.self.ID {
			continue
		}
		if a, ok := underlay.Choose(local, n.Underlay, true); ok {
			slot, _ := slotOf(n.Address)
			p.near[slot] = a
			if n.Label.Valid() && n.Label == uplink {
				p.uplink = a
			}
		}
	}
	return p
}

// use takes the link of each gateway that was chosen, or the one that there is.
func (p *peers) use(chosen func(label.Label) path.Kind) {
	p.far = maps.Clone(p.clear)
	for l, a := range p.sealed {
		if _, clear := p.clear[l]; !clear || chosen(l) == path.Sealed {
			p.far[l] = a
		}
	}
}

// all lists every address once, in order, without those of sealed links.
func (p peers) all() []netip.Addr {
	var out []netip.Addr
	for _, a := range p.clear {
		out = append(out, a)
	}
	for _, a := range p.near {
		out = append(out, a)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// decided is what was chosen from measurements, and what this node's bridge has.
type decided struct {
	table     path.Table
	protected map[label.Label]uint16            // ports of their own
	every     map[label.Label]time.Duration     // how often the other end of each is to say that it lives
	watched   map[label.Label]bool              // of those, the ones whose BFD can be believed
	offered   map[label.Label]bool              // links that others may be sent over
	around    map[label.Label][]label.Label     // links that do not work, and the transit gateways for broadcasts; empty: there are none
	guests    map[string]uint16                 // ports of the guests here, by ID
	linkMTU   func(dst netip.Addr, far int) int // what a tunnel takes whose far end's interface has that MTU, bytes; 0: unknown
	largest   int                               // packet that a sender behind this bridge may make, bytes
	askAgent  bool                              // see flow.Want
}

// wantFlows says what the bridge's tables follow from.
func wantFlows(r Records, t topology, p peers, d decided) flow.Want {
	slot, _ := slotOf(t.self.Address)
	w := flow.Want{
		Self:  flow.Self{Slot: slot, Label: t.self.Label, Transit: !t.self.NoTransit, Net4: r.Net4, Net6: r.Net6, Uplink: p.uplink},
		Ports: flow.Ports{Control: portControl, GRE: portGRE, Protected: d.protected}, CheckBelow: d.largest,
		AskAgent: d.askAgent,
	}
	for _, g := range t.own.gateways {
		w.Self.Labels = append(w.Self.Labels, g.Label)
	}
	for _, n := range t.own.nodes {
		if n.ID == t.self.ID {
			continue
		}
		s, _ := slotOf(n.Address)
		dst := p.near[s]
		w.Nodes = append(w.Nodes, flow.Node{Addrs: n.Underlay, Dst: dst, MTU: d.linkMTU(dst, n.UnderlayMTU)})
	}
	for _, s := range t.others {
		for _, g := range s.gateways {
			over, down := d.around[g.Label]
			w.Gateways = append(w.Gateways, flow.Gateway{
				Label: g.Label, Addrs: sources(r, p, g), Dst: p.far[g.Label], Clear6: p.clear6(g.Label), Site: s.key, Offered: d.offered[g.Label],
				Down: down, Over: over,
			})
		}
	}
	w.Hosts = hosts(r, t, p, d)
	w.Paths = paths(t, p, d)
	return w
}

// sources are the addresses that tunnels of a gateway may come from, whichever of its links it uses.
func sources(r Records, p peers, g Node) (out []netip.Addr) {
	if !r.Encrypt {
		out = append(out, g.Underlay...)
	}
	if a, ok := p.sealed[g.Label]; ok {
		out = append(out, a)
	}
	return out
}

// clear6 is a gateway's address in clear text if it is one of IPv6.
func (p peers) clear6(l label.Label) netip.Addr {
	if a := p.clear[l]; a.Is6() {
		return a
	}
	return netip.Addr{}
}

// hosts says where every machine of the network is.
func hosts(r Records, t topology, p peers, d decided) []flow.Host {
	var out []flow.Host
	put := func(a netip.Addr, at Node, port uint16) {
		h := flow.Host{Port: port}
		var ok bool
		if h.Slot, ok = slotOf(a); !ok {
			return
		}
		switch {
		case at.ID == t.self.ID:
		case at.Site == t.self.Site:
			s, _ := slotOf(at.Address)
			h.Near = p.near[s]
		default:
			h.Far = behind(t, d.table, at)
		}
		if h.Port != 0 || h.Near.IsValid() || h.Far != 0 {
			out = append(out, h)
		}
	}
	put(t.self.Address, t.self, portLocal)
	for _, s := range append(slices.Clone(t.others), t.own) {
		for _, n := range s.nodes {
			if n.ID != t.self.ID {
				put(n.Address, n, 0)
			}
		}
	}
	for _, g := range r.Guests {
		at, ok := t.byID[g.At]
		if ok && at.Takes {
			put(g.Address, at, d.guests[g.ID])
		}
	}
	return out
}

// behind is the gateway to send to for a node of another site: itself if it is one that can be reached, else the one that
// was chosen for its site, else, while nothing is measured, the first.
func behind(t topology, table path.Table, n Node) label.Label {
	if n.Label.Valid() {
		if _, ok := table.To(n.Label); ok {
			return n.Label
		}
	}
	if c, ok := table.Site(n.Site.String()); ok {
		return c.Dst
	}
	for _, s := range t.others {
		if g := s.gateways; s.id == n.Site && len(g) > 0 {
			return g[0].Label
		}
	}
	return 0
}

// paths are the choices in the form of the tables. To a gateway for which nothing is chosen, since nothing is measured yet
// or nothing answers, frames go straight.
func paths(t topology, p peers, d decided) []flow.Path {
	if !t.self.Label.Valid() {
		return nil
	}
	var out []flow.Path
	each(t, func(g Node) {
		straight := d.linkMTU(p.far[g.Label], g.UnderlayMTU)
		c, ok := d.table.To(g.Label)
		switch {
		case ok:
			way := flow.Path{To: c.Dst, Via: c.Via, MTU: c.MTU, Watched: d.watched[c.First()]}
			if way.MTU == 0 {
				way.MTU = straight
			}
			if way.Watched && c.Backup.Exists() {
				way.Backups = [][]label.Label{c.Backup.Via}
			}
			out = append(out, way)
		case p.far[g.Label].IsValid():
			out = append(out, flow.Path{To: g.Label, MTU: straight})
		}
	})
	return out
}
