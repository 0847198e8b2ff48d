package ovs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"vcpeer/overlay/flow"
	"vcpeer/overlay/ovs/ovstest"
)

// faults is a runner that fails at one call: before it does anything, or after all of it.
type faults struct {
	at, calls int
	after     bool
	deleted   []string // commands that delete by anything but a cookie
}

var errCrash = errors.New("crash")

func (f *faults) run(ctx context.Context, env []string, stdin io.Reader, name string, args ...string) ([]byte, error) {
	f.calls++
	var text strings.Builder
	if stdin != nil {
		stdin = io.TeeReader(stdin, &text)
	}
	if f.calls == f.at && !f.after {
		return nil, errCrash
	}
	out, err := execute(ctx, env, stdin, name, args...)
	for line := range strings.Lines(text.String() + "\n" + strings.Join(args, " ")) {
		if strings.Contains(line, "del") && !strings.Contains(line, "delete cookie=0x7663") && !strings.Contains(line, "group delete group_id=") {
			f.deleted = append(f.deleted, line)
		}
	}
	if f.calls == f.at {
		return nil, errCrash
	}
	return out, err
}

// TestACrashAnywhereHeals fails at every command in turn, before and after it, on the way from one state to another, and
// lets a new process, which remembers nothing, finish. What both states hold stays in the tables all the while.
func TestACrashAnywhereHeals(t *testing.T) {
	s, live := start(t)
	port := Port{Name: "p1", Type: "internal", OFPort: 11}
	from := groups("watch_port:9,actions=set_field:1->tun_id,output:9")
	to := tables(2)
	to.Flows = append(to.Flows, flow.Flow{Table: 2, Priority: 1, Match: "in_port=9", Actions: "group:6"})
	to.Groups = []flow.Group{{ID: 6, Type: "ff", Buckets: []string{"watch_port:9,actions=output:9"}}}
	ensure(t, s, br0())
	program(t, s, from)
	stays := to.Flows[1]

	for _, after := range []bool{false, true} {
		for at := 1; ; at++ {
			f := &faults{at: at, after: after}
			crashing, err := open(t.Context(), config(live), f.run)
			if err != nil {
				t.Fatal(err)
			}
			ensure(t, crashing, br0(port))
			_, err = crashing.Program(t.Context(), "br0", to)
			crashing.Close()
			if err != nil && !errors.Is(err, errCrash) {
				t.Fatalf("call %d after=%t: %v", at, after, err)
			}
			if got := cookies(t, s); !slices.Contains(got, fmt.Sprintf("%#x", stays.Cookie())) {
				t.Errorf("call %d after=%t: a flow of both states is gone: %v", at, after, got)
			}

			next := &faults{}
			healing, err := open(t.Context(), config(live), next.run)
			if err != nil {
				t.Fatal(err)
			}
			ensure(t, healing, br0(port))
			program(t, healing, to)
			if got, want := cookies(t, s), wantCookies(to); !slices.Equal(got, want) {
				t.Errorf("call %d after=%t: cookies %v, want %v", at, after, got, want)
			}
			if got := live.Ofctl(t, "dump-groups", "br0"); strings.Contains(got, "group_id=5,") || !strings.Contains(got, "group_id=6,") {
				t.Errorf("call %d after=%t: groups %s", at, after, got)
			}
			if all := append(f.deleted, next.deleted...); len(all) > 0 {
				t.Errorf("call %d after=%t: deleted more than it had to: %q", at, after, all)
			}
			ensure(t, healing, br0())
			program(t, healing, from)
			healing.Close()
			if f.calls < at {
				if err != nil {
					t.Errorf("no crash, and an error: %v", err)
				}
				break
			}
		}
	}
	rules, err := s.Dump(t.Context(), "br0")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if r.Cookie == stays.Cookie() && r.Age < 500*time.Millisecond {
			t.Errorf("the flow of both states was written again: %s", r.brief())
		}
	}
}

func TestNeighbours(t *testing.T) {
	s, live := start(t)
	ensure(t, s, br0())
	set := func(pairs ...string) (want []Neighbour) {
		for _, p := range pairs {
			ip, mac, _ := strings.Cut(p, " ")
			want = append(want, neighbour(ip, mac))
		}
		if err := s.Neighbours(t.Context(), "br0", want); err != nil {
			t.Fatal(err)
		}
		return want
	}
	set("10.0.0.1 02:00:00:00:00:11", "fd00::5 02:00:00:00:00:12")
	set("10.0.0.1 02:00:00:00:00:13", "fd00::5 02:00:00:00:00:12") // the first moved
	got := parseNeighbours(live.Appctl(t, "tnl/neigh/show"), "br0")
	for _, n := range set("10.0.0.1 02:00:00:00:00:13", "fd00::5 02:00:00:00:00:12") {
		if got[n.IP] != n.MAC.String() {
			t.Errorf("%v is at %q, want %v", n.IP, got[n.IP], n.MAC)
		}
	}
	if _, err := s.control(t.Context(), "no/such/command"); err == nil || !strings.Contains(err.Error(), "not a valid command") {
		t.Errorf("error %v", err)
	}
}

// TestBFDIsTold: two machines watch the link between them by BFD on GRE ports of their own.
func TestBFDIsTold(t *testing.T) {
	a, liveA := start(t)
	b, liveB := start(t)
	ovstest.Connect(t, liveA, liveB)
	to := func(remote string) []Bridge {
		return br0(Port{
			Name: "far", Type: "gre", OFPort: 20, Options: map[string]string{"remote_ip": remote, "key": "7"},
			BFD: map[string]string{"enable": "true", "min_rx": "100", "min_tx": "100"},
		})
	}
	ensure(t, a, to("10.99.0.2"))
	ensure(t, b, to("10.99.0.1"))
	expect(t, a, "bfd br0/far forwarding=true up")
	if got := a.Ports("br0")["far"]; !got.BFD.On || !got.BFD.Forwarding || got.OFPort != 20 {
		t.Errorf("port %+v", got)
	}
	ovstest.Until(t, "short intervals, which come after up", func() error {
		out := liveA.Appctl(t, "bfd/show", "far")
		if strings.Contains(out, "RX Interval: Approx 1000ms") || strings.Contains(out, "TX Interval: Approx 1000ms") {
			return errors.New(out)
		}
		return nil
	})
	began := time.Now()
	liveB.SetLink(t, "vb", false)
	expect(t, a, "bfd br0/far forwarding=false down")
	t.Logf("cut -> event: %v at 100 ms", time.Since(began))
	liveB.SetLink(t, "vb", true)
	expect(t, a, "bfd br0/far forwarding=true up")
}

func neighbour(ip, mac string) Neighbour {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		panic(err)
	}
	return Neighbour{netip.MustParseAddr(ip), hw}
}
