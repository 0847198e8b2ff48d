package nat

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"vcpeer/deploy/lab"
)

const changing = `
sites:
  hub1: {nodes: [hub1]}
  hub2: {nodes: [hub2]}
  hub3: {nodes: [hub3]}
  home1: {nodes: [home1], nat: port-restricted}
  home2: {nodes: [home2], nat: port-restricted}
  sym1: {nodes: [sym1], nat: symmetric}
  sym2: {nodes: [sym2], nat: symmetric}
links:
  default: delay=10ms
  hub3<>*: delay=20ms
`

// ways waits until a node reaches others as wanted, "home2=punched sym1=relayed", and returns how long that took.
func ways(t *testing.T, l *lab.Lab, node string, within time.Duration, want string) time.Duration {
	t.Helper()
	return eventually(t, within, func() string {
		var names []string
		for _, w := range strings.Fields(want) {
			name, _, _ := strings.Cut(w, "=")
			names = append(names, name)
		}
		n := netcheck(t, l, node, names...)
		for _, w := range strings.Fields(want) {
			name, way, _ := strings.Cut(w, "=")
			if got := peerOf(n, name); got.Way != way {
				return fmt.Sprintf("%s reaches %s: %s (%s %s), want %s", node, name, got.Way, got.Via, got.Error, way)
			}
		}
		return ""
	})
}

// relaysOf waits until a node has so many relays, none of them without, and returns them.
func relaysOf(t *testing.T, l *lab.Lab, node string, within time.Duration, count int, without string) (names []string, took time.Duration) {
	t.Helper()
	took = eventually(t, within, func() string {
		names = nil
		for _, r := range netcheck(t, l, node, node).Relays {
			names = append(names, r.Node)
			if r.Node == without {
				return node + " has a place at " + without
			}
		}
		if len(names) != count {
			return fmt.Sprintf("%s has places at %v, want %d", node, names, count)
		}
		return ""
	})
	return names, took
}

// TestChanges: a relay dies, a NAT forgets all and maps anew, and a machine moves to another address. Each heals within
// seconds, and nobody but the dead is taken for dead.
func TestChanges(t *testing.T) {
	long(t)
	l := up(t, changing)
	ways(t, l, "home1", 20*time.Second, "home2=punched sym1=relayed sym2=relayed hub1=direct")
	ways(t, l, "sym1", 20*time.Second, "sym2=relayed home2=relayed")
	relays, _ := relaysOf(t, l, "sym1", 20*time.Second, 2, "hub3")
	t.Logf("sym1 has places at the nearest: %v", relays)

	t.Run("relay dies", func(t *testing.T) {
		if err := l.Kill("hub1", lab.VCPeer, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		ways(t, l, "sym1", 12*time.Second, "sym2=relayed home2=relayed hub2=direct")
		for _, p := range netcheck(t, l, "sym1", "home1", "home2", "sym2").Members {
			if p.Via == "hub1" {
				t.Errorf("sym1 reaches %s through the dead relay", p.Node)
			}
		}
		t.Logf("sym1 reaches all through others after %v", time.Since(began).Round(100*time.Millisecond))
		relaysOf(t, l, "sym1", 12*time.Second, 2, "hub1")
		t.Logf("it has two places again after %v", time.Since(began).Round(100*time.Millisecond))
		if err := l.StartDaemon(t.Context(), "hub1", lab.VCPeer); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("NAT maps anew", func(t *testing.T) {
		before := netcheck(t, l, "home1", "home1").V4.Seen
		remap(t, l, "home1-router")
		began := time.Now()
		ways(t, l, "home1", 20*time.Second, "home2=punched hub2=direct hub3=direct sym1=relayed")
		// What an observer says is as old as its last round; the connections show that all answer.
		for _, peer := range []string{"hub2", "hub3", "home2", "sym1", "sym2"} {
			ways(t, l, peer, 20*time.Second, "home1="+map[string]string{"hub2": "direct", "hub3": "direct", "home2": "punched", "sym1": "relayed", "sym2": "relayed"}[peer])
		}
		t.Logf("from %v: all reached again after %v", before, time.Since(began).Round(100*time.Millisecond))
	})
	t.Run("machine moves", func(t *testing.T) {
		move(t, l, "home2", "192.168.4.77/24", "192.168.4.254")
		began := time.Now()
		ways(t, l, "home2", 20*time.Second, "home1=punched hub2=direct hub3=direct sym1=relayed")
		ways(t, l, "home1", 20*time.Second, "home2=punched")
		t.Logf("all reached again after %v", time.Since(began).Round(100*time.Millisecond))
		eventually(t, 20*time.Second, func() string {
			if got := netcheck(t, l, "home2", "home2").V4.Local; len(got) != 1 || got[0] != "192.168.4.77" {
				return fmt.Sprintf("home2 says that it is at %v", got)
			}
			return ""
		})
	})
	noAlarms(t, l, "hub1")
}

// remap has a router forget all connections and give new ones other ports.
func remap(t *testing.T, l *lab.Lab, router string) {
	t.Helper()
	for _, cmd := range []string{
		"flush chain ip nat outwards",
		"add rule ip nat outwards oifname wan meta l4proto { tcp, udp } masquerade to :20000-20999",
	} {
		if _, err := l.Exec(t.Context(), router, append([]string{"nft"}, strings.Fields(cmd)...)...); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Machine(router).InNetwork(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
		t.Fatal(err)
	}
}

// move gives a node another address on its LAN, as if it had gone to another room.
func move(t *testing.T, l *lab.Lab, node, addr, gateway string) {
	t.Helper()
	for _, cmd := range []string{"ip addr flush dev eth0", "ip addr add " + addr + " dev eth0", "ip route add default via " + gateway} {
		if _, err := l.Exec(t.Context(), node, strings.Fields(cmd)...); err != nil {
			t.Fatal(err)
		}
	}
}
