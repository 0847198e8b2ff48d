package underlay

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"vcpeer/overlay/device/devicetest"
)

func addrs(texts string) (out []netip.Addr) {
	for _, s := range strings.Fields(texts) {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestChoose(t *testing.T) {
	const both = "10.1.0.5/16 2001:db8:1::5/64"
	for _, tt := range []struct {
		name, local, peer string
		sameSite          bool
		want              string
	}{
		{"own site, on-link before public", both, "203.0.113.7 10.1.0.6", true, "10.1.0.6"},
		{"own site, on-link IPv6 before public IPv4", both, "203.0.113.7 2001:db8:1::6", true, "2001:db8:1::6"},
		{"own site, IPv4 of two on-link", both, "2001:db8:1::6 10.1.0.6", true, "10.1.0.6"},
		{"own site, public before another network's private", both, "192.168.7.7 203.0.113.7", true, "203.0.113.7"},
		{"own site, private of another network", both, "192.168.7.7", true, "192.168.7.7"},
		{"other site, public IPv4 first", both, "10.1.0.6 2001:db8:2::7 203.0.113.7", false, "203.0.113.7"},
		{"other site, then public IPv6", both, "10.1.0.6 192.168.7.7 fd00::7 2001:db8:2::7", false, "2001:db8:2::7"},
		{"other site, then private on-link", both, "192.168.7.7 10.1.0.6", false, "10.1.0.6"},
		{"other site, then any private", both, "fd00::7 192.168.7.7", false, "192.168.7.7"},
		{"a provider's shared address is not public", both, "100.64.0.7 2001:db8:2::7", false, "2001:db8:2::7"},
		{"of equals the peer's first", both, "203.0.113.9 203.0.113.7", false, "203.0.113.9"},
		{"never our own", both, "10.1.0.5 2001:db8:1::5", true, ""},
		{"another than our own", both, "10.1.0.5 192.168.7.7", true, "192.168.7.7"},
		{"no IPv6 here", "10.1.0.5/16", "2001:db8:2::7 10.1.0.6", false, "10.1.0.6"},
		{"no IPv4 here", "2001:db8:1::5/64", "203.0.113.7 fd00::7", false, "fd00::7"},
		{"no common family", "10.1.0.5/16", "2001:db8:2::7", false, ""},
		{"no network here", "", "203.0.113.7", true, ""},
		{"a peer without addresses", both, "", true, ""},
		{"what no tunnel can go to", both, "127.0.0.1 fe80::7 169.254.1.1 :: ff02::1", false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var local []Local
			for _, s := range strings.Fields(tt.local) {
				p := netip.MustParsePrefix(s)
				local = append(local, Local{Addr: p.Addr(), Prefix: p.Masked()})
			}
			got, ok := Choose(local, addrs(tt.peer), tt.sameSite)
			if want, _ := netip.ParseAddr(tt.want); got != want || ok != want.IsValid() {
				t.Errorf("got %v %t, want %q", got, ok, tt.want)
			}
		})
	}
}

func TestChooseSkipsTheZeroAddr(t *testing.T) {
	local := []Local{{Addr: netip.MustParseAddr("2001:db8::1")}}
	if got, ok := Choose(local, []netip.Addr{{}}, false); ok {
		t.Errorf("chose %v", got)
	}
}

func TestOverhead(t *testing.T) {
	for addr, want := range map[string]int{"192.0.2.7": 42, "2001:db8::7": 62} {
		if got := Overhead(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %d, want %d", addr, got, want)
		}
	}
}

func TestLocals(t *testing.T) {
	here := devicetest.Enter(t)
	for _, name := range []string{"e0", "e1", "e2"} {
		devicetest.Veth(t, name, name+"x", devicetest.Space{})
	}
	here.Up(t, "e1")
	here.Up(t, "e0")
	if err := here.LinkSetMTU(here.Link(t, "e0"), 1400); err != nil {
		t.Fatal(err)
	}
	here.Add(t, "e0", "192.0.2.9/24", "192.0.2.1/28", "2001:db8::1/64", "fe80::1/64", "169.254.7.7/16")
	here.Add(t, "e1", "10.1.2.3/8", "203.0.113.1/24")
	here.Add(t, "e2", "198.51.100.1/24") // down
	avoid := netip.MustParseAddr("203.0.113.1")
	list, err := Locals(func(a netip.Addr, link string) bool { return a != avoid || link != "e1" })
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range list {
		got = append(got, fmt.Sprint(l.Link, " ", l.Addr, " ", l.Prefix, " ", l.MTU))
	}
	want := []string{
		"e0 192.0.2.1 192.0.2.0/28 1400", "e0 192.0.2.9 192.0.2.0/24 1400", "e0 2001:db8::1 2001:db8::/64 1400",
		"e1 10.1.2.3 10.0.0.0/8 1500",
	}
	if !slices.Equal(got, want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}
