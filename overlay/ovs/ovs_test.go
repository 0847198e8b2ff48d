package ovs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vcpeer/overlay/flow"
	"vcpeer/overlay/ovs/ovstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const owner = "12D3KooWtest"

func config(ovsw *ovstest.Switch) Config {
	return Config{RunDir: ovsw.Dir, Owner: owner, Poll: 100 * time.Millisecond, Log: slog.New(slog.DiscardHandler)}
}

// start opens a Switch on a fresh Open vSwitch.
func start(t testing.TB) (*Switch, *ovstest.Switch) {
	t.Helper()
	live := ovstest.Start(t)
	return reopen(t, live), live
}

func reopen(t testing.TB, live *ovstest.Switch) *Switch {
	t.Helper()
	s, err := Open(t.Context(), config(live))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// br0 has a flow-based GRE port 9 and more ports as given.
func br0(more ...Port) []Bridge {
	gre := Port{Name: "gre0", Type: "gre", Options: map[string]string{"remote_ip": "flow", "key": "flow"}, OFPort: 9}
	return []Bridge{{
		Name: "br0", Datapath: "netdev", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, MTU: 1400, Ports: append([]Port{gre}, more...),
	}}
}

func ensure(t testing.TB, s *Switch, want []Bridge) {
	t.Helper()
	if err := s.Ensure(t.Context(), want); err != nil {
		t.Fatal(err)
	}
}

func program(t testing.TB, s *Switch, want flow.Tables) Changes {
	t.Helper()
	changes, err := s.Program(t.Context(), "br0", want)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

// expect waits for an event that prints so.
func expect(t testing.TB, s *Switch, want string) Event {
	t.Helper()
	return expectThat(t, s, want, func(ev Event) bool { return strings.HasPrefix(ev.String(), want) })
}

func expectThat(t testing.TB, s *Switch, what string, is func(Event) bool) Event {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case ev := <-s.Events():
			if is(ev) {
				return ev
			}
		case <-late:
			t.Fatalf("no event: %s", what)
		}
	}
}

// quiet fails on an event that prints so within d.
func quiet(t *testing.T, s *Switch, bad string, d time.Duration) {
	t.Helper()
	end := time.After(d)
	for {
		select {
		case ev := <-s.Events():
			if strings.HasPrefix(ev.String(), bad) {
				t.Fatalf("event %v", ev)
			}
		case <-end:
			return
		}
	}
}

// cookies of a bridge's rules, sorted.
func cookies(t testing.TB, s *Switch) (all []string) {
	t.Helper()
	rules, err := s.Dump(t.Context(), "br0")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		all = append(all, fmt.Sprintf("%#x", r.Cookie))
	}
	slices.Sort(all)
	return all
}

func wantCookies(tables flow.Tables, more ...string) []string {
	for _, f := range tables.Flows {
		more = append(more, fmt.Sprintf("%#x", f.Cookie()))
	}
	slices.Sort(more)
	return more
}

// tables of three flows, of which the first differs by n.
func tables(n int) flow.Tables {
	return flow.Tables{Flows: []flow.Flow{
		{Table: 0, Priority: 5, Match: "dl_type=0x0800,nw_dst=10.77.0.1", Actions: fmt.Sprintf("set_field:%d->tun_id,set_field:192.0.2.1->tun_dst,output:9", n)},
		{Table: 0, Priority: 32768, Match: "in_port=LOCAL", Actions: "resubmit(,20)"},
		{Table: 1, Priority: 0, Actions: "drop"},
	}}
}

func TestABridgeIsSecureFromItsFirstMoment(t *testing.T) {
	s, live := start(t)
	ensure(t, s, br0())
	for column, want := range map[string]string{
		"fail_mode": "secure", "datapath_type": "netdev", "external_ids": `{vcpeer-owner="` + owner + `"}`,
		"protocols": `[OpenFlow10, OpenFlow13, OpenFlow14, OpenFlow15]`, "other_config": `{hwaddr="02:00:00:00:00:01"}`,
	} {
		if got := live.Vsctl(t, "get", "bridge", "br0", column); got != want {
			t.Errorf("%s is %s, want %s", column, got, want)
		}
	}
	if rules, err := s.Dump(t.Context(), "br0"); err != nil || len(rules) != 0 {
		t.Errorf("flows %v, %v; want none: not even NORMAL", rules, err)
	}
	ports := s.Ports("br0")
	if got := ports["gre0"]; got.OFPort != 9 || got.Error != "" {
		ovstest.Until(t, "port 9", func() error {
			if got := s.Ports("br0")["gre0"]; got.OFPort != 9 {
				return fmt.Errorf("gre0 is %+v", got)
			}
			return nil
		})
	}
	ovstest.Until(t, "MTU", func() error {
		if got := s.Ports("br0")["br0"]; got.MTU != 1400 || got.MAC != "02:00:00:00:00:01" {
			return fmt.Errorf("br0 is %+v", got)
		}
		return nil
	})

	before := live.Vsctl(t, "get", "Open_vSwitch", ".", "next_cfg")
	ensure(t, s, br0())
	if after := live.Vsctl(t, "get", "Open_vSwitch", ".", "next_cfg"); after != before {
		t.Errorf("ensuring the same again wrote to the database")
	}
	quiet(t, s, "changed", 300*time.Millisecond)
}

func TestWhatOthersMadeIsLeftAlone(t *testing.T) {
	s, live := start(t)
	live.Vsctl(t, "add-br", "other", "--", "set", "bridge", "other", "datapath_type=netdev")
	live.Vsctl(t, "add-br", "theirs", "--", "set", "bridge", "theirs", "datapath_type=netdev", "external_ids:vcpeer-owner=12D3KooWother")
	ensure(t, s, br0(Port{Name: "p1", Type: "internal"}))
	live.Vsctl(t, "add-port", "br0", "byhand", "--", "set", "interface", "byhand", "type=internal")

	ensure(t, s, br0(Port{Name: "p2", Type: "internal"})) // p1 goes, byhand stays
	if got := live.Vsctl(t, "list-ports", "br0"); got != "byhand\ngre0\np2" {
		t.Errorf("ports %q", got)
	}
	for _, tt := range []struct {
		want []Bridge
		err  ForeignError
	}{
		{[]Bridge{{Name: "other", Datapath: "netdev"}}, ForeignError{"bridge", "other", ""}},
		{[]Bridge{{Name: "theirs", Datapath: "netdev"}}, ForeignError{"bridge", "theirs", "12D3KooWother"}},
		{br0(Port{Name: "byhand", Type: "internal"}), ForeignError{"port", "byhand", ""}},
		{br0(Port{Name: "other", Type: "internal"}), ForeignError{"port", "other", ""}},
	} {
		err := s.Ensure(t.Context(), tt.want)
		var foreign *ForeignError
		if !errors.As(err, &foreign) || *foreign != tt.err || !errors.Is(err, ErrForeign) {
			t.Errorf("error %v, want %v", err, &tt.err)
		}
	}
	if err := s.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := live.Vsctl(t, "list-br"); got != "other\ntheirs" {
		t.Errorf("bridges after Remove: %q", got)
	}
}

func TestFlowsOfOthersAreLeftAlone(t *testing.T) {
	s, live := start(t)
	ensure(t, s, br0())
	live.Ofctl(t, "add-flow", "br0", "cookie=0x1234,table=7,priority=9,ip,actions=drop")
	live.Ofctl(t, "add-group", "br0", "group_id=77,type=all,bucket=actions=output:9")
	live.Ofctl(t, "add-flow", "br0", "table=8,actions=group:77")
	live.Ofctl(t, "add-flow", "br0", "cookie=0x7663000000000001,table=21,actions=drop")
	live.Ofctl(t, "add-flow", "br0", "cookie=0x766300000000000f,table=22,actions=drop") // ours, stale

	if got := program(t, s, tables(1)); got != (Changes{Added: 3, Deleted: 1, Read: true}) {
		t.Errorf("changes %+v", got)
	}
	want := wantCookies(tables(1), "0x1234", "0x0", "0x7663000000000001")
	if got := cookies(t, s); !slices.Equal(got, want) {
		t.Errorf("cookies\n got %v\nwant %v", got, want)
	}
	if got := program(t, s, tables(2)); got != (Changes{Added: 1, Deleted: 1}) {
		t.Errorf("changes of one flow: %+v", got)
	}
	if got := program(t, s, tables(2)); got != (Changes{}) {
		t.Errorf("changes of nothing: %+v", got)
	}
	want = wantCookies(tables(2), "0x1234", "0x0", "0x7663000000000001")
	if got := cookies(t, s); !slices.Equal(got, want) {
		t.Errorf("cookies\n got %v\nwant %v", got, want)
	}
}

// groups has a fast-failover group whose text is as given, and a flow that uses it.
func groups(bucket string) flow.Tables {
	t := tables(1)
	t.Flows = append(t.Flows, flow.Flow{Table: 2, Priority: 1, Match: "in_port=9", Actions: "group:5"})
	t.Groups = []flow.Group{{ID: 5, Type: "ff", Buckets: []string{bucket}}}
	return t
}

func TestGroupsComeBeforeTheirFlowsAndGoAfterThem(t *testing.T) {
	s, live := start(t)
	ensure(t, s, br0())
	first := groups("watch_port:9,actions=set_field:1->tun_id,output:9")
	if got := program(t, s, first); got != (Changes{Added: 4, GroupsWritten: 1, Read: true}) {
		t.Errorf("changes %+v", got)
	}
	other := reopen(t, live) // knows nothing of how the group was written, but sees that it is as wanted or writes it once
	ensure(t, other, br0())
	program(t, other, first)
	if got := program(t, other, first); !got.None() {
		t.Errorf("changes of nothing: %+v", got)
	}
	other.bridges["br0"].memory.valid = false
	if got := program(t, other, first); !got.None() {
		t.Errorf("changes of nothing after a look: %+v", got)
	}
	if got := program(t, s, groups("watch_port:9,actions=drop")); got.GroupsWritten != 1 {
		t.Errorf("changes of a group: %+v", got)
	}
	if got := program(t, s, tables(1)); got != (Changes{Deleted: 1, GroupsDeleted: 1}) {
		t.Errorf("changes %+v", got)
	}
	if got := live.Ofctl(t, "dump-groups", "br0"); strings.Contains(got, "group_id=5") {
		t.Errorf("group is still there: %s", got)
	}
}

func TestWhatIsChangedByHandIsNoticedAndHealed(t *testing.T) {
	s, live := start(t)
	ensure(t, s, br0())
	program(t, s, tables(1))
	first := tables(1).Flows[0]
	for _, tt := range []struct {
		name    string
		change  func()
		silent  bool // the number of flows stays: only reading shows it
		changes Changes
	}{
		{"flow deleted", func() { live.Ofctl(t, "del-flows", "br0", "table=1") }, false, Changes{Added: 1}},
		{"all flows deleted", func() { live.Ofctl(t, "del-flows", "br0") }, false, Changes{Added: 3}},
		{"flow replaced by another's", func() {
			live.Ofctl(t, "add-flow", "br0", "cookie=0x9,priority=5,ip,nw_dst=10.77.0.1,actions=drop")
		}, false, Changes{Added: 1}},
		{"actions changed", func() {
			live.Ofctl(t, "mod-flows", "br0", "ip,nw_dst=10.77.0.1,actions=drop")
		}, true, Changes{Repaired: 1}},
		{"cookie used twice", func() {
			live.Ofctl(t, "add-flow", "br0", fmt.Sprintf("cookie=%#x,table=9,actions=drop", first.Cookie()))
		}, false, Changes{Repaired: 1}},
		{"flow moved", func() {
			live.Ofctl(t, "del-flows", "br0", "ip,nw_dst=10.77.0.1")
			live.Ofctl(t, "add-flow", "br0", fmt.Sprintf("cookie=%#x,table=9,actions=drop", first.Cookie()))
		}, true, Changes{Repaired: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.change()
			if tt.silent {
				s.mu.Lock()
				s.bridges["br0"].memory.valid = false // as after Config.Recheck
				s.mu.Unlock()
			} else {
				expect(t, s, "changed br0")
			}
			got := program(t, s, tables(1))
			got.Read = false
			if got != tt.changes {
				t.Errorf("changes %+v, want %+v", got, tt.changes)
			}
			s.bridges["br0"].memory.valid = false
			if got := program(t, s, tables(1)); !got.None() {
				t.Errorf("changes after healing: %+v", got)
			}
			if got, want := cookies(t, s), wantCookies(tables(1)); !slices.Equal(got, want) {
				t.Errorf("cookies %v, want %v", got, want)
			}
		})
	}
	live.Vsctl(t, "del-port", "br0", "gre0")
	expect(t, s, "changed br0")
	ensure(t, s, br0())
	if got := live.Vsctl(t, "list-ports", "br0"); got != "gre0" {
		t.Errorf("ports %q", got)
	}
	live.Vsctl(t, "set", "interface", "gre0", "options:remote_ip=192.0.2.9")
	expect(t, s, "changed br0")
	ensure(t, s, br0())
	live.Vsctl(t, "del-br", "br0")
	expect(t, s, "changed br0")
	ensure(t, s, br0())
	expect(t, s, "restarted ovs-vswitchd br0")
	if got := program(t, s, tables(1)); got.Added != 3 {
		t.Errorf("changes in the new bridge: %+v", got)
	}
}

func TestDaemonsRestart(t *testing.T) {
	s, live := start(t)
	ensure(t, s, br0())
	program(t, s, tables(1))

	live.Kill(t, ovstest.Vswitchd)
	expect(t, s, "gone ovs-vswitchd br0")
	if _, err := s.Program(t.Context(), "br0", tables(2)); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Program without ovs-vswitchd: %v", err)
	}
	live.Launch(t, ovstest.Vswitchd)
	began := time.Now()
	expect(t, s, "restarted ovs-vswitchd br0")
	ensure(t, s, br0())
	if got := program(t, s, tables(2)); got.Added != 3 {
		t.Errorf("changes after the restart: %+v", got)
	}
	t.Logf("ovs-vswitchd listens -> its bridge is full again: %v", time.Since(began))

	live.Kill(t, ovstest.Ovsdb)
	expect(t, s, "gone ovsdb-server")
	if err := s.Ensure(t.Context(), br0()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Ensure without ovsdb-server: %v", err)
	}
	if _, err := s.Program(t.Context(), "br0", tables(3)); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Program without ovsdb-server: %v", err)
	}
	live.Launch(t, ovstest.Ovsdb)
	expect(t, s, "restarted ovsdb-server")
	ovstest.Until(t, "Ensure works", func() error {
		return s.Ensure(t.Context(), br0(Port{Name: "p1", Type: "internal"}))
	})
	if got := program(t, s, tables(2)); !got.None() {
		t.Errorf("ovsdb-server's restart cost flows: %+v", got)
	}
}

func TestOpenAndDetectSayWhatIsMissing(t *testing.T) {
	cfg := Config{RunDir: t.TempDir(), Owner: owner, Log: slog.New(slog.DiscardHandler)}
	_, err := Open(t.Context(), cfg)
	var e *Error
	if !errors.Is(err, ErrNotRunning) || !errors.As(err, &e) || e.Hint == "" {
		t.Errorf("Open: %v", err)
	}
	t.Setenv("PATH", "")
	if _, err := Detect(t.Context(), cfg); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("Detect: %v", err)
	}
}

func TestDetect(t *testing.T) {
	_, live := start(t)
	info, err := Detect(t.Context(), config(live))
	if err != nil || info.Datapath != "netdev" || info.Version == "" || !slices.Contains(info.Interfaces, "gre") {
		t.Errorf("Detect: %+v, %v", info, err)
	}
	live.Kill(t, ovstest.Vswitchd)
	if _, err := Detect(t.Context(), config(live)); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Detect without ovs-vswitchd: %v", err)
	}
}

func TestCommandsEndWithTheirContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := execute(ctx, nil, nil, "sleep", "60")
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 10*time.Second {
		t.Errorf("error %v after %v", err, time.Since(began))
	}
}

// TestCloseEndsAllWhileDaemonsAreDown; that nothing is left is for TestMain to see.
func TestCloseEndsAllWhileDaemonsAreDown(t *testing.T) {
	s, live := start(t)
	ensure(t, s, br0())
	live.Kill(t, ovstest.Vswitchd)
	live.Kill(t, ovstest.Ovsdb)
	expect(t, s, "gone ovsdb-server")
	began := time.Now()
	s.Close()
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("Close took %v", d)
	}
}
