package overlay

import (
	"context"
	"io"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

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

// SetWays says how the members are reached that sealed links are wanted to, from now on; see Config.Wants. The Network keeps
// the map: it must not change.
func (n *Network) SetWays(ways map[crdt.NodeID]Way) {
	n.ways.Store(&ways)
	n.touch()
}

// Receive takes datagrams of sealed links. It never waits.
func (n *Network) Receive(p sealed.Packets) {
	if l := n.sealing.link.Load(); l != nil {
		l.Receive(p)
	} else if p.Owner != nil {
		p.Owner.Release()
	}
}

// sealing is this node's end of the sealed links: a TAP, and the link that carries its frames. The applier opens it, the
// session says who the peers are, and datagrams come from anywhere.
type sealing struct {
	cfg  Config
	link atomic.Pointer[sealed.Link] // nil: there is no TAP

	mu    sync.Mutex // guards who the peers are, for a link that comes later
	self  label.Label
	peers []sealed.Peer
}

// tapMTU has room for the wrapping of frames as large as any underlay takes.
const tapMTU = controlMTU

// setPeers says who the peers are from now on; see [sealed.Link.SetPeers].
func (s *sealing) setPeers(self label.Label, peers []sealed.Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.self, s.peers = self, peers
	if l := s.link.Load(); l != nil {
		l.SetPeers(self, peers)
	}
}

// open opens the TAP, or takes over the one that an earlier daemon left, and returns what carries its frames until ctx ends
// or the TAP goes.
func (s *sealing) open(name string) (run func(context.Context) error, err error) {
	tap, err := sealed.OpenTAP(name, sealed.TAPOptions{MTU: tapMTU, Persist: true})
	if err != nil {
		return nil, err
	}
	l, err := sealed.New(sealed.Config{Self: s.cfg.Self, Device: tap, Send: s.cfg.Send, Log: s.cfg.Log})
	if err != nil {
		tap.Close()
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l.SetPeers(s.self, s.peers)
	s.link.Store(l)
	return func(ctx context.Context) error {
		defer s.link.Store(nil)
		return l.Run(ctx)
	}, nil
}

// stats are those of the peers, by label.
func (s *sealing) stats() map[label.Label]sealed.PeerStats {
	out := map[label.Label]sealed.PeerStats{}
	if l := s.link.Load(); l != nil {
		for _, p := range l.Stats().Peers {
			out[p.Label] = p
		}
	}
	return out
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

// seal has the TAP opened and its link run. Where the kernel forwards no bridge stands between the TAP and the interfaces:
// rules of nftables keep what has the addresses of sealed links to the TAP, and without them there are no such links.
func (a *applier) seal(ctx context.Context, links *sync.WaitGroup) error {
	if a.info.Datapath != inUserSpace {
		if err := underlay.Confine(ctx, a.name, tapPort(a.name), sealed.DefaultNet); err != nil {
			return err
		}
	}
	if a.sealing.link.Load() != nil {
		return nil
	}
	run, err := a.sealing.open(tapPort(a.name))
	if err != nil {
		return err
	}
	a.made["bridge"] = false // the TAP is to be a port
	links.Go(func() {
		if err := run(ctx); err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("the sealed links have ended and are made anew", "err", err)
		}
		a.again()
	})
	return nil
}

// reseal goes on with the TAP that an earlier daemon left, before anything else is known: nobody reads it meanwhile.
func (a *applier) reseal(ctx context.Context, links *sync.WaitGroup) {
	if a.cfg.Send == nil || a.name == "" {
		return
	}
	if _, err := device.MTUOf(tapPort(a.name)); err != nil {
		return // there is none
	}
	if err := a.seal(ctx, links); err != nil {
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
func (s *session) sealPeers() {
	next := toldPeers{s.lookedAt, s.n.ways.Load()}
	if next == s.told || next.ways == nil {
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
		if len(w.Sessions) > 0 {
			s.over[sealedAddr(g.Label)] = w.Sessions[0].Remote.Addr()
		}
	})
	s.n.sealing.setPeers(s.topology.self.Label, peers)
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
