package fabric

import (
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/x/rate"
)

// The bounds on what the network can make this process hold. They are far above what a member of a cluster of some
// thousands needs (the connection manager keeps it near [Config.ConnHigh]) and far below what hurts a small machine. What it
// carries for others is bounded by relay.Limits; DESIGN.md has a table of all bounds.
const (
	maxConns       = 2048      // open connections in all
	maxStreams     = 16 * 1024 // open streams in all
	maxMemoryBytes = 384 << 20 // stream windows and buffers in all, as libp2p accounts them

	// Connections whose peer has not proven a key yet, and streams whose protocol is not agreed yet. One address
	// (maxPendingPerIP) cannot fill this, so it cannot keep the others out.
	maxPendingConns       = 512
	maxPendingStreams     = 1024
	maxPendingMemoryBytes = 32 << 20

	maxConnsPerPeer       = 8
	maxStreamsPerPeer     = 1024
	maxMemoryPerPeerBytes = 64 << 20
	maxMemoryPerConnBytes = 32 << 20

	// A laboratory's nodes may all come from one NAT address; libp2p's own 8 connections and 0.2 new ones a second
	// for each address would shut most of them out.
	maxConnsPerIP      = 256
	newConnsPerIPRate  = 100 // a second; a handshake costs about 1 ms of CPU
	newConnsPerIPBurst = 512

	handshakeTimeout = 10 * time.Second // TCP accepted -> key proven and multiplexer agreed
)

// newLimits builds the resource manager for all of the above.
func newLimits() (network.ResourceManager, error) {
	cfg := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: maxConns, ConnsInbound: maxConns * 3 / 4, ConnsOutbound: maxConns * 3 / 4, FD: maxConns,
			Streams: maxStreams, StreamsInbound: maxStreams * 3 / 4, StreamsOutbound: maxStreams * 3 / 4,
			Memory: maxMemoryBytes,
		},
		Transient: rcmgr.ResourceLimits{
			Conns: 2 * maxPendingConns, ConnsInbound: maxPendingConns, ConnsOutbound: maxPendingConns, FD: 2 * maxPendingConns,
			Streams: 2 * maxPendingStreams, StreamsInbound: maxPendingStreams, StreamsOutbound: maxPendingStreams,
			Memory: maxPendingMemoryBytes,
		},
		PeerDefault: rcmgr.ResourceLimits{
			Conns: maxConnsPerPeer, ConnsInbound: maxConnsPerPeer, ConnsOutbound: maxConnsPerPeer, FD: maxConnsPerPeer,
			Streams: maxStreamsPerPeer, StreamsInbound: maxStreamsPerPeer, StreamsOutbound: maxStreamsPerPeer,
			Memory: maxMemoryPerPeerBytes,
		},
		Conn: rcmgr.ResourceLimits{Memory: maxMemoryPerConnBytes},
		Protocol: map[protocol.ID]rcmgr.ResourceLimits{
			JoinProtocol: {Streams: 4 * maxStrangers, StreamsInbound: 2 * maxStrangers, StreamsOutbound: 2 * maxStrangers, Memory: 8 << 20},
		},
		ProtocolPeer: map[protocol.ID]rcmgr.ResourceLimits{
			JoinProtocol:     {Streams: 4, StreamsInbound: 4, StreamsOutbound: 4, Memory: 1 << 20},
			datagramProtocol: {Streams: 8, StreamsInbound: 4, StreamsOutbound: 4, Memory: 4 << 20},
		},
	}
	perV4 := rcmgr.ConnLimitPerSubnet{PrefixLength: 32, ConnCount: maxConnsPerIP}
	perV6 := []rcmgr.ConnLimitPerSubnet{{PrefixLength: 64, ConnCount: maxConnsPerIP}, {PrefixLength: 48, ConnCount: 2 * maxConnsPerIP}}
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(cfg.Build(rcmgr.InfiniteLimits)),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet([]rcmgr.ConnLimitPerSubnet{perV4}, perV6),
		// Loopback is no exception: jobs run on this machine. It may have several nodes, so it gets a little more.
		rcmgr.WithNetworkPrefixLimit(
			[]rcmgr.NetworkPrefixLimit{{Network: netip.MustParsePrefix("127.0.0.0/8"), ConnCount: maxPendingConns * 3 / 4}},
			[]rcmgr.NetworkPrefixLimit{{Network: netip.MustParsePrefix("::1/128"), ConnCount: maxPendingConns * 3 / 4}}),
		rcmgr.WithConnRateLimiters(newRateLimiter()),
	)
}

// newRateLimiter bounds new connections from one address over time; the number in all is bounded by the scopes.
func newRateLimiter() *rate.Limiter {
	limit := rate.Limit{RPS: newConnsPerIPRate, Burst: newConnsPerIPBurst}
	return &rate.Limiter{SubnetRateLimiter: rate.SubnetLimiter{
		IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: limit}},
		IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 64, Limit: limit}},
		GracePeriod:      time.Minute,
	}}
}
