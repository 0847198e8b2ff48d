package peer

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"vcpeer/crdt"
	"vcpeer/peer/fabric"
)

// reachKind is the ephemeral kind under which every node says how it is reached: whether anybody can dial it, through which
// members else. It is urgent: who has only the old saying of a node that moved cannot reach it.
const (
	reachKind     = "reach"
	reachTTL      = 10 * time.Minute
	reachAgain    = reachTTL / 4
	addressRest   = 5 * time.Second // this machine's addresses are written at most so often
	maxSaidRelays = 4
	maxSaidAddrs  = 4
)

// reachSaying is what a node says.
type reachSaying struct {
	Known  bool     `cbor:"1,keyasint,omitempty"` // somebody has tried to dial it
	Open   bool     `cbor:"2,keyasint,omitempty"` // and could
	Relays [][]byte `cbor:"3,keyasint,omitempty"` // members at which it has places, as IDs
	Addrs  []string `cbor:"4,keyasint,omitempty"` // multiaddrs beside those of its record, where it was found to be open
}

// sayingOf is r as others are told.
func sayingOf(r fabric.Reach) reachSaying {
	s := reachSaying{Known: r.Open() != fabric.Unknown, Open: r.Open() == fabric.Yes, Addrs: r.Addrs[:min(len(r.Addrs), maxSaidAddrs)]}
	for _, p := range r.Places[:min(len(r.Places), maxSaidRelays)] {
		s.Relays = append(s.Relays, slices.Clone(p.Relay[:]))
	}
	return s
}

var reachDecoder = func() cbor.DecMode {
	m, err := cbor.DecOptions{MaxArrayElements: 16, MaxMapPairs: 16, MaxNestedLevels: 4}.DecMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return m
}()

// decodeSaying reads what another node says.
func decodeSaying(b []byte) (s reachSaying, relays []crdt.NodeID, err error) {
	if err := reachDecoder.Unmarshal(b, &s); err != nil {
		return s, nil, err
	}
	if len(s.Relays) > maxSaidRelays || len(s.Addrs) > maxSaidAddrs {
		return s, nil, fmt.Errorf("%d relays, %d addresses", len(s.Relays), len(s.Addrs))
	}
	for _, b := range s.Relays {
		if len(b) != len(crdt.NodeID{}) {
			return s, nil, fmt.Errorf("relay ID of %d bytes", len(b))
		}
		relays = append(relays, crdt.NodeID(b))
	}
	return s, relays, nil
}

// urgentKind tells the ephemeral kinds that concern everybody at once.
func urgentKind(kind string) bool { return kind == linksKind || kind == reachKind }

// reachKeeper joins what the fabric finds out with what members say.
type reachKeeper struct {
	*node
	said    reachSaying
	saidAt  time.Time
	wroteAt time.Time
	heard   map[crdt.NodeID]uint64 // version of each node's saying that the fabric has
}

// keepReach tells others how this node is reached, and the fabric how others are, until ctx ends.
func (n *node) keepReach(ctx context.Context) {
	k := &reachKeeper{node: n, heard: map[crdt.NodeID]uint64{}}
	found, stop := n.fabric.WatchReach()
	defer stop()
	records, stop := n.replica.Watch()
	defer stop()
	heard, stop := n.replica.WatchEphemeral(reachKind)
	defer stop()
	tick := time.NewTicker(addressRest)
	defer tick.Stop()
	for {
		k.hear()
		k.say(time.Now())
		k.writeAddrs(ctx, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-found:
		case <-records:
		case <-heard:
		case <-tick.C:
		}
	}
}

// say publishes how this node is reached, when that has changed or is getting old.
func (k *reachKeeper) say(now time.Time) {
	next := sayingOf(k.fabric.Reach())
	if !next.Known { // while it is asked anew it is as it was
		next.Known, next.Open = k.said.Known, k.said.Open
	}
	value, err := cbor.Marshal(next)
	old, _ := cbor.Marshal(k.said)
	if err == nil && string(value) == string(old) && now.Sub(k.saidAt) < reachAgain {
		return
	}
	if err == nil {
		err = k.replica.SetEphemeral(reachKind, "", value, reachTTL)
	}
	if err != nil {
		k.log.Warn("how this node is reached is not published", "err", err)
		return
	}
	if next.Known && next.Open != k.said.Open && next.Known == k.said.Known {
		k.events.Add("reach.changed", reachNews(next.Open))
	}
	k.said, k.saidAt = next, now
}

func reachNews(open bool) string {
	if open {
		return "other sites can open connections to this node"
	}
	return "other sites cannot open connections to this node: it is reached through relays and holes in its NAT"
}

// hear gives the fabric what others say, and who can be asked and relay.
func (k *reachKeeper) hear() {
	said := map[crdt.NodeID]reachSaying{}
	gone := make(map[crdt.NodeID]bool, len(k.heard))
	for id := range k.heard {
		gone[id] = true
	}
	for _, e := range k.replica.Ephemeral(reachKind) {
		s, relays, err := decodeSaying(e.Value)
		if err != nil {
			k.log.Debug("a saying about reach that cannot be used", "node", e.Author.Short(), "err", err)
			continue
		}
		said[e.Author] = s
		delete(gone, e.Author)
		if k.heard[e.Author] != e.Version {
			k.heard[e.Author] = e.Version
			k.fabric.LearnRelays(e.Author, relays)
			k.fabric.LearnFound(e.Author, s.Addrs)
		}
	}
	for id := range gone {
		delete(k.heard, id)
		k.fabric.LearnRelays(id, nil)
		k.fabric.LearnFound(id, nil)
	}
	var all []fabric.Neighbour
	for _, h := range k.replica.View().Hosts() {
		if h.Standing == crdt.Joined {
			s := said[h.ID]
			all = append(all, fabric.Neighbour{ID: h.ID, Site: h.Site, Known: s.Known, Open: s.Open})
		}
	}
	k.fabric.SetNeighbours(all)
}

// writeAddrs puts this machine's addresses into its record when they have changed: it may be in another network now.
func (k *reachKeeper) writeAddrs(ctx context.Context, now time.Time) {
	h, ok := k.replica.View().Host(k.self)
	addrs := k.fabric.Addrs()
	if !ok || len(addrs) == 0 || slices.Equal(h.Addrs, addrs) || now.Sub(k.wroteAt) < addressRest {
		return
	}
	k.wroteAt = now
	if err := k.write(ctx, func(tx *crdt.Tx) error { return tx.PutHost(crdt.HostFacts{Addrs: addrs}) }); err != nil && ctx.Err() == nil {
		k.log.Warn("this machine's addresses are not recorded", "err", err)
	}
}
