package fabric

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"vcpeer/crdt"
	"vcpeer/peer/fabric/relay"
)

// DefaultPort is the port, TCP and UDP, where an address names none.
const DefaultPort = 7475

// Standing says what a peer is to this cluster at this moment.
type Standing uint8

// The standings. The zero value is the harmless one.
const (
	Stranger Standing = iota // not in the records: may only ask to join
	Member                   // admitted
	Evicted                  // put out: refused as soon as its key is proven
)

func (s Standing) String() string {
	switch s {
	case Member:
		return "member"
	case Evicted:
		return "evicted"
	default:
		return "stranger"
	}
}

// Config is what a Fabric needs. Key, Listen and Standing are required.
type Config struct {
	Key       ed25519.PrivateKey                // this node's identity
	Listen    []string                          // "host:port"; no host: every address, IPv4 and IPv6; port 0: any port free for both TCP and UDP
	Advertise []string                          // "host[:port]" told to others instead of the listening addresses; empty: those
	Standing  func(peer crdt.NodeID) Standing   // asked very often, from many goroutines: must be quick and never wait
	Log       *slog.Logger                      // nil: nothing is logged
	Refused   func(peer crdt.NodeID, why error) // told of peers refused at the gate (see ErrEvicted, ErrBusy), at most once a minute each; may be nil; must not block

	// Hidden says which addresses of this machine are not told to others: those of the network that is itself built over
	// the fabric's members. nil: none.
	Hidden func(netip.Addr) bool

	NoQUIC bool // do not use UDP at all: for a network that drops it, where trying QUIC first only costs time

	NoPortMapping bool // do not ask a router before this machine to pass the port on

	Relay relay.Limits // of what this node carries for others

	ConnLow  int                                  // when connections pass ConnHigh the least used are closed down to this; 0: 96
	ConnHigh int                                  // 0: 160
	walled   func(crdt.NodeID, ma.Multiaddr) bool // a test's NAT: what must not be dialled, and nobody gets in; nil: none
	Grace    time.Duration                        // a connection younger than this is not closed for being one too many; 0: 30 s
}

// Validate reports the first thing wrong with c.
func (c Config) Validate() error {
	switch {
	case len(c.Key) != ed25519.PrivateKeySize:
		return errors.New("fabric: no key given")
	case len(c.Listen) == 0:
		return errors.New("fabric: no address to listen on")
	case c.Standing == nil:
		return errors.New("fabric: nothing tells members from strangers (Standing)")
	case c.ConnLow < 0 || c.ConnHigh < 0 || c.Grace < 0:
		return errors.New("fabric: connection limits must not be negative")
	case c.ConnHigh != 0 && c.ConnLow > c.ConnHigh:
		return fmt.Errorf("fabric: low water of connections (%d) above high water (%d)", c.ConnLow, c.ConnHigh)
	}
	return nil
}

// withDefaults fills what was left zero.
func (c Config) withDefaults() Config {
	if c.ConnHigh == 0 {
		c.ConnHigh = max(160, c.ConnLow)
	}
	if c.ConnLow == 0 {
		c.ConnLow = min(96, c.ConnHigh)
	}
	if c.Grace == 0 {
		c.Grace = 30 * time.Second
	}
	if c.Hidden == nil {
		c.Hidden = func(netip.Addr) bool { return false }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// StandingOf translates what the records say of a node. One that left cleanly may connect, to come back.
func StandingOf(s crdt.Standing) Standing {
	switch {
	case s == crdt.Evicted:
		return Evicted
	case s.Admitted():
		return Member
	}
	return Stranger
}
