package flow

import (
	"fmt"
	"net"
	"net/netip"

	"vcpeer/overlay/label"
)

// Slot is the number of a machine in the network: the last two bytes of its address, of its IPv6 address and of its MAC.
type Slot uint16

// MAC is the fixed address of the machine: 02:76:00:00 and the slot. Bytes 2 and 3 carry transit gateways on the way.
func (s Slot) MAC() net.HardwareAddr {
	return net.HardwareAddr{0x02, 0x76, 0, 0, byte(s >> 8), byte(s)}
}

// SlotOf is the machine with a MAC address as above; false: it is no machine's.
func SlotOf(mac [6]byte) (Slot, bool) {
	return Slot(mac[4])<<8 | Slot(mac[5]), [4]byte(mac[:4]) == [4]byte{0x02, 0x76}
}

// Ports are the OpenFlow port numbers of the bridge.
type Ports struct {
	Control   uint16                 // the agent's
	GRE       uint16                 // the port whose tunnels go where each flow says
	Protected map[label.Label]uint16 // ports of their own, with BFD, to some gateways
}

// local is OFPP_LOCAL in the 16 bits that a register move takes.
const local uint16 = 0xfffe

// Self is the node that the tables are for.
type Self struct {
	Slot    Slot
	Label   label.Label   // label.Site: it is no gateway
	Labels  []label.Label // of all gateways of the own site
	Transit bool          // forwards for others
	Net4    netip.Prefix  // the network's addresses, a /16
	Net6    netip.Prefix  // the same, a /64; not valid: no IPv6
	Uplink  netip.Addr    // of a node that is no gateway: the address of its gateway; not valid: there is none
}

func (s Self) gateway() bool { return s.Label.Valid() }

// Host is a machine with an address in the network. Exactly one of Port, Near and Far says where it is.
type Host struct {
	Slot Slot
	Port uint16      // here: the port of the guest, or 65534 for this node itself
	Near netip.Addr  // at a node of this site: that node's address
	Far  label.Label // at another site: the gateway to send to
}

// Gateway is a gateway of another site.
type Gateway struct {
	Label  label.Label
	Addrs  []netip.Addr // where its tunnels may come from
	Dst    netip.Addr   // where tunnels to it go; not valid: there is no tunnel to it
	Clear6 netip.Addr   // where probes of its link over IPv6 go, which may be another than that in use; not valid: nowhere
	Site   string       // any name of its site
	// Offered says that this node forwards to it for others. It stands for the links that this node tells others of, or they
	// tell of it: of a thousand gateways those are some dozens, and a table of all would serve nobody.
	Offered bool
	// Down says that tunnels to it do not arrive. A broadcast goes to another gateway of its site then, or, if all are so,
	// over transit gateways: Over, in order; empty: there are none.
	Down bool
	Over []label.Label
}

// Node is another node of the own site.
type Node struct {
	Addrs []netip.Addr
	Dst   netip.Addr
	MTU   int // the largest IP packet that fits, bytes; 0: unknown
}

// Path is how to reach the gateway of another site.
type Path struct {
	To      label.Label
	Via     []label.Label   // transit gateways in order, at most label.MaxTransit
	Backups [][]label.Label // for a path whose first link is watched: what to use while that is down, best first
	Watched bool            // the first link has a port of its own in Ports.Protected, and BFD has been up
	MTU     int             // bytes; 0: unknown
}

// Want is all that the tables follow from.
type Want struct {
	Self     Self
	Ports    Ports
	Hosts    []Host
	Nodes    []Node // of the own site, without this one
	Gateways []Gateway
	Paths    []Path // at most one for a gateway; without one nothing is sent there
	// CheckBelow is the largest packet that a sender behind this bridge may make, bytes: paths that take less get a rule that
	// hands what is too large to the agent, which answers it.
	CheckBelow int
	// AskAgent has the agent answer questions of IPv6 for Ethernet addresses: the kernel's datapath does not change the options
	// of such a message, and Open vSwitch refuses a rule that would. Else the rules do, also while there is no agent.
	AskAgent bool
}

// Addr4 is the machine's address in net, a /16.
func (s Slot) Addr4(net netip.Prefix) netip.Addr {
	b := net.Addr().As4()
	b[2], b[3] = byte(s>>8), byte(s)
	return netip.AddrFrom4(b)
}

// Addr6 is the machine's address in net, a /64.
func (s Slot) Addr6(net netip.Prefix) netip.Addr {
	b := net.Addr().As16()
	b[14], b[15] = byte(s>>8), byte(s)
	return netip.AddrFrom16(b)
}

func (h Host) String() string {
	switch {
	case h.Far != 0:
		return fmt.Sprintf("%v behind %v", h.Slot.MAC(), h.Far)
	case h.Near.IsValid():
		return fmt.Sprintf("%v at %v", h.Slot.MAC(), h.Near)
	}
	return fmt.Sprintf("%v here, port %d", h.Slot.MAC(), h.Port)
}
