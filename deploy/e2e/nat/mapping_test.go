package nat

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"vcpeer/deploy/lab"
	"vcpeer/peer/api"
)

// mappers are labs behind routers that pass ports on, and behind one that does not. The second NAT before twice knows nothing
// of what the inner router says.
const mappers = `
sites:
  hub1: {nodes: [hub1]}
  hub2: {nodes: [hub2]}
  pcp: {nodes: [pcp1, pcp2], nat: port-restricted, port-mapping: pcp}
  upnp: {nodes: [upnp], nat: symmetric, port-mapping: upnp}
  none: {nodes: [none], nat: symmetric}
  twice: {nodes: [twice], nat: port-restricted, double-nat: yes, port-mapping: all}
links:
  default: delay=10ms
`

// TestPortMapping: a node whose router passes its port on becomes one that anybody can dial, whatever its NAT, once two others
// have found that they get in; what does not work is not believed; and the router is told when the node stops.
func TestPortMapping(t *testing.T) {
	if why := lab.MissingMapper(); why != "" {
		t.Skip(why)
	}
	l := up(t, mappers)
	for _, tt := range []struct{ node, open, protocol, works string }{
		{"pcp1", "yes", "PCP", "yes"},
		{"pcp2", "yes", "PCP", "yes"}, // at another port: the first has the usual one, or the other way round
		{"upnp", "yes", "UPnP", "yes"},
		{"none", "no", "", ""},
		{"twice", "no", "PCP", "no"},
	} {
		var n *api.Netcheck
		took := eventually(t, time.Minute, func() string {
			n = netcheck(t, l, tt.node, tt.node)
			r := n.Router
			if n.Open != tt.open || r.Protocol != tt.protocol || r.UDPWorks != tt.works || r.TCPWorks != tt.works || r.Addr == "" {
				return fmt.Sprintf("%s: open %s, router %+v; want open %s by %q, works %s", tt.node, n.Open, r, tt.open, tt.protocol, tt.works)
			}
			if places := len(n.Relays); (places == 0) != (tt.open == "yes") {
				return fmt.Sprintf("%s: open %s, with %d places at relays", tt.node, n.Open, places)
			}
			return ""
		})
		t.Logf("%-5s NAT %q, router %s %s: %s works %q; after %v", tt.node, n.V4.NAT, n.Router.Addr, n.Router.Protocol, n.Router.UDP, n.Router.UDPWorks, took.Round(100*time.Millisecond))
	}
	// Between two NATs that keep no ports nothing could be punched.
	direct := func(a, b string) {
		took := eventually(t, time.Minute, func() string {
			if p := peerOf(netcheck(t, l, a, b), b); p.Way != api.WayDirect && p.Way != api.WayPunched {
				return fmt.Sprintf("%s reaches %s: %s (%s %s)", a, b, p.Way, p.Via, p.Error)
			}
			return ""
		})
		t.Logf("%s reaches %s directly after %v", a, b, took.Round(100*time.Millisecond))
	}
	direct("none", "upnp")
	direct("upnp", "twice")
	ways(t, l, "none", time.Minute, "twice=relayed")

	if got := mapped(t, l, "upnp-router"); !strings.Contains(got, "dnat") {
		t.Fatalf("nothing is mapped:\n%s", got)
	}
	for _, node := range []string{"upnp", "pcp1"} {
		if err := l.Kill(node, lab.VCPeer, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 10*time.Second, func() string {
		if upnp, pcp := mapped(t, l, "upnp-router"), mapped(t, l, "pcp-router"); strings.Contains(upnp, "dnat") || strings.Count(pcp, "dnat") != 2 {
			return "after the nodes have stopped there is mapped:\n" + upnp + pcp
		}
		return ""
	})
}

// mapped is what a router passes on.
func mapped(t *testing.T, l *lab.Lab, router string) string {
	t.Helper()
	out, err := l.Exec(t.Context(), router, "nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestRouterForgets: a router that was restarted has forgotten what it passes on; it is asked again.
func TestRouterForgets(t *testing.T) {
	long(t)
	if why := lab.MissingMapper(); why != "" {
		t.Skip(why)
	}
	l := up(t, mappers)
	open := func(within time.Duration) time.Duration {
		return eventually(t, within, func() string {
			if n := netcheck(t, l, "upnp", "upnp"); n.Open != "yes" || !strings.Contains(mapped(t, l, "upnp-router"), "dnat") {
				return fmt.Sprintf("open %s, router %+v", n.Open, n.Router)
			}
			return ""
		})
	}
	open(time.Minute)
	for _, chain := range []string{"prerouting_miniupnpd", "miniupnpd"} {
		if _, err := l.Exec(t.Context(), "upnp-router", "nft", "flush", "chain", "inet", "filter", chain); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("passed on again after %v", open(3*time.Minute).Round(time.Second))
}
