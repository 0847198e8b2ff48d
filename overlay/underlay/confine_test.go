package underlay

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vcpeer/overlay/device/devicetest"
)

// TestConfine sends datagrams between 192.0.2.1 here and 240.118.0.9 at the other end of a cable, where no address of that
// network is to be: with the rules none comes in and none leaves, and with the cable in the place of the TAP both do again.
func TestConfine(t *testing.T) {
	peer := enterCable(t)
	if out, err := exec.Command("nft", "add", "table", "inet", "theirs").CombinedOutput(); err != nil {
		t.Skipf("needs nftables: %v: %s", err, out)
	}
	peer.Add(t, "eb", "240.118.0.9/16")
	if out, err := exec.Command("ip", "route", "add", "240.118.0.0/16", "dev", "ea").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	here, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IP{192, 0, 2, 1}, Port: 4747})
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	var there *net.UDPConn
	peer.Do(t, func() (err error) {
		there, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IP{240, 118, 0, 9}, Port: 4747})
		return err
	})
	defer there.Close()

	// arrives sends again and again until something comes, for as long as wanted.
	arrives := func(from, to *net.UDPConn, wait time.Duration) bool {
		buffer := make([]byte, 10)
		for deadline := time.Now().Add(wait); time.Now().Before(deadline); {
			_, err := from.WriteToUDP([]byte("hello"), to.LocalAddr().(*net.UDPAddr))
			if err != nil && !errors.Is(err, unix.EPERM) { // what nftables drops on its way out
				t.Fatal(err)
			}
			to.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if _, err := to.Read(buffer); err == nil {
				return true
			}
		}
		return false
	}
	network := netip.MustParsePrefix("240.118.0.0/16")
	for _, tt := range []struct {
		link string
		open bool
	}{{"", true}, {"tap0", false}, {"ea", true}, {"tap0", false}} {
		if tt.link != "" {
			if err := Confine(t.Context(), "br0", tt.link, network); err != nil {
				t.Fatal(err)
			}
		}
		wait := 200 * time.Millisecond
		if tt.open {
			wait = 10 * time.Second
		}
		if in, out := arrives(there, here, wait), arrives(here, there, wait); in != tt.open || out != tt.open {
			t.Errorf("confined to %q: comes in %v, leaves %v; want %v", tt.link, in, out, tt.open)
		}
	}
	if err := Unguard(t.Context(), "br0"); err != nil {
		t.Fatal(err)
	}
	if !arrives(there, here, 10*time.Second) || !arrives(here, there, 10*time.Second) {
		t.Error("the rules are left")
	}
	devicetest.Until(t, "somebody else's table stays", func() bool { return exec.Command("nft", "list", "table", "inet", "theirs").Run() == nil })
}
