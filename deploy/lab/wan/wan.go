// Package wan is the network between the sites of a lab: a router in user space with one port for each site, every
// ordered pair of which has its own delay, jitter, loss, rate, queue and MTU, changed while it runs. It stands in for
// netem, which many kernels lack, and is the only way the lab has, so that figures from two machines are comparable.
//
// For a site it looks like a provider's gateway: it answers ARP and neighbour solicitations at once, whatever is asked
// for, lowers the time to live, answers what is too large or has lived too long by ICMP, and drops all that is not
// unicast IP. So a cut is silence, as in a real network, and not a neighbour that cannot be resolved.
//
// Packets pass whole: interfaces of the sites have their segmentation offloads off (see package lab), so loss is per
// packet. One thread does all of the work and keeps delays to some tenths of a millisecond; it costs nothing when
// nothing passes.
//
//	w, err := wan.Open(ports, seed)   // in the network namespace that has the interfaces
//	go w.Run(ctx)
//	w.Set(pair, "delay=20ms", "loss=1%")
package wan

import (
	"net"
	"net/netip"

	"vcpeer/deploy/lab/shape"
)

// Port is the connection of one site.
type Port struct {
	Site       string
	Interface  string           // here
	Station    net.HardwareAddr // the site's interface at the other end, until another one is heard from
	Nets       []netip.Prefix   // what is routed to the site; all of one family have the same length in a Switch
	Gateways   []netip.Addr     // own addresses towards the site, to answer from; at most one of each family
	gateway    [2]netip.Addr    // by family
	station    mac
	fd         int
	unreadable bool
}

// Line is one direction between two sites as it is now.
type Line struct {
	From  string      `json:"from"`
	To    string      `json:"to"`
	Shape shape.Shape `json:"shape"`
	Count Count       `json:"count"`
}

type mac [6]byte

// self is the address of the gateway on every port.
var self = mac{0x02, 0x76, 0x63, 0xff, 0xff, 0xfe}
