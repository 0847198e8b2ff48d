package flowtest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Node is a bridge with its tunnels.
type Node struct {
	Name      string
	Switch    *Switch
	Addrs     []netip.Addr // where tunnels come from and go to; of each family the first is the sender's
	GRE       uint16
	Protected map[uint16]netip.Addr // ports with one peer each
}

// Net is nodes that reach each other.
type Net struct {
	Nodes []*Node
	Cut   func(from, to *Node) bool // nil: all links work
}

// Delivery is a packet at a port that is no tunnel.
type Delivery struct {
	Node   *Node
	Port   uint16
	Packet Packet
	Hops   int // tunnels on the way
}

// Fate is what became of a packet.
type Fate struct {
	Delivered []Delivery
	Hops      int      // the most tunnels that a copy went through
	Sent      int      // copies put into tunnels
	Lost      int      // of those, to an address where nobody is
	Trace     []string // every rule that a copy met, by node
	Err       error    // it went on for too long
}

// MaxHops is more than any frame may make: Walk gives up there.
const MaxHops = 12

type moving struct {
	at   *Node
	p    Packet
	hops int
}

// Walk follows a packet from the port of a node that it names until every copy is delivered or dropped.
func (n *Net) Walk(at *Node, p Packet) Fate {
	var f Fate
	queue := []moving{{at: at, p: p}}
	for len(queue) > 0 {
		m := queue[0]
		queue = queue[1:]
		f.Hops = max(f.Hops, m.hops)
		if m.hops > MaxHops || f.Sent > 10000 {
			f.Err = fmt.Errorf("flowtest: no end after %d hops and %d copies", m.hops, f.Sent)
			return f
		}
		out, trace, err := m.at.Switch.Run(m.p)
		for _, t := range trace {
			f.Trace = append(f.Trace, m.at.Name+": "+t)
		}
		if err != nil {
			f.Err = err
			return f
		}
		for _, o := range out {
			dst, tunnel := m.at.tunnel(o)
			if !tunnel {
				if o.Port != 0 {
					f.Delivered = append(f.Delivered, Delivery{m.at, o.Port, o.Packet, m.hops})
				}
				continue
			}
			f.Sent++
			if next := n.arrive(m.at, dst, o.Packet); next.at != nil {
				next.hops = m.hops + 1
				queue = append(queue, next)
			} else {
				f.Lost++
			}
		}
	}
	return f
}

// tunnel says where a packet goes that is put out at a port with tunnels.
func (n *Node) tunnel(o Output) (netip.Addr, bool) {
	if a, ok := n.Protected[o.Port]; ok {
		return a, true
	}
	if o.Port != n.GRE {
		return netip.Addr{}, false
	}
	if v := o.Packet.v[tunDst].lo; v != 0 {
		return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), true
	}
	return o.Packet.Addr6("tun_ipv6_dst"), true
}

// Raw is a packet as it comes out of a tunnel at a node.
func Raw(to *Node, src netip.Addr, key uint32, p Packet) Packet {
	port := to.GRE
	for own, peer := range to.Protected {
		if peer == src && (port == to.GRE || own < port) {
			port = own
		}
	}
	q := p.wire()
	q.v[inPort] = wide{lo: uint64(port)}
	q.v[tunID] = wide{lo: uint64(key)}
	if src.Is4() {
		q.v[tunSrc] = addr(src)
	} else {
		q.v[tunSrc6] = addr(src)
	}
	return q
}

func (n *Net) arrive(from *Node, dst netip.Addr, p Packet) moving {
	for _, to := range n.Nodes {
		if !slices.Contains(to.Addrs, dst) || n.Cut != nil && n.Cut(from, to) {
			continue
		}
		for _, src := range from.Addrs {
			if src.Is4() == dst.Is4() {
				return moving{at: to, p: Raw(to, src, uint32(p.v[tunID].lo), p)}
			}
		}
	}
	return moving{}
}

func (d Delivery) String() string {
	return fmt.Sprintf("%s port %d %s>%s", d.Node.Name, d.Port, d.Packet.MAC("eth_src"), d.Packet.MAC("eth_dst"))
}

func (f Fate) String() string {
	var out []string
	for _, d := range f.Delivered {
		out = append(out, d.String())
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}
