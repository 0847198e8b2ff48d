package fabric

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"vcpeer/crdt"
	"vcpeer/peer/fabric/relay"
)

const (
	maxRelaysPerPeer = 4                      // of those a peer names are used
	relayDelay       = 250 * time.Millisecond // that a relay is tried after the direct addresses
	detourTTL        = 30 * time.Second
)

// startRelaying offers this node as a relay and takes circuits that relays bring.
func (f *Fabric) startRelaying() error {
	f.circuits = &circuits{f: f, upgrader: f.host.upgrader, limits: f.host.limits, brought: make(chan *circuit, maxEarlyCircuits), adopted: make(chan transport.CapableConn)}
	f.relay = relay.NewServer(relay.Config{
		Limits: f.cfg.Relay, Log: f.log,
		Keep: func(id crdt.NodeID, on bool) { f.Keep(id, "has a place here", on) },
		Open: func(ctx context.Context, to crdt.NodeID) (relay.Stream, error) {
			s, err := f.openDirect(ctx, to, relay.Incoming)
			if err != nil {
				return nil, err
			}
			return s, nil
		},
	})
	f.Handle(relay.Protocol, f.relay.Serve)
	f.Handle(relay.Incoming, f.circuits.serve)
	f.Handle(punchProtocol, f.servePunch)
	f.Handle(pingProtocol, servePing)
	if err := f.host.AddTransport(f.circuits); err != nil {
		return err
	}
	return f.host.AddListenAddr(circuitEnd)
}

// RelayStats returns what this node carries for others.
func (f *Fabric) RelayStats() relay.Stats { return f.relay.Stats() }

// LearnRelays sets the members through which id is reached, in place of those learned before; the best first, at most four.
// None: it has direct addresses only.
func (f *Fabric) LearnRelays(id crdt.NodeID, relays []crdt.NodeID) {
	if id == f.self || id.IsZero() {
		return
	}
	var good []crdt.NodeID
	for _, r := range relays {
		if r != f.self && r != id && !r.IsZero() && !slices.Contains(good, r) && len(good) < maxRelaysPerPeer {
			good = append(good, r)
		}
	}
	l := f.linkTo(id)
	l.mu.Lock()
	old := l.relays
	changed := !slices.Equal(old, good)
	l.relays = good
	if changed {
		l.out.revive()
	}
	l.mu.Unlock()
	if changed {
		f.host.Peerstore().SetAddrs(peerIDOf(id), circuitAddrs(old), 0)
		f.host.Peerstore().SetAddrs(peerIDOf(id), circuitAddrs(good), peerstore.PermanentAddrTTL)
		f.host.Backoff().Clear(peerIDOf(id))
	}
	f.forgetIdle(l)
}

func circuitAddrs(relays []crdt.NodeID) []ma.Multiaddr {
	out := make([]ma.Multiaddr, 0, len(relays))
	for _, r := range relays {
		out = append(out, circuitAddr(r))
	}
	return out
}

// addDetours has a peer that cannot be reached be tried through the relays that this node uses itself, or could use: what is
// known of the peer may be old, or nothing yet, or its relays may be out of reach from here. false: there are none that were
// not tried just now.
func (f *Fabric) addDetours(l *link) bool {
	held := f.heldRelays()
	for _, id := range f.peers() {
		if len(held) < maxRelaysPerPeer && !slices.Contains(held, id) && f.cfg.Standing(id) == Member && f.reacher.dialled(id) {
			held = append(held, id)
		}
	}
	l.mu.Lock()
	known := slices.Concat(l.relays, []crdt.NodeID{l.id})
	l.mu.Unlock()
	held = slices.DeleteFunc(held, func(r crdt.NodeID) bool { return slices.Contains(known, r) })
	if len(held) == 0 {
		return false
	}
	f.host.Peerstore().SetAddrs(peerIDOf(l.id), circuitAddrs(held), detourTTL)
	return true
}

// rankDials orders the addresses of one peer: as libp2p does, but with a relay a moment after the direct ones, and without
// a delay where there are none.
func rankDials(addrs []ma.Multiaddr) []network.AddrDelay {
	var direct, relayed []ma.Multiaddr
	for _, a := range addrs {
		if _, ok := relayOf(a); ok {
			relayed = append(relayed, a)
		} else {
			direct = append(direct, a)
		}
	}
	out := swarm.DefaultDialRanker(direct)
	delay := time.Duration(0)
	if len(direct) > 0 {
		delay = relayDelay
	}
	for _, a := range relayed {
		out = append(out, network.AddrDelay{Addr: a, Delay: delay})
		delay += 2 * relayDelay
	}
	slices.SortStableFunc(out, func(a, b network.AddrDelay) int { return int(a.Delay - b.Delay) })
	return out
}
