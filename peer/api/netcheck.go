package api

import (
	"context"
	"net/url"
	"time"
)

// Netcheck is what this node knows of the network it is in: whether others can dial it, and how it reaches them.
type Netcheck struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"`
	AsOf       time.Time  `json:"asOf"`
	SeenFrom   Place      `json:"seenFrom"`
	Open       string     `json:"open"`  // "yes", "no" or "unknown": others can open connections to this node
	Asked      int        `json:"asked"` // members that have told how they see this node
	Port       int        `json:"port"`
	V4         NetFamily  `json:"v4"`
	V6         NetFamily  `json:"v6"`
	Router     NetRouter  `json:"router"`
	Relays     []NetRelay `json:"relays"`
	Carries    NetCarries `json:"carries"` // for others
	Members    []NetPeer  `json:"members"` // without this node
	Lost       int        `json:"lost"`    // members that were not reached in any way
	Advice     []string   `json:"advice"`  // what would make it better
}

// NetFamily is one address family. The answers are "yes", "no" and "unknown".
type NetFamily struct {
	Local  []string `json:"local"`  // addresses of this machine
	Seen   []string `json:"seen"`   // address and port as others see them
	UDPOut string   `json:"udpOut"` // UDP passes from here
	NAT    string   `json:"nat"`    // "none", "same for all" others, "another for each", "unknown"
	UDPIn  string   `json:"udpIn"`  // others can open a connection by UDP
	TCPIn  string   `json:"tcpIn"`  // by TCP
}

// NetRouter is the router before this machine, as far as it passes ports on by itself. It is asked only while a NAT is before
// this node. The answers are "yes", "no" and "unknown".
type NetRouter struct {
	Addr     string `json:"addr,omitempty"`     // of the router; empty: none was asked
	Off      bool   `json:"off,omitempty"`      // the setting port-mapping says to ask none
	Protocol string `json:"protocol,omitempty"` // "PCP", "NAT-PMP" or "UPnP"; empty: it answers to none of them
	UDP      string `json:"udp,omitempty"`      // address and port outside that it says to pass on; empty: none
	TCP      string `json:"tcp,omitempty"`
	UDPWorks string `json:"udpWorks,omitempty"` // others got in there; "unknown": they see this node at another address, and did not try
	TCPWorks string `json:"tcpWorks,omitempty"`
	Refused  string `json:"refused,omitempty"` // why it passes nothing on, or not both
}

// NetRelay is a member through which others reach this node.
type NetRelay struct {
	Node      string    `json:"node"`
	Site      string    `json:"site"`
	RTTMillis float64   `json:"rttMillis"`
	Since     time.Time `json:"since"`
}

// NetCarries is what this node relays for others.
type NetCarries struct {
	Places   int    `json:"places"`
	Circuits int    `json:"circuits"`
	Bytes    uint64 `json:"bytes"` // since it started
}

// Ways to a member.
const (
	WayDirect  = "direct"  // one side has dialled the other
	WayPunched = "punched" // through the NATs of both, at the same time
	WayRelayed = "relayed" // through a third member
	WayGossip  = "heard"   // it is alive, but this node has no connection with it just now
	WayNone    = "lost"    // it cannot be reached
)

// NetPeer is how a member is reached.
type NetPeer struct {
	Node      string  `json:"node"`
	Site      string  `json:"site"`
	Way       string  `json:"way"`
	Transport string  `json:"transport,omitempty"` // "quic" or "tcp"; of what is relayed, none
	Addr      string  `json:"addr,omitempty"`
	Via       string  `json:"via,omitempty"`       // the relay
	RTTMillis float64 `json:"rttMillis,omitempty"` // 0: not measured
	GRE       string  `json:"gre,omitempty"`       // "yes" or "no": tunnels to it pass; empty: none is tried
	Error     string  `json:"error,omitempty"`
}

// Netcheck tells how this node is reached and reaches others. It asks each member, or only those named, for an answer.
func (c *Client) Netcheck(ctx context.Context, members ...string) (*Netcheck, error) {
	return get[Netcheck](ctx, c, "/v1/netcheck", url.Values{"member": members})
}
