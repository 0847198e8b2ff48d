// Package nat checks on whole networks what members behind each kind of NAT reach one another by, how soon, and what happens
// when a relay, a NAT or an address goes away. The daemons are built without the race detector, which would change every
// time that is measured here; the packages they are made of are tested with it elsewhere.
package nat

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"vcpeer/deploy/harness"
	"vcpeer/deploy/lab"
	"vcpeer/deploy/lab/topology"
	"vcpeer/peer/api"
)

var binary string

func TestMain(m *testing.M) {
	if why := lab.CannotRun(context.Background()); why != "" {
		fmt.Println("no lab here:", why)
		return
	}
	dir, err := os.MkdirTemp("", "vcnat")
	if err == nil {
		binary, err = harness.Build(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// up brings up a lab whose nodes have no Open vSwitch.
func up(t *testing.T, file string) *lab.Lab {
	t.Helper()
	top, err := topology.Parse("nat.yaml", []byte("ovs: off\n"+file))
	if err != nil {
		t.Fatal(err)
	}
	within, level := time.Minute, "debug"
	if len(top.Sites) > 20 { // there may be a core for each ten nodes
		within, level = 5*time.Minute, "warn"
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	l, err := lab.Up(ctx, top, lab.Options{Binary: binary, Name: fmt.Sprintf("nat%d", os.Getpid()), LogLevel: level})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			keepLogs(t, l)
		}
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// keepLogs saves the logs of a test that failed where VCPEER_LOGS says.
func keepLogs(t *testing.T, l *lab.Lab) {
	dir := os.Getenv("VCPEER_LOGS")
	for _, n := range l.Nodes() {
		b, err := os.ReadFile(lab.LogFile(n.Machine.Dir, lab.VCPeer))
		if dir == "" || err != nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, n.Name+".log"), b, 0o644); err != nil {
			t.Log(err)
		}
	}
}

// eventually waits until ok says nothing, and fails with what it said last.
func eventually(t *testing.T, within time.Duration, ok func() string) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		why := ok()
		if why == "" {
			return time.Since(began)
		}
		if time.Since(began) > within {
			t.Fatalf("after %v: %s", within, why)
		}
		<-tick.C
	}
}

// netcheck asks a node how it reaches the others, or those named.
func netcheck(t *testing.T, l *lab.Lab, node string, members ...string) *api.Netcheck {
	t.Helper()
	c := l.Client(node)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	n, err := c.Netcheck(ctx, members...)
	if err != nil {
		t.Fatalf("%s: %v", node, err)
	}
	return n
}

// peerOf finds a member in what a node says.
func peerOf(n *api.Netcheck, name string) api.NetPeer {
	i := slices.IndexFunc(n.Members, func(p api.NetPeer) bool { return p.Node == name })
	if i < 0 {
		return api.NetPeer{Way: "unknown"}
	}
	return n.Members[i]
}

// noAlarms fails for every node that anybody took for failed, save those that are to be expected.
func noAlarms(t *testing.T, l *lab.Lab, expected ...string) {
	t.Helper()
	for _, n := range l.Nodes() {
		c := l.Client(n.Name)
		defer c.Close()
		for e, err := range c.Events(t.Context(), false, time.Time{}) {
			if err != nil {
				t.Error(err)
				break
			}
			if e.Type == "member.failed" && !slices.ContainsFunc(expected, func(x string) bool { return strings.HasPrefix(e.Text, x+" ") }) {
				t.Errorf("%s at %s: %s", n.Name, e.Time.Format(time.StampMilli), e.Text)
			}
		}
	}
}

// kind is what decides how two nodes of the matrix meet.
type kind struct {
	lan  string // nodes of one are on one LAN
	nat  string // "" (public), "cone" (full or restricted by address), "port", "symmetric", "mapped" (symmetric, but the router passes a port on), "tcp" (no UDP), "closed" (no NAT, nothing comes in)
	v4   bool
	v6   bool
	wall bool // nothing comes in unasked
}

var kinds = map[string]kind{
	"hub1":  {nat: "", v4: true, v6: true},
	"hub2":  {nat: "", v4: true, v6: true},
	"cone":  {nat: "cone", v4: true, wall: true},
	"desk":  {nat: "cone", v4: true, wall: true},
	"home1": {nat: "port", v4: true, wall: true},
	"home2": {nat: "port", v4: true, wall: true},
	"sym1":  {nat: "symmetric", v4: true, wall: true},
	"sym2":  {nat: "symmetric", v4: true, wall: true},
	"lab1":  {nat: "port", v4: true, v6: true, wall: true, lan: "shared"},
	"lab2":  {nat: "port", v4: true, v6: true, wall: true, lan: "shared"},
	"phone": {nat: "port", v4: true, wall: true},
	"noudp": {nat: "tcp", v4: true, wall: true},
	"pcp":   {nat: "mapped", v4: true},
	"upnp":  {nat: "mapped", v4: true},
	"six":   {nat: "closed", v6: true, wall: true},
}

const matrix = `
sites:
  hub1: {nodes: [hub1], ip: both}
  hub2: {nodes: [hub2], ip: both}
  cone: {nodes: [cone], nat: full-cone}
  desk: {nodes: [desk], nat: restricted}
  home1: {nodes: [home1], nat: port-restricted}
  home2: {nodes: [home2], nat: port-restricted}
  sym1: {nodes: [sym1], nat: symmetric}
  sym2: {nodes: [sym2], nat: symmetric}
  shared:
    nat: port-restricted
    ip: both
    nodes: {lab1: {}, lab2: {start: no}} # lab2 is of another site behind the same NAT
  phone: {nodes: [phone], nat: port-restricted, double-nat: yes}
  noudp: {nodes: [noudp], udp: blocked, inbound: blocked}
  pcp: {nodes: [pcp], nat: symmetric, port-mapping: pcp}
  upnp: {nodes: [upnp], nat: symmetric, port-mapping: upnp}
  six: {nodes: [six], ip: v6, inbound: blocked}
links:
  default: delay=10ms
`

// expected is the way between two nodes.
func expected(a, b kind) string {
	pair := func(x, y string) bool { return a.nat == x && b.nat == y || a.nat == y && b.nat == x }
	v4, v6 := a.v4 && b.v4, a.v6 && b.v6
	switch {
	case a.lan != "" && a.lan == b.lan, (!a.wall || !b.wall) && (v4 || v6):
		return api.WayDirect
	case v6:
		return api.WayPunched // or direct: IPv6 is not translated, so dialling at once from both sides opens both firewalls
	case !v4, a.nat == "tcp", b.nat == "tcp", pair("symmetric", "symmetric"), pair("symmetric", "port"):
		return api.WayRelayed
	}
	return api.WayPunched
}

// asGood reports whether another way than the expected one is none the worse.
func asGood(a, b kind, way string) bool {
	switch {
	case a.v6 && b.v6: // punched was expected
		return way == api.WayDirect
	case a.nat == "mapped" || b.nat == "mapped": // a hole that was made before the port was mapped stays
		return way == api.WayPunched
	}
	return false
}

// startElsewhere starts vcpeer on a node as a site of its own name, which is not that of its network.
func startElsewhere(t *testing.T, l *lab.Lab, node string) {
	t.Helper()
	c := l.Client("hub1")
	defer c.Close()
	token, err := c.NewToken(t.Context(), api.TokenAsk{TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	n := l.Node(node)
	cmd := l.Command(t.Context(), node, "vcpeer", "start", "--name", node, "--site", node, "--seed", l.Node("hub1").Addrs[0].String(), "--token", token.Token, "--log-level", "debug")
	log, err := os.Create(lab.LogFile(n.Machine.Dir, lab.VCPeer))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	own := l.Client(node)
	defer own.Close()
	eventually(t, 20*time.Second, func() string {
		if s, err := own.Status(t.Context()); err != nil || s.Node.Phase != "running" {
			return fmt.Sprintf("%s does not run: %v", node, err)
		}
		return ""
	})
}

// TestMatrix: every pair of nodes behind every kind of NAT meets in the way it can, soon, and stays.
func TestMatrix(t *testing.T) {
	long(t)
	if why := lab.MissingMapper(); why != "" {
		t.Skip(why)
	}
	l := up(t, matrix)
	startElsewhere(t, l, "lab2")
	names := slices.Sorted(maps.Keys(kinds))
	meet(t, l, 25*time.Second, names)
	for _, a := range names {
		eventually(t, 10*time.Second, func() string { return wrongReach(netcheck(t, l, a), a) })
	}
	noAlarms(t, l)
}

// meet waits until every pair of nodes meets as expected, and tells after how long each first did.
func meet(t *testing.T, l *lab.Lab, within time.Duration, names []string) {
	t.Helper()
	began := time.Now()
	since := map[string]time.Duration{} // by pair
	check := func() (wrong []string) {
		var mu sync.Mutex
		var all sync.WaitGroup
		for _, a := range names {
			all.Go(func() {
				n := netcheck(t, l, a)
				mu.Lock()
				defer mu.Unlock()
				for _, b := range names {
					if a == b {
						continue
					}
					want, got := expected(kinds[a], kinds[b]), peerOf(n, b)
					switch {
					case got.Way != want && !asGood(kinds[a], kinds[b], got.Way):
						wrong = append(wrong, fmt.Sprintf("%s to %s: %s, want %s (%s %s %s)", a, b, got.Way, want, got.Via, got.Addr, got.Error))
					case since[a+" "+b] == 0:
						since[a+" "+b] = time.Since(began)
					}
				}
			})
		}
		all.Wait()
		slices.Sort(wrong)
		return wrong
	}
	eventually(t, within, func() string { return strings.Join(check(), "\n") })
	for _, a := range names {
		row := fmt.Sprintf("%-6s", a)
		for _, b := range names {
			cell := "-"
			if a != b {
				cell = fmt.Sprintf("%c%.1f", expected(kinds[a], kinds[b])[0], since[a+" "+b].Seconds())
			}
			row += fmt.Sprintf("%7s", cell)
		}
		t.Log(row)
	}
	t.Logf("seconds after the last node had joined; punches took %s", punchTimes(t, l))
}

// TestMatrixShort: the ways there are, once each, for every run of the tests: punched where both NATs keep their ports, relayed
// where both are symmetric, and by TCP where UDP does not pass. What is waited for is an event, for as long as a busy machine
// may take.
func TestMatrixShort(t *testing.T) {
	l := up(t, `
sites:
  hub1: {nodes: [hub1]}
  hub2: {nodes: [hub2]}
  home1: {nodes: [home1], nat: port-restricted}
  home2: {nodes: [home2], nat: port-restricted}
  sym1: {nodes: [sym1], nat: symmetric}
  sym2: {nodes: [sym2], nat: symmetric}
  noudp: {nodes: [noudp], udp: blocked, inbound: blocked}
links:
  default: delay=10ms
`)
	meet(t, l, time.Minute, []string{"hub1", "hub2", "home1", "home2", "sym1", "sym2", "noudp"})
	for _, hub := range []string{"hub1", "hub2"} {
		if p := peerOf(netcheck(t, l, "noudp", hub), hub); p.Transport != "tcp" {
			t.Errorf("without UDP %s is reached by %q", hub, p.Transport)
		}
	}
}

// wrongReach says what is not right in what a node of the matrix says of itself.
func wrongReach(n *api.Netcheck, name string) string {
	wantOpen, wantRelays := "yes", 0
	if kinds[name].wall {
		wantOpen, wantRelays = "no", 2
	}
	if n.Open != wantOpen || len(n.Relays) != wantRelays {
		return fmt.Sprintf("%s: open %s, %d relays; want %s, %d", name, n.Open, len(n.Relays), wantOpen, wantRelays)
	}
	for i, r := range n.Relays {
		if kinds[r.Node].wall || i > 0 && r.Site == n.Relays[0].Site {
			return fmt.Sprintf("%s: relays %+v", name, n.Relays)
		}
	}
	if got, want := n.V4.NAT, map[string]string{"cone": "same for all", "port": "same for all", "symmetric": "another for each", "mapped": "another for each", "": "none"}[kinds[name].nat]; want != "" && got != want {
		return fmt.Sprintf("%s: NAT %q, want %q", name, got, want)
	}
	return ""
}

var punchTook = regexp.MustCompile(`tried for a direct connection.* took=(\S+) err=<nil>`)

// punchTimes lists how long the successful attempts at a direct connection took, from the logs.
func punchTimes(t *testing.T, l *lab.Lab) string {
	var all []time.Duration
	for _, n := range l.Nodes() {
		b, err := os.ReadFile(lab.LogFile(n.Machine.Dir, lab.VCPeer))
		if err != nil {
			t.Error(err)
		}
		for _, m := range punchTook.FindAllStringSubmatch(string(b), -1) {
			d, err := time.ParseDuration(m[1])
			if err != nil {
				t.Error(err)
			}
			all = append(all, d)
		}
	}
	slices.Sort(all)
	if len(all) == 0 {
		return "none"
	}
	return fmt.Sprintf("%v median, %v most, of %d", all[len(all)/2].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond), len(all))
}
