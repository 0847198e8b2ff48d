package lab

import (
	"net"
	"net/netip"

	"vcpeer/deploy/lab/topology"
	"vcpeer/deploy/lab/wan"
)

// Addresses. A public site has a /24 and a /64 that are routed to it, none of them set aside for documentation or
// private use, so that programs treat them as the Internet. Sites are numbered from 0; with more than 256 the second
// byte goes on.
//
//	44.128.N.0/24, 2a0e:97c0:N::/64    the nodes of site N: .1, .2, …; their gateway is .254
//	192.168.N.0/24                     the same behind NAT (IPv6 stays public, and is closed to what comes unasked)
//	44.192.N.0/24, 2a0e:97c1:N::/64    between the site's router .1 and the network between the sites .254
//	100.64.N.0/24, 2a0e:97c2:N::/64    between the two routers of a double NAT: the inner .1, the outer .254
const gatewayHost = 254

// Kinds of machines.
const (
	KindNode   = "node"
	KindRouter = "router"
	KindWAN    = "wan" // where all sites meet: `lab exec wan -- tcpdump -i SITE`
)

// wanName is the machine that has the ports of all sites.
const wanName = "wan"

// plan is a topology as machines and cables: a pure function of it.
type plan struct {
	machines []machinePlan
	cables   []cable
	ports    []wan.Port
}

// machinePlan is one machine.
type machinePlan struct {
	name, site, kind string
	node             topology.Node // of a node
	ip               topology.IP
	bridges          []bridge
	routes           []route
	rules            string // for nft; empty: none
}

// bridge joins interfaces of a machine.
type bridge struct {
	name  string
	mac   net.HardwareAddr
	addrs []netip.Prefix
}

// route leads to a prefix, or everywhere when it is zero.
type route struct {
	to  netip.Prefix
	via netip.Addr
}

// cable is a veth pair.
type cable struct {
	a, b end
	mtu  int
}

// end is one end of a cable.
type end struct {
	machine, name string
	mac           net.HardwareAddr
	addrs         []netip.Prefix
	bridge        string // that it is a port of; empty: none
}

// planner gives out what must differ.
type planner struct {
	plan
	macs uint32
}

func (p *planner) mac() net.HardwareAddr {
	p.macs++
	return net.HardwareAddr{0x02, 0x76, 0x63, byte(p.macs >> 16), byte(p.macs >> 8), byte(p.macs)}
}

// planOf works out a lab.
func planOf(t topology.Topology) plan {
	p := &planner{}
	p.machines = append(p.machines, machinePlan{name: wanName, kind: KindWAN, ip: topology.Both})
	for i, s := range t.Sites {
		p.site(i, s)
	}
	return p.plan
}

func (p *planner) site(i int, s topology.Site) {
	lan := netOf(i, lanNet(s), s.IP)
	if !s.Router {
		for _, n := range s.Nodes { // one, or none
			eth0 := end{machine: n.Name, name: "eth0", addrs: lan.hosts(1)}
			p.machines = append(p.machines, nodePlan(s, n, lan))
			p.connect(s, eth0, lan, lan.nets())
		}
		return
	}
	outside := netOf(i, transitNet, s.IP)
	routed := outside.nets()
	if s.NAT == topology.NoNAT {
		routed = append(routed, lan.nets()...)
	} else {
		routed = append(routed, lan.nets6()...)
	}
	router := machinePlan{name: s.RouterName(), site: s.Name, kind: KindRouter, ip: s.IP, rules: rulesOf(s)}
	router.bridges = []bridge{{"lan", p.mac(), lan.hosts(gatewayHost)}}
	uplink := end{machine: router.name, name: "wan"}
	if s.DoubleNAT {
		between := netOf(i, betweenNet, s.IP)
		isp := machinePlan{name: s.ISPName(), site: s.Name, kind: KindRouter, ip: s.IP, rules: rulesOf(s), routes: outside.defaults()}
		for _, n := range lan.nets6() {
			isp.routes = append(isp.routes, route{n, between.v6.host(1)})
		}
		uplink.addrs, router.routes = between.hosts(1), between.defaults()
		p.machines = append(p.machines, isp)
		p.cable(cable{uplink, end{machine: isp.name, name: "lan", addrs: between.hosts(gatewayHost)}, topology.DefaultMTU})
		uplink = end{machine: isp.name, name: "wan"}
	} else {
		router.routes = outside.defaults()
	}
	uplink.addrs = outside.hosts(1)
	p.machines = append(p.machines, router)
	p.connect(s, uplink, outside, routed)
	for k, n := range s.Nodes {
		p.machines = append(p.machines, nodePlan(s, n, lan))
		p.cable(cable{end{machine: n.Name, name: "eth0", addrs: lan.hosts(k + 1)},
			end{machine: router.name, name: portName(n.Name, k), bridge: "lan"}, topology.DefaultMTU})
	}
}

func nodePlan(s topology.Site, n topology.Node, lan subnet) machinePlan {
	return machinePlan{name: n.Name, site: s.Name, kind: KindNode, node: n, ip: s.IP, routes: lan.defaults()}
}

// connect plugs a site into the network between the sites.
func (p *planner) connect(s topology.Site, e end, link subnet, routed []netip.Prefix) {
	e.mac = p.mac()
	name := portName(s.Name, len(p.ports))
	p.ports = append(p.ports, wan.Port{Site: s.Name, Interface: name, Station: e.mac, Nets: routed, Gateways: link.addrsOf(gatewayHost)})
	p.cable(cable{e, end{machine: wanName, name: name}, s.MTU})
}

func (p *planner) cable(c cable) {
	for _, e := range []*end{&c.a, &c.b} {
		if e.mac == nil {
			e.mac = p.mac()
		}
	}
	p.cables = append(p.cables, c)
}

func (p plan) hasOVS() bool {
	for _, m := range p.machines {
		if m.kind == KindNode && m.node.OVS {
			return true
		}
	}
	return false
}

// addrs lists the addresses of a machine.
func (p plan) addrs(machine string) (all []netip.Addr) {
	for _, c := range p.cables {
		for _, e := range []end{c.a, c.b} {
			for _, a := range e.addrs {
				if e.machine == machine {
					all = append(all, a.Addr())
				}
			}
		}
	}
	return all
}
