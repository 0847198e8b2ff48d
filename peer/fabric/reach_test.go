package fabric

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"

	"vcpeer/crdt"
	"vcpeer/peer/fabric/portmap"
)

// Members tell one another how they are seen, and find that they can be dialled.
func TestObserve(t *testing.T) {
	fs := mesh(t, &book{}, "a b c")
	for _, f := range fs {
		var all []Neighbour
		for i, o := range fs {
			all = append(all, Neighbour{ID: o.Self(), Site: crdt.SiteID{byte(i)}, Known: true, Open: true})
		}
		f.SetNeighbours(all)
	}
	for _, f := range fs {
		eventually(t, "a node to find out that it can be dialled", func() bool { return f.Reach().Asked >= 2 })
		r := f.Reach()
		seen := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(f.Port()))
		if r.Open() != Yes || r.V4.UDP != Yes || r.V4.TCP != Yes || r.V4.Mapping != NotMapped || len(r.V4.Seen) != 1 || r.V4.Seen[0] != seen {
			t.Errorf("%+v, want to be seen as %v", r, seen)
		}
		if r.V6.Out != Unknown || len(r.Addrs) != 0 {
			t.Errorf("without IPv6: %+v", r)
		}
		eventually(t, "places that are not needed to be given up", func() bool { return len(f.Reach().Places) == 0 })
	}
}

// What a router says is believed when somebody got in there who could not have otherwise.
func TestConcludeRouter(t *testing.T) {
	at := netip.MustParseAddrPort
	both := portmap.State{Protocol: portmap.PCP, UDP: at("44.9.9.9:7475"), TCP: at("44.9.9.9:7475")}
	for _, tt := range []struct {
		name  string
		says  portmap.State
		seen  string
		found []mappedSeen
		want  string
	}{
		{"nobody has tried", both, "44.9.9.9:1", []mappedSeen{{}}, "udp unknown, tcp unknown"},
		{"nobody got in", both, "44.9.9.9:1", []mappedSeen{{tried: true}}, "udp no, tcp no"},
		{"one of two got in", both, "44.9.9.9:1", []mappedSeen{{tried: true}, {tried: true, udp: true, tcp: true}}, "udp yes, tcp yes"},
		{"a packet through the hole that this node made", both, "44.9.9.9:7475", []mappedSeen{{tried: true, udp: true}}, "udp no, tcp no"},
		{"and a connection", both, "44.9.9.9:7475", []mappedSeen{{tried: true, udp: true, tcp: true}}, "udp yes, tcp yes"},
		{"a packet where nothing was sent from", portmap.State{UDP: at("44.9.9.9:9000")}, "44.9.9.9:7475", []mappedSeen{{tried: true, udp: true}}, "udp yes, tcp unknown"},
		{"what was found before it said so", portmap.State{}, "44.9.9.9:1", []mappedSeen{{tried: true, udp: true, tcp: true}}, "udp unknown, tcp unknown"},
	} {
		var all []familySeen
		for _, m := range tt.found {
			all = append(all, familySeen{asked: true, at: at(tt.seen), mapped: m})
		}
		r := concludeRouter(tt.says, all, concludeFamily(all, nil))
		if got := fmt.Sprintf("udp %s, tcp %s", r.MappedUDP, r.MappedTCP); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// An observer tries what a router is said to pass on, at the address that the asker comes from and nowhere else.
func TestMappedAddressIsTried(t *testing.T) {
	for _, tt := range []struct{ addr, want string }{
		{"127.0.0.1", "udp yes, tcp yes"},
		{"127.0.0.2", "udp unknown, tcp unknown"}, // what another router's address would be: that of anybody
	} {
		fs := mesh(t, &book{}, "a b")
		a, b := fs[0], fs[1]
		eventually(t, "a connection", func() bool { _, ok := a.Way(b.Self()); return ok || a.Try(t.Context(), b.Self()) == nil })
		at := netip.AddrPortFrom(netip.MustParseAddr(tt.addr), uint16(a.Port()))
		says := portmap.State{UDP: at, TCP: at}
		a.reacher.tellMapped(says)
		o, err := a.reacher.ask.observe(t.Context(), b.Self())
		if err != nil {
			t.Fatal(err)
		}
		r := concludeRouter(says, []familySeen{{mapped: o.v4.mapped}}, FamilyReach{})
		if got := fmt.Sprintf("udp %s, tcp %s", r.MappedUDP, r.MappedTCP); got != tt.want {
			t.Errorf("mapped to %s: %s, want %s", at, got, tt.want)
		}
	}
}

// What several see of a node is one picture.
func TestConclude(t *testing.T) {
	at := netip.MustParseAddrPort
	local := []netip.Addr{netip.MustParseAddr("192.168.1.5"), netip.MustParseAddr("44.1.1.1")}
	for _, tt := range []struct {
		name string
		in   []familySeen
		want string
	}{
		{"nobody", nil, "out unknown, mapping unknown, udp unknown, tcp unknown, seen 0"},
		{"no answer", []familySeen{{asked: true}, {asked: true}}, "out no, mapping unknown, udp unknown, tcp unknown, seen 0"},
		{"no NAT, open", []familySeen{{asked: true, at: at("44.1.1.1:7475"), back: true, tried: true, tcp: true}}, "out yes, mapping none, udp yes, tcp yes, seen 1"},
		{"no NAT, firewall", []familySeen{{asked: true, at: at("44.1.1.1:7475"), tried: true}}, "out yes, mapping none, udp no, tcp no, seen 1"},
		{"one observer", []familySeen{{asked: true, at: at("44.9.9.9:7475"), tried: true}}, "out yes, mapping unknown, udp no, tcp no, seen 1"},
		{"port kept", []familySeen{{asked: true, at: at("44.9.9.9:7475")}, {asked: true, at: at("44.9.9.9:7475")}}, "out yes, mapping same for all, udp no, tcp unknown, seen 1"},
		{"symmetric", []familySeen{{asked: true, at: at("44.9.9.9:1")}, {asked: true, at: at("44.9.9.9:2")}}, "out yes, mapping another for each, udp no, tcp unknown, seen 2"},
		{"one of three sees another port", []familySeen{{asked: true, at: at("44.9.9.9:2")}, {asked: true, at: at("44.9.9.9:1")}, {asked: true, at: at("44.9.9.9:1")}}, "out yes, mapping same for all, udp no, tcp unknown, seen 1"},
		{"symmetric, two of four see one port by chance", []familySeen{{asked: true, at: at("44.9.9.9:2")}, {asked: true, at: at("44.9.9.9:1")}, {asked: true, at: at("44.9.9.9:1")}, {asked: true, at: at("44.9.9.9:3")}}, "out yes, mapping another for each, udp no, tcp unknown, seen 3"},
		{"symmetric, seen by one", []familySeen{{asked: true, at: at("44.9.9.9:1"), also: at("44.9.9.9:2")}}, "out yes, mapping another for each, udp no, tcp unknown, seen 1"},
		{"a packet back through a NAT proves nothing", []familySeen{{asked: true, at: at("44.9.9.9:1"), back: true}, {asked: true, at: at("44.9.9.9:1"), back: true}}, "out yes, mapping same for all, udp no, tcp unknown, seen 1"},
		{"port forwarded", []familySeen{{asked: true, at: at("44.9.9.9:1"), tried: true, tcp: true}, {asked: true, at: at("44.9.9.9:1")}}, "out yes, mapping same for all, udp no, tcp yes, seen 1"},
		{"neighbours on the LAN do not count", []familySeen{{asked: true, near: true, at: at("192.168.1.5:7475"), back: true, tcp: true, tried: true}, {asked: true, at: at("44.9.9.9:1"), tried: true}}, "out yes, mapping unknown, udp no, tcp no, seen 1"},
		{"unless there are no others", []familySeen{{asked: true, near: true, at: at("192.168.1.5:7475"), back: true}}, "out yes, mapping none, udp yes, tcp unknown, seen 1"},
	} {
		r := concludeFamily(tt.in, local)
		if got := fmt.Sprintf("out %v, mapping %v, udp %v, tcp %v, seen %d", r.Out, r.Mapping, r.UDP, r.TCP, len(r.Seen)); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

// A connection is asked when it is quiet, suspected when it does not answer, used again when it does, and closed at last.
func TestLife(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name    string
		watched bool
		answers func(at time.Duration) bool // whether an acknowledgement has come since the last look
		want    string
	}{
		{"busy", true, func(time.Duration) bool { return true }, ""},
		{"dead", true, func(time.Duration) bool { return false }, "2.5s ask; 3.5s ask; 4.5s ask suspect; 5.5s ask; 6.5s ask; 7.5s ask; 8.5s ask; 9s close"},
		{"dead behind no NAT", false, func(at time.Duration) bool { return at > 30*time.Second }, "10s ask; 11s ask; 12s ask suspect; 13s ask; 14s ask; 15s ask; 16s ask; 16.5s close"},
		{"answers", true, func(at time.Duration) bool { return at == 3*time.Second }, "2.5s ask; 5.5s ask; 6.5s ask; 7.5s ask suspect; 8.5s ask; 9.5s ask; 10.5s ask; 11.5s ask; 12s close"},
		{"comes back", true, func(at time.Duration) bool { return at >= 5*time.Second }, "2.5s ask; 3.5s ask; 4.5s ask suspect; 5s well"},
	} {
		var l life
		var story []string
		rtt, start := 20*ms, time.Unix(1e9, 0)
		l.look(rtt, tt.watched, start)
		for at := 500 * ms; at <= 20*time.Second; at += 500 * ms {
			if tt.answers(at) {
				rtt++
			}
			v := l.look(rtt, tt.watched, start.Add(at))
			said := ""
			if v.ask {
				said += " ask"
			}
			if v.changed && l.suspect {
				said += " suspect"
			} else if v.changed {
				said += " well"
			}
			if v.close {
				said += " close"
			}
			if said != "" {
				story = append(story, at.String()+said)
			}
			if v.close {
				break
			}
		}
		if got := strings.Join(story, "; "); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

// Exactly one side dials, and each side does within two tries.
func TestWhoDials(t *testing.T) {
	for a := range uint8(3) {
		for b := range uint8(3) {
			both := map[bool]bool{}
			for try := range punchTries {
				first, second := dials(a, b, try, true), dials(b, a, try, false)
				if first == second {
					t.Errorf("ranks %d and %d, try %d: both dial, or none", a, b, try)
				}
				both[first] = true
			}
			if len(both) != 2 {
				t.Errorf("ranks %d and %d: always the same side dials", a, b)
			}
			if a > b && !dials(a, b, 0, true) {
				t.Errorf("ranks %d and %d: the one that is easier to reach dials first", a, b)
			}
		}
	}
}

// A laboratory's nodes may all come from one address, and still one address cannot have everything.
func TestManyBehindOneAddress(t *testing.T) {
	limits, err := newLimits()
	if err != nil {
		t.Fatal(err)
	}
	defer limits.Close()
	for _, from := range []string{"/ip4/44.1.2.3/udp/7475/quic-v1", "/ip4/44.1.2.4/tcp/7475", "/ip6/2a0e:97c0::1/udp/7475/quic-v1"} {
		n := 0
		for ; n < 2*maxConnsPerIP; n++ {
			scope, err := limits.OpenConnection(network.DirInbound, false, ma.StringCast(from))
			if err != nil {
				break
			}
			if err := scope.SetPeer(peerIDOf(idOf(fmt.Sprint(from, n)))); err != nil {
				t.Fatalf("%s: connection %d: %v", from, n, err)
			}
		}
		if n != maxConnsPerIP {
			t.Errorf("%s: %d connections, want %d", from, n, maxConnsPerIP)
		}
	}
}

// What is not used is off.
func TestTransports(t *testing.T) {
	f := start(t, "a", &book{})
	for addr, want := range map[string]bool{
		"/ip4/44.1.1.1/udp/1/quic-v1":              true,
		"/ip4/44.1.1.1/tcp/1":                      true,
		circuitAddr(idOf("r")).String():            true,
		"/ip4/44.1.1.1/tcp/1/ws":                   false,
		"/ip4/44.1.1.1/tcp/1/tls/ws":               false,
		"/ip4/44.1.1.1/udp/1/quic-v1/webtransport": false,
		"/ip4/44.1.1.1/udp/1/webrtc-direct":        false,
	} {
		a := ma.StringCast(addr)
		transport := f.host.TransportForDialing(a)
		if got := transport != nil && transport.CanDial(a); got != want {
			t.Errorf("%s can be dialled: %v", addr, got)
		}
	}
	if f.usable(idOf("b"), circuitAddr(idOf("r")).String()) != nil {
		t.Error("a record may name a relay among its addresses")
	}
}

// FuzzReachPacket: a packet that is understood says no more and no less than what it was made of.
func FuzzReachPacket(f *testing.F) {
	f.Add(askPacket(nonce{1}))
	f.Add(backPacket(nonce{2}))
	f.Add(mappedPacket(nonce{2}))
	f.Add(reachPacket(kindSeen, nonce{3}, netip.MustParseAddrPort("192.0.2.1:7475")))
	f.Add(reachPacket(kindSeen, nonce{3}, netip.MustParseAddrPort("[2001:db8::1]:7475")))
	f.Fuzz(func(t *testing.T, in []byte) {
		kind, n, at, ok := parseReachPacket(in)
		if !ok {
			return
		}
		again := reachPacket(kind, n, at)
		switch kind {
		case kindBack:
			again = backPacket(n)
		case kindMapped:
			again = mappedPacket(n)
		}
		k2, n2, at2, ok2 := parseReachPacket(again)
		if !ok2 || k2 != kind || n2 != n || at2 != at {
			t.Errorf("%x: %c %x %v, again: %c %x %v %v", in, kind, n, at, k2, n2, at2, ok2)
		}
		if len(again) > reachPacketBytes {
			t.Errorf("%d bytes", len(again))
		}
	})
}

// FuzzReachMessages: no message of another member does harm.
func FuzzReachMessages(f *testing.F) {
	for _, v := range []any{reachAsk{Nonce: make([]byte, nonceBytes), Port: 7475, Mapped: []byte{44, 1, 2, 3}, MappedUDP: 7475}, reachSeen{Addr: []byte{1, 2}, Busy: true}, reachResult{TCP4: true}, punchMessage{Addrs: []string{"/ip4/192.0.2.1/udp/1/quic-v1"}, Rank: 2}} {
		var b bytes.Buffer
		if err := writeMessage(&b, v); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, v := range []any{new(reachAsk), new(reachSeen), new(reachResult), new(punchMessage)} {
			if err := readMessage(bytes.NewReader(in), v); err != nil {
				continue
			}
			switch v := v.(type) {
			case *reachAsk:
				_, _ = v.nonce()
				if udp, tcp, err := v.mapped(); err == nil && (udp.IsValid() && !udp.Addr().Is4() || tcp.IsValid() && tcp.Port() == 0) {
					t.Errorf("mapped to %v and %v", udp, tcp)
				}
			case *reachSeen:
				var at netip.AddrPort
				_ = at.UnmarshalBinary(v.Addr)
			case *punchMessage:
				for _, s := range v.Addrs {
					if a, err := ma.NewMultiaddr(s); err == nil && len(a) > 0 {
						_, _ = relayOf(a)
						_ = isNamed(a)
						_ = isQUIC(a)
					}
				}
			}
		}
	})
}

// Two symmetric NATs are not tried, unless they are one.
func TestHopeless(t *testing.T) {
	at := func(rank uint8, addrs ...string) punchMessage { return punchMessage{addrs, rank} }
	own := at(rankHard, "/ip4/44.1.1.1/udp/1/quic-v1", "/ip4/192.168.1.5/udp/7475/quic-v1")
	for _, tt := range []struct {
		theirs punchMessage
		want   bool
	}{
		{at(rankHard, "/ip4/44.2.2.2/udp/1/quic-v1", "/ip4/192.168.1.6/udp/7475/quic-v1"), true},
		{at(rankHard, "/ip4/44.1.1.1/udp/9/quic-v1"), false},
		{at(rankEasy, "/ip4/44.2.2.2/udp/1/quic-v1"), false},
		{at(rankHard), true},
		{at(rankHard, "nonsense", "", "/"), true},
	} {
		if got := hopeless(own, tt.theirs); got != tt.want {
			t.Errorf("%v: %v", tt.theirs, got)
		}
	}
}

// What is new during an attempt that fails has the next be made at once; without news the pauses grow.
func TestPunchAgain(t *testing.T) {
	now := time.Now()
	p := puncher{busy: true}
	for _, want := range []time.Duration{punchRest, 2 * punchRest, 4 * punchRest} {
		if p.ended(io.EOF, now); p.busy || p.next.Sub(now) != want {
			t.Errorf("a pause of %v, want %v", p.next.Sub(now), want)
		}
	}
	p.busy = true
	p.anew()
	if p.ended(io.EOF, now); !p.next.IsZero() || p.fails != 0 {
		t.Errorf("after news: next %v, %d failures", p.next, p.fails)
	}
	if p.ended(io.EOF, now); p.next.Sub(now) != punchRest {
		t.Errorf("and then: %v", p.next.Sub(now))
	}
}
