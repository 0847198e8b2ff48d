package main

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"vcpeer/deploy/lab"
)

// Three networks of three nodes each, side by side on one underlay without delay; only from the first node to the third
// the direct way takes so long that the shortest one is over the second.
const trafficLab = `
name: traffic
sites:
  v1:
  v2:
  v3:
  s1: {start: no}
  s2: {start: no}
  s3: {start: no}
  t1: {start: no, ovs: no}
  t2: {start: no, ovs: no}
  t3: {start: no, ovs: no}
links:
  v1<>v3: delay=15ms
`

// network is one of those that are compared.
type network struct {
	name    string
	from    string   // the node that sends
	nodes   []string // all, for what their switches cost
	to      string   // address of the second node
	beyond  string   // of the third, over the second; empty: not measured
	daemons []string // that carry the frames

	rate   map[string][]float64 // Mbit/s, by what was measured
	lost   map[string][]float64 // segments sent again
	cost   map[string][]float64 // CPU of the daemons, µs for a megabyte
	rtt    map[string][]float64 // mean, µs
	rttMin map[string][]float64
}

func newNetwork(n network) *network {
	n.rate, n.lost, n.cost = map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
	n.rtt, n.rttMin = map[string][]float64{}, map[string][]float64{}
	return &n
}

// What is measured of each.
const (
	oneHop = "one hop"
	twoHop = "two hops"
)

// measureTraffic compares throughput and latency with those of a static GRE mesh and of tinc, direct and over a third node.
func measureTraffic(ctx context.Context, b *bench) error {
	if why := missing(map[string]string{"iperf3": "iperf3", "ping": "iputils-ping", "ethtool": "ethtool"}); why != "" {
		b.row("throughput and latency", "not measured: %s", why)
		return nil
	}
	l, err := b.up(ctx, "traffic", trafficLab, nil)
	if err != nil {
		return err
	}
	defer l.Down()
	nets, err := b.trafficNetworks(ctx, l)
	if err != nil {
		return err
	}
	for round := range b.rounds {
		for turn := range nets {
			n := nets[(round+turn)%len(nets)]
			if err := n.measure(ctx, l, oneHop, n.to); err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
			if n.beyond != "" {
				if err := n.measure(ctx, l, twoHop, n.beyond); err != nil {
					return fmt.Errorf("%s: %w", n.name, err)
				}
			}
		}
	}
	b.trafficRows(nets)
	return nil
}

func (b *bench) trafficNetworks(ctx context.Context, l *lab.Lab) ([]*network, error) {
	at, err := addresses(ctx, l, 2, "v1-1", "v2-1", "v3-1")
	if err != nil {
		return nil, err
	}
	own := newNetwork(network{name: "vcpeer", from: "v1-1", nodes: []string{"v1-1", "v2-1", "v3-1"}, to: at["v2-1"], beyond: at["v3-1"], daemons: []string{"ovs-vswitchd"}})
	hand := mesh{l, []string{"s1-1", "s2-1", "s3-1"}}
	if err := static(ctx, hand); err != nil {
		return nil, err
	}
	if err := hand.over(ctx, 0, 1, 2); err != nil {
		return nil, err
	}
	nets := []*network{own, newNetwork(network{name: "static GRE", from: "s1-1", nodes: hand.nodes, to: hand.addr(1), beyond: hand.addr(2), daemons: []string{"ovs-vswitchd"}})}
	if why := missing(map[string]string{"tincd": "tinc"}); why != "" {
		b.row("tinc", "not measured: %s", why)
	} else {
		other := mesh{l, []string{"t1-1", "t2-1", "t3-1"}}
		if err := tinc(ctx, other); err != nil {
			return nil, err
		}
		nets = append(nets, newNetwork(network{name: "tinc", from: "t1-1", nodes: other.nodes, to: other.addr(1), daemons: []string{"tincd"}}))
	}
	for _, n := range nets {
		for _, server := range n.nodes[1:] {
			if err := l.Command(ctx, server, "iperf3", "-s").Start(); err != nil {
				return nil, err
			}
		}
		for _, to := range []string{n.to, n.beyond} {
			if err := until(ctx, 100*time.Millisecond, 30*time.Second, n.name+": "+to+" answers", func() bool {
				_, err := l.Exec(ctx, n.from, "iperf3", "-c", n.to, "-n", "1")
				return to == "" || err == nil
			}); err != nil {
				return nil, err
			}
		}
	}
	c := l.Client("v1-1")
	defer c.Close()
	return nets, until(ctx, 200*time.Millisecond, time.Minute, "v1 reaches v3 over v2", func() bool {
		why, err := c.PathWhy(ctx, "v1-1", "v3-1")
		back, err2 := c.PathWhy(ctx, "v3-1", "v1-1")
		return err == nil && err2 == nil && len(why.Way) == 3 && len(back.Way) == 3
	})
}

// windows are what iperf3 is told of the window: with the default, frames are lost in queues of the datapath in user space.
var windows = []struct {
	name string
	args []string
}{{"96K window", []string{"-w", "96K"}}, {"default window", nil}}

func (n *network) measure(ctx context.Context, l *lab.Lab, what, to string) error {
	for _, w := range windows {
		before := n.cpu(l)
		out, err := l.Exec(ctx, n.from, append([]string{"iperf3", "-J", "-t", "1", "-c", to}, w.args...)...)
		if err != nil {
			return err
		}
		used := n.cpu(l) - before
		var r struct {
			End struct {
				Sent struct {
					Retransmits float64 `json:"retransmits"`
				} `json:"sum_sent"`
				Received struct {
					Rate  float64 `json:"bits_per_second"`
					Bytes float64 `json:"bytes"`
				} `json:"sum_received"`
			} `json:"end"`
		}
		if err := json.Unmarshal(out, &r); err != nil {
			return err
		}
		key := what + ", " + w.name
		n.rate[key] = append(n.rate[key], r.End.Received.Rate/1e6)
		n.lost[key] = append(n.lost[key], r.End.Sent.Retransmits)
		n.cost[key] = append(n.cost[key], used*1e6/(r.End.Received.Bytes/1e6))
	}
	out, err := l.Exec(ctx, n.from, "ping", "-n", "-q", "-c", "300", "-i", "0.002", to)
	if err != nil {
		return err
	}
	m := pingRTT.FindSubmatch(out)
	if m == nil {
		return fmt.Errorf("ping said %q", out)
	}
	for i, into := range []map[string][]float64{n.rttMin, n.rtt} {
		ms, _ := strconv.ParseFloat(string(m[i+1]), 64)
		into[what] = append(into[what], ms*1000)
	}
	return nil
}

var pingRTT = regexp.MustCompile(`rtt min/avg/max/mdev = ([0-9.]+)/([0-9.]+)/`)

// cpu is what the daemons that carry the frames have used on all nodes.
func (n *network) cpu(l *lab.Lab) (s float64) {
	for _, node := range n.nodes {
		for _, d := range n.daemons {
			s += cpuSeconds(pids(l.Node(node), d))
		}
	}
	return s
}

func (b *bench) trafficRows(nets []*network) {
	for _, what := range []string{oneHop, twoHop} {
		for _, w := range windows {
			key := what + ", " + w.name
			for _, n := range nets {
				if len(n.rate[key]) == 0 {
					continue
				}
				b.row(fmt.Sprintf("TCP, %s: %s", key, n.name), "%.0f Mbit/s, %.0f segments again, switches' CPU %.0f µs/MB%s", median(n.rate[key]), median(n.lost[key]),
					median(n.cost[key]), against(n, nets[1], n.rate[key], nets[1].rate[key]))
			}
		}
		for _, n := range nets {
			if len(n.rtt[what]) > 0 {
				b.row(fmt.Sprintf("ping, %s: %s", what, n.name), "least %.0f µs, mean %.0f µs%s", median(n.rttMin[what]), median(n.rtt[what]),
					against(n, nets[1], nets[1].rtt[what], n.rtt[what]))
			}
		}
	}
}

// against tells the ratio to what was made by hand, more than 1 being better.
func against(n, hand *network, better, worse []float64) string {
	if n == hand || len(better) == 0 || len(worse) == 0 {
		return ""
	}
	r := ratios(better, worse)
	return fmt.Sprintf("; %.2f of static (%.2f)", median(r), r)
}
