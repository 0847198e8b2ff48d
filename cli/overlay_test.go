package cli

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"vcpeer/peer/api"
	"vcpeer/peer/api/apitest"
)

var detour = api.Path{From: "kyoto-1", FromSite: "kyoto", To: "sapporo-1", ToSite: "sapporo", Via: []string{"osaka-1"}, RTTMilli: 40, DirectMilli: 100,
	GainPercent: 60, MTU: 1434, Since: noon, Switches: 2, Cause: "better than before", Backup: []string{}, HasBackup: true}

func TestLinks(t *testing.T) {
	node := apitest.Start(t, apitest.Routes{"GET /v1/links": apitest.List("LinkList",
		api.Link{Node: "osaka-1", Site: "osaka", Kind: "GRE", Up: true, Measured: true, RTTMilli: 12.34, JitterMilli: 0.2, LossIn: 0.004, LossOut: 0.25,
			MTU: 1434, Since: noon, Protected: true, BFD: "up"},
		api.Link{Node: "nara-1", Site: "nara", Kind: "GRE", Measured: true, RTTMilli: 3, LossOut: 1, LossIn: 1, Since: noon, Flaps: 3},
		api.Link{Node: "kobe-1", Site: "kobe", Kind: "sealed", Since: noon,
			Frames: &api.Frames{Sent: 5000, Received: 70, Drops: api.Drops{Full: 3, Late: 4, NoWay: 20, Forged: 100}}},
		api.Link{Node: "uji-1", Site: "uji", Kind: "sealed", Since: noon, Frames: &api.Frames{Sent: 5}})})
	s := newShell(t, node)
	s.expect(0, `SITE   NODE     KIND    STATE         RTT   JITTER  LOST OUT    IN   MTU  DROPPED  SINCE                 FAILED  BFD
osaka  osaka-1  GRE     up        12.3 ms  0.20 ms       25%  0.4%  1434        -  2026-11-23T12:00:00Z       0  up
nara   nara-1   GRE     down            -        -      100%  100%     -        -  2026-11-23T12:00:00Z       3  -
kobe   kobe-1   sealed  never up        -        -        0%    0%     -      127  2026-11-23T12:00:00Z       0  -
uji    uji-1    sealed  never up        -        -        0%    0%     -        0  2026-11-23T12:00:00Z       0  -
`, `kobe-1: 7 frames waited too long to be sent; 5000 were sent
hint: more is sent than the way there takes: TCP adapts by this; send UDP slower
kobe-1: 20 frames had no way; 5000 were sent
hint: the other end was away, as while it restarts; if it goes on: vcpeer netcheck kobe-1
kobe-1: 100 frames could not be opened; 70 were received
hint: they were damaged on the way, or are somebody else's
`, "links", "--of", "kyoto")
	if q := node.Asked()[0].Query; q != "of=kyoto" {
		t.Errorf("asked %s", q)
	}
	s = newShell(t, apitest.Start(t, apitest.Routes{"GET /v1/links": apitest.List[api.Link]("LinkList")}))
	s.expect(0, "", "kyoto-1 has no links; vcpeer overlay tells whether it takes part\n", "links")
}

func TestPaths(t *testing.T) {
	straight := api.Path{From: "kyoto-1", To: "osaka-1", ToSite: "osaka", RTTMilli: 0.5, DirectMilli: 0.5, Since: noon}
	within := api.PathWhy{From: "a", To: "b", FromSite: "kyoto", ToSite: "kyoto", Way: []string{"a", "b"}}
	s := newShell(t, apitest.Start(t, apitest.Routes{
		"GET /v1/paths": apitest.List("PathList", straight, detour),
		"GET /v1/paths/why": func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Query().Get("from") {
			case "kyoto-2":
				apitest.WriteLine(w, api.PathWhy{From: "kyoto-2", To: "vm1", FromSite: "kyoto", ToSite: "sapporo",
					Way: []string{"kyoto-2", "kyoto-1", "osaka-1", "sapporo-1", "vm1"}, Path: &detour})
			case "a":
				apitest.WriteLine(w, within)
			default:
				apitest.WriteLine(w, api.PathWhy{From: "x", To: "y", FromSite: "s", ToSite: "t", Computed: "x is not reached: no route; computed on kyoto-1"})
			}
		},
	}))
	s.expect(0, `TO         SITE     WAY                                RTT    DIRECT  GAIN   MTU  SINCE                 SWITCHES  BACKUP
osaka-1    osaka    direct                         0.50 ms   0.50 ms     -     -  2026-11-23T12:00:00Z         0  -
sapporo-1  sapporo  kyoto-1 > osaka-1 > sapporo-1  40.0 ms  100.0 ms   60%  1434  2026-11-23T12:00:00Z         2  direct
`, "", "paths")
	s.expect(0, `from kyoto-2 to vm1: kyoto-2 > kyoto-1 > osaka-1 > sapporo-1 > vm1
TO         SITE     WAY                                RTT    DIRECT  GAIN   MTU  SINCE                 SWITCHES  BACKUP
sapporo-1  sapporo  kyoto-1 > osaka-1 > sapporo-1  40.0 ms  100.0 ms   60%  1434  2026-11-23T12:00:00Z         2  direct
`, "", "paths", "kyoto-2", "vm1")
	s.expect(0, "from a to b: a > b, within site kyoto\n", "", "paths", "a", "b")
	s.expect(1, "from x to y: no way\n", "note: x is not reached: no route; computed on kyoto-1\n", "paths", "x", "y")
	s.expect(2, "", "error: vcpeer paths wants A and B at most\nhint: vcpeer paths --help shows examples\n", "paths", "a", "b", "c")
}

func TestWhyAPath(t *testing.T) {
	w := api.PathWhy{From: "kyoto", To: "sapporo", FromSite: "kyoto", ToSite: "sapporo", Way: []string{"kyoto-1", "osaka-1", "sapporo-1"}, Path: &detour,
		Losers: []api.Loser{{Via: []string{"nara-1"}, RTTMilli: 38, MTU: 1400, Why: []string{"held for 12s more after a switch"}},
			{Via: []string{}, RTTMilli: 100, Why: []string{"worse by 59.1 ms"}}}}
	node := apitest.Start(t, apitest.Routes{"GET /v1/paths/why": w})
	s := newShell(t, node)
	s.expect(0, `from kyoto to sapporo: kyoto-1 > osaka-1 > sapporo-1
  Between the gateways the RTT is 40.0 ms; the direct link has 100.0 ms: the detour saves 60%.
  IP packets of up to 1434 bytes pass whole.
  Chosen by kyoto-1, since 2026-11-23T12:00:00Z (better than before); 2 changes so far.
  If its first link fails: direct.
Not chosen:
WAY              RTT   MTU  WHY NOT
via nara-1   38.0 ms  1400  held for 12s more after a switch
direct      100.0 ms     -  worse by 59.1 ms
`, "", "why", "kyoto", "sapporo")
	if q := node.Asked()[0].Query; q != "from=kyoto&to=sapporo" {
		t.Errorf("asked %s", q)
	}
	w.Computed, w.Losers = "osaka-1 did not answer in time; computed on kyoto-1", nil
	s = newShell(t, apitest.Start(t, apitest.Routes{"GET /v1/paths/why": w}))
	s.expect(0, `from kyoto to sapporo: kyoto-1 > osaka-1 > sapporo-1
  Between the gateways the RTT is 40.0 ms; the direct link has 100.0 ms: the detour saves 60%.
  IP packets of up to 1434 bytes pass whole.
  That is what kyoto-1 would choose at first; what it remembers of earlier choices is not known here.
  If its first link fails: direct.
`, "note: osaka-1 did not answer in time; computed on kyoto-1\n", "why", "kyoto", "sapporo")
	s.expect(2, "", "error: vcpeer why wants the ID of a job, or two places\nhint: vcpeer why --help shows examples\n", "why")
}

func TestPing(t *testing.T) {
	way := api.PingLine{Way: &api.PingWay{To: "osaka-1", Address: "10.77.0.5", By: api.ByProbe, Way: []string{"kyoto-1", "nara-1", "osaka-1"}, Size: 84}}
	pong := func(seq int, rtt float64) api.PingLine { return api.PingLine{Pong: &api.Pong{Seq: seq, RTTMilli: rtt}} }
	lost := api.PingLine{Pong: &api.Pong{Seq: 2, Lost: true}}
	node := apitest.Start(t, apitest.Routes{"GET /v1/ping": func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("to") {
		case "osaka":
			for _, l := range []api.PingLine{way, pong(1, 10), lost, pong(3, 14)} {
				apitest.WriteLine(w, l)
			}
		case "silent":
			apitest.WriteLine(w, lost)
		case "ever":
			apitest.WriteLine(w, pong(1, 10))
			<-r.Context().Done()
		default:
			apitest.WriteProblem(w, &api.Problem{Code: api.CodeNotFound, Message: "no node, guest or site is called \"x\""})
		}
	}})
	s := newShell(t, node)
	s.expect(0, `PING osaka-1 (10.77.0.5) over kyoto-1 > nara-1 > osaka-1: probes of 84 bytes
seq=1 time=10.0 ms
seq=2 lost
seq=3 time=14.0 ms
--- osaka-1: 3 sent, 2 answered, 33% lost
rtt min/mean/max/stddev = 10.00/12.00/14.00/2.00 ms
`, "", "ping", "osaka", "--direct", "-c", "3", "-i", "200ms", "--size", "1400")
	if q := node.Asked()[0].Query; q != "count=3&direct=1&intervalNanos=200000000&size=1400&to=osaka" {
		t.Errorf("asked %s", q)
	}
	s.expect(1, "seq=2 lost\n--- silent: 1 sent, 0 answered, 100% lost\n", "", "ping", "silent")
	s.expect(4, "", "error: no node, guest or site is called \"x\"\n", "ping", "x")
	s.expect(2, "", "error: ping: --count, --size and --deadline must not be below zero, --interval must be above\n", "ping", "osaka", "-c", "-1")
	s.expect(2, "", "error: vcpeer ping: invalid argument \"soon\" for \"-i, --interval\" flag: want seconds, such as 0.3, or a number with a unit, such as 300ms or 1h30m\n"+
		"hint: vcpeer ping --help lists the flags\n", "ping", "osaka", "-i", "soon")
	s.expect(0, "seq=1 time=10.0 ms\n--- ever: 1 sent, 1 answered, 0% lost\nrtt min/mean/max/stddev = 10.00/10.00/10.00/0.00 ms\n", "", "ping", "ever", "-i", "0.3", "-w", "0.3")
	if asked := node.Asked(); asked[len(asked)-1].Query != "intervalNanos=300000000&to=ever" {
		t.Errorf("asked %s", asked[len(asked)-1].Query)
	}
	s.expect(0, `{"pong":{"seq":1,"rttMillis":10}}
{"summary":{"sent":1,"answered":1,"minMillis":10,"meanMillis":10,"maxMillis":10,"stddevMillis":0}}
`, "", "ping", "ever", "--json", "--timeout", "0.3")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	if code := s.runCtx(ctx, "ping", "ever"); code != 0 || !strings.Contains(s.out.String(), "--- ever: 1 sent, 1 answered, 0% lost\n") {
		t.Errorf("interrupted: exit %d\n%s%s", code, &s.out, &s.errs)
	}
}

func TestTrace(t *testing.T) {
	hops := []api.Hop{{Node: "kyoto-1", Site: "kyoto", Role: "gateway", Link: "site", RTTMilli: 0.3, Sent: 3, Answered: 3},
		{Node: "osaka-1", Site: "osaka", Role: "transit", Link: "GRE", MTU: 1434, RTTMilli: 20.1, Sent: 3, Answered: 3},
		{Node: "sapporo-1", Site: "sapporo", Role: "gateway", Link: "GRE", MTU: 1400, Sent: 3}}
	s := newShell(t, apitest.Start(t, apitest.Routes{"GET /v1/trace": api.Trace{SeenFrom: api.Place{Node: "kyoto-2", Site: "kyoto"}, To: "sapporo-1",
		Address: "10.77.0.9", Hops: hops, Notes: []string{"sapporo-1 did not answer"}}}))
	s.expect(1, `from kyoto-2 at site kyoto to sapporo-1 (10.77.0.9)
HOP  NODE       SITE     ROLE     LINK   MTU      RTT  ANSWERED
  1  kyoto-1    kyoto    gateway  site     -  0.30 ms       3/3
  2  osaka-1    osaka    transit  GRE   1434  20.1 ms       3/3
  3  sapporo-1  sapporo  gateway  GRE   1400   silent       0/3
`, "note: sapporo-1 did not answer\n", "trace", "sapporo-1")
}

func TestGuests(t *testing.T) {
	vm := api.Guest{ID: "ab", Name: "vm1", Node: "kyoto-1", Site: "kyoto", Address: "10.77.3.4", Address6: "fd00::304", MAC: "02:76:00:00:03:04", State: "attached", Since: noon, Iface: "tap0", Here: true}
	commands := []string{"ip link set dev eth0 address 02:76:00:00:03:04 mtu 1434", "ip link set dev eth0 up"}
	found := vm
	found.Inner, found.Iface = "eth0", "veth0"
	node := apitest.Start(t, apitest.Routes{
		"GET /v1/guests": apitest.List("GuestList", vm, api.Guest{Name: "vm2", State: "detached", Since: noon}),
		"GET /v1/hosts": apitest.List("HostList", api.Host{Name: "kyoto-1", Site: "kyoto", OS: "linux", Arch: "amd64", CPUs: 2, MemBytes: 1 << 30, State: "alive"},
			api.Host{Name: "vm1", Site: "kyoto", Address: "10.77.3.4", State: "attached", Guest: true, On: "kyoto-1"}),
		"POST /v1/guests": func(w http.ResponseWriter, r *http.Request) {
			buf := make([]byte, 200)
			n, _ := r.Body.Read(buf)
			switch body := string(buf[:n]); {
			case strings.Contains(body, `"veth0"`):
				apitest.WriteLine(w, api.Attached{Guest: found, PrefixLen: 16, PrefixLen6: 64, MTU: 1434})
			case strings.Contains(body, `"move":true`):
				apitest.WriteLine(w, api.Attached{Guest: vm, PrefixLen: 16, PrefixLen6: 64, MTU: 1434, Commands: commands})
			default:
				apitest.WriteProblem(w, &api.Problem{Code: api.CodeRefused, Message: "guest vm1 is attached to osaka-1", Hint: "--move takes it away from there, with its address"})
			}
		},
		"DELETE /v1/guests/{name}": nil,
	})
	s := newShell(t, node)
	s.expect(5, "", "error: guest vm1 is attached to osaka-1\nhint: --move takes it away from there, with its address\n", "attach", "tap0", "--name", "vm1")
	s.expect(0, `vm1 is attached by tap0
address  10.77.3.4/16
IPv6     fd00::304/64
MAC      02:76:00:00:03:04
MTU      1434
  ip link set dev eth0 address 02:76:00:00:03:04 mtu 1434
  ip link set dev eth0 up
`, "Its own end is not of this machine. It is told this when it asks by DHCP. Or type there, with its interface in place of eth0:\n", "attach", "tap0", "--name", "vm1", "--move")
	s.expect(0, `vm1 is attached by veth0
address  10.77.3.4/16
IPv6     fd00::304/64
MAC      02:76:00:00:03:04
MTU      1434
inside   eth0 has been set up
`, "", "attach", "veth0")
	s.expect(0, `GUEST  NODE     SITE   ADDRESS    MAC                STATE     SINCE                 INTERFACE  NOTES
vm1    kyoto-1  kyoto  10.77.3.4  02:76:00:00:03:04  attached  2026-11-23T12:00:00Z  tap0       
vm2    -        -      -          -                  detached  2026-11-23T12:00:00Z  -          
`, "", "guests")
	s.expect(0, `HOST     SITE   ADDRESS    CPUS   MEMORY  SYSTEM            STATE
kyoto-1  kyoto  -             2  1.0 GiB  linux/amd64       alive
vm1      kyoto  10.77.3.4     -        -  guest on kyoto-1  attached
`, "", "hosts")
	s.expect(0, "detached vm1; its name and address stay its own\n", "", "detach", "vm1")
	s.expect(0, "detached and forgotten vm1\n", "", "detach", "vm1", "--forget")
	last := node.Asked()[len(node.Asked())-1]
	if last.Path != "/v1/guests/vm1" || last.Query != "forget=1" {
		t.Errorf("asked %s?%s", last.Path, last.Query)
	}
}

func TestOverlay(t *testing.T) {
	up := api.Overlay{SeenFrom: api.Place{Node: "kyoto-1", Site: "kyoto"}, Up: true, Bridge: "vcpeer0", Datapath: "netdev", Version: "3.1.0", Range: "10.77.0.0/16",
		Range6: "fd00::/64", Address: "10.77.0.5", Address6: "fd00::5", MAC: "02:76:00:00:00:05", MTU: 1434, Label: "g7", ClearText: true, Flows: 120, Groups: 1,
		Written: noon, Sites: 2, SitesOf: 3, Links: 2, LinksOf: 3, Guests: 1, Faults: []api.OverlayFault{{Part: "guard", Message: "nft: not found"}}}
	node := apitest.Start(t, apitest.Routes{"GET /v1/overlay": up, "POST /v1/overlay/encrypt": nil})
	s := newShell(t, node)
	s.expect(0, `state     on, as seen from kyoto-1
address   10.77.0.5 and fd00::5 in 10.77.0.0/16 and fd00::/64
          MAC 02:76:00:00:00:05, MTU 1434
bridge    vcpeer0, datapath netdev, Open vSwitch 3.1.0
          120 flows and 1 group, last changed 2026-11-23T12:00:00Z
gateway   this node is one, g7; it reaches 2 of 3 other sites
links     2 of 3 up
guests    1 here
encrypt   off: site-to-site traffic over GRE is clear text
fault     guard: nft: not found
`, "", "overlay")
	s.expect(2, "", "error: not asked: use encrypted links only between all sites\nhint: add --yes if that is what you want\n", "overlay", "encrypt", "on")
	s.expect(2, "", "error: overlay encrypt \"maybe\": want on or off\n", "overlay", "encrypt", "maybe")
	s.expect(2, "", "error: vcpeer overlay has no command \"encryp\"\nhint: did you mean vcpeer overlay encrypt?\n", "overlay", "encryp")
	s.expect(0, "site-to-site traffic goes over GRE again where that passes, in clear text\n", "", "overlay", "encrypt", "off")
	if code := s.run("overlay", "encrypt", "on", "--yes"); code != 0 || !strings.Contains(s.out.String(), "only encrypted links") {
		t.Errorf("exit %d: %s%s", code, &s.out, &s.errs)
	}
	last := node.Asked()[len(node.Asked())-1]
	if last.Body != `{"encrypt":true}` {
		t.Errorf("asked %s", last.Body)
	}
	off := api.Overlay{Why: "Open vSwitch is not installed", Hint: "apt-get install openvswitch-switch"}
	s = newShell(t, apitest.Start(t, apitest.Routes{"GET /v1/overlay": off}))
	s.expect(0, "state     off: Open vSwitch is not installed\nencrypt   off\nhint: apt-get install openvswitch-switch\n", "", "overlay")
}
