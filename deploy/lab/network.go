package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"vcpeer/deploy/lab/machine"
)

// network is the shell that makes what a plan says in the network of one machine.
type network struct {
	space machine.Space
	ns    netns.NsHandle
	link  *netlink.Handle
}

func openNetwork(s machine.Space) (*network, error) {
	ns, err := netns.GetFromPath(s.Namespace("net"))
	if err != nil {
		return nil, err
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		ns.Close()
		return nil, err
	}
	return &network{s, ns, h}, nil
}

func (n *network) close() {
	n.link.Close()
	n.ns.Close()
}

// settings are written before there is any interface, so that each new one has them.
func settings(m machinePlan) map[string]string {
	s := map[string]string{
		"ipv4/conf/default/rp_filter":     "0",
		"ipv4/conf/all/rp_filter":         "0",
		"ipv6/conf/default/accept_dad":    "0", // the plan gives no address twice
		"ipv6/conf/default/dad_transmits": "0",
		"ipv6/conf/default/accept_ra":     "0",
	}
	if !m.ip.Has6() || m.kind == KindWAN {
		s["ipv6/conf/default/disable_ipv6"] = "1"
	}
	if m.kind == KindRouter {
		s["ipv4/ip_forward"] = "1"
		s["ipv6/conf/all/forwarding"] = "1"
	}
	return s
}

// prepare brings up the loopback interface and the bridges.
func (n *network) prepare(m machinePlan) error {
	if err := n.space.InNetwork(func() error {
		for key, value := range settings(m) {
			err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0)
			if err != nil && !(os.IsNotExist(err) && strings.HasPrefix(key, "ipv6")) { // a kernel without IPv6
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if err := n.up("lo"); err != nil {
		return err
	}
	for _, b := range m.bridges {
		link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: b.name, HardwareAddr: b.mac}}
		if err := n.link.LinkAdd(link); err != nil {
			return fmt.Errorf("bridge %s: %w", b.name, err)
		}
		if err := n.configure(end{name: b.name, addrs: b.addrs}); err != nil {
			return err
		}
	}
	return nil
}

// plug makes a cable; n is at its end a, far at b.
func (n *network) plug(c cable, far *network) error {
	v := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: c.a.name, HardwareAddr: c.a.mac, MTU: c.mtu, TxQLen: 1000},
		PeerName:  c.b.name, PeerHardwareAddr: c.b.mac, PeerNamespace: netlink.NsFd(int(far.ns)), PeerMTU: uint32(c.mtu),
	}
	if err := n.link.LinkAdd(v); err != nil {
		return fmt.Errorf("veth: %w", err)
	}
	if err := n.configure(c.a); err != nil {
		return err
	}
	return far.configure(c.b)
}

func (n *network) configure(e end) error {
	link, err := n.link.LinkByName(e.name)
	if err != nil {
		return fmt.Errorf("%s: %w", e.name, err)
	}
	if e.bridge != "" {
		lan, err := n.link.LinkByName(e.bridge)
		if err != nil {
			return fmt.Errorf("%s: %w", e.bridge, err)
		}
		if err := n.link.LinkSetMasterByIndex(link, lan.Attrs().Index); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	if err := n.space.WholePackets(e.name); err != nil {
		return err
	}
	for _, a := range e.addrs {
		addr := &netlink.Addr{IPNet: ipNet(a), Flags: unix.IFA_F_NODAD}
		if err := n.link.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("%s: address %s: %w", e.name, a, err)
		}
	}
	return n.up(e.name)
}

func (n *network) up(name string) error {
	link, err := n.link.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := n.link.LinkSetUp(link); err != nil {
		return fmt.Errorf("%s: up: %w", name, err)
	}
	return nil
}

// finish adds what needs the interfaces: routes and rules.
func (n *network) finish(ctx context.Context, m machinePlan) error {
	for _, r := range m.routes {
		to := r.to
		if !to.IsValid() {
			to = netip.PrefixFrom(zero(r.via), 0)
		}
		if err := n.link.RouteAdd(&netlink.Route{Dst: ipNet(to), Gw: r.via.AsSlice()}); err != nil {
			return fmt.Errorf("route %s via %s: %w", to, r.via, err)
		}
	}
	if m.rules == "" {
		return nil
	}
	nft := exec.CommandContext(ctx, "nft", "-f", "-")
	nft.Stdin = strings.NewReader(m.rules)
	var out strings.Builder
	nft.Stdout, nft.Stderr = &out, &out
	if err := n.space.Start(nft); err != nil {
		return fmt.Errorf("nft: %w", err)
	}
	if err := nft.Wait(); err != nil {
		return fmt.Errorf("nft: %w\n%s", err, &out)
	}
	return nil
}

func zero(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
