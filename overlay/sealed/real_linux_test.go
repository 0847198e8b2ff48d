package sealed

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vcpeer/overlay/ovs/ovstest"
)

// profile writes a CPU profile until the function returned is called.
func profile(t *testing.T, dir string, n int) func() {
	if dir == "" {
		return func() {}
	}
	f, err := os.Create(filepath.Join(dir, fmt.Sprint("end", n, ".prof")))
	if err != nil {
		t.Fatal(err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		t.Fatal(err)
	}
	return func() { pprof.StopCPUProfile(); f.Close() }
}

// iperf is what iperf3 says of one run of TCP.
type iperf struct {
	mbits       float64
	bytes       float64
	retransmits int
}

// runIperf sends for some seconds from the first namespace to the second.
func (p pair) runIperf(t testing.TB, to string, args ...string) iperf {
	t.Helper()
	server := ovstest.Inside(p[1], "iperf3", "-s", "-1", "-B", to)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer server.Wait()
	ovstest.Until(t, "iperf3 listens", func() error { return ovstest.Inside(p[1], "sh", "-c", "ss -ltn | grep -q 5201").Run() })
	out := ovstest.Must(t, ovstest.Inside(p[0], append([]string{"timeout", "60", "iperf3", "-J", "-c", to}, args...)...))
	var r struct {
		End struct {
			Sent struct {
				Retransmits int `json:"retransmits"`
			} `json:"sum_sent"`
			Received struct {
				Bits  float64 `json:"bits_per_second"`
				Bytes float64 `json:"bytes"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return iperf{r.End.Received.Bits / 1e6, r.End.Received.Bytes, r.End.Sent.Retransmits}
}

// TestTAPs has real kernels talk over real TAPs: pings, TCP over IPv4 and IPv6, with offloads and without.
func TestTAPs(t *testing.T) {
	needRoot(t, "iperf3", "ping", "ss")
	for _, tt := range []struct {
		name    string
		offload bool
	}{{"offloads", true}, {"none", false}} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPair(t)
			mtu := MTU(1500, netip.MustParseAddr("192.0.2.2"))
			nodes := p.join(t, nodeConfig{Plain: true, Offload: tt.offload, MTU: mtu})
			ovstest.Until(t, "a ping", func() error { return ovstest.Inside(p[0], "ping", "-c1", "-W1", "10.99.0.2").Run() })
			sh(t, p[0], fmt.Sprintf("ping -c 3 -i 0.05 -s %d -M do 10.99.0.2", mtu-28), "ip addr add fd00:99::1/64 dev sealed nodad")
			sh(t, p[1], "ip addr add fd00:99::2/64 dev sealed nodad")
			for _, to := range []string{"10.99.0.2", "fd00:99::2"} {
				r := p.runIperf(t, to, "-t", "1")
				t.Logf("%s: %.0f Mbit/s, %d retransmits", to, r.mbits, r.retransmits)
				if r.mbits < 20 {
					t.Errorf("%s: %.0f Mbit/s", to, r.mbits)
				}
			}
			p.largeUDP(t)
			for _, n := range nodes {
				s := n.stats(t)
				t.Logf("%+v", s)
				if d := s.Peers[0].Drops; d.Malformed+d.Forged+d.TooLarge+d.System != 0 || s.Short+s.Unknown > 5 {
					t.Errorf("drops %+v", s)
				}
			}
		})
	}
}

// within calls f in the network namespace of a process. The thread comes back from there: it may have started processes
// that end with it (Pdeathsig).
func within(t testing.TB, pid int, f func() error) {
	t.Helper()
	runtime.LockOSThread()
	open := func(path string) int {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	home, there := open("/proc/thread-self/ns/net"), open(fmt.Sprintf("/proc/%d/ns/net", pid))
	defer unix.Close(home)
	defer unix.Close(there)
	if err := unix.Setns(there, unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	err := f()
	if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
		t.Fatal(err) // the thread stays locked
	}
	runtime.UnlockOSThread()
	if err != nil {
		t.Fatal(err)
	}
}

// largeUDP sends datagrams that the kernel is asked to cut, as QUIC does: each arrives, with a good checksum.
func (p pair) largeUDP(t testing.TB) {
	t.Helper()
	var from, to *socket
	within(t, p[1], func() (err error) { to, err = listen(netip.MustParseAddrPort("10.99.0.2:9999")); return err })
	defer to.c.Close()
	within(t, p[0], func() (err error) { from, err = listen(netip.MustParseAddrPort("10.99.0.1:9999")); return err })
	defer from.c.Close()
	buf := make([]byte, 1<<16)
	ovstest.Until(t, "large UDP", func() error { // which may be lost as any
		if err := from.send(netip.AddrPort{}, to.c.LocalAddr().(*net.UDPAddr).AddrPort(), make([]byte, 30*1000+500), 1000); err != nil {
			return err
		}
		to.c.SetReadDeadline(time.Now().Add(time.Second))
		for got := 0; got < 30*1000+500; {
			n, err := to.c.Read(buf)
			if err != nil {
				return fmt.Errorf("%w after %d bytes", err, got)
			}
			got += n
		}
		return nil
	})
}

// TestPersist: a TAP outlives the process that opened it, is taken over by the next, and removed when nobody wants it.
func TestPersist(t *testing.T) {
	needRoot(t)
	p := newPair(t)
	within(t, p[0], func() error {
		var first int
		for i := range 2 {
			tap, err := OpenTAP("vct", TAPOptions{MTU: 9000, Persist: true})
			if err != nil {
				return err
			}
			link, err := net.InterfaceByName("vct")
			if err != nil {
				return err
			}
			if link.MTU != 9000 || link.HardwareAddr.String() != tap.MAC().String() {
				t.Errorf("%+v with MAC %v", link, tap.MAC())
			}
			if i == 0 {
				first = link.Index
			} else if link.Index != first {
				t.Error("it is another interface")
			}
			if err := tap.Close(); err != nil {
				return err
			}
		}
		if err := RemoveTAP("vct"); err != nil {
			return err
		}
		if _, err := net.InterfaceByName("vct"); err == nil {
			t.Error("it is still there")
		}
		return RemoveTAP("vct")
	})
}
