package device

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"vcpeer/overlay/device/devicetest"
)

// enter moves a test to a namespace with the interface d0, which is Apply's, and d1, which is not.
func enter(t *testing.T) devicetest.Space {
	t.Helper()
	here := devicetest.Enter(t)
	for _, name := range []string{"d0", "d1"} {
		devicetest.Veth(t, name, name+"x", devicetest.Space{})
		here.Up(t, name+"x")
	}
	here.Up(t, "d1")
	return here
}

func prefixes(texts string) (out []netip.Prefix) {
	for _, s := range strings.Fields(texts) {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func apply(t *testing.T, c Config) {
	t.Helper()
	if err := Apply("d0", c); err != nil {
		t.Fatal(err)
	}
}

func expectAddrs(t *testing.T, s devicetest.Space, name, want string) {
	t.Helper()
	got := s.Addrs(t, name)
	slices.Sort(got)
	if got := strings.Join(got, " "); got != want {
		t.Errorf("%s has %q, want %q", name, got, want)
	}
}

func TestApplyAddrs(t *testing.T) {
	for _, tt := range []struct{ name, have, want string }{
		{"the first ones", "", "10.7.0.1/16 fd07::1/64"},
		{"others in their place", "10.7.0.1/16 fd07::1/64", "10.7.0.2/16 fd07::2/64"},
		{"none", "10.7.0.1/16 fd07::1/64", ""},
		{"another length", "10.7.0.1/16 fd07::1/64", "10.7.0.1/24 fd07::1/48"},
		{"one more", "10.7.0.1/16", "10.7.0.1/16 10.7.0.2/16"},
		{"foreign ones go", "10.7.0.1/16 192.168.1.1/24 2001:db8::9/64", "10.7.0.1/16"},
		{"the second of a network stays without the first", "10.7.0.1/16 10.7.0.2/16", "10.7.0.2/16"},
		{"the whole of a network goes", "10.7.0.1/16 10.7.0.2/16 10.7.0.3/16", "10.8.0.1/16"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			here := enter(t)
			here.Add(t, "d1", "10.9.0.1/16", "fd09::1/64")
			here.Add(t, "d0", strings.Fields(tt.have)...)
			c := Config{Addrs: prefixes(tt.want), MTU: 1400}
			for range 2 {
				apply(t, c)
				expectAddrs(t, here, "d0", tt.want)
				expectAddrs(t, here, "d1", "10.9.0.1/16 fd09::1/64")
			}
		})
	}
}

func TestApplySetsUp(t *testing.T) {
	here := enter(t)
	write("d0", "ipv6", "disable_ipv6", "1") // as the machine's others may have it
	apply(t, Config{Addrs: prefixes("fd07::1/64"), MTU: 1380})
	apply(t, Config{Addrs: prefixes("fd07::1/64"), MTU: 1360})
	at := here.Link(t, "d0").Attrs()
	if at.MTU != 1360 || at.Flags&1 == 0 {
		t.Errorf("MTU %d, flags %v", at.MTU, at.Flags)
	}
	if mtu, err := MTUOf("d0"); mtu != 1360 || err != nil {
		t.Errorf("MTUOf: %d, %v", mtu, err)
	}
	if mtu := here.Link(t, "d1").Attrs().MTU; mtu != 1500 {
		t.Errorf("MTU of the other: %d", mtu)
	}
	list, err := here.AddrList(here.Link(t, "d0"), netlink.FAMILY_V6)
	if err != nil {
		t.Fatal(err)
	}
	expectAddrs(t, here, "d0", "fd07::1/64")
	for _, a := range list {
		if a.Flags&0x40 != 0 && a.IP.String() == "fd07::1" { // IFA_F_TENTATIVE
			t.Error("fd07::1 waits for duplicate address detection")
		}
	}
}

// routes lists what somebody can have set, in order.
func routes(t *testing.T, here devicetest.Space) (out []string) {
	t.Helper()
	list, err := here.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		if r.Protocol == 2 { // RTPROT_KERNEL
			continue
		}
		link, err := here.LinkByIndex(r.LinkIndex)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s %s %d by %d", r.Dst, link.Attrs().Name, r.MTU, r.Protocol))
	}
	slices.Sort(out)
	return out
}

func addRoute(t *testing.T, here devicetest.Space, link, dst string, by netlink.RouteProtocol) {
	t.Helper()
	to, err := netlink.ParseIPNet(dst)
	if err != nil {
		t.Fatal(err)
	}
	r := &netlink.Route{LinkIndex: here.Link(t, link).Attrs().Index, Dst: to, Protocol: by, Scope: netlink.SCOPE_LINK}
	if err := here.RouteAdd(r); err != nil {
		t.Fatalf("route %s: %v", dst, err)
	}
}

func TestApplyPaths(t *testing.T) {
	here := enter(t)
	here.Up(t, "d0")
	addRoute(t, here, "d0", "10.7.9.9/32", 4)
	addRoute(t, here, "d0", "fd07::99/128", 4)
	addRoute(t, here, "d1", "10.7.9.8/32", 4)
	addRoute(t, here, "d1", "10.7.9.7/32", routeMark) // another overlay's of this machine
	foreign := []string{"10.7.9.7/32 d1 0 by 118", "10.7.9.8/32 d1 0 by 4", "10.7.9.9/32 d0 0 by 4", "fd07::99/128 d0 0 by 4"}
	for _, tt := range []struct {
		name  string
		paths map[string]int
		want  []string
	}{
		{"none", nil, nil},
		{"added", map[string]int{"10.7.0.2": 1300, "10.7.0.3": 1200, "fd07::2": 1300},
			[]string{"10.7.0.2/32 d0 1300 by 118", "10.7.0.3/32 d0 1200 by 118", "fd07::2/128 d0 1300 by 118"}},
		{"changed", map[string]int{"10.7.0.2": 1290, "10.7.0.3": 1200, "fd07::2": 1290},
			[]string{"10.7.0.2/32 d0 1290 by 118", "10.7.0.3/32 d0 1200 by 118", "fd07::2/128 d0 1290 by 118"}},
		{"removed", map[string]int{"10.7.0.3": 1200}, []string{"10.7.0.3/32 d0 1200 by 118"}},
		{"others have a route there", map[string]int{"10.7.9.7": 1300, "10.7.9.8": 1300, "10.7.9.9": 1300, "fd07::99": 1300, "10.7.0.4": 1300},
			[]string{"10.7.0.4/32 d0 1300 by 118"}},
		{"all removed", nil, nil},
	} {
		want := slices.Concat(foreign, tt.want)
		slices.Sort(want)
		c := Config{Addrs: prefixes("10.7.0.1/16 fd07::1/64"), MTU: 1400, Paths: map[netip.Addr]int{}}
		for a, mtu := range tt.paths {
			c.Paths[netip.MustParseAddr(a)] = mtu
		}
		for _, time := range []string{"once", "twice"} {
			apply(t, c)
			if got := routes(t, here); !slices.Equal(got, want) {
				t.Fatalf("%s, %s:\n got %q\nwant %q", tt.name, time, got, want)
			}
		}
	}
}

// A change is told by the kernel to whoever listens; where nothing is to be done it tells nothing.
func TestApplyTwiceChangesNothing(t *testing.T) {
	here := enter(t)
	c := Config{Addrs: prefixes("10.7.0.1/16 fd07::1/64"), MTU: 1400,
		Paths: map[netip.Addr]int{netip.MustParseAddr("10.7.0.2"): 1300, netip.MustParseAddr("fd07::2"): 1300}}
	apply(t, c)
	devicetest.Until(t, "its own address", func() bool { // the kernel's, some time after it was set up
		list, err := here.AddrList(here.Link(t, "d0"), netlink.FAMILY_V6)
		return err == nil && slices.ContainsFunc(list, func(a netlink.Addr) bool {
			return a.IP.IsLinkLocalUnicast() && a.Flags&0x40 == 0
		})
	})
	done := make(chan struct{})
	defer close(done)
	told := make(chan string, 100) // more than one Apply can change
	addrs, changed := make(chan netlink.AddrUpdate), make(chan netlink.RouteUpdate)
	if err := netlink.AddrSubscribeAt(here.NS, addrs, done); err != nil {
		t.Fatal(err)
	}
	if err := netlink.RouteSubscribeAt(here.NS, changed, done); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			select {
			case a, ok := <-addrs:
				if !ok {
					return
				}
				told <- a.LinkAddress.String()
			case r, ok := <-changed:
				if !ok {
					return
				}
				told <- fmt.Sprint(r.Route.Dst)
			}
		}
	}()
	apply(t, c)
	here.Add(t, "d1", "192.0.2.1/32") // what comes after it all
	for {
		what := <-told
		if strings.HasPrefix(what, "192.0.2.1/") {
			return
		}
		t.Errorf("told of %s", what)
	}
}

func TestNoLink(t *testing.T) {
	devicetest.Enter(t)
	_, mtu := MTUOf("d0")
	_, attach := AttachGuest("d0", Guest{})
	for name, err := range map[string]error{
		"Apply": Apply("d0", Config{MTU: 1400}), "Up": Up("d0"), "MTUOf": mtu, "AttachGuest": attach,
	} {
		if !errors.Is(err, ErrNoLink) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := DetachGuest("d0", nil); err != nil {
		t.Errorf("DetachGuest: %v", err)
	}
}

func TestUp(t *testing.T) {
	here := enter(t)
	if err := Up("d0"); err != nil {
		t.Fatal(err)
	}
	if here.Link(t, "d0").Attrs().Flags&1 == 0 {
		t.Error("is down")
	}
	if list, err := here.AddrList(here.Link(t, "d0"), netlink.FAMILY_ALL); err != nil || len(list) > 0 {
		t.Errorf("addresses %v, %v", list, err)
	}
}
