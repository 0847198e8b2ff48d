package overlay

import (
	"context"
	"io"
	"net/netip"
	"slices"
	"time"

	"vcpeer/crdt"
	"vcpeer/overlay/device"
	"vcpeer/overlay/label"
	"vcpeer/overlay/ovs"
	"vcpeer/overlay/path"
	"vcpeer/overlay/probe"
	"vcpeer/overlay/sealed"
	"vcpeer/overlay/underlay"
)

// Way is how this node exchanges sealed frames with another: see [sealed.Peer].
type Way struct {
	Sessions []sealed.Session
	Stream   io.ReadWriteCloser // nil: there is none. The Network closes it when it fails or is not needed any more
}

// first is what frames are sent by, to be compared with what they were sent by before.
func (w Way) first() any {
	if len(w.Sessions) > 0 {
		return w.Sessions[0].ID
	}
	return w.Stream
}

// SetWays says how the members are reached that sealed links are wanted to, from now on; see Config.Wants. The Network keeps
// the map: it must not change.
func (n *Network) SetWays(ways map[crdt.NodeID]Way) {
	n.ways.Store(&ways)
	poke(n.urgent) // until it is known how a member is reached that was away, all its frames are lost
}

// Receive takes datagrams of sealed links. It never waits.
func (n *Network) Receive(p sealed.Packets) {
	if n.sealing != nil {
		n.sealing.link.Receive(p)
	} else if p.Owner != nil {
		p.Owner.Release()
	}
}

// sealing is this node's end of the sealed links: a TAP, and the link that carries its frames. The link lives as long as the
// Network, since keys of a session that was used once must not be used from the beginning. The applier opens the TAP, the session
// says who the peers are, and datagrams come from anywhere.
type sealing struct {
	tap  *tap
	link *sealed.Link
}

// tapMTU has room for the wrapping of frames as large as any underlay takes.
const tapMTU = controlMTU

func newSealing(cfg Config) (*sealing, error) {
	s := &sealing{tap: newTAP()}
	var err error
	s.link, err = sealed.New(sealed.Config{Self: cfg.Self, Device: s.tap, Send: cfg.Send, Log: cfg.Log})
	return s, err
}

// stats are those of the peers, by label, and how many datagrams came too fast.
func (s *sealing) stats() (map[label.Label]sealed.PeerStats, uint64) {
	out, all := map[label.Label]sealed.PeerStats{}, s.link.Stats()
	for _, p := range all.Peers {
		out[p.Label] = p
	}
	return out, all.Overrun
}

// sealWant is what a round wants for sealed links.
type sealWant struct {
	addr  netip.Addr    // of this end; not valid: there are no such links
	peers []label.Label // in order
}

// sealedAddr is the address by which this machine's bridge knows the sealed link to a gateway.
func sealedAddr(l label.Label) netip.Addr { return sealed.AddrOf(sealed.DefaultNet, l) }

// tapPort is the TAP of a bridge's sealed links.
func tapPort(name string) string { return name + "s" }

// seal has the TAP opened. Where the kernel forwards no bridge stands between the TAP and the interfaces: rules of nftables
// keep what has the addresses of sealed links to the TAP, and without them there are no such links.
func (a *applier) seal(ctx context.Context) error {
	if a.info.Datapath != inUserSpace {
		if err := underlay.Confine(ctx, a.name, tapPort(a.name), sealed.DefaultNet); err != nil {
			return err
		}
	}
	if a.sealing.tap.is(tapPort(a.name)) {
		return nil
	}
	if err := a.sealing.tap.open(tapPort(a.name)); err != nil {
		return err
	}
	a.made["bridge"], a.made["sealed address"] = false, false // it is to be a port
	return nil
}

// reseal goes on with the TAP that an earlier daemon left, before anything else is known: nobody reads it meanwhile.
func (a *applier) reseal(ctx context.Context) {
	if a.sealing == nil || a.name == "" {
		return
	}
	a.sealing.tap.gone = a.again
	if _, err := device.MTUOf(tapPort(a.name)); err != nil {
		return // there is none
	}
	if err := a.seal(ctx); err != nil {
		a.cfg.Log.Warn("the sealed links of before are not taken over", "err", err)
	}
}

// sealedNeighbours are where frames to the other ends of sealed links go on the TAP.
func sealedNeighbours(peers []label.Label) []ovs.Neighbour {
	out := make([]ovs.Neighbour, len(peers))
	for i, l := range peers {
		mac := sealed.MACOf(l)
		out[i] = ovs.Neighbour{IP: sealedAddr(l), MAC: mac[:]}
	}
	return out
}

// toldPeers is what the sealed links were last told of who the peers are.
type toldPeers struct {
	records *Records
	ways    *map[crdt.NodeID]Way
}

// sealPeers says who the peers of the sealed links are: gateways of other sites that the records name and that are reached. One
// that was evicted is none from this round on.
// A link that others carry from now on, as after a restart of the other end, works at once, but BFD takes a second or two to say
// so again: its word does not count meanwhile.
func (s *session) sealPeers(now time.Time) {
	next := toldPeers{s.lookedAt, s.n.ways.Load()}
	if s.n.sealing == nil || next == s.told || next.ways == nil {
		return
	}
	s.told = next
	var peers []sealed.Peer
	s.over = map[netip.Addr]netip.Addr{}
	each(s.topology, func(g Node) {
		w, ok := (*next.ways)[g.ID]
		if !ok || !s.topology.self.Label.Valid() {
			return
		}
		peers = append(peers, sealed.Peer{ID: g.ID, Label: g.Label, Sessions: w.Sessions, Stream: w.Stream})
		if by := w.first(); s.carriedBy[g.Label] != by {
			s.carriedBy[g.Label] = by
			if s.choices.kind(g.Label) == path.Sealed {
				s.watch.renew(g.Label, now)
			}
		}
		if len(w.Sessions) > 0 {
			s.over[sealedAddr(g.Label)] = w.Sessions[0].Remote.Addr()
		}
	})
	s.n.sealing.link.SetPeers(s.topology.self.Label, peers)
}

// sealedOver is where the datagrams of a sealed link go, as far as their size depends on it.
func (s *session) sealedOver(dst netip.Addr) netip.Addr {
	if a, ok := s.over[dst]; ok {
		return a
	}
	return netip.IPv4Unspecified()
}

// tellWants says whom sealed links are wanted to.
func (s *session) tellWants(targets []probe.Target) {
	var wants []crdt.NodeID
	each(s.topology, func(g Node) {
		if slices.ContainsFunc(targets, func(t probe.Target) bool { return t.Kind == path.Sealed && t.ID == probe.Gateway(g.Label) }) {
			wants = append(wants, g.ID)
		}
	})
	if !slices.Equal(wants, s.wants) {
		s.wants = wants
		s.n.cfg.Wants(wants)
	}
}
