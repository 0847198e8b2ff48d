package probe

import (
	"net/netip"

	"vcpeer/overlay/flow"
	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
)

// Class is how often something is probed.
type Class uint8

// The classes, the most frequent first. Their intervals are in Config.
const (
	Fast  Class = iota // links of a small cluster, and what is in use
	Near               // a few neighbours of a large one
	Spare              // links of another kind beside those in use
	Rest               // all others
	classes
)

func (c Class) String() string { return [...]string{"fast", "near", "spare", "rest"}[c] }

// Self is who this node is to others.
type Self struct {
	Label label.Label // label.Site: no gateway, so gateways of other sites are neither asked nor answered
	Slot  flow.Slot   // 0: none, so nodes of the own site are neither asked nor answered
}

func (s Self) id(near bool) ID {
	if near {
		return Node(s.Slot)
	}
	return Gateway(s.Label)
}

// MaxPaths is how many paths of a target are probed; more are left out.
const MaxPaths = 8

// Target is one that is probed, and answered when it asks.
type Target struct {
	ID    ID
	Kind  path.Kind  // of the direct link to a gateway. One that has links of both kinds is two targets
	Addr  netip.Addr // of the link's other end: if IPv4, direct probes go there, if IPv6, where the flows have a gateway's
	Class Class      // of the direct link
	// MTU is the largest IP packet that the link could carry (the underlay's less what tunnels add), bytes: whether it does
	// is found out. 0: is not.
	MTU       int
	Paths     [][]label.Label // paths in use: transit gateways in order, none empty
	PathClass Class           // of all of them
}
