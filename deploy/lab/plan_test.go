package lab

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vcpeer/deploy/lab/topology"
)

func parsed(t *testing.T, file string) topology.Topology {
	t.Helper()
	top, err := topology.Parse("test", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	return top
}

// checkPlan holds what must be true of every plan.
func checkPlan(t *testing.T, p plan) {
	t.Helper()
	macs, interfaces, addrs, machines := map[string]bool{}, map[string]bool{}, map[netip.Addr]bool{}, map[string]bool{}
	for _, m := range p.machines {
		if machines[m.name] {
			t.Errorf("two machines %s", m.name)
		}
		machines[m.name] = true
	}
	for _, c := range p.cables {
		for _, e := range []end{c.a, c.b} {
			if id := e.machine + " " + e.name; interfaces[id] || len(e.name) > 15 || !machines[e.machine] {
				t.Errorf("interface %s: twice, too long, or on no machine", id)
			} else {
				interfaces[id] = true
			}
			if macs[e.mac.String()] {
				t.Errorf("two interfaces have %s", e.mac)
			}
			macs[e.mac.String()] = true
			for _, a := range e.addrs {
				if addrs[a.Addr()] && !a.Addr().IsPrivate() && !strings.HasPrefix(a.String(), "100.64.") {
					t.Errorf("two interfaces have %s", a)
				}
				addrs[a.Addr()] = true
			}
		}
	}
	for _, m := range p.machines {
		for _, r := range m.routes {
			reached := false
			for _, c := range p.cables {
				for _, e := range []end{c.a, c.b} {
					for _, a := range e.addrs {
						reached = reached || e.machine == m.name && a.Contains(r.via)
					}
				}
			}
			if !reached {
				t.Errorf("%s: the gateway %s is on no net of it", m.name, r.via)
			}
		}
	}
	nets := map[netip.Prefix]string{}
	for _, port := range p.ports {
		for _, n := range port.Nets {
			if other, ok := nets[n]; ok {
				t.Errorf("%s is routed to %s and %s", n, other, port.Site)
			}
			nets[n] = port.Site
			if n.Addr().IsPrivate() {
				t.Errorf("%s of %s is routed between the sites", n, port.Site)
			}
		}
	}
}

func TestPlanOfExamples(t *testing.T) {
	files, _ := filepath.Glob("topologies/*.yaml")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		checkPlan(t, planOf(parsed(t, string(b))))
	}
	many, err := topology.New(topology.Options{Sites: 600, Nodes: 2})
	if err != nil {
		t.Fatal(err)
	}
	checkPlan(t, planOf(many))
}

func TestAddressesOfNodes(t *testing.T) {
	p := planOf(parsed(t, `
sites:
  direct:
  campus: {nodes: 2, ip: both}
  home: {nodes: [laptop], nat: port-restricted, double-nat: yes, ip: both}
`))
	for machine, want := range map[string]string{
		"direct-1":      "44.128.0.1",
		"campus-2":      "44.128.1.2 2a0e:97c0:1::2",
		"campus-router": "44.192.1.1 2a0e:97c1:1::1",
		"laptop":        "192.168.2.1 2a0e:97c0:2::1",
		"home-router":   "100.64.2.1 2a0e:97c2:2::1",
		"home-isp":      "100.64.2.254 2a0e:97c2:2::fe 44.192.2.1 2a0e:97c1:2::1",
	} {
		var got []string
		for _, a := range p.addrs(machine) {
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s has %v, want %s", machine, got, want)
		}
	}
}
