// Package device sets up the interfaces by which programs and guests use the overlay: addresses, MTU and routes of the
// bridge's own interface, and both ends of a guest's. It changes only interfaces that it is given and routes that carry its
// mark, and doing it twice is harmless.
package device

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNoLink says that there is no such interface.
var ErrNoLink = errors.New("no such interface")

// Config is how an interface is to be.
type Config struct {
	Addrs []netip.Prefix     // with the network's length; others on the interface are taken away
	MTU   int                // bytes
	Paths map[netip.Addr]int // addresses behind paths that take less than MTU, with what those take
}

// routeMark is the protocol of our routes (rtnetlink(7)), by which they are known again.
const routeMark netlink.RouteProtocol = 0x76

// Apply brings an interface to c. ErrNoLink: it is not there (yet).
func Apply(name string, c Config) error {
	link, err := find(name)
	if err != nil {
		return err
	}
	quiet(name)
	at := link.Attrs()
	if at.MTU != c.MTU {
		if err := netlink.LinkSetMTU(link, c.MTU); err != nil {
			return fmt.Errorf("device: MTU %d of %s: %w", c.MTU, name, err)
		}
	}
	if err := applyAddrs(link, c.Addrs); err != nil {
		return err
	}
	if at.Flags&1 == 0 { // net.FlagUp
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("device: set %s up: %w", name, err)
		}
	}
	return applyPaths(link, c.Paths)
}

// Up sets an interface up that carries no addresses, such as the agent's.
func Up(name string) error {
	link, err := find(name)
	if err != nil {
		return err
	}
	write(name, "ipv6", "disable_ipv6", "1")
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("device: set %s up: %w", name, err)
	}
	return nil
}

// Sole sets an interface up that has one IPv4 address and nothing else.
func Sole(name string, a netip.Prefix) error {
	link, err := find(name)
	if err != nil {
		return err
	}
	if err := Up(name); err != nil {
		return err
	}
	return applyAddrs(link, []netip.Prefix{a})
}

// MTUOf returns the MTU of an interface, bytes.
func MTUOf(name string) (int, error) {
	link, err := find(name)
	if err != nil {
		return 0, err
	}
	return link.Attrs().MTU, nil
}

func find(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, fmt.Errorf("device: %s: %w", name, ErrNoLink)
	}
	if err != nil {
		return nil, fmt.Errorf("device: %s: %w", name, err)
	}
	return link, nil
}

// quiet lets an interface have IPv6 addresses, also where the machine's others have none, keeps the kernel from making
// some of its own, since nobody here sends router advertisements, and from taking a network's other addresses with its
// first.
func quiet(name string) {
	write(name, "ipv4", "promote_secondaries", "1")
	write(name, "ipv6", "disable_ipv6", "0")
	write(name, "ipv6", "accept_ra", "0")
	write(name, "ipv6", "accept_dad", "0")
}

// write sets a value below /proc/sys/net; where the kernel has no such value there is nothing to set.
func write(name, family, key, value string) {
	_ = os.WriteFile(filepath.Join("/proc/sys/net", family, "conf", name, key), []byte(value), 0o644)
}

func applyAddrs(link netlink.Link, want []netip.Prefix) error {
	have, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("device: addresses of %s: %w", link.Attrs().Name, err)
	}
	there := map[netip.Prefix]bool{}
	for _, a := range have {
		p := prefixOf(a)
		if slices.Contains(want, p) {
			there[p] = true
			continue
		}
		if p.Addr().IsLinkLocalUnicast() {
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil {
			return fmt.Errorf("device: take %s from %s: %w", p, link.Attrs().Name, err)
		}
	}
	for _, p := range want {
		if there[p] {
			continue
		}
		if err := give(&netlink.Handle{}, link, p); err != nil {
			return fmt.Errorf("device: give %s to %s: %w", p, link.Attrs().Name, err)
		}
	}
	return nil
}

// give has an interface have an address, usable at once: claims decide who has it. Where the kernel takes no IPv6 it has none.
func give(h *netlink.Handle, link netlink.Link, p netip.Prefix) error {
	a, err := netlink.ParseAddr(p.String())
	if err != nil {
		return err
	}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := h.AddrReplace(link, a); !noIPv6(p, err) {
		return err
	}
	return nil
}

// noIPv6 reports that the kernel takes no IPv6 address at all.
func noIPv6(p netip.Prefix, err error) bool {
	return p.Addr().Is6() && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP))
}

func prefixOf(a netlink.Addr) netip.Prefix {
	ip, _ := netip.AddrFromSlice(a.IP)
	ones, _ := a.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), ones)
}

// applyPaths gives the kernel the MTU of each path that takes less than the interface, so that TCP announces what fits
// (RFC 9293, 3.7.1) and nothing has to be dropped first.
func applyPaths(link netlink.Link, want map[netip.Addr]int) error {
	name := link.Attrs().Name
	filter := &netlink.Route{LinkIndex: link.Attrs().Index, Protocol: routeMark}
	have, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("device: routes of %s: %w", name, err)
	}
	ours := map[netip.Addr]int{}
	for _, r := range have {
		dst := addrOf(r)
		if _, ok := want[dst]; ok {
			ours[dst] = r.MTU
			continue
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("device: take route to %s: %w", dst, err)
		}
	}
	addrs := make([]netip.Addr, 0, len(want))
	for a := range want {
		addrs = append(addrs, a)
	}
	slices.SortFunc(addrs, func(a, b netip.Addr) int { return cmp.Compare(a.String(), b.String()) })
	for _, a := range addrs {
		mtu, held := ours[a]
		if held && mtu == want[a] {
			continue
		}
		r := netlink.Route{LinkIndex: link.Attrs().Index, Dst: netlink.NewIPNet(a.AsSlice()), Protocol: routeMark, MTU: want[a], Scope: netlink.SCOPE_LINK}
		set := netlink.RouteAdd
		if held {
			set = netlink.RouteReplace
		}
		if err := set(&r); err != nil && !errors.Is(err, unix.EEXIST) { // somebody else's: theirs to decide
			return fmt.Errorf("device: route to %s: %w", a, err)
		}
	}
	return nil
}

func addrOf(r netlink.Route) netip.Addr {
	if r.Dst == nil {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(r.Dst.IP)
	return a.Unmap()
}
