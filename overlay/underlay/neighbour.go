package underlay

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Neighbour is a machine on a network of ours, and where its frames go.
type Neighbour struct {
	IP  netip.Addr
	MAC net.HardwareAddr
}

// hop is the next machine on the way to some address.
type hop struct {
	ip   netip.Addr
	link int
}

// Neighbours returns the next hops to the given addresses as the kernel knows them, by address. Those that it does not
// know yet, or has not heard of for a while, it is told to ask for: their answers come with a later call, and missing says
// how many are unknown as yet. An address without a route is left out.
func Neighbours(to []netip.Addr) (known []Neighbour, missing int, err error) {
	hops := nextHops(to)
	there := map[hop]netlink.Neigh{}
	list, err := netlink.NeighList(0, netlink.FAMILY_ALL)
	if err != nil {
		return nil, 0, fmt.Errorf("underlay: list neighbours: %w", err)
	}
	for _, n := range list {
		if ip, ok := netip.AddrFromSlice(n.IP); ok {
			there[hop{ip.Unmap(), n.LinkIndex}] = n
		}
	}
	for _, h := range hops {
		n, ok := there[h]
		usable := ok && n.State&(netlink.NUD_REACHABLE|netlink.NUD_STALE|netlink.NUD_DELAY|netlink.NUD_PROBE|netlink.NUD_PERMANENT) != 0
		if usable && len(n.HardwareAddr) == 6 {
			known = append(known, Neighbour{h.ip, n.HardwareAddr})
		} else {
			missing++
		}
		if !usable || n.State == netlink.NUD_STALE {
			ask(h)
		}
	}
	return known, missing, nil
}

// Forget makes the kernel ask anew for the next hops to the silent addresses: what it knew of them may be out of date, and
// Open vSwitch would go on with the old one for up to 33 seconds. A hop over which one of heard is reached has not moved, and
// to forget it would cut that one too. It reports whether it forgot any.
func Forget(silent, heard []netip.Addr) (any bool) {
	good := map[hop]bool{}
	for _, h := range nextHops(heard) {
		good[h] = true
	}
	for _, h := range nextHops(silent) {
		if good[h] {
			continue
		}
		_ = netlink.NeighDel(&netlink.Neigh{LinkIndex: h.link, IP: h.ip.AsSlice(), Family: family(h.ip)}) // it may not be there
		ask(h)
		any = true
	}
	return any
}

// nextHops returns the next hops to the given addresses, each once, in order.
func nextHops(to []netip.Addr) []hop {
	seen := map[hop]bool{}
	var out []hop
	for _, a := range to {
		routes, err := netlink.RouteGet(a.AsSlice())
		if err != nil || len(routes) == 0 {
			continue // no route: nothing to resolve
		}
		r := routes[0]
		h := hop{a, r.LinkIndex}
		if gw, ok := netip.AddrFromSlice(r.Gw); ok && !gw.IsUnspecified() {
			h.ip = gw.Unmap()
		}
		if !seen[h] {
			seen[h] = true
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(a, b hop) int { return a.ip.Compare(b.ip) })
	return out
}

// ask has the kernel resolve a neighbour as if a packet were waiting for it (NTF_USE of rtnetlink(7)).
func ask(h hop) {
	_ = netlink.NeighSet(&netlink.Neigh{ // without an answer the next round asks again
		LinkIndex: h.link, IP: h.ip.AsSlice(), Family: family(h.ip), Flags: unix.NTF_USE, State: netlink.NUD_NONE,
	})
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
