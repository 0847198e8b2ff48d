package device

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vcpeer/overlay/device/devicetest"
)

var guest = Guest{
	Addrs: prefixes("10.7.0.9/16 fd07::9/64"),
	MAC:   net.HardwareAddr{2, 0, 0, 0, 0, 9},
	MTU:   1380,
}

func attach(t *testing.T, outer string, g Guest, want Inner) {
	t.Helper()
	if got, err := AttachGuest(outer, g); got != want || err != nil {
		t.Fatalf("got %+v %v, want %+v", got, err, want)
	}
}

// expectGuest checks both ends of a veth.
func expectGuest(t *testing.T, here devicetest.Space, outer string, there devicetest.Space, inner, addrs string) {
	t.Helper()
	out, in := here.Link(t, outer).Attrs(), there.Link(t, inner).Attrs()
	if out.MTU != largest || out.Flags&1 == 0 {
		t.Errorf("outer: MTU %d, flags %v", out.MTU, out.Flags)
	}
	if list, err := here.AddrList(here.Link(t, outer), netlink.FAMILY_ALL); err != nil || len(list) > 0 {
		t.Errorf("outer: addresses %v, %v", list, err)
	}
	if in.MTU != guest.MTU || in.Flags&1 == 0 || in.HardwareAddr.String() != guest.MAC.String() {
		t.Errorf("inner: MTU %d, flags %v, MAC %s", in.MTU, in.Flags, in.HardwareAddr)
	}
	expectAddrs(t, there, inner, addrs)
	there.Do(t, func() error {
		if on, err := ethtool(inner, unix.ETHTOOL_GTXCSUM, 0); err != nil || on != 0 {
			return fmt.Errorf("checksum offload %d, %v", on, err)
		}
		return nil
	})
}

func TestGuestElsewhere(t *testing.T) {
	here, there := devicetest.Enter(t), devicetest.Another(t)
	devicetest.Another(t) // one more, to be told from
	devicetest.Veth(t, "g0", "eth0", there)
	there.Do(t, func() error {
		if on, err := ethtool("eth0", unix.ETHTOOL_GTXCSUM, 0); err != nil || on == 0 {
			return fmt.Errorf("checksum offload at first %d, %v", on, err)
		}
		return nil
	})
	before := held(t, here, there)
	for range 3 {
		attach(t, "g0", guest, Inner{"eth0", true})
		expectGuest(t, here, "g0", there, "eth0", "10.7.0.9/16 fd07::9/64")
	}
	there.Do(t, func() error { write("eth0", "ipv4", "promote_secondaries", "0"); return nil })
	there.Add(t, "eth0", "192.168.1.1/24", "10.7.0.200/16") // the guest's own affair
	for range 2 {
		if err := DetachGuest("g0", guest.Addrs); err != nil {
			t.Fatal(err)
		}
		expectAddrs(t, there, "eth0", "10.7.0.200/16 192.168.1.1/24")
	}
	attach(t, "g0", guest, Inner{"eth0", true})
	devicetest.Until(t, "threads and namespaces are given back: "+before, func() bool { return held(t, here, there) == before })
}

// held counts what this process holds of two namespaces: its threads in there, and files that keep them.
func held(t *testing.T, here, there devicetest.Space) string {
	t.Helper()
	count := func(pattern, ns string) (n int) {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if to, err := os.Readlink(f); err == nil && (to == ns || ns == "" && strings.HasPrefix(to, "net:")) {
				n++
			}
		}
		return n
	}
	name := func(s devicetest.Space) string {
		to, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", s.NS))
		if err != nil {
			t.Fatal(err)
		}
		return to
	}
	return fmt.Sprint(count("/proc/self/task/*/ns/net", name(here)), " here, ", count("/proc/self/task/*/ns/net", name(there)),
		" there, ", count("/proc/self/fd/*", ""), " files")
}

// Containers are often made without IPv6.
func TestGuestWithoutIPv6(t *testing.T) {
	here, there := devicetest.Enter(t), devicetest.Another(t)
	devicetest.Veth(t, "g0", "eth0", there)
	there.Do(t, func() error { write("eth0", "ipv6", "disable_ipv6", "1"); return nil })
	attach(t, "g0", guest, Inner{"eth0", true})
	expectGuest(t, here, "g0", there, "eth0", "10.7.0.9/16 fd07::9/64")
}

func TestGuestHere(t *testing.T) {
	here := devicetest.Enter(t)
	devicetest.Veth(t, "g0", "eth0", devicetest.Space{})
	for range 2 {
		attach(t, "g0", guest, Inner{"eth0", true})
		expectGuest(t, here, "g0", here, "eth0", "10.7.0.9/16 fd07::9/64")
	}
	if err := DetachGuest("g0", guest.Addrs); err != nil {
		t.Fatal(err)
	}
	expectAddrs(t, here, "eth0", "")
}

func TestGuestBehindTap(t *testing.T) {
	here := devicetest.Enter(t)
	if err := netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "g0"}, Mode: netlink.TUNTAP_MODE_TAP}); err != nil {
		t.Skipf("needs tap devices: %v", err)
	}
	mac := here.Link(t, "g0").Attrs().HardwareAddr.String()
	for range 2 {
		attach(t, "g0", guest, Inner{})
	}
	at := here.Link(t, "g0").Attrs()
	if at.MTU != largest || at.Flags&1 == 0 || at.HardwareAddr.String() != mac {
		t.Errorf("MTU %d, flags %v, MAC %s, was %s", at.MTU, at.Flags, at.HardwareAddr, mac)
	}
	expectAddrs(t, here, "g0", "")
	if err := DetachGuest("g0", guest.Addrs); err != nil {
		t.Error(err)
	}
}

// A guest whose end is in a namespace that no process is in any more is left alone.
func TestGuestOfNobody(t *testing.T) {
	devicetest.Enter(t)
	there := devicetest.Another(t)
	devicetest.Veth(t, "g0", "eth0", there)
	there.Leave()
	attach(t, "g0", guest, Inner{})
	if err := DetachGuest("g0", guest.Addrs); err != nil {
		t.Error(err)
	}
	if got := there.Addrs(t, "eth0"); len(got) > 0 {
		t.Errorf("it has %v", got)
	}
}
