package fabric

import (
	"maps"
	"net/netip"
	"slices"

	"vcpeer/crdt"
	"vcpeer/peer/fabric/portmap"
)

// conclude makes one picture of all observations. The places are in the order of their IDs, so that round trip times that
// swing do not make news.
func (r *reacher) conclude() Reach {
	out := Reach{Asked: len(r.seen)}
	var v4, v6 []familySeen
	for _, id := range slices.SortedFunc(maps.Keys(r.seen), func(a, b crdt.NodeID) int { return slices.Compare(a[:], b[:]) }) {
		o := r.seen[id]
		v4, v6 = append(v4, o.v4), append(v6, o.v6)
	}
	out.V4, out.V6 = concludeFamily(v4, r.local), concludeFamily(v6, r.local)
	out.Router = concludeRouter(r.f.mapped(), v4, out.V4)
	out.Router.Off = r.f.cfg.NoPortMapping
	out.V4.UDP, out.V4.TCP = max(out.V4.UDP, out.Router.MappedUDP), max(out.V4.TCP, out.Router.MappedTCP)
	if r.f.cfg.walled != nil {
		out.V4.UDP, out.V4.TCP, out.V6.UDP, out.V6.TCP = No, No, No, No
	}
	if len(r.f.announce) == 0 {
		out.Addrs = r.openAddrs(out)
	}
	for id, h := range r.held {
		if !h.granted.IsZero() {
			out.Places = append(out.Places, Place{id, h.rtt, h.granted})
		}
	}
	slices.SortFunc(out.Places, func(a, b Place) int { return slices.Compare(a.Relay[:], b.Relay[:]) })
	return out
}

// openAddrs lists where others can dial this node beside the addresses it listens on.
func (r *reacher) openAddrs(reach Reach) (out []string) {
	add := func(at netip.AddrPort, kind string) {
		if a := multiaddr(at.Addr(), kind, int(at.Port())).String(); !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	if reach.Router.MappedUDP == Yes {
		add(reach.Router.UDP, "quic")
	}
	if reach.Router.MappedTCP == Yes {
		add(reach.Router.TCP, "tcp")
	}
	if len(out) > 0 {
		return out
	}
	for _, f := range []FamilyReach{reach.V4, reach.V6} {
		if f.Mapping != SamePort || !f.Open() {
			continue
		}
		if f.UDP == Yes {
			add(f.Seen[0], "quic")
		}
		if f.TCP == Yes {
			for _, kind := range r.f.transports() { // whoever forwards the one port forwards the other, in all likelihood
				add(netip.AddrPortFrom(f.Seen[0].Addr(), uint16(r.f.Port())), kind)
			}
		}
	}
	return out
}

// concludeRouter says whether a router does what it says. A packet that came in where packets also go out proves it only
// together with a connection by TCP, since the NAT may have let it in for another reason.
func concludeRouter(s portmap.State, all []familySeen, v4 FamilyReach) RouterReach {
	out := RouterReach{State: s}
	for _, seen := range all {
		m := seen.mapped
		if seen.near || !m.tried {
			continue
		}
		if s.UDP.IsValid() {
			out.MappedUDP = max(out.MappedUDP, No)
			if m.udp && (m.tcp || !slices.Contains(v4.Seen, s.UDP)) {
				out.MappedUDP = Yes
			}
		}
		if s.TCP.IsValid() {
			out.MappedTCP = max(out.MappedTCP, No)
			if m.tcp {
				out.MappedTCP = Yes
			}
		}
	}
	return out
}

// concludeFamily joins what several members saw.
func concludeFamily(all []familySeen, local []netip.Addr) (r FamilyReach) {
	// Those on the same network pass no NAT and no firewall. They count only while there are no others to ask.
	far := func(s familySeen) bool { return s.asked && !s.near }
	if slices.ContainsFunc(all, far) {
		all = slices.DeleteFunc(all, func(s familySeen) bool { return s.near })
	}
	back := 0
	for _, s := range all {
		if s.asked {
			r.Out = max(r.Out, No)
		}
		if s.at.IsValid() {
			r.Out = Yes
			if !slices.Contains(r.Seen, s.at) {
				r.Seen = append(r.Seen, s.at)
			}
			r.UDP = max(r.UDP, No)
		}
		if s.back {
			back++
		}
		if s.tried {
			r.TCP = max(r.TCP, No)
		}
		if s.tcp {
			r.TCP = Yes
		}
	}
	seen, alike := 0, map[netip.AddrPort]int{}
	for _, s := range all {
		if s.at.IsValid() {
			seen++
			if !s.also.IsValid() || s.also == s.at {
				alike[s.at]++
			}
		}
	}
	slices.SortStableFunc(r.Seen, func(a, b netip.AddrPort) int { return alike[b] - alike[a] })
	switch {
	case seen == 0:
	case slices.ContainsFunc(r.Seen, func(a netip.AddrPort) bool { return slices.Contains(local, a.Addr()) }):
		r.Mapping = NotMapped
	case alike[r.Seen[0]] > max(1, seen/2): // Linux gives another port to one of two first packets that race: that one says nothing
		r.Mapping, r.Seen = SamePort, r.Seen[:1]
	case len(r.Seen) > 1, slices.ContainsFunc(all, func(s familySeen) bool { return s.at.IsValid() && s.also.IsValid() && s.also != s.at }):
		r.Mapping = PortEach
	}
	// Through a NAT, a packet from another port of somebody who was sent to proves little: many let that in, and nobody
	// else's. What nobody was sent to, as a TCP port, is a proof.
	if r.Mapping == NotMapped && back > 0 {
		r.UDP = Yes
	}
	return r
}
