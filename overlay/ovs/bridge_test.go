package ovs

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
	"pgregory.net/rapid"

	"vcpeer/overlay/ovs/ovstest"
)

// story prints operations short: what, where, and which columns.
func story(ops []ovsdb.Operation) string {
	var out []string
	for _, op := range ops {
		var columns []string
		for c := range op.Row {
			columns = append(columns, c)
		}
		for _, m := range op.Mutations {
			columns = append(columns, fmt.Sprintf("%s %s", m.Column, m.Mutator))
		}
		slices.Sort(columns)
		what := op.Op + " " + op.Table
		if op.Op != ovsdb.OperationInsert {
			what += " " + strings.Join(columns, ",")
		} else {
			what += fmt.Sprintf(" %v", op.Row["name"])
		}
		out = append(out, what)
	}
	return strings.Join(out, "; ")
}

// there is a database with br0 as wanted by want, made by its owner.
func there(by string, want Bridge) *content {
	c := &content{root: "r", bridges: map[string]*bridgeRow{}, ports: map[string]*portRow{}}
	b := &bridgeRow{
		uuid: "b", name: want.Name, datapath: want.Datapath, failMode: "secure", protocols: protocols,
		otherConfig: want.otherConfig(), externalIDs: map[string]string{ownerKey: by},
	}
	for _, p := range append([]Port{want.local()}, want.Ports...) {
		row := &portRow{uuid: "p" + p.Name, name: p.Name, bridge: b.name, externalIDs: map[string]string{ownerKey: by}, interfaces: []*interfaceRow{{
			uuid: "i" + p.Name, name: p.Name, kind: p.Type, mac: p.MAC.String(), options: p.Options, bfd: p.BFD,
			ofportRequest: p.OFPort, mtuRequest: p.MTU,
		}}}
		b.ports, c.ports[p.Name] = append(b.ports, row), row
	}
	c.bridges[b.name] = b
	return c
}

func TestPlan(t *testing.T) {
	gre := Port{Name: "gre0", Type: "gre", Options: map[string]string{"remote_ip": "flow"}, OFPort: 9}
	base := Bridge{Name: "br0", Datapath: "netdev", MTU: 1400, Ports: []Port{gre}}
	edit := func(f func(*Bridge)) Bridge {
		b := clone([]Bridge{base})[0]
		f(&b)
		return b
	}
	port := func(f func(*Port)) Bridge { return edit(func(b *Bridge) { f(&b.Ports[0]) }) }
	for _, tt := range []struct {
		name string
		have *content
		want []Bridge
		ops  string
	}{
		{"as wanted", there("me", base), []Bridge{base}, ""},
		{"new", &content{root: "r"}, []Bridge{base},
			"insert Interface br0; insert Port br0; insert Interface gre0; insert Port gre0; insert Bridge br0; mutate Open_vSwitch bridges insert"},
		{"not wanted", there("me", base), nil, "mutate Open_vSwitch bridges delete"},
		{"not ours", there("you", base), nil, ""},
		{"datapath", there("me", base), []Bridge{edit(func(b *Bridge) { b.Datapath = "system" })}, "update Bridge datapath_type"},
		{"MAC", there("me", base), []Bridge{edit(func(b *Bridge) { b.MAC = net.HardwareAddr{2, 0, 0, 0, 0, 9} })}, "mutate Bridge other_config insert"},
		{"new port", there("me", base), []Bridge{edit(func(b *Bridge) { b.Ports = append(b.Ports, Port{Name: "p1"}) })},
			"insert Interface p1; insert Port p1; mutate Bridge ports insert"},
		{"port goes, another comes", there("me", base), []Bridge{edit(func(b *Bridge) { b.Ports = []Port{{Name: "p1"}} })},
			"insert Interface p1; insert Port p1; mutate Bridge ports delete,ports insert"},
		{"options", there("me", base), []Bridge{port(func(p *Port) { p.Options["key"] = "flow" })}, "update Interface options"},
		{"BFD", there("me", base), []Bridge{port(func(p *Port) { p.BFD = map[string]string{"enable": "true"} })}, "update Interface bfd"},
		{"number", there("me", base), []Bridge{port(func(p *Port) { p.OFPort = 8 })}, "update Interface ofport_request"},
		{"type and MTU", there("me", base), []Bridge{port(func(p *Port) { p.Type, p.MTU = "vxlan", 1500 })}, "update Interface mtu_request,type"},
		{"external ID", there("me", base), []Bridge{port(func(p *Port) { p.ExternalIDs = map[string]string{"guest": "vm1"} })}, "mutate Port external_ids insert"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ops, err := plan("me", tt.want, tt.have)
			if err != nil || story(ops) != tt.ops {
				t.Errorf("%v\n got %s\nwant %s", err, story(ops), tt.ops)
			}
		})
	}
	if _, err := plan("me", []Bridge{base}, there("you", base)); !errors.Is(err, ErrForeign) {
		t.Errorf("a bridge of another owner: %v", err)
	}
}

func TestCheck(t *testing.T) {
	for _, bad := range [][]Bridge{
		{{Name: ""}}, {{Name: "longer-than-a-name"}}, {{Name: "a"}, {Name: "a"}}, {{Name: "a", Ports: []Port{{Name: "a"}}}},
	} {
		if check(bad) == nil {
			t.Errorf("no error for %v", bad)
		}
	}
}

// TestAnyWantIsReached goes from any wanted state to any other (the one of the round before), and plans nothing when it is there.
func TestAnyWantIsReached(t *testing.T) {
	s, _ := start(t)
	ports := rapid.Custom(func(t *rapid.T) Port {
		p := Port{Name: rapid.SampledFrom([]string{"g1", "g2", "p1", "p2"}).Draw(t, "port"), Type: "internal"}
		if p.Name[0] == 'g' { // a name keeps its type: see Port
			p.Type, p.Options = "gre", map[string]string{"remote_ip": rapid.SampledFrom([]string{"flow", "192.0.2.1"}).Draw(t, "ip"), "key": p.Name}
		} else if rapid.Bool().Draw(t, "mac") {
			p.MAC = net.HardwareAddr{2, 0, 0, 0, 0, 7}
		}
		p.OFPort = rapid.SampledFrom([]int{0, 11, 12}).Draw(t, "number")
		p.MTU = rapid.SampledFrom([]int{0, 1400}).Draw(t, "mtu")
		return p
	})
	rapid.Check(t, func(rt *rapid.T) {
		var want []Bridge
		left := rapid.SliceOfNDistinct(ports, 0, 4, func(p Port) string { return p.Name }).Draw(rt, "ports")
		for _, name := range []string{"b1", "b2"} {
			if !rapid.Bool().Draw(rt, name) {
				continue
			}
			n := rapid.IntRange(0, len(left)).Draw(rt, "of it")
			want = append(want, Bridge{Name: name, Datapath: "netdev", Ports: left[:n]})
			left = left[n:]
		}
		if err := s.Ensure(t.Context(), want); err != nil {
			rt.Fatal(err)
		}
		have, err := s.db.Load().read(t.Context())
		if err != nil {
			rt.Fatal(err)
		}
		if ops, err := plan(owner, want, have); err != nil || len(ops) > 0 {
			rt.Fatalf("after Ensure: %s, %v", story(ops), err)
		}
	})
}

func TestPortsThatCannotBeOpenedSayWhy(t *testing.T) {
	s, _ := start(t)
	ensure(t, s, br0(Port{Name: "nothere"}))
	ovstest.Until(t, "an error", func() error {
		if got := s.Ports("br0")["nothere"]; got.OFPort != -1 || got.Error == "" {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
}
