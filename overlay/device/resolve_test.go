package device

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// neighbour is what the kernel has of an address on d0; nil: nothing.
func neighbour(t *testing.T, a string) *netlink.Neigh {
	t.Helper()
	link, err := netlink.LinkByName("d0")
	if err != nil {
		t.Fatal(err)
	}
	list, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range list {
		if n.IP.Equal(net.ParseIP(a)) {
			return &n
		}
	}
	return nil
}

// ask has the kernel ask who has an address, and waits until it does.
func ask(t *testing.T, a string) {
	t.Helper()
	c, err := net.Dial("udp", net.JoinHostPort(a, "9"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write([]byte("anybody?")) // an error of the packet before, if any
	for end := time.Now().Add(5 * time.Second); neighbour(t, a) == nil; {
		if time.Now().After(end) {
			t.Fatalf("the kernel asks for no %s", a)
		}
	}
}

func TestResolve(t *testing.T) {
	enter(t)
	apply(t, Config{Addrs: prefixes("10.7.0.1/16 fd07::1/64"), MTU: 1400})
	asked := []string{"10.7.0.2", "fd07::2", "10.7.0.3"}
	for _, a := range asked {
		ask(t, a)
	}
	want, _ := net.ParseMAC("02:76:00:00:00:02")
	known := map[netip.Addr]net.HardwareAddr{netip.MustParseAddr("10.7.0.2"): want, netip.MustParseAddr("fd07::2"): want, netip.MustParseAddr("10.7.0.4"): want}
	if err := Resolve("d0", func(a netip.Addr) net.HardwareAddr { return known[a] }); err != nil {
		t.Fatal(err)
	}
	for _, a := range asked[:2] {
		if n := neighbour(t, a); n == nil || n.HardwareAddr.String() != want.String() || n.State&(unix.NUD_INCOMPLETE|unix.NUD_FAILED|unix.NUD_PERMANENT) != 0 {
			t.Errorf("%s: %+v", a, n)
		}
	}
	if n := neighbour(t, "10.7.0.3"); n == nil || n.State&(unix.NUD_INCOMPLETE|unix.NUD_FAILED) == 0 {
		t.Errorf("10.7.0.3 is known: %+v", n)
	}
	if n := neighbour(t, "10.7.0.4"); n != nil {
		t.Errorf("nobody asked for 10.7.0.4: %+v", n)
	}
}

// A neighbour that is known is not touched: it may be in use.
func TestResolveLeavesWhatIsKnown(t *testing.T) {
	here := enter(t)
	apply(t, Config{Addrs: prefixes("10.7.0.1/16"), MTU: 1400})
	there, _ := net.ParseMAC("02:00:00:00:00:99")
	in := &netlink.Neigh{LinkIndex: here.Link(t, "d0").Attrs().Index, IP: net.ParseIP("10.7.0.2"), HardwareAddr: there, State: unix.NUD_REACHABLE}
	if err := netlink.NeighSet(in); err != nil {
		t.Fatal(err)
	}
	if err := Resolve("d0", func(netip.Addr) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, 1} }); err != nil {
		t.Fatal(err)
	}
	if n := neighbour(t, "10.7.0.2"); n == nil || n.HardwareAddr.String() != there.String() {
		t.Errorf("%+v", n)
	}
}
