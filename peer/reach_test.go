package peer

import (
	"reflect"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"vcpeer/crdt"
	"vcpeer/peer/api"
	"vcpeer/peer/fabric"
)

// What a node says of how it is reached arrives as it was.
func TestReachSaying(t *testing.T) {
	relay := crdt.NodeID{7}
	r := fabric.Reach{Asked: 2, V4: fabric.FamilyReach{UDP: fabric.No, TCP: fabric.No}, Places: []fabric.Place{{Relay: relay}}, Addrs: []string{"/ip4/44.1.1.1/tcp/7475"}}
	value, err := cbor.Marshal(sayingOf(r))
	if err != nil {
		t.Fatal(err)
	}
	s, relays, err := decodeSaying(value)
	if err != nil || !s.Known || s.Open || len(relays) != 1 || relays[0] != relay || len(s.Addrs) != 1 {
		t.Errorf("%+v, %v, %v", s, relays, err)
	}
	if s := sayingOf(fabric.Reach{}); s.Known || s.Open {
		t.Errorf("of what is not known: %+v", s)
	}
}

func FuzzReachSaying(f *testing.F) {
	for _, s := range []reachSaying{{}, {Known: true, Open: true, Addrs: []string{"x"}}, {Relays: [][]byte{make([]byte, 32)}}} {
		b, err := cbor.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		s, relays, err := decodeSaying(in)
		if err == nil && (len(relays) != len(s.Relays) || len(relays) > maxSaidRelays || len(s.Addrs) > maxSaidAddrs) {
			t.Errorf("%x: %+v, %v", in, s, relays)
		}
	})
}

// Advice is given for what is wrong, the most useful first, and none where all is well.
func TestNetAdvice(t *testing.T) {
	closed := api.NetFamily{NAT: "another for each", UDPOut: "yes"}
	for _, tt := range []struct {
		name string
		in   api.Netcheck
		want []string
	}{
		{"well", api.Netcheck{Open: "yes", Asked: 2, Port: 7475, V4: api.NetFamily{UDPOut: "yes", NAT: "none"}}, nil},
		{"alone", api.Netcheck{Open: "unknown"}, []string{"no member of another site has told yet how it sees this node: ask again in some seconds"}},
		{"symmetric", api.Netcheck{Open: "no", Asked: 2, Port: 7475, V4: closed, Relays: make([]api.NetRelay, 2), Members: []api.NetPeer{{Node: "far", Way: api.WayRelayed}}}, []string{
			"forward port 7475 (UDP and TCP) of this site's router to this machine: far would be reached directly then, and not through relays",
			`or let the router keep source ports ("endpoint-independent mapping"): then holes can be made in its NAT`,
		}},
		{"a router that could", api.Netcheck{Open: "no", Asked: 2, Port: 7475, V4: api.NetFamily{NAT: "same for all", UDPOut: "yes"}, Router: api.NetRouter{Addr: "192.168.1.1"}, Relays: make([]api.NetRelay, 2)}, []string{
			"forward port 7475 (UDP and TCP) of this site's router to this machine, or switch on UPnP, NAT-PMP or PCP in it, and this node has it do so: others could then open connections to this node",
		}},
		{"a router behind another", api.Netcheck{Open: "no", Asked: 2, Port: 7475, V4: api.NetFamily{NAT: "same for all", UDPOut: "yes"}, Router: api.NetRouter{Addr: "192.168.1.1", Protocol: "PCP", UDP: "100.64.1.1:7475", UDPWorks: "unknown"}, Relays: make([]api.NetRelay, 2)}, []string{
			"forward port 7475 (UDP and TCP) of this site's router to this machine, and the same in the NAT between that router and the others: others could then open connections to this node",
		}},
		{"no UDP, one relay", api.Netcheck{Open: "no", Asked: 1, Port: 7475, V4: api.NetFamily{UDPOut: "no"}, Relays: make([]api.NetRelay, 1)}, []string{
			"let UDP out, to port 7475 of the other sites: without it everything goes by TCP, slower, and what is relayed stays relayed",
			"open port 7475 (UDP and TCP) in this site's firewall: others could then open connections to this node",
			"only one relay is in use: a second site that others can dial would take over when it fails",
		}},
		{"no GRE", api.Netcheck{Open: "yes", Asked: 1, Members: []api.NetPeer{{Node: "far", GRE: "no"}}}, []string{
			"let GRE (IP protocol 47) pass to far, for faster links of the network over all sites",
		}},
	} {
		if got := netAdvice(tt.in); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\n got %q\nwant %q", tt.name, got, tt.want)
		}
	}
}
