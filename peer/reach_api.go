package peer

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"vcpeer/crdt"
	"vcpeer/peer/api"
	"vcpeer/peer/fabric"
	"vcpeer/peer/server"
)

const (
	netcheckTries = 256             // members that are asked; the others count if gossip hears them
	netcheckAt    = 16              // of them at once
	netcheckWait  = 8 * time.Second // for one
)

// registerNetcheck adds what the command netcheck asks.
func (d *Daemon) registerNetcheck(s *server.Server) {
	s.Handle("GET /v1/netcheck", d.reading(func(n *node, r *http.Request) (any, error) {
		return n.netcheck(r.Context(), r.URL.Query()["member"]), nil
	}))
}

// netcheck tells of all members, or of those named.
func (n *node) netcheck(ctx context.Context, named []string) api.Netcheck {
	view := n.replica.View()
	members := n.netPeers(ctx, view, named) // first: trying may change the rest
	reach := n.fabric.Reach()
	carries := n.fabric.RelayStats()
	out := api.Netcheck{
		APIVersion: api.Version, Kind: "Netcheck", AsOf: time.Now(), SeenFrom: n.place(),
		Open: reach.Open().String(), Asked: reach.Asked, Port: n.fabric.Port(),
		V4: netFamily(reach.V4, n.fabric.Addrs(), true), V6: netFamily(reach.V6, n.fabric.Addrs(), false),
		Router: netRouter(reach.Router),
		Relays: []api.NetRelay{}, Members: members, Advice: []string{},
		Carries: api.NetCarries{Places: carries.Places, Circuits: carries.Circuits, Bytes: carries.Bytes},
	}
	for _, p := range reach.Places {
		out.Relays = append(out.Relays, api.NetRelay{Node: nodeName(view, p.Relay), Site: siteOf(view, p.Relay), RTTMillis: millis(p.RTT), Since: p.Since})
	}
	for _, m := range members {
		if m.Way == api.WayNone {
			out.Lost++
		}
	}
	out.Advice = append(out.Advice, netAdvice(out)...)
	return out
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func siteOf(view *crdt.View, id crdt.NodeID) string {
	h, _ := view.Host(id)
	return siteName(view, h.Site)
}

func netFamily(r fabric.FamilyReach, addrs []string, v4 bool) api.NetFamily {
	f := api.NetFamily{Local: []string{}, Seen: []string{}, UDPOut: r.Out.String(), NAT: r.Mapping.String(), UDPIn: r.UDP.String(), TCPIn: r.TCP.String()}
	for _, hostport := range api.HostPorts(addrs) {
		if at, err := netip.ParseAddrPort(hostport); err == nil && at.Addr().Is4() == v4 {
			f.Local = append(f.Local, at.Addr().String())
		}
	}
	for _, at := range r.Seen {
		f.Seen = append(f.Seen, at.String())
	}
	return f
}

func netRouter(r fabric.RouterReach) api.NetRouter {
	out := api.NetRouter{Off: r.Off, Protocol: string(r.Protocol), Refused: r.Refused}
	if r.State.Router.IsValid() {
		out.Addr = r.State.Router.String()
	}
	if r.UDP.IsValid() {
		out.UDP, out.UDPWorks = r.UDP.String(), r.MappedUDP.String()
	}
	if r.TCP.IsValid() {
		out.TCP, out.TCPWorks = r.TCP.String(), r.MappedTCP.String()
	}
	return out
}

// netPeers says how each member is reached, trying those that are not connected.
func (n *node) netPeers(ctx context.Context, view *crdt.View, named []string) []api.NetPeer {
	alive := n.directory.alive()
	gre := n.greLinks()
	out := []api.NetPeer{}
	var ids []crdt.NodeID
	for _, m := range view.Members() {
		if m.Standing == crdt.Joined && m.ID != n.self && (len(named) == 0 || slices.Contains(named, nodeName(view, m.ID))) {
			ids = append(ids, m.ID)
			out = append(out, api.NetPeer{Node: nodeName(view, m.ID), Site: siteOf(view, m.ID), GRE: gre[m.ID]})
		}
	}
	errs := n.tryMembers(ctx, ids)
	for i, id := range ids {
		p := &out[i]
		w, ok := n.fabric.Way(id)
		if err := errs[id]; err != nil {
			p.Way, p.Error = api.WayNone, err.Error()
			continue
		}
		switch {
		case ok && !w.Link.Relay.IsZero():
			p.Way, p.Via = api.WayRelayed, nodeName(view, w.Link.Relay)
		case ok:
			p.Way, p.Transport, p.Addr = api.WayDirect, w.Link.Transport, w.Link.Addr.String()
			if w.Punched {
				p.Way = api.WayPunched
			}
		case alive[id]:
			p.Way = api.WayGossip
		default:
			p.Way = api.WayNone
		}
		p.RTTMillis = millis(w.RTT)
	}
	return out
}

// tryMembers asks members whether they answer, connecting first where there is no connection; the result has those that
// did not.
func (n *node) tryMembers(ctx context.Context, ids []crdt.NodeID) map[crdt.NodeID]error {
	var mu sync.Mutex
	failed := map[crdt.NodeID]error{}
	var all sync.WaitGroup
	room := make(chan struct{}, netcheckAt)
	for _, id := range ids[:min(len(ids), netcheckTries)] {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			ctx, cancel := context.WithTimeout(ctx, netcheckWait)
			defer cancel()
			if err := n.fabric.Try(ctx, id); err != nil {
				mu.Lock()
				failed[id] = err
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return failed
}

// greLinks says of which members it is known whether GRE passes to them: those this node has tunnels to.
func (n *node) greLinks() map[crdt.NodeID]string {
	out := map[crdt.NodeID]string{}
	for _, l := range n.overlayStatus().Links {
		switch {
		case l.Kind != "GRE" || !l.Measured || !l.To.IsValid():
		case l.Up:
			out[l.Node] = "yes"
		default:
			out[l.Node] = "no"
		}
	}
	return out
}

// netAdvice is what would make it better, the most useful first.
func netAdvice(c api.Netcheck) (out []string) {
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	noUDP := c.V4.UDPOut == "no" && c.V6.UDPOut != "yes" || c.V6.UDPOut == "no" && c.V4.UDPOut != "yes"
	natted := c.V4.NAT == "same for all" || c.V4.NAT == "another for each"
	var through, relayed, noGRE []string
	for _, m := range c.Members {
		switch {
		case m.Way == api.WayRelayed:
			relayed = append(relayed, m.Node)
		case m.Way == api.WayPunched:
			through = append(through, m.Node)
		}
		if m.GRE == "no" {
			noGRE = append(noGRE, m.Node)
		}
	}
	switch {
	case c.Asked == 0:
		add("no member of another site has told yet how it sees this node: ask again in some seconds")
	case noUDP:
		add("let UDP out, to port %d of the other sites: without it everything goes by TCP, slower, and what is relayed stays relayed", c.Port)
	}
	if c.Open == "no" {
		where := "open port " + fmt.Sprint(c.Port) + " (UDP and TCP) in this site's firewall"
		if natted {
			where = "forward port " + fmt.Sprint(c.Port) + " (UDP and TCP) of this site's router to this machine" + mappingAdvice(c)
		}
		switch {
		case len(relayed) > 0:
			add("%s: %s would be reached directly then, and not through relays", where, names(relayed))
		case len(through) > 0:
			add("%s: this site would then need no relay, and could be one for others", where)
		default:
			add("%s: others could then open connections to this node", where)
		}
		if c.V4.NAT == "another for each" && len(relayed) > 0 {
			add("or let the router keep source ports (\"endpoint-independent mapping\"): then holes can be made in its NAT")
		}
		if len(c.Relays) == 0 && c.Asked > 0 {
			add("no relay is in use: at least one node of the cluster has to be one that others can dial")
		} else if len(c.Relays) == 1 {
			add("only one relay is in use: a second site that others can dial would take over when it fails")
		}
	}
	if len(noGRE) > 0 {
		add("let GRE (IP protocol 47) pass to %s, for faster links of the network over all sites", names(noGRE))
	}
	return out
}

// mappingAdvice is what the router could do by itself.
func mappingAdvice(c api.Netcheck) string {
	r := c.Router
	mapped, works := r.UDP != "" || r.TCP != "", r.UDPWorks == "yes" || r.TCPWorks == "yes"
	switch {
	case r.Off:
		return ", or set port-mapping to auto, which has the router do so if it can"
	case r.Addr == "" || works:
		return ""
	case mapped && r.UDPWorks != "no" && r.TCPWorks != "no":
		return ", and the same in the NAT between that router and the others"
	case mapped:
		return ", since what it does by itself lets nobody in"
	case r.Protocol == "":
		return ", or switch on UPnP, NAT-PMP or PCP in it, and this node has it do so"
	}
	return ", since it refuses to do so by itself"
}

// names lists a few names.
func names(all []string) string {
	if len(all) > 4 {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:3], ", "), len(all)-3)
	}
	return strings.Join(all, ", ")
}
