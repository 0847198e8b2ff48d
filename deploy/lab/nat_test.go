package lab

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"vcpeer/peer/api"
)

func asProblem(err error, p **api.Problem) bool { return errors.As(err, p) }

// udp opens a UDP socket on a machine.
func (l *Lab) udp(t *testing.T, machine string, port int) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	if err := l.Machine(machine).InNetwork(func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// passes sends until it arrives, and returns where it came from; not valid: it did not.
func passes(t *testing.T, from, to *net.UDPConn, at netip.AddrPort) netip.AddrPort {
	t.Helper()
	buf := make([]byte, 100)
	for range 3 {
		if _, err := from.WriteToUDPAddrPort([]byte("x"), at); err != nil {
			t.Fatal(err)
		}
		_ = to.SetReadDeadline(time.Now().Add(150 * time.Millisecond))
		_, src, err := to.ReadFromUDPAddrPort(buf)
		if err == nil {
			return netip.AddrPortFrom(src.Addr().Unmap(), src.Port())
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	return netip.AddrPort{}
}

// TestNAT: two hosts outside, x and y, see where a node behind each kind of NAT sends from, and send there: x from the
// port that was sent to and from another, y from one that was sent to and z, which was not sent to.
func TestNAT(t *testing.T) {
	l := newLab(t, "", `
ovs: off
sites:
  x:
  y:
  z:
  full: {nodes: [in-full], nat: full-cone}
  restricted: {nodes: [in-restricted], nat: restricted}
  port: {nodes: [in-port], nat: port-restricted}
  symmetric: {nodes: [in-symmetric], nat: symmetric}
  double: {nodes: [in-double], nat: port-restricted, double-nat: yes}
`)
	const port = 7475
	x, other := l.udp(t, "x-1", port), l.udp(t, "x-1", port+1)
	y, z := l.udp(t, "y-1", port), l.udp(t, "z-1", port)
	at := func(node string) netip.AddrPort { return netip.AddrPortFrom(l.Node(node).Addrs[0], port) }
	for _, tt := range []struct {
		node                              string
		samePort, otherPort, fromStranger bool // what x and y see is one port; who else gets in
	}{
		{"in-full", true, true, true},
		{"in-restricted", true, true, false},
		{"in-port", true, false, false},
		{"in-symmetric", false, false, false},
		{"in-double", true, false, false},
	} {
		t.Run(tt.node, func(t *testing.T) {
			in := l.udp(t, tt.node, port)
			outside := l.Node(tt.node).site.RouterName()
			if l.Node(tt.node).site.DoubleNAT {
				outside = l.Node(tt.node).site.ISPName()
			}
			early := netip.AddrPortFrom(last(l.plan.addrs(outside)), port)
			if passes(t, z, in, early).IsValid() {
				t.Error("dialled before it sent anything")
			}
			seen, seenByY := passes(t, in, x, at("x-1")), passes(t, in, y, at("y-1"))
			if !seen.IsValid() || !seenByY.IsValid() {
				t.Fatal("it cannot dial out")
			}
			if seen.Addr() == l.Node(tt.node).Addrs[0] || (seen == seenByY) != tt.samePort {
				t.Errorf("x sees %v, y sees %v", seen, seenByY)
			}
			if !passes(t, x, in, seen).IsValid() {
				t.Error("the answer does not come in")
			}
			if got := passes(t, other, in, seen).IsValid(); got != tt.otherPort {
				t.Errorf("from another port comes in: %v", got)
			}
			if got := passes(t, z, in, seen).IsValid(); got != tt.fromStranger {
				t.Errorf("from a stranger comes in: %v", got)
			}
		})
	}
}

// last is the address of a router towards the other sites.
func last(addrs []netip.Addr) netip.Addr { return addrs[len(addrs)-1] }

func TestFirewall(t *testing.T) {
	l := newLab(t, "", `
ovs: off
sites:
  out:
  noudp: {udp: blocked}
  closed: {inbound: blocked}
`)
	out, noUDP, closed := l.udp(t, "out-1", 1000), l.udp(t, "noudp-1", 1000), l.udp(t, "closed-1", 1000)
	at := func(node string) netip.AddrPort { return netip.AddrPortFrom(l.Node(node).Addrs[0], 1000) }
	if passes(t, noUDP, out, at("out-1")).IsValid() || passes(t, out, noUDP, at("noudp-1")).IsValid() {
		t.Error("UDP passes where it is blocked")
	}
	l.wantRTT(t, "out-1", "noudp-1", 0)
	if passes(t, out, closed, at("closed-1")).IsValid() {
		t.Error("a stranger comes in")
	}
	if !passes(t, closed, out, at("out-1")).IsValid() || !passes(t, out, closed, at("closed-1")).IsValid() {
		t.Error("a flow from inside does not work")
	}
}
