package overlay

import (
	"net/netip"
	"time"

	"vcpeer/crdt"
	"vcpeer/overlay/label"
	"vcpeer/overlay/sealed"
)

// Status is this node's part of the network as of one moment. It shares no memory with the Network.
type Status struct {
	Up       bool
	Why      string // why it is not up, or what does not work
	Hint     string // what to do about it
	Bridge   string // the interface and bridge that programs use
	Datapath string // "system" (the kernel's) or "netdev" (in user space)
	Version  string // of Open vSwitch
	Address  netip.Addr
	Address6 netip.Addr
	MTU      int
	Label    label.Label // label.Site: this node is no gateway …
	Uplink   string      // … and reaches other sites over this node, by name; empty: over none
	Encrypt  bool        // between sites, encrypted links only
	Flows    int
	Groups   int
	Written  time.Time // when flows were last changed
	Wrong    []Fault   // what could not be done in the last round
	Overrun  uint64    // datagrams of sealed links that came faster than this machine could open them
	Links    []LinkStatus
	Paths    []PathStatus
	Guests   []GuestStatus

	leaving []string // IDs of guests that are being taken off
}

// Fault is something that the last round could not do; the next tries again.
type Fault struct {
	Part string // "bridge", "flows", "interface", "neighbours", "guard", "sealed links", "guests", "guests that leave"
	Err  error
}

// LinkStatus is what this node measures of the way to one other: a gateway of another site, or, for a node that is no
// gateway, a gateway of its own.
type LinkStatus struct {
	Node      crdt.NodeID
	Name      string
	Site      string
	Label     label.Label
	Kind      string     // "GRE" or "sealed"
	To        netip.Addr // where the tunnel's packets go; not valid: nowhere, or into a stream
	Stream    bool       // sealed frames go over a stream, since there is no direct way by UDP
	Up        bool
	Measured  bool
	RTT       time.Duration // the least of the last seconds
	Jitter    time.Duration // standard deviation
	LossOut   float64       // 0 to 1, of the last probes, to there
	LossIn    float64       // from there
	MTU       int           // inner IP packet, bytes; 0: unknown
	Since     time.Time     // up or down since
	Flaps     int
	Protected bool              // watched by BFD
	BFD       string            // state of the session: "up", "down", "init"; empty: none
	Frames    *sealed.PeerStats // what became of the frames, for a sealed link; nil: the kernel or Open vSwitch counts them
}

// PathStatus is how this gateway sends to one other.
type PathStatus struct {
	Node      crdt.NodeID
	Name      string
	Site      string
	Label     label.Label
	Via       []string // names of the transit gateways, in order; empty: direct
	RTT       time.Duration
	Direct    time.Duration // of the direct link; 0: it cannot be used, or is not measured
	Backup    []string      // names of the transit gateways of the path that takes over; empty: see HasBackup
	HasBackup bool
	MTU       int
	Since     time.Time
	Switches  int
	Cause     string
}

// GuestStatus is a guest that is attached here.
type GuestStatus struct {
	ID    string
	Name  string
	Iface string
	Inner string // the guest's own interface, where it was found
	Port  uint16
	Ready bool  // it is on the network
	Err   error // why it is not
}
