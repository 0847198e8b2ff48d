package sealed

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"testing"
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
	server := inside(p[1], "iperf3", "-s", "-1", "-B", to)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer server.Wait()
	until(t, "iperf3 listens", func() error { return inside(p[1], "sh", "-c", "ss -ltn | grep -q 5201").Run() })
	out := must(t, inside(p[0], append([]string{"timeout", "60", "iperf3", "-J", "-c", to}, args...)...))
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
			nodes := p.join(t, nodeConfig{Plain: true, Offload: tt.offload, MTU: 1300})
			until(t, "a ping", func() error { return inside(p[0], "ping", "-c1", "-W1", "10.99.0.2").Run() })
			sh(t, p[0], "ping -c 3 -i 0.05 -s 1272 -M do 10.99.0.2", "ip addr add fd00:99::1/64 dev sealed nodad")
			sh(t, p[1], "ip addr add fd00:99::2/64 dev sealed nodad")
			for _, to := range []string{"10.99.0.2", "fd00:99::2"} {
				r := p.runIperf(t, to, "-t", "1")
				t.Logf("%s: %.0f Mbit/s, %d retransmits", to, r.mbits, r.retransmits)
				if r.mbits < 20 {
					t.Errorf("%s: %.0f Mbit/s", to, r.mbits)
				}
			}
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
