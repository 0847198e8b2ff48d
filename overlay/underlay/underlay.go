// Package underlay is what the overlay needs to know of the network below it: which addresses of this machine tunnels can
// use, which address of a peer to take, by which neighbour it is reached, and a guard that keeps the kernel from answering
// tunnels that a datapath in user space ends. It asks the kernel by netlink and keeps nothing.
package underlay

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// Local is an address of this machine that tunnels can use.
type Local struct {
	Addr   netip.Addr
	Prefix netip.Prefix // of the network that it is in
	Link   string       // the interface that holds it
	MTU    int          // of the interface, bytes
}

// Locals lists the addresses of this machine that use accepts, on interfaces that are up, by interface and address.
// Loopback and link-local addresses are never among them.
func Locals(use func(a netip.Addr, link string) bool) ([]Local, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("underlay: list interfaces: %w", err)
	}
	var out []Local
	for _, l := range links {
		at := l.Attrs()
		if at.Flags&1 == 0 || l.Type() == "openvswitch" { // net.FlagUp
			continue
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("underlay: addresses of %s: %w", at.Name, err)
		}
		for _, a := range addrs {
			ip, ok := netip.AddrFromSlice(a.IP)
			if ip = ip.Unmap(); !ok || !ip.IsGlobalUnicast() || !use(ip, at.Name) {
				continue
			}
			ones, _ := a.Mask.Size()
			out = append(out, Local{ip, netip.PrefixFrom(ip, ones).Masked(), at.Name, at.MTU})
		}
	}
	slices.SortFunc(out, func(a, b Local) int { return cmp.Or(cmp.Compare(a.Link, b.Link), a.Addr.Compare(b.Addr)) })
	return out, nil
}

// Choose picks the address to send tunnels to of those that a peer has: of a family that this machine has an address of,
// and the likeliest to be the peer's. In the own site that is an address in a network of ours; elsewhere a public one, for
// a private one may be another machine's here. False: there is none.
func Choose(local []Local, peer []netip.Addr, sameSite bool) (netip.Addr, bool) {
	best, rank := netip.Addr{}, 0
	for _, a := range peer {
		if r := rankOf(local, a, sameSite); r > rank {
			best, rank = a, r
		}
	}
	return best, rank > 0
}

// shared is a provider's (RFC 6598): like a private address, each may be many machines'.
var shared = netip.MustParsePrefix("100.64.0.0/10")

func rankOf(local []Local, a netip.Addr, sameSite bool) int {
	family, onLink := false, false
	for _, l := range local {
		if l.Addr == a {
			return 0 // our own
		}
		family = family || l.Addr.Is4() == a.Is4()
		onLink = onLink || l.Prefix.Contains(a)
	}
	rank := 0
	switch {
	case !family || !a.IsGlobalUnicast():
		return 0
	case sameSite && onLink:
		rank = 8
	case !a.IsPrivate() && !shared.Contains(a):
		rank = 6
	case onLink:
		rank = 4
	default:
		rank = 2
	}
	if a.Is4() {
		rank++ // 20 bytes more of each packet are the user's
	}
	return rank
}

// Overhead is what a tunnel takes of the underlay's MTU, bytes: the inner Ethernet header, GRE with a key, the outer IP.
func Overhead(dst netip.Addr) int {
	const ethernet, gre = 14, 8
	if dst.Is4() {
		return ethernet + gre + 20
	}
	return ethernet + gre + 40
}
