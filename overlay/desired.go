package overlay

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"vcpeer/overlay/device"
	"vcpeer/overlay/dhcp"
	"vcpeer/overlay/flow"
	"vcpeer/overlay/label"
	"vcpeer/overlay/ovs"
	"vcpeer/overlay/sealed"
	"vcpeer/overlay/underlay"
)

// desired is all that a round wants of Open vSwitch and of the machine. It is never changed once handed over.
type desired struct {
	want   flow.Want
	device device.Config
	mac    net.HardwareAddr
	local  []underlay.Local              // addresses that tunnels come to
	tunnel map[label.Label]netip.Addr    // the other end of each port of its own
	bfd    map[label.Label]time.Duration // how often that is to say that it lives
	peers  []netip.Addr                  // all other ends, without those of sealed links
	seal   sealWant
	guests []guestWant
}

// guestWant is a guest that is to be on the network here.
type guestWant struct {
	id, iface string
	port      uint16
	inner     device.Guest
	told      dhcp.Guest // when it asks
}

// ends are all other ends of tunnels.
func (d desired) ends() []netip.Addr {
	out := slices.Clone(d.peers)
	for _, l := range d.seal.peers {
		out = append(out, sealedAddr(l))
	}
	return out
}

// known is the MAC of an address in the network; nil: the tables do not know it.
func (d desired) known(a netip.Addr) net.HardwareAddr {
	self := d.want.Self
	for _, h := range d.want.Hosts {
		if a == h.Slot.Addr4(self.Net4) || self.Net6.IsValid() && a == h.Slot.Addr6(self.Net6) {
			return h.Slot.MAC()
		}
	}
	return nil
}

// nics are the interfaces that tunnels come by.
func (d desired) nics() (out []string) {
	for _, l := range d.local {
		if !slices.Contains(out, l.Link) {
			out = append(out, l.Link)
		}
	}
	return out
}

// Names of what a bridge called name has.
func underBridge(name string) string { return name + "u" }
func controlPort(name string) string { return name + "c" }
func grePort(name string) string     { return name + "g" }

// watchedPort is the port of its own of the link to a gateway.
func watchedPort(name string, l label.Label) string { return fmt.Sprintf("%sp%d", name, uint16(l)) }

// watchedLabel is the gateway of a port of its own; false: it is another port.
func watchedLabel(name, port string) (label.Label, bool) {
	digits, ok := strings.CutPrefix(port, name+"p")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 14)
	l := label.Label(n)
	return l, err == nil && l.Valid()
}

// bridges are those that d wants, the one of programs called name. Where the datapath is in user space, a second holds
// the interfaces that tunnels go over: their addresses stay the kernel's, and Open vSwitch takes its copy of each frame.
func (d desired) bridges(name, datapath string) []ovs.Bridge {
	main := ovs.Bridge{Name: name, Datapath: datapath, MAC: d.mac, MTU: d.device.MTU, Ports: []ovs.Port{
		{Name: controlPort(name), Type: "internal", OFPort: portControl, MTU: controlMTU},
		{Name: grePort(name), Type: "gre", OFPort: portGRE, Options: map[string]string{"remote_ip": "flow", "key": "flow"}},
	}}
	for l, port := range d.want.Ports.Protected {
		dst, ok := d.tunnel[l]
		if !ok {
			continue
		}
		main.Ports = append(main.Ports, ovs.Port{
			Name: watchedPort(name, l), Type: "gre", OFPort: int(port),
			Options: map[string]string{"remote_ip": dst.String(), "key": "flow"},
			BFD:     map[string]string{"enable": "true", "min_tx": millis(bfdEvery), "min_rx": millis(d.bfd[l])},
		})
	}
	for _, g := range d.guests {
		main.Ports = append(main.Ports, ovs.Port{Name: g.iface, OFPort: int(g.port), ExternalIDs: map[string]string{
			"vcpeer-guest": g.id, givenKey: formatGiven(g.inner.Addrs),
		}})
	}
	slices.SortFunc(main.Ports, func(a, b ovs.Port) int { return cmp.Compare(a.OFPort, b.OFPort) })
	if datapath != inUserSpace {
		return []ovs.Bridge{main}
	}
	under := ovs.Bridge{Name: underBridge(name), Datapath: datapath}
	for i, nic := range d.nics() {
		under.Ports = append(under.Ports, ovs.Port{Name: nic, OFPort: i + 1})
	}
	return []ovs.Bridge{under, main}
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// inUserSpace is Open vSwitch's name of its datapath in user space.
const inUserSpace = "netdev"

// controlMTU lets the agent take whatever a guest may send and no path takes.
const controlMTU = 9000

// portTAP is the OpenFlow port of the TAP of sealed links in the bridge that holds the interfaces, above theirs.
const portTAP = 1000

// underTables pass on tunnels, which come from both sides by the port of an interface: those of this machine go out there,
// and one to its own address is taken out of the tunnel when it is put out where it came in by. All else is the kernel's,
// which has a copy. Frames for other machines come too when a switch does not know where these are; to put those out again
// would have the gateways of a site throw them at each other for ever. What has addresses of sealed links is passed on at the
// TAP alone: anybody might send from them, and while the TAP is not there frames to them would leave in the clear.
func underTables(local []underlay.Local) flow.Tables {
	t := flow.Tables{Flows: []flow.Flow{
		{Priority: 30, Match: fmt.Sprintf("ip,in_port=%d,nw_proto=47", portTAP), Actions: "IN_PORT"},
		{Priority: 20, Match: "ip,nw_proto=47,nw_src=" + sealed.DefaultNet.String(), Actions: "drop"},
		{Priority: 20, Match: "ip,nw_proto=47,nw_dst=" + sealed.DefaultNet.String(), Actions: "drop"},
	}}
	for _, l := range local {
		family, src, dst := "ip", "nw_src", "nw_dst"
		if l.Addr.Is6() {
			family, src, dst = "ipv6", "ipv6_src", "ipv6_dst"
		}
		for _, end := range []string{src, dst} {
			match := fmt.Sprintf("%s,nw_proto=47,%s=%s", family, end, l.Addr) // by whatever interface the routes say
			t.Flows = append(t.Flows, flow.Flow{Priority: 10, Match: match, Actions: "IN_PORT"})
		}
	}
	t.Flows = append(t.Flows, flow.Flow{Priority: 1, Actions: "drop"})
	return t
}

// desire says what follows from what is known.
func (s *session) desire(d decided) desired {
	t := s.topology
	slot, _ := slotOf(t.self.Address)
	out := desired{want: wantFlows(s.records, t, s.peers, d), mac: slot.MAC(), peers: s.peers.all(), tunnel: map[label.Label]netip.Addr{}}
	out.local, out.bfd = slices.Clone(s.local), d.every
	for l := range d.protected {
		if a, ok := s.peers.far[l]; ok {
			out.tunnel[l] = a
		}
	}
	if t.self.Label.Valid() && s.n.sealing != nil {
		out.seal = sealWant{sealedAddr(t.self.Label), slices.Sorted(maps.Keys(s.peers.sealed))}
	}
	out.device = device.Config{MTU: s.mtu(), Addrs: s.addrs(t.self.Address), Paths: map[netip.Addr]int{}}
	for l, mtu := range pathMTUs(out.want) {
		if mtu >= out.device.MTU {
			continue
		}
		for _, h := range out.want.Hosts {
			if h.Far == l {
				out.device.Paths[h.Slot.Addr4(s.records.Net4)] = mtu
				if s.records.Net6.IsValid() && mtu >= minMTU6 {
					out.device.Paths[h.Slot.Addr6(s.records.Net6)] = mtu
				}
			}
		}
	}
	out.guests = s.guestWants(d)
	return out
}

// minMTU6 is the least that IPv6 asks of every network (RFC 8200).
const minMTU6 = 1280

func pathMTUs(w flow.Want) map[label.Label]int {
	out := map[label.Label]int{}
	for _, p := range w.Paths {
		if p.MTU > 0 {
			out[p.To] = p.MTU
		}
	}
	return out
}

// addrs are a machine's addresses in the network, with the network's lengths.
func (s *session) addrs(a netip.Addr) []netip.Prefix {
	out := []netip.Prefix{netip.PrefixFrom(a, s.records.Net4.Bits())}
	if slot, ok := slotOf(a); ok && s.records.Net6.IsValid() {
		out = append(out, netip.PrefixFrom(slot.Addr6(s.records.Net6), s.records.Net6.Bits()))
	}
	return out
}

// mtu is what programs of this node may send: what a tunnel over IPv4 leaves of the underlay, if there is one.
func (s *session) mtu() int {
	out := 0
	for _, l := range s.local {
		if m := l.MTU - underlay.Overhead(l.Addr); out == 0 || m > out {
			out = m
		}
	}
	return max(out, minMTU6)
}

// linkMTU is what a tunnel to an address takes, as far as the interfaces at both ends tell; 0: unknown.
func (s *session) linkMTU(dst netip.Addr, far int) int {
	out, over := far, dst
	if sealed.DefaultNet.Contains(dst) {
		over = s.sealedOver(dst)
	}
	for _, l := range s.local {
		if l.Addr.Is4() == over.Is4() && (out == 0 || l.MTU < out) {
			out = l.MTU
		}
	}
	switch {
	case out == 0 || !dst.IsValid():
		return 0
	case over != dst:
		return sealed.MTU(out, over)
	}
	return out - underlay.Overhead(dst)
}
