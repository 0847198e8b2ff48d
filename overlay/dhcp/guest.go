package dhcp

import (
	"net/netip"
	"regexp"
	"time"
)

// Guest is what a guest is told. It can be compared.
type Guest struct {
	Name   string       // its host name; one that is not a label of a host name (RFC 1123) is not told
	Addr4  netip.Prefix // its address, with the network's length
	Addr6  netip.Prefix // the same; not valid: the network has no IPv6
	MTU    int          // bytes
	Server Node
}

// Node is the node that answers, as its guests know it.
type Node struct {
	Addr netip.Addr // in the network, an IPv4 address
	MAC  MAC
}

// MAC is an Ethernet address.
type MAC [6]byte

// How long a guest may do without asking again, and how soon it does: first the node that answered, then any. What it is
// told changes when two guests of sites that were apart had one address, or with the MTU.
const (
	leaseTime  = 7 * 24 * time.Hour
	renewTime  = time.Hour
	rebindTime = 2 * time.Hour
)

// Answer returns the frame that answers a frame of the guest; false: there is none, since it is no question, one to another
// server, makes no sense, or would be echoed in more than fits a packet. It keeps nothing of frame.
func (g Guest) Answer(frame []byte) ([]byte, bool) {
	q, ok := parse(frame)
	if !ok {
		return nil, false
	}
	var out []byte
	switch q.kind {
	case questionDHCP:
		out, ok = g.answer4(q)
	case questionDHCP6:
		out, ok = g.answer6(q)
	case questionRouter:
		out, ok = g.answerRouter(q)
	}
	if len(out) > etherLen+g.MTU {
		return nil, false
	}
	return out, ok
}

var label = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// hostName is what the guest is told to call itself; empty: nothing. Names come from records of any site and end in scripts
// of the guest.
func (g Guest) hostName() string {
	if !label.MatchString(g.Name) {
		return ""
	}
	return g.Name
}
