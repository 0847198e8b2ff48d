package gossip

import (
	"errors"
	"log"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
)

// Preset is a set of intervals that belong together; all nodes of a pool use the same.
type Preset struct {
	ProbeInterval  time.Duration // each node probes one other this often; also the time limit of one probe
	ProbeTimeout   time.Duration // without an answer for so long, three others and a stream are tried as well
	IndirectChecks int           // how many others
	Suspicion      int           // a suspect fails after this × max(1, log10 nodes) × ProbeInterval, once confirmed …
	SuspicionMax   int           // … or this many times longer when nobody else confirms
	AwarenessMax   int           // a node that sees itself doing badly lengthens its probes up to this many times

	GossipInterval time.Duration // news go to GossipNodes others this often
	GossipNodes    int
	Retransmit     int           // each node passes one piece of news on this × log10 nodes times
	GossipToDead   time.Duration // failed nodes are told so for this long, so that they can object
	PushPull       time.Duration // whole state with one random node; slower in pools of more than 32

	Dial         time.Duration // time limit for the opening of a stream
	Stream       time.Duration // time limit of one stream
	Reconnect    time.Duration // the pool tries each failed node about this often
	Forget       time.Duration // failed and left nodes are listed for this long
	LeaveSpread  time.Duration // time that a leaving node stays to answer probes
	RejoinCheck  time.Duration // how often Rejoin is compared with the view
	MissingAfter time.Duration // a node out of view for so long is contacted
	BackOffMax   time.Duration // longest pause between two attempts at one node
}

// Validate reports a preset that cannot work.
func (p Preset) Validate() error {
	switch {
	case p.ProbeTimeout <= 0 || p.ProbeTimeout >= p.ProbeInterval:
		return errors.New("gossip: preset: want 0 < ProbeTimeout < ProbeInterval")
	case p.Suspicion < 1 || p.SuspicionMax < 1 || p.AwarenessMax < 1 || p.Retransmit < 1 || p.GossipNodes < 1:
		return errors.New("gossip: preset: multipliers and GossipNodes start at 1")
	case min(p.GossipInterval, p.GossipToDead, p.PushPull, p.Dial, p.Stream, p.Reconnect, p.Forget, p.LeaveSpread) <= 0,
		min(p.RejoinCheck, p.MissingAfter, p.BackOffMax) <= 0:
		return errors.New("gossip: preset: an interval is not positive")
	}
	return nil
}

// Sites is for one pool spread over sites: round trips up to 300 ms and 2% of datagrams lost. Measured in virtual time
// with 100 nodes at ten sites; the tests of this package repeat it.
//
// A killed node is seen failed everywhere after the sum of
//   - the wait for the first probe of it: exponential with mean ProbeInterval, since each of n nodes probes one of n,
//   - that probe, ProbeInterval long,
//   - the suspicion, Suspicion × log10 n × ProbeInterval = 4.8 s at 100 nodes, during which the word spreads,
//   - the spread of the verdict, about a second.
//
// That is 6.4 s and an exponential tail, so that more than ten seconds take 6 mean waits (p < 0.003). The tail is why
// ProbeInterval is short: at 1 s the same suspicion would break ten seconds every other time.
//
// A short interval leaves little time for the ways around a lost packet. ProbeTimeout is therefore shorter than the longest
// round trip: it does not end the probe, it only starts the other ways, for far nodes sometimes in vain. With 300 ms
// 35 suspicions rose in two quiet minutes, with 200 ms one, for 10% more packets. Suspicion 4 asks for two confirmations by
// other nodes, without which it takes SuspicionMax times as long: a bad link puts nobody out, and the dead are confirmed at
// once. At 20 nodes, where it is shorter, 3 and 2 called a live node failed in every fiftieth quiet minute; 4 and 4 in none
// of 120.
// AwarenessMax is lower than usual, since helpers answer late over such round trips and whoever probed the dead would
// slow down as if it were ill itself: a site of ten nodes that goes dark would be noticed too late.
func Sites() Preset {
	return Preset{
		ProbeInterval: 600 * time.Millisecond, ProbeTimeout: 200 * time.Millisecond, IndirectChecks: 3,
		Suspicion: 4, SuspicionMax: 4, AwarenessMax: 3,
		GossipInterval: 250 * time.Millisecond, GossipNodes: 4, Retransmit: 4,
		GossipToDead: 30 * time.Second, PushPull: 30 * time.Second,
		Dial: 5 * time.Second, Stream: 10 * time.Second, Reconnect: 5 * time.Second, Forget: 24 * time.Hour, LeaveSpread: 2 * time.Second,
		RejoinCheck: 2 * time.Second, MissingAfter: 10 * time.Second, BackOffMax: 5 * time.Minute,
	}
}

const (
	eventBuffer    = 1024 // Serf's own queue before ours is as long; see drain
	packetBytes    = 1150 // what a fresh QUIC path carries before it has probed for more
	serfEventSlots = 16   // no data rides in Serf events or queries, but their rings must not be empty
)

// memberlistConfig is the preset in memberlist's words.
func (p Preset) memberlistConfig() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.ProbeInterval, c.ProbeTimeout, c.IndirectChecks = p.ProbeInterval, p.ProbeTimeout, p.IndirectChecks
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = p.Suspicion, p.SuspicionMax
	c.AwarenessMaxMultiplier = p.AwarenessMax
	c.GossipInterval, c.GossipNodes, c.RetransmitMult = p.GossipInterval, p.GossipNodes, p.Retransmit
	c.GossipToTheDeadTime, c.PushPullInterval, c.TCPTimeout = p.GossipToDead, p.PushPull, p.Stream
	c.UDPBufferSize = packetBytes
	c.RequireNodeNames = true // the fabric knows nodes by ID, not by address
	c.CIDRsAllowed = nil
	c.BindPort, c.AdvertisePort = port, port
	// LZW saves little on packets of a hundred bytes and costs 64 kB of garbage for each. Encryption is the fabric's.
	c.EnableCompression = false
	c.LogOutput = nil
	return c
}

func (m *Membership) serfConfig(events chan<- serf.Event) *serf.Config {
	p := m.cfg.Preset
	logger := log.New(libraryLog(m.cfg.Log), "", 0)
	ml := p.memberlistConfig()
	ml.Label = m.cfg.Cluster
	ml.Transport, ml.Logger = m.trans, logger

	c := serf.DefaultConfig()
	c.NodeName, c.Tags = m.self.String(), m.cfg.tags(m.cfg.Tags)
	c.EventCh = events
	c.MemberlistConfig = ml
	c.LogOutput, c.Logger = nil, logger
	c.EnableNameConflictResolution = false // its loser shuts itself down
	c.DisableCoordinates = true            // the fabric measures round trips
	c.EventBuffer, c.QueryBuffer = serfEventSlots, serfEventSlots
	c.ReconnectInterval, c.ReconnectTimeout, c.TombstoneTimeout = p.Reconnect, p.Forget, p.Forget
	c.LeavePropagateDelay = p.LeaveSpread
	c.Merge = &admission{self: m.self, allowed: m.cfg.Allowed}
	return c
}
