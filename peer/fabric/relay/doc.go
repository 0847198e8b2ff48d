// Package relay passes streams on between members of a cluster that cannot connect to one another directly, because both
// are behind NAT or have no address family in common. What passes is opaque: the two ends run TLS through it, so a relay
// sees who talks to whom, and how much.
//
// A relay is a member like any other. It needs no setting up and keeps nothing on disk: a member holds a place at a relay
// by an open stream, and loses it with that stream, so eviction, restart and departure need no clean-up. What one relay
// may be made to do is bounded by [Limits]: places and circuits, each also for a single member; bytes in flight; and bytes
// a second, in fair shares between the members that cause them.
//
// libp2p's own relay (circuit v2) is not used: it needs a libp2p host with identify, which tells any stranger about this
// node; its reservations are granted by address, eight for each, and refuse private ones; and a voucher signed for
// strangers says nothing that the membership records of a cluster do not say better.
//
// Package fabric brings the streams, knows who is a member, and makes connections of what the circuits carry.
//
//	s := relay.NewServer(relay.Config{Open: openDirectly, Log: log})
//	fabric.Handle(relay.Protocol, s.Serve)
package relay
