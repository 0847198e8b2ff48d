package overlay

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"vcpeer/crdt"
	"vcpeer/deploy/test/bubble"
	"vcpeer/overlay/flow"
	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
	"vcpeer/overlay/probe"
	"vcpeer/overlay/underlay"
)

// cluster reads "site: node node …; site: …" into records. A node is a name with an optional label "a#7"; "a-" takes no part.
// Nodes get IDs, addresses and underlay addresses in their order. The first is this node.
func cluster(t testing.TB, text string) Records {
	t.Helper()
	r := Records{Net4: netip.MustParsePrefix("10.77.0.0/16"), Net6: netip.MustParsePrefix("fd00:77::/64")}
	for i, part := range strings.Split(text, ";") {
		name, nodes, _ := strings.Cut(part, ":")
		for _, word := range strings.Fields(nodes) {
			word, out := strings.CutSuffix(word, "-")
			node, number, _ := strings.Cut(word, "#")
			var l uint16
			fmt.Sscan(number, &l)
			k := byte(len(r.Nodes) + 1)
			r.Nodes = append(r.Nodes, Node{
				ID: crdt.NodeID{k}, Name: node, Site: crdt.SiteID{byte(i + 1)}, SiteName: strings.TrimSpace(name), Label: label.Label(l),
				Address: netip.AddrFrom4([4]byte{10, 77, 0, k}), Underlay: []netip.Addr{netip.AddrFrom4([4]byte{44, 0, 0, k})},
				UnderlayMTU: 1500, Takes: !out,
			})
		}
	}
	r.Self = r.Nodes[0].ID
	return r
}

func localOf(r Records) []underlay.Local {
	a := r.topology().self.Underlay[0]
	return []underlay.Local{{Addr: a, Prefix: netip.PrefixFrom(a, 24).Masked(), Link: "eth0", MTU: 1500}}
}

// peersOf is with sealed links, of which none is in use unless there is no other.
func peersOf(r Records) peers {
	p := choosePeers(r, r.topology(), localOf(r), 0, true)
	p.use(choices{}.kind)
	return p
}

func TestWhoIsAGateway(t *testing.T) {
	r := cluster(t, "s: a b c d; o: e")
	for i, want := range []bool{true, true, false, false} {
		r.Self = r.Nodes[i].ID
		if got := ShallBeGateway(r, func(crdt.NodeID) bool { return true }); got != want {
			t.Errorf("node %d of four: %v, want %v", i, got, want)
		}
	}
	r.Self = r.Nodes[2].ID
	if !ShallBeGateway(r, func(id crdt.NodeID) bool { return id != r.Nodes[0].ID }) {
		t.Error("the third is none although the first is dead")
	}
}

func TestWhatFollowsFromRecords(t *testing.T) {
	r := cluster(t, "kyoto: a#1 b; osaka: c#2 d; lab: e#3 x-")
	r.Guests = []Guest{
		{ID: "here", Address: netip.MustParseAddr("10.77.1.1"), At: r.Nodes[0].ID},
		{ID: "near", Address: netip.MustParseAddr("10.77.1.2"), At: r.Nodes[1].ID},
		{ID: "far", Address: netip.MustParseAddr("10.77.1.3"), At: r.Nodes[3].ID},
		{ID: "nowhere", Address: netip.MustParseAddr("10.77.1.4")},
	}
	topo := r.topology()
	p := peersOf(r)
	w := wantFlows(r, topo, p, decided{linkMTU: func(netip.Addr, int) int { return 1458 }, guests: map[string]uint16{"here": 1000}})
	var got []string
	for _, h := range w.Hosts {
		got = append(got, h.String())
	}
	slices.Sort(got)
	want := []string{
		"02:76:00:00:00:01 here, port 65534", "02:76:00:00:00:02 at 44.0.0.2",
		"02:76:00:00:00:03 behind g2", "02:76:00:00:00:04 behind g2", "02:76:00:00:00:05 behind g3",
		"02:76:00:00:01:01 here, port 1000", "02:76:00:00:01:02 at 44.0.0.2", "02:76:00:00:01:03 behind g2",
	}
	if !slices.Equal(got, want) {
		t.Errorf("hosts\n got %s\nwant %s", strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
	if len(w.Paths) != 2 || len(w.Paths[0].Via) != 0 || w.Paths[0].MTU != 1458 {
		t.Errorf("before anything is measured frames go straight: %+v", w.Paths)
	}
	own := slices.Clone(w.Gateways[0].Addrs)
	if far := sealedAddr(2); !slices.Equal(own, append(slices.Clone(r.Nodes[2].Underlay), far)) || w.Gateways[0].Dst == far {
		t.Errorf("a gateway's tunnels come from %v and go to %v", own, w.Gateways[0].Dst)
	}
	r.Encrypt = true
	w = wantFlows(r, topo, peersOf(r), decided{linkMTU: func(netip.Addr, int) int { return 1422 }})
	for _, g := range w.Gateways {
		if want := sealedAddr(g.Label); g.Dst != want || !slices.Equal(g.Addrs, []netip.Addr{want}) {
			t.Errorf("encrypted links only, and tunnels of %v from %v, to %v", g.Label, g.Addrs, g.Dst)
		}
	}
}

func TestBroadcastsAvoidLinksThatDoNotWork(t *testing.T) {
	r := cluster(t, "a: a#1; b: b#2 c#3; c: d#4")
	topo := r.topology()
	w := wantFlows(r, topo, peersOf(r), decided{
		linkMTU: func(netip.Addr, int) int { return 0 }, around: map[label.Label][]label.Label{2: nil, 4: {3}},
	})
	for _, g := range w.Gateways {
		want := map[label.Label]flow.Gateway{2: {Down: true}, 3: {}, 4: {Down: true, Over: []label.Label{3}}}[g.Label]
		if g.Down != want.Down || !slices.Equal(g.Over, want.Over) {
			t.Errorf("%v: down %v, over %v", g.Label, g.Down, g.Over)
		}
	}
}

func TestAHostIsBehindTheGatewayThatReachesIt(t *testing.T) {
	r := cluster(t, "a: a#1; b: b#2 c#3 d")
	topo := r.topology()
	both := path.Table{
		Choices: []path.Choice{{Path: path.Path{Dst: 2}}, {Path: path.Path{Dst: 3}}},
		Sites:   []path.SiteChoice{{Site: topo.others[0].id.String(), Path: path.Path{Dst: 3}}},
	}
	for _, tt := range []struct {
		table path.Table
		want  [3]label.Label
	}{
		{path.Table{}, [3]label.Label{2, 2, 2}},
		{both, [3]label.Label{2, 3, 3}},
		{path.Table{Choices: both.Choices[1:], Sites: both.Sites}, [3]label.Label{3, 3, 3}},
	} {
		for i, want := range tt.want {
			if got := behind(topo, tt.table, r.Nodes[1+i]); got != want {
				t.Errorf("%s is behind %v, want %v", r.Nodes[1+i].Name, got, want)
			}
		}
	}
}

// TestDoubt wants a path that fails from end to end to be left though each of its gateways says that its links are up, the
// links of others to be believed again after a while, and rows to be the same memory while nothing changes.
func TestDoubt(t *testing.T) {
	r := cluster(t, "a: a#1; b: b#2; c: c#3")
	s := &session{doubts: map[doubtful]time.Time{}, doubted: map[label.Label][]path.Link{}, records: r, topology: r.topology()}
	s.links = []measured{{node: r.Nodes[1], up: true}}
	now := time.Unix(1000, 0)
	said := []path.Row{{From: 2, Links: []path.Link{{To: 1, Up: true}, {To: 3, Up: true}}}}
	s.suspect([]probe.Link{{ID: probe.Gateway(3), Via: []label.Label{2}, Measured: true}}, now)
	first := s.doubt(slices.Clone(said), now)
	if first[0].Links[1].Up || !first[0].Links[0].Up || !said[0].Links[1].Up {
		t.Fatalf("doubted %+v, said %+v", first, said)
	}
	if again := s.doubt(slices.Clone(said), now); &again[0].Links[0] != &first[0].Links[0] {
		t.Error("the same doubt is other memory")
	}
	if later := s.doubt(slices.Clone(said), now.Add(doubtTime+time.Second)); !later[0].Links[1].Up {
		t.Error("a doubt lasts for ever")
	}
	s.links[0].up = false // the first link is down: nothing is known of the others
	s.suspect([]probe.Link{{ID: probe.Gateway(3), Via: []label.Label{2}, Measured: true}}, now.Add(time.Minute))
	if len(s.doubts) != 0 {
		t.Errorf("doubts %v behind a link that is down", s.doubts)
	}
}

func TestUplink(t *testing.T) {
	var u uplink
	up := func(l label.Label, ms int) candidate { return candidate{l, true, time.Duration(ms) * time.Millisecond} }
	down := func(l label.Label) candidate { return candidate{l: l} }
	for _, tt := range []struct {
		name string
		all  []candidate
		want label.Label
	}{
		{"none", nil, 0},
		{"nothing is measured", []candidate{down(1), down(2)}, 1},
		{"the one that answers", []candidate{down(1), up(2, 5)}, 2},
		{"it stays though another is nearer", []candidate{up(1, 1), up(2, 5)}, 2},
		{"until it fails", []candidate{up(1, 1), down(2)}, 1},
		{"or goes", []candidate{up(3, 1)}, 3},
	} {
		if got := u.choose(tt.all); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestWatchedLinks wants both ends to agree on what is watched by what they said, ports to be given once, and a wish to
// survive noise.
func TestWatchedLinks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := watch{most: rapid.IntRange(0, 4).Draw(t, "most"), used: map[label.Label]time.Time{}, ports: map[label.Label]uint16{}, bfd: map[label.Label]bfdState{}}
		now := time.Unix(1000, 0)
		for range 20 {
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second)
			var near []nearness
			inUse := 0
			n := rapid.IntRange(0, 9).Draw(t, "gateways")
			for l := 1; l <= n; l++ {
				used := rapid.Bool().Draw(t, "used")
				if used {
					inUse++
				}
				near = append(near, nearness{label.Label(l), time.Duration(rapid.IntRange(0, 50).Draw(t, "ms")) * time.Millisecond, used})
			}
			asked := []label.Label{label.Label(rapid.IntRange(1, 12).Draw(t, "asked"))}
			before := map[label.Label]uint16{}
			for l, p := range w.ports {
				before[l] = p
			}
			w.choose(near, asked, now)
			least := min(w.most, inUse)
			if n <= w.most {
				least = n
			}
			if got := len(w.wish); got < least || got > min(w.most, n) {
				t.Fatalf("%d wishes of %d gateways, %d of them in use: want %d to %d", got, n, inUse, least, w.most)
			}
			seen := map[uint16]bool{}
			for l, p := range w.ports {
				if seen[p] || p < firstProtected || int(l) > n {
					t.Fatalf("ports %v with %d gateways", w.ports, n)
				}
				if old, ok := before[l]; ok && old != p {
					t.Fatalf("the port of %v moved from %d to %d", l, old, p)
				}
				seen[p] = true
			}
			if _, ok := w.ports[asked[0]]; !ok && int(asked[0]) <= n {
				t.Fatalf("%v asked to be watched and is not: %v", asked[0], w.ports)
			}
		}
	})
}

// A link that no path begins with is let go after a while, and not at once.
func TestUnusedLinkIsWatchedForAWhile(t *testing.T) {
	w := watch{most: 1, used: map[label.Label]time.Time{}, ports: map[label.Label]uint16{}, bfd: map[label.Label]bfdState{}}
	now := time.Unix(1000, 0)
	near := func(used label.Label) (out []nearness) {
		for l := label.Label(1); l <= 2; l++ {
			out = append(out, nearness{l, time.Duration(l) * time.Millisecond, l == used})
		}
		return out
	}
	for _, s := range []struct {
		used label.Label
		wait time.Duration
		want []label.Label
	}{{2, 0, []label.Label{2}}, {1, unusedFor, []label.Label{2}}, {1, time.Second, []label.Label{1}}, {0, unusedFor + time.Second, nil}} {
		now = now.Add(s.wait)
		w.choose(near(s.used), nil, now)
		if !slices.Equal(w.wish, s.want) {
			t.Errorf("with %d in use after %v: %v are watched, want %v", s.used, s.wait, w.wish, s.want)
		}
	}
}

func TestBFDIsBelievedForAWhile(t *testing.T) {
	now := time.Unix(1000, 0)
	w := watch{ports: map[label.Label]uint16{7: 100}, bfd: map[label.Label]bfdState{}}
	steps := []struct {
		up   bool
		wait time.Duration
		want bool
	}{{false, 0, false}, {true, time.Second, true}, {false, time.Second, true}, {false, bfdTrust, false}, {true, 0, true}}
	for i, s := range steps {
		w.heard(7, s.up, "", now)
		now = now.Add(s.wait)
		if got := w.believed(now)[7]; got != s.want {
			t.Errorf("step %d: believed %v, want %v", i, got, s.want)
		}
	}
	if w.heard(8, true, "up", now) {
		t.Error("a session without a port counts")
	}
}

// A session that cries wolf is listened to more seldom, and a real failure changes nothing.
func TestAlarmsForNothing(t *testing.T) {
	now := time.Unix(1000, 0)
	w := watch{ports: map[label.Label]uint16{7: 100}, bfd: map[label.Label]bfdState{}}
	down := func(d time.Duration) {
		w.heard(7, false, "down", now)
		now = now.Add(d)
		w.heard(7, true, "up", now)
	}
	expect := func(what string, want time.Duration) {
		t.Helper()
		if got := w.intervals(map[label.Label]bool{7: true}, now)[7]; got != want {
			t.Errorf("%s: every %v, want %v", what, got, want)
		}
	}
	expect("at first", bfdEvery)
	down(time.Second)
	expect("it came up for the first time", bfdEvery)
	down(momentary)
	expect("after a failure", bfdEvery)
	down(time.Second / 2)
	expect("after an alarm", 2*bfdEvery)
	for range 9 {
		down(time.Second / 2)
	}
	expect("after many", 8*bfdEvery)
	if got := w.intervals(nil, now)[7]; got != bfdIdle {
		t.Errorf("without traffic: every %v, want %v", got, bfdIdle)
	}
	for i := range 3 {
		now = now.Add(alarmForget + 1)
		expect(fmt.Sprint(i+1, " quiet times later"), 4*bfdEvery>>i)
	}
}

// TestBFDOfAnotherLink: a session whose link became another is not believed until that can be made at both ends, also if it
// says nothing new meanwhile; then it is, and when it fails as before.
func TestBFDOfAnotherLink(t *testing.T) {
	now := time.Unix(1000, 0)
	w := watch{ports: map[label.Label]uint16{7: 100}, bfd: map[label.Label]bfdState{}}
	w.heard(7, true, "up", now)
	for i, s := range []struct {
		do   func()
		wait time.Duration
		want bool
	}{
		{func() { w.renew(7, now) }, time.Second, false}, {func() {}, renewTime, true}, {func() { w.heard(7, false, "down", now) }, time.Second, true},
		{func() { w.renew(7, now) }, time.Second, false}, {func() {}, renewTime, false}, {func() { w.heard(7, true, "up", now) }, 0, true},
		{func() { w.renew(7, now) }, 0, false}, {func() { w.heard(7, false, "down", now) }, renewTime + time.Millisecond, false},
	} {
		s.do()
		if now = now.Add(s.wait); w.believed(now)[7] != s.want {
			t.Errorf("step %d: believed %v, want %v", i, !s.want, s.want)
		}
	}
}

func TestSayings(t *testing.T) {
	s := saying{row: path.Row{From: 3, Links: []path.Link{{To: 5, RTT: 20 * time.Millisecond, MTU: 1458, Up: true}}}, watch: []label.Label{5, 9}}
	got, err := decodeSaying(s.encode())
	if err != nil || got.row.From != 3 || len(got.row.Links) != 1 || !slices.Equal(got.watch, s.watch) {
		t.Fatalf("%+v, %v", got, err)
	}
	r := cluster(t, "a: a#1; b: b#3")
	var heard sayings
	if errs := heard.take([]Heard{{From: r.Nodes[1].ID, Version: 1, Value: s.encode()}, {From: crdt.NodeID{99}, Version: 1, Value: []byte{255}}}); len(errs) != 1 {
		t.Errorf("errors %v, want one", errs)
	}
	topo := r.topology()
	if rows := heard.rows(topo); len(rows) != 1 || rows[0].From != 3 {
		t.Errorf("rows %v", rows)
	}
	r.Nodes[1].Label = 4 // what it said of its old label counts for nothing: nobody speaks for another
	if rows := heard.rows(r.topology()); len(rows) != 0 {
		t.Errorf("rows %v of another label", rows)
	}
}

func FuzzSaying(f *testing.F) {
	f.Add(saying{row: path.Row{From: 3}}.encode())
	f.Add([]byte{2, 0, 1, 0, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := decodeSaying(b); err == nil {
			if _, err := decodeSaying(s.encode()); err != nil {
				t.Errorf("what was read cannot be said again: %v", err)
			}
		}
	})
}

func TestGuestPortsStay(t *testing.T) {
	g := guestPorts{}
	g.take(map[string]string{"x": "tap0", "y": "tap1"})
	x := g["x"].port
	g.take(map[string]string{"x": "tap0", "z": "tap2"})
	if g["x"].port != x || len(g) != 2 || g["z"].port == x || g["z"].port < firstGuest {
		t.Errorf("%v", g)
	}
	g.take(map[string]string{"x": "tap9"})
	if g["x"].iface != "tap9" {
		t.Errorf("%v", g)
	}
}

func TestAnswersToLargePackets(t *testing.T) {
	l := newTooLarge()
	l.set(map[flow.Slot]int{0x0102: 1400})
	frame := make([]byte, 14+1500)
	copy(frame, []byte{2, 0x76, 0, 0, 1, 2, 2, 0x76, 0, 0, 9, 9, 8, 0, 0x45})
	frame[16], frame[17] = 1500>>8, 1500&0xff
	now := time.Unix(0, 0)
	answers := 0
	for range 1000 {
		if _, ok := l.answer(frame, now); ok {
			answers++
		}
	}
	if answers != answerBurst {
		t.Errorf("%d answers at once, want %d", answers, answerBurst)
	}
	if _, ok := l.answer(frame[:14+1400], now.Add(time.Minute)); ok {
		t.Error("a packet that fits was answered")
	}
}

func TestPortNames(t *testing.T) {
	for _, l := range []label.Label{1, 77, label.Last} {
		if got, ok := watchedLabel("vcpeer0", watchedPort("vcpeer0", l)); !ok || got != l {
			t.Errorf("%v becomes %v, %v", l, got, ok)
		}
		if n := len(watchedPort("vcpeer0", l)); n > 15 {
			t.Errorf("a name of %d bytes", n)
		}
	}
	for _, name := range []string{"vcpeer0g", "vcpeer0c", "vcpeer0p", "vcpeer0p0", "vcpeer0p99999", "vcpeer1p7", "eth0"} {
		if _, ok := watchedLabel("vcpeer0", name); ok {
			t.Errorf("%s is taken for the port of a watched link", name)
		}
	}
}

// TestUnderTables wants what has addresses of sealed links to pass at the TAP and nowhere else, before anything else is looked
// at, and of other tunnels only those of own addresses.
func TestUnderTables(t *testing.T) {
	var got []string
	for _, f := range underTables([]underlay.Local{{Addr: netip.MustParseAddr("192.0.2.7")}, {Addr: netip.MustParseAddr("2001:db8::7")}}).Flows {
		got = append(got, fmt.Sprintf("%d %s %s", f.Priority, f.Match, f.Actions))
	}
	want := []string{
		"30 ip,in_port=1000,nw_proto=47 IN_PORT",
		"20 ip,nw_proto=47,nw_src=240.118.0.0/16 drop", "20 ip,nw_proto=47,nw_dst=240.118.0.0/16 drop",
		"10 ip,nw_proto=47,nw_src=192.0.2.7 IN_PORT", "10 ip,nw_proto=47,nw_dst=192.0.2.7 IN_PORT",
		"10 ipv6,nw_proto=47,ipv6_src=2001:db8::7 IN_PORT", "10 ipv6,nw_proto=47,ipv6_dst=2001:db8::7 IN_PORT",
		"1  drop",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// BenchmarkThousandSites is what a round costs at a gateway among a thousand, without measuring and planning, which have
// benchmarks of their own: to find that nothing has changed, and to make the tables anew when something has.
func BenchmarkThousandSites(b *testing.B) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "s%d: n%d#%d;", i, i, i+1)
	}
	r := cluster(b, strings.TrimSuffix(text.String(), ";"))
	table := path.Table{}
	for i := range r.Nodes {
		n := &r.Nodes[i]
		n.ID, n.Site = crdt.NodeID{byte(i >> 8), byte(i), 1}, crdt.SiteID{byte(i >> 8), byte(i), 1}
		n.Address, n.Underlay = netip.AddrFrom4([4]byte{10, 77, byte(i >> 8), byte(i)}), []netip.Addr{netip.AddrFrom4([4]byte{44, 1, byte(i >> 8), byte(i)})}
		if i > 0 {
			table.Choices = append(table.Choices, path.Choice{Path: path.Path{Dst: n.Label, MTU: 1458}})
		}
	}
	r.Self = r.Nodes[0].ID
	topo := r.topology()
	want := func() flow.Want {
		return wantFlows(r, topo, peersOf(r), decided{table: table, linkMTU: func(netip.Addr, int) int { return 1458 }})
	}
	before := want()
	b.Run("unchanged", func(b *testing.B) {
		for b.Loop() {
			if now := want(); !reflect.DeepEqual(now, before) {
				b.Fatal("equal records give another wish")
			}
		}
	})
	b.Run("tables", func(b *testing.B) {
		for b.Loop() {
			b.ReportMetric(float64(len(flow.Build(before).Flows)), "flows")
		}
	})
}

// TestExplainWithoutANetwork: nobody waits for an answer that cannot come.
func TestExplainWithoutANetwork(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n, err := New(Config{Self: crdt.NodeID{1}, Underlay: func(netip.Addr, string) bool { return true }})
		if err != nil {
			t.Fatal(err)
		}
		explain := func(what string, want time.Duration) {
			began := time.Now()
			if _, ok := n.Explain(t.Context(), 1, 2); ok || time.Since(began) != want {
				t.Errorf("%s: %v after %v, want false after %v", what, ok, time.Since(began), want)
			}
		}
		explain("it is off", 0)
		n.view.Store(&view{})
		time.AfterFunc(time.Second, func() { n.publish(func() Status { return Status{} }) }) // which changes nothing for those who wait
		time.AfterFunc(3*time.Second, func() { n.down("Open vSwitch has gone", "") })
		explain("it goes off", 3*time.Second)
	})
}

// TestTheSitesOwnLinksHaveAnMTU: a node that is no gateway has the links to its gateways measured as those have theirs.
func TestTheSitesOwnLinksHaveAnMTU(t *testing.T) {
	r := cluster(t, "kyoto: a b#1; osaka: c#2")
	s := session{records: r, topology: r.topology(), local: localOf(r)}
	s.peers = choosePeers(s.records, s.topology, s.local, 0, false)
	if _, targets := s.targets(time.Unix(1000, 0)); len(targets) != 1 || targets[0].MTU != 1458 {
		t.Errorf("%+v", targets)
	}
}
