package device

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Resolve tells the kernel the MAC of addresses that it asks for on an interface and has no answer to; mac returns nil for
// one that is not known. The kernel asks again only after a second (arp(7), retrans_time_ms), and packets wait for that:
// whoever was called too early would reach a machine that has just come a second later than he could.
func Resolve(name string, mac func(netip.Addr) net.HardwareAddr) error {
	link, err := find(name)
	if err != nil {
		return err
	}
	list, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("device: neighbours on %s: %w", name, err)
	}
	for _, n := range list {
		a, ok := netip.AddrFromSlice(n.IP)
		if !ok || n.State != unix.NUD_INCOMPLETE {
			continue
		}
		if n.HardwareAddr = mac(a.Unmap()); n.HardwareAddr == nil {
			continue
		}
		n.State = unix.NUD_STALE // it is confirmed in use, as any other
		n.Flags, n.FlagsExt = 0, 0
		if err := netlink.NeighSet(&n); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("device: neighbour %s on %s: %w", a, name, err)
		}
	}
	return nil
}
