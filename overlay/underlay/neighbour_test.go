package underlay

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"vcpeer/overlay/device/devicetest"
)

// enterCable gives a test two machines, itself on the first:
//
//	192.0.2.1      ea ═══ eb  192.0.2.2      02:00:00:00:00:02
//	2001:db8::1               2001:db8::2
//
// The network 198.51.100.0/24 is behind the second; to all else there is no route.
func enterCable(t *testing.T) (peer devicetest.Space) {
	t.Helper()
	here := devicetest.Enter(t)
	peer = devicetest.Another(t)
	devicetest.Veth(t, "ea", "eb", peer)
	peer.SetMAC(t, "eb", "02:00:00:00:00:02")
	here.Up(t, "ea")
	peer.Up(t, "eb")
	here.Add(t, "ea", "192.0.2.1/24", "2001:db8::1/64")
	peer.Add(t, "eb", "192.0.2.2/24", "2001:db8::2/64")
	_, dst, _ := net.ParseCIDR("198.51.100.0/24")
	if err := here.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP("192.0.2.2")}); err != nil {
		t.Fatal(err)
	}
	return peer
}

// look says what Neighbours does.
func look(t *testing.T, to string) string {
	t.Helper()
	known, missing, err := Neighbours(addrs(to))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(known, missing)
}

func TestNeighbours(t *testing.T) {
	enterCable(t)
	const to = "2001:db8::2 192.0.2.2 198.51.100.7 198.51.100.8 203.0.113.7"
	if got, want := look(t, to), "[] 2"; got != want {
		t.Errorf("at first: %s, want %s", got, want)
	}
	want := "[{192.0.2.2 02:00:00:00:00:02} {2001:db8::2 02:00:00:00:00:02}] 0"
	devicetest.Until(t, want, func() bool { return look(t, to) == want })
	if got, want := look(t, "198.51.100.8"), "[{192.0.2.2 02:00:00:00:00:02}] 0"; got != want {
		t.Errorf("by a gateway: %s, want %s", got, want)
	}
	for _, to := range []string{"", "203.0.113.7"} {
		if got, want := look(t, to), "[] 0"; got != want {
			t.Errorf("no way to %q: %s, want %s", to, got, want)
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	enterCable(t)
	look(t, "192.0.2.99")
	failed := func() bool {
		list, err := netlink.NeighList(0, netlink.FAMILY_V4)
		return err == nil && slices.ContainsFunc(list, func(n netlink.Neigh) bool { return n.State == netlink.NUD_FAILED })
	}
	devicetest.Until(t, "the kernel gives up", failed)
	if got, want := look(t, "192.0.2.99"), "[] 1"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	devicetest.Until(t, "it was asked anew", func() bool { return !failed() })
}

func TestForget(t *testing.T) {
	peer := enterCable(t)
	const both = "192.0.2.2 2001:db8::2"
	is := func(mac string) func() bool {
		return func() bool { return look(t, both) == fmt.Sprintf("[{192.0.2.2 %[1]s} {2001:db8::2 %[1]s}] 0", mac) }
	}
	devicetest.Until(t, "both are known", is("02:00:00:00:00:02"))
	peer.SetMAC(t, "eb", "02:00:00:00:00:03")
	for _, tt := range []struct {
		name, silent, heard string
	}{
		{"nobody is silent", "", both},
		{"there is no route", "203.0.113.7", ""},
		{"another is heard over that hop", "198.51.100.7", "192.0.2.2"},
		{"one of two behind a gateway is heard", "198.51.100.7", "198.51.100.8"},
	} {
		if Forget(addrs(tt.silent), addrs(tt.heard)) {
			t.Errorf("%s: forgot", tt.name)
		}
	}
	if got, want := look(t, "192.0.2.2"), "[{192.0.2.2 02:00:00:00:00:02}] 0"; got != want {
		t.Errorf("before it forgot: %s, want %s", got, want)
	}
	if !Forget(append(addrs(both), netip.MustParseAddr("203.0.113.7")), nil) {
		t.Error("did not forget")
	}
	devicetest.Until(t, "the new MAC address", is("02:00:00:00:00:03"))
}
