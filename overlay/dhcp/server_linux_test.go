package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"vcpeer/overlay/device/devicetest"
)

// TestServer runs a Server in a network namespace of its own, with real clients in two others. What is between is a cable,
// no bridge:
//
//	Server on g1 -------- eth0 of a guest
//	       on g2 -------- eth0 of another
func TestServer(t *testing.T) {
	if devicetest.Alone(t, 100*time.Second) {
		testServer(t)
	}
}

func testServer(t *testing.T) {
	other := vm
	other.Name, other.Addr4, other.Addr6 = "vm2", netip.MustParsePrefix("10.77.3.10/16"), netip.MustParsePrefix("fd07::30a/64")
	s := NewServer(slog.New(slog.DiscardHandler))
	s.Set(map[string]Guest{"g1": vm, "g2": other, "tap1": vm, "g3": vm}) // all come later but g3, which never does
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	one, two := cable(t, "g1"), cable(t, "g2")

	t.Run("udhcpc", func(t *testing.T) { testClient4(t, one, "10.77.3.9 255.255.0.0 1458 vm1 604800 10.77.3.1") })
	t.Run("its neighbour", func(t *testing.T) { testClient4(t, two, "10.77.3.10 255.255.0.0 1458 vm2 604800 10.77.3.1") })
	t.Run("dhclient of IPv6", func(t *testing.T) { testClient6(t, one, "fd07::309") })
	t.Run("a router advertisement", func(t *testing.T) { testKernel(t, two) })
	t.Run("a virtual machine", testTap)
	t.Run("a flood", func(t *testing.T) { testFlood(t, s, one, two) })
	t.Run("a guest that is made again", func(t *testing.T) {
		if err := netlink.LinkDel(devicetest.Here(t).Link(t, "g1")); err != nil {
			t.Fatal(err)
		}
		testClient4(t, cable(t, "g1"), "10.77.3.9 255.255.0.0 1458 vm1 604800 10.77.3.1")
	})
	t.Run("a guest that was taken off", func(t *testing.T) {
		s.Set(map[string]Guest{"g1": vm})
		if out, err := udhcpc(t, two, "-n", "-t", "2", "-T", "1"); err == nil {
			t.Errorf("it was answered: %s", out)
		}
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
	goleak.VerifyNone(t, goleak.IgnoreCurrent())
}

// cable connects an interface here with eth0 of a guest, and sets both up.
func cable(t *testing.T, name string) devicetest.Space {
	t.Helper()
	there := devicetest.Another(t)
	devicetest.Veth(t, name, "eth0", there)
	there.Do(t, func() error { // its own address is to be usable at once
		return os.WriteFile("/proc/sys/net/ipv6/conf/eth0/accept_dad", []byte("0"), 0)
	})
	there.Up(t, "eth0")
	devicetest.Here(t).Up(t, name)
	return there
}

// udhcpc runs the client once. Its script says what it was told.
func udhcpc(t *testing.T, in devicetest.Space, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("udhcpc")
	if err != nil {
		t.Skip("needs udhcpc")
	}
	script := filepath.Join(t.TempDir(), "script")
	const text = "#!/bin/sh\n[ $1 != bound ] || echo told $ip $subnet $mtu $hostname $lease $serverid\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	var out []byte
	in.Do(t, func() error {
		out, err = exec.Command(path, append([]string{"-f", "-q", "-i", "eth0", "-s", script}, args...)...).CombinedOutput()
		return nil
	})
	return string(out), err
}

func testClient4(t *testing.T, in devicetest.Space, want string) {
	t.Helper()
	out, err := udhcpc(t, in, "-n", "-t", "20", "-T", "1")
	if err != nil || !strings.Contains(out, "told "+want+"\n") {
		t.Errorf("%v: %s\nwant %s", err, out, want)
	}
}

func testClient6(t *testing.T, in devicetest.Space, want string) {
	path, err := exec.LookPath("dhclient")
	if err != nil {
		t.Skip("needs dhclient")
	}
	dir := t.TempDir()
	script, leases := filepath.Join(dir, "script"), filepath.Join(dir, "leases")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var out []byte
	in.Do(t, func() error {
		cmd := exec.Command("timeout", "20", path, "-6", "-1", "-d", "-sf", script, "-lf", leases, "-pf", filepath.Join(dir, "pid"), "-cf", "/dev/null", "eth0")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			return err
		}
		defer cmd.Wait()
		defer cmd.Process.Signal(syscall.SIGTERM)
		devicetest.Until(t, "a lease of DHCPv6", func() bool {
			out, _ = os.ReadFile(leases)
			return strings.Contains(string(out), "iaaddr "+want)
		})
		return nil
	})
	t.Logf("%s", out)
}

// testKernel wants a guest's kernel to have taken what an advertisement says: the MTU, and that the network is on the link; and
// no address of its own making, and no router.
func testKernel(t *testing.T, in devicetest.Space) {
	in.Do(t, func() error { // it asks again
		return os.WriteFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", []byte("1"), 0)
	})
	in.Do(t, func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", []byte("0"), 0) })
	link := in.Link(t, "eth0")
	devicetest.Until(t, "a route to the network", func() bool {
		routes, err := in.RouteList(link, netlink.FAMILY_V6)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			if r.Dst != nil && r.Dst.String() == "fd07::/64" && r.Gw == nil {
				return true
			}
		}
		return false
	})
	in.Do(t, func() error {
		mtu, err := os.ReadFile("/proc/sys/net/ipv6/conf/eth0/mtu")
		if err == nil && string(mtu) != "1458\n" {
			err = fmt.Errorf("IPv6 has MTU %s", mtu)
		}
		return err
	})
	if got := in.Addrs(t, "eth0"); len(got) > 0 {
		t.Errorf("it made itself %v", got)
	}
	routes, err := in.RouteList(link, netlink.FAMILY_V6)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if r.Dst == nil || r.Dst.IP.IsUnspecified() {
			t.Errorf("a router: %v", r)
		}
	}
}

// testTap speaks for a virtual machine, whose frames come and go by a tap.
func testTap(t *testing.T) {
	tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tap1"}, Mode: netlink.TUNTAP_MODE_TAP, Queues: 1, Flags: netlink.TUNTAP_NO_PI}
	if err := netlink.LinkAdd(tap); err != nil {
		t.Skipf("needs tap devices: %v", err)
	}
	defer tap.Fds[0].Close()
	devicetest.Here(t).Up(t, "tap1")
	frames := make(chan []byte, 1)
	go func() { // until the tap is closed
		for {
			buffer := make([]byte, maxFrame)
			n, err := tap.Fds[0].Read(buffer)
			if err != nil {
				return
			}
			select {
			case frames <- buffer[:n]:
			default: // it is asked again
			}
		}
	}()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	over := time.After(10 * time.Second)
	for {
		select {
		case <-again.C: // as a client does that hears nothing
			if _, err := tap.Fds[0].Write(ask4(t, "discover")); err != nil {
				t.Fatal(err)
			}
		case frame := <-frames:
			if len(frame) > etherLen+ip4Len && frame[12] == 0x08 && frame[etherLen+9] == udp {
				if got := told4(t, frame); !strings.HasPrefix(got, "OFFER from 10.77.3.1 to 52:54:00:01:02:03 10.77.3.9") {
					t.Error(got)
				}
				return
			}
		case <-over:
			t.Fatal("no offer")
		}
	}
}

// testFlood has one guest ask without end, which the other does not notice, and which is answered but slowly.
func testFlood(t *testing.T, s *Server, in, neighbour devicetest.Space) {
	before, began := s.Answered(), time.Now()
	ask := ask4(t, "discover")
	in.Do(t, func() error {
		dev, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		conn, err := packet.Listen(dev, packet.Raw, unix.ETH_P_LOOP, nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		for range 20000 {
			if _, err := conn.WriteTo(ask, &packet.Addr{HardwareAddr: everyone[:]}); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return err
			}
		}
		return nil
	})
	testClient4(t, neighbour, "10.77.3.10 255.255.0.0 1458 vm2 604800 10.77.3.1")
	got, most := s.Answered()-before, askBurst+uint64(time.Since(began).Seconds()*askRate)+10 // of the neighbour, too
	if got > most || got < 5 {
		t.Errorf("%d answers, want at most %d", got, most)
	}
}
