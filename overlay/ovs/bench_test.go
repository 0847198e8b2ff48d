package ovs

import (
	"fmt"
	"net/netip"
	"testing"

	"vcpeer/overlay/flow"
	"vcpeer/overlay/label"
)

// thousand are the tables of a gateway among a thousand sites, each reached over another; shift changes every path.
func thousand(shift int) flow.Tables {
	const sites = 1000
	w := flow.Want{
		Self: flow.Self{
			Slot: 1, Label: 1, Labels: []label.Label{1}, Transit: true,
			Net4: netip.MustParsePrefix("10.77.0.0/16"), Net6: netip.MustParsePrefix("fd00:77::/64"),
		},
		Ports: flow.Ports{Control: 10, GRE: 9}, CheckBelow: 1400,
		Hosts: []flow.Host{{Slot: 1, Port: 65534}},
	}
	for i := 2; i <= sites; i++ {
		l, a := label.Label(i), netip.AddrFrom4([4]byte{44, 0, byte(i >> 8), byte(i)})
		w.Hosts = append(w.Hosts, flow.Host{Slot: flow.Slot(i), Far: l})
		w.Gateways = append(w.Gateways, flow.Gateway{Label: l, Addrs: []netip.Addr{a}, Dst: a, Site: fmt.Sprint(i), Offered: i < 66})
		via := label.Label(2 + (i-2+shift)%(sites-1))
		w.Paths = append(w.Paths, flow.Path{To: l, Via: []label.Label{via}})
	}
	return flow.Build(w)
}

// BenchmarkProgram2100 is what a bridge of a thousand sites costs: to fill it, to change every path, to change one, to
// see that nothing changed by memory, and by reading.
func BenchmarkProgram2100(b *testing.B) {
	s, _ := start(b)
	ensure(b, s, br0(Port{Name: "ctl", Type: "internal", OFPort: 10}))
	all := [2]flow.Tables{thousand(1), thousand(2)}
	one := [2]flow.Tables{all[0], all[0]}
	one[1].Flows = append([]flow.Flow(nil), all[0].Flows...)
	last := &one[1].Flows[len(one[1].Flows)-1]
	last.Actions = "set_field:0x1->reg1"
	forget := func() { s.bridges["br0"].memory.valid = false }

	b.Run("build", func(b *testing.B) {
		for b.Loop() {
			all[0] = thousand(1)
		}
		b.ReportMetric(float64(len(all[0].Flows)), "flows")
	})
	b.Run("fill", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			program(b, s, flow.Tables{})
			b.StartTimer()
			if got := program(b, s, all[0]); got.Added != len(all[0].Flows) {
				b.Fatalf("%+v", got)
			}
		}
	})
	for _, tt := range []struct {
		name string
		want [2]flow.Tables
		read bool
	}{
		{"every path", all, false}, {"one flow", one, false}, {"one flow, read", one, true},
		{"nothing", [2]flow.Tables{all[0], all[0]}, false}, {"nothing, read", [2]flow.Tables{all[0], all[0]}, true},
	} {
		b.Run(tt.name, func(b *testing.B) {
			program(b, s, tt.want[1])
			forget()
			program(b, s, tt.want[1]) // knows how all is printed
			i := 0
			for b.Loop() {
				if tt.read {
					forget()
				}
				program(b, s, tt.want[i%2])
				i++
			}
		})
	}
}
