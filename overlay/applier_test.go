package overlay

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"vcpeer/crdt"
	"vcpeer/overlay/device"
	"vcpeer/overlay/device/devicetest"
	"vcpeer/overlay/ovs"
	"vcpeer/overlay/ovs/ovstest"
	"vcpeer/overlay/underlay"
)

// bench is an applier with an Open vSwitch of its own.
type bench struct {
	t    *testing.T
	real *ovstest.Switch
	cfg  Config
	sw   *ovs.Switch
	*applier
}

// newBench starts an Open vSwitch in a network namespace, and an applier for it as a daemon has.
func newBench(t *testing.T, datapath string) *bench {
	t.Helper()
	b := &bench{t: t, real: ovstest.Start(t)}
	b.cfg = Config{Self: crdt.NodeID{1}, Name: "br", RunDir: b.real.Dir, Log: slog.New(slog.DiscardHandler)}
	b.restart(datapath)
	t.Cleanup(func() { b.sw.Close() })
	return b
}

// restart is what another daemon begins with.
func (b *bench) restart(datapath string) {
	b.t.Helper()
	if b.sw != nil {
		b.sw.Close()
	}
	var err error
	b.real.Run(func() {
		b.sw, err = ovs.Open(b.t.Context(), ovs.Config{RunDir: b.cfg.RunDir, Owner: b.cfg.Self.String(), Log: b.cfg.Log})
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.applier = newApplier(&Network{cfg: b.cfg}, b.sw, ovs.Info{Datapath: datapath})
}

// round brings all to d. The parts named must have gone well.
func (b *bench) round(d desired, parts ...string) (r applied) {
	b.t.Helper()
	b.real.Run(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		r = b.applier.round(ctx, d)
	})
	for _, f := range r.faults {
		if slices.Contains(parts, f.Part) {
			b.t.Fatalf("%s: %v", f.Part, f.Err)
		}
	}
	return r
}

// alone is what a node without others wants.
func alone(t *testing.T, guests ...guestWant) desired {
	r := cluster(t, "s: a#1")
	d := decided{linkMTU: func(netip.Addr, int) int { return 1458 }}
	return desired{
		want: wantFlows(r, r.topology(), peersOf(r), d), mac: net.HardwareAddr{2, 0x76, 0, 0, 0, 1}, guests: guests,
		device: device.Config{MTU: 1458, Addrs: []netip.Prefix{netip.MustParsePrefix("10.77.0.1/16")}},
	}
}

func guestAt(iface string, number int) guestWant {
	in := device.Guest{MAC: net.HardwareAddr{2, 0x76, 0, 0, 1, byte(number)}, MTU: 1458, Addrs: []netip.Prefix{
		netip.MustParsePrefix(fmt.Sprintf("10.77.1.%d/16", number)), netip.MustParsePrefix(fmt.Sprintf("fd00:77::1:%d/64", number)),
	}}
	return guestWant{id: fmt.Sprint("guest", number), iface: iface, port: firstGuest + uint16(number), inner: in}
}

// TestGuestsLeaveWithoutTheirAddresses has a guest in a network namespace of its own get another address, move to another
// interface, and leave: at once, while no daemon runs, and with the node.
func TestGuestsLeaveWithoutTheirAddresses(t *testing.T) {
	b := newBench(t, inUserSpace)
	var there devicetest.Space
	b.real.Run(func() {
		there = devicetest.Another(t) // its process ends with the thread that started it
		devicetest.Veth(t, "g0", "eth0", there)
		devicetest.Veth(t, "g1", "eth1", there)
	})
	there.Add(t, "eth0", "10.77.200.200/16", "192.168.1.1/24") // the guest's own affair
	expect := func(when, eth0, eth1 string) {
		t.Helper()
		for name, want := range map[string]string{"eth0": strings.TrimSpace(eth0 + " 10.77.200.200/16 192.168.1.1/24"), "eth1": eth1} {
			got := there.Addrs(t, name)
			slices.Sort(got)
			if words := strings.Fields(want); !slices.Equal(got, slices.Sorted(slices.Values(words))) {
				t.Fatalf("%s: %s has %v, want %v", when, name, got, words)
			}
		}
	}
	parts := []string{"bridge", "flows", "guests", "guests that leave"}
	const first, second = "10.77.1.1/16 fd00:77::1:1/64", "10.77.1.2/16 fd00:77::1:2/64"
	b.round(alone(t, guestAt("g0", 1)), parts...)
	expect("attached", first, "")
	b.round(alone(t, guestAt("g0", 2)), parts...)
	expect("with another address", second, "")
	b.round(alone(t, guestAt("g1", 2)), parts...)
	expect("by another interface", "", second)
	b.round(alone(t), parts...)
	expect("detached", "", "")

	b.round(alone(t, guestAt("g0", 1), guestAt("g1", 2)), parts...)
	expect("two", first, second)
	b.restart(inUserSpace)
	b.round(alone(t, guestAt("g1", 2)), parts...)
	expect("one of them left while no daemon ran", "", second)

	b.sw.Close()
	var err error
	b.real.Run(func() { _, err = Remove(context.Background(), b.cfg) })
	if err != nil {
		t.Fatal(err)
	}
	expect("the node has left", "", "")
}

// TestGuardGoesWithTheDatapathInUserSpace finds the rules that an earlier daemon made, whose Open vSwitch forwarded in user space.
func TestGuardGoesWithTheDatapathInUserSpace(t *testing.T) {
	for datapath, want := range map[string]bool{inUserSpace: true, "system": false} {
		b := newBench(t, datapath)
		d := alone(t)
		d.peers = []netip.Addr{netip.MustParseAddr("192.0.2.7")}
		var err error
		var before, after []byte
		list := func() []byte {
			out, _ := exec.Command("nft", "list", "tables").CombinedOutput()
			return out
		}
		b.real.Run(func() { err = underlay.Guard(context.Background(), "br0", d.peers); before = list() })
		if err != nil || !strings.Contains(string(before), "vcpeer_br0") {
			t.Skipf("needs nftables: %v, %s", err, before)
		}
		b.round(d, "guard")
		b.real.Run(func() { after = list() })
		if got := strings.Contains(string(after), "vcpeer_br0"); got != want {
			t.Errorf("datapath %s: the guard stands: %v, want %v (%q)", datapath, got, want, after)
		}
	}
}
