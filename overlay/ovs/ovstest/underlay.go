package ovstest

import (
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
)

// Connect links two machines by a cable and gives each an underlay:
//
//	a  under 10.99.0.1 ── va ═══ vb ── 10.99.0.2 under  b
//
// The address is on a bridge of Open vSwitch, where the userspace datapath looks for the way to a tunnel's other end.
func Connect(t testing.TB, a, b *Switch) {
	t.Helper()
	a.do(t, "veth", func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "va"}, PeerName: "vb", PeerNamespace: netlink.NsPid(b.Pid(Vswitchd)),
		})
	})
	a.underlay(t, "va", "10.99.0.1/24")
	b.underlay(t, "vb", "10.99.0.2/24")
}

func (s *Switch) underlay(t testing.TB, cable, addr string) {
	t.Helper()
	s.Vsctl(t, "add-br", "under", "--", "set", "bridge", "under", "datapath_type=netdev", "--", "add-port", "under", cable)
	s.SetLink(t, cable, true)
	s.SetLink(t, "under", true)
	s.do(t, "address", func() error {
		link, err := netlink.LinkByName("under")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		return netlink.AddrAdd(link, a)
	})
}

// SetLink takes an interface of the machine up or down.
func (s *Switch) SetLink(t testing.TB, name string, up bool) {
	t.Helper()
	s.do(t, fmt.Sprintf("%s up=%t", name, up), func() error {
		link, err := netlink.LinkByName(name)
		switch {
		case err != nil:
			return err
		case up:
			return netlink.LinkSetUp(link)
		}
		return netlink.LinkSetDown(link)
	})
}

func (s *Switch) do(t testing.TB, what string, f func() error) {
	t.Helper()
	var err error
	s.Run(func() { err = f() })
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
