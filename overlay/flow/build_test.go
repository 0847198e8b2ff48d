package flow

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"vcpeer/overlay/label"
)

// world is a cluster as the records have it: sites with gateways and nodes, of which every node's Want follows.
type world struct {
	sites []siteSpec
}

type siteSpec struct {
	gateways []label.Label // the first nodes of the site
	nodes    int
}

var (
	net4 = netip.MustParsePrefix("10.77.0.0/16")
	net6 = netip.MustParsePrefix("fd00:77::/64")
)

func (w world) addr(site, node int) netip.Addr {
	return netip.AddrFrom4([4]byte{44, byte(site >> 8), byte(site), byte(node + 1)})
}

func (w world) slot(site, node int) Slot { return Slot(site*8 + node + 1) }

// want is what node n of site s wants, all paths direct.
func (w world) want(s, n int) Want {
	own := w.sites[s]
	out := Want{
		Self:       Self{Slot: w.slot(s, n), Labels: own.gateways, Transit: true, Net4: net4, Net6: net6},
		Ports:      Ports{Control: 1, GRE: 2},
		CheckBelow: 1400,
	}
	if n < len(own.gateways) {
		out.Self.Label = own.gateways[n]
	} else {
		out.Self.Uplink = w.addr(s, 0)
	}
	for i, site := range w.sites {
		for j := range site.nodes {
			h := Host{Slot: w.slot(i, j)}
			switch {
			case i == s && j == n:
				h.Port = local
			case i == s:
				h.Near = w.addr(i, j)
				out.Nodes = append(out.Nodes, Node{Addrs: []netip.Addr{h.Near}, Dst: h.Near})
			default:
				h.Far = site.gateways[0]
			}
			out.Hosts = append(out.Hosts, h)
		}
		if i == s {
			continue
		}
		for j, l := range site.gateways {
			a := w.addr(i, j)
			out.Gateways = append(out.Gateways, Gateway{Label: l, Addrs: []netip.Addr{a}, Dst: a, Site: fmt.Sprint(i), Offered: len(out.Gateways) < 64})
			out.Paths = append(out.Paths, Path{To: l})
		}
	}
	return out
}

func large(sites int) world {
	var w world
	for i := range sites {
		w.sites = append(w.sites, siteSpec{[]label.Label{label.Label(i + 1)}, 1})
	}
	return w
}

func TestAThousandSites(t *testing.T) {
	w := large(1000).want(0, 0)
	for i := range w.Paths { // every path a detour
		w.Paths[i].Via = []label.Label{w.Paths[(i+1)%len(w.Paths)].To}
	}
	n := len(Build(w).Flows)
	t.Logf("%d flows", n)
	if n > 2150 {
		t.Errorf("%d flows for 1,000 sites", n)
	}
}

func TestEqualInputsGiveEqualTables(t *testing.T) {
	w := world{[]siteSpec{{[]label.Label{1, 2}, 3}, {[]label.Label{3}, 2}, {[]label.Label{4, 9}, 2}}}.want(0, 0)
	want := Build(w)
	slices.Reverse(w.Hosts)
	slices.Reverse(w.Gateways)
	slices.Reverse(w.Paths)
	slices.Reverse(w.Nodes)
	got := Build(w)
	if !slices.Equal(want.Flows, got.Flows) {
		t.Error("the order of the inputs shows in the flows")
	}
}

// TestOpenVSwitchTakesIt has the real program read every flow.
func TestOpenVSwitchTakesIt(t *testing.T) {
	if _, err := exec.LookPath("ovs-ofctl"); err != nil {
		t.Skip("ovs-ofctl is missing: apt-get install openvswitch-switch")
	}
	w := world{[]siteSpec{{[]label.Label{1, 2}, 3}, {[]label.Label{3}, 2}, {[]label.Label{4}, 1}, {[]label.Label{5}, 1}}}
	for node := range 3 {
		want := w.want(0, node)
		want.Hosts = append(want.Hosts, Host{Slot: 900, Port: 17})
		want.CheckBelow = 1500
		want.Paths[0].Via, want.Paths[0].MTU = []label.Label{4, 5}, 1300
		want.Paths[1].Backups, want.Paths[1].Watched = [][]label.Label{{5}}, true
		want.Ports.Protected = map[label.Label]uint16{4: 40}
		tables := Build(want)
		var text strings.Builder
		for _, f := range tables.Flows {
			fmt.Fprintln(&text, f.Text())
		}
		cmd := exec.Command("ovs-ofctl", "-O", "OpenFlow15", "parse-flows", "/dev/stdin")
		cmd.Stdin = strings.NewReader(text.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("node %d: %v\n%s\n%s", node, err, out, text.String())
		}
	}
}
