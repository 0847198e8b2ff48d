package device

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Guest is how the inner end of a guest's interface is to be.
type Guest struct {
	Addrs []netip.Prefix
	MAC   net.HardwareAddr
	MTU   int
}

// Inner says what was found at the other end of an interface.
type Inner struct {
	Name  string // of the guest's own interface; empty: it is not one of this machine's, such as a virtual machine's
	Ready bool   // it was given its addresses
}

// AttachGuest sets up the interface of a guest, of which outer is the end on this side: a veth whose other end may be in
// another network namespace, or a tap. Where the other end is found it gets its addresses, and makes its checksums itself:
// a datapath in user space passes frames on as they are. The other end of a tap is a virtual machine's: it sets up itself.
func AttachGuest(outer string, g Guest) (Inner, error) {
	link, err := find(outer)
	if err != nil {
		return Inner{}, err
	}
	write(outer, "ipv6", "disable_ipv6", "1")
	if err := takeLarge(link); err != nil {
		return Inner{}, err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return Inner{}, fmt.Errorf("device: set %s up: %w", outer, err)
	}
	if _, ok := link.(*netlink.Veth); !ok {
		return Inner{}, nil
	}
	in := Inner{}
	err = inPeer(link, func(peer netlink.Link, h *netlink.Handle) error {
		in.Name = peer.Attrs().Name
		if err := setInner(h, peer, g); err != nil {
			return err
		}
		in.Ready = true
		return nil
	})
	return in, err
}

// largest is what a guest may send without being told in time that it is too large: an interface drops in silence what is
// larger than its own MTU.
const largest = 9000

func takeLarge(link netlink.Link) error {
	at := link.Attrs()
	if at.MTU >= largest {
		return nil
	}
	if err := netlink.LinkSetMTU(link, largest); err != nil {
		return fmt.Errorf("device: MTU %d of %s: %w", largest, at.Name, err)
	}
	return nil
}

// DetachGuest takes these addresses from the inner end again, where it is found; others stay, and so do its MTU and its MAC
// address, which are in nobody's way.
func DetachGuest(outer string, addrs []netip.Prefix) error {
	link, err := find(outer)
	if errors.Is(err, ErrNoLink) {
		return nil // gone with its guest
	}
	if err != nil {
		return err
	}
	if _, ok := link.(*netlink.Veth); !ok {
		return nil
	}
	return inPeer(link, func(peer netlink.Link, h *netlink.Handle) error {
		name := peer.Attrs().Name
		write(name, "ipv4", "promote_secondaries", "1") // or others of the network would go with the first
		for _, p := range addrs {
			a, err := netlink.ParseAddr(p.String())
			if err != nil {
				return err
			}
			if err := h.AddrDel(peer, a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) { // it may have been taken by hand
				return fmt.Errorf("device: take %s from the guest's %s: %w", p, name, err)
			}
		}
		return nil
	})
}

func setInner(h *netlink.Handle, peer netlink.Link, g Guest) error {
	name := peer.Attrs().Name
	if err := noChecksumOffload(name); err != nil {
		return err
	}
	if err := h.LinkSetMTU(peer, g.MTU); err != nil {
		return fmt.Errorf("device: MTU %d of the guest's %s: %w", g.MTU, name, err)
	}
	if err := h.LinkSetHardwareAddr(peer, g.MAC); err != nil {
		return fmt.Errorf("device: MAC address of the guest's %s: %w", name, err)
	}
	write(name, "ipv6", "disable_ipv6", "0") // containers are often made without
	for _, p := range g.Addrs {
		if err := give(h, peer, p); err != nil {
			return fmt.Errorf("device: give %s to the guest's %s: %w", p, name, err)
		}
	}
	if err := h.LinkSetUp(peer); err != nil {
		return fmt.Errorf("device: set the guest's %s up: %w", name, err)
	}
	return nil
}

// inPeer runs f in the network namespace of a veth's other end; it does nothing where no process of this machine is there.
func inPeer(link netlink.Link, f func(netlink.Link, *netlink.Handle) error) error {
	id := link.Attrs().NetNsID
	if id < 0 { // the same namespace
		peer, err := netlink.LinkByIndex(link.Attrs().ParentIndex)
		if err != nil {
			return nil
		}
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		return f(peer, h)
	}
	ns, ok := namespaceOf(id)
	if !ok {
		return nil
	}
	defer ns.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine, still in that namespace
		done <- func() error {
			if err := netns.Set(ns); err != nil {
				return fmt.Errorf("device: enter the guest's network namespace: %w", err)
			}
			h, err := netlink.NewHandle()
			if err != nil {
				return err
			}
			defer h.Close()
			peer, err := h.LinkByIndex(link.Attrs().ParentIndex)
			if err != nil {
				return fmt.Errorf("device: the guest's end of %s: %w", link.Attrs().Name, err)
			}
			return f(peer, h)
		}()
	}()
	return <-done
}

// namespaceOf finds the network namespace that the kernel calls id from here, among those that are named and those that
// processes are in.
func namespaceOf(id int) (netns.NsHandle, bool) {
	named, _ := filepath.Glob("/run/netns/*")
	byProcess, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	seen := map[uint64]bool{}
	for _, path := range append(named, byProcess...) {
		ns, err := netns.GetFromPath(path)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(ns), &st); err == nil && seen[st.Ino] {
			ns.Close()
			continue
		}
		seen[st.Ino] = true
		if got, err := netlink.GetNetNsIdByFd(int(ns)); err == nil && got == id {
			return ns, true
		}
		ns.Close()
	}
	return 0, false
}
