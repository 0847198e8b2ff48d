package flow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"vcpeer/overlay/label"
	"vcpeer/overlay/ovs/ovstest"
)

// BenchmarkAgainstStatic compares throughput and latency of the tables with those of two rules that do nothing but put
// frames into the tunnel and out of it, in turns. Run it with -benchtime=7x for seven rounds. On a machine that does other
// things too, the ratio of the CPU time that both switches take for a megabyte says more than that of the throughput.
func BenchmarkAgainstStatic(b *testing.B) {
	if _, err := exec.LookPath("iperf3"); err != nil {
		b.Skip("needs iperf3")
	}
	bed := newTestbed(b, world{[]siteSpec{{[]label.Label{1}, 1}, {[]label.Label{2}, 1}}})
	one, two := bed.nodes[place{0, 0}], bed.nodes[place{1, 0}]
	server := two.in("iperf3", "-s")
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { server.Process.Kill(); server.Wait() }()
	to := two.want.Self.Slot
	for _, x := range [][2]*realNode{{one, two}, {two, one}} { // neither asks
		ovstest.Must(b, x[0].in("ip", "neigh", "replace", x[1].want.Self.Slot.Addr4(net4).String(), "lladdr", x[1].want.Self.Slot.MAC().String(), "dev", "vc0", "nud", "permanent"))
	}
	ovstest.Until(b, "iperf3", func() error {
		return one.in("iperf3", "-c", to.Addr4(net4).String(), "-n", "1").Run()
	})
	static := func(on bool) {
		for _, x := range [][2]*realNode{{one, two}, {two, one}} {
			if on {
				x[0].Ofctl(b, "del-flows", "vc0")
				x[0].Ofctl(b, "add-flow", "vc0", fmt.Sprintf("in_port=LOCAL,actions=set_field:%s->tun_dst,output:2", x[1].addrs[0]))
				x[0].Ofctl(b, "add-flow", "vc0", "in_port=2,actions=LOCAL")
			} else {
				x[0].Ofctl(b, "del-flows", "vc0")
				x[0].has = Tables{}
				x[0].program(b, x[0].want)
			}
		}
	}
	var rates, rtts, costs [2][]float64
	var ratios, costRatios []float64
	for i := range b.N {
		for turn := range 2 {
			kind := (i + turn) % 2
			static(kind == 1)
			before := cpu(b, one, two)
			rate, bytes := throughput(b, one, to.Addr4(net4).String())
			costs[kind] = append(costs[kind], (cpu(b, one, two)-before)*1e6/(bytes/1e6))
			rates[kind] = append(rates[kind], rate)
			rtts[kind] = append(rtts[kind], latency(b, one, to.Addr4(net4).String()))
		}
		ratios = append(ratios, rates[0][i]/rates[1][i])
		costRatios = append(costRatios, costs[0][i]/costs[1][i])
	}
	b.ReportMetric(median(rates[0])/1e6, "Mbit/s")
	b.ReportMetric(median(rates[1])/1e6, "static-Mbit/s")
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(median(costs[0]), "cpu-µs/MB")
	b.ReportMetric(median(costs[1]), "static-cpu-µs/MB")
	b.ReportMetric(median(costRatios), "cpu-ratio")
	b.Logf("throughput ratios %.2f, CPU ratios %.2f", ratios, costRatios)
	b.ReportMetric(median(rtts[0])*1000, "rtt-µs")
	b.ReportMetric(median(rtts[1])*1000, "static-rtt-µs")
}

// cpu is the CPU time of the nodes' switches, seconds.
func cpu(b *testing.B, nodes ...*realNode) (seconds float64) {
	for _, n := range nodes {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.Pid(ovstest.Vswitchd)))
		if err != nil {
			b.Fatal(err)
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')'):]))
		for _, f := range fields[12:14] { // in ticks of 10 ms: proc(5)
			ticks, _ := strconv.ParseFloat(f, 64)
			seconds += ticks / 100
		}
	}
	return seconds
}

// throughput is what comes through in three seconds, in bits per second, and how many bytes were sent in all.
func throughput(b *testing.B, n *realNode, to string) (rate, sent float64) {
	out := ovstest.Must(b, n.in("iperf3", "-c", to, "-t", "3", "-J"))
	var r struct {
		End struct {
			Received struct {
				Rate  float64 `json:"bits_per_second"`
				Bytes float64 `json:"bytes"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		b.Fatal(err)
	}
	return r.End.Received.Rate, r.End.Received.Bytes
}

func latency(b *testing.B, n *realNode, to string) (ms float64) {
	out := ovstest.Must(b, n.in("ping", "-n", "-q", "-c", "300", "-i", "0.002", to))
	_, line, _ := strings.Cut(out, "rtt min/avg/max/mdev = ")
	if _, err := fmt.Sscanf(strings.Split(line, "/")[1], "%g", &ms); err != nil {
		b.Fatal(err)
	}
	return ms
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
