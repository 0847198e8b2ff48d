package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"vcpeer/deploy/lab"
	"vcpeer/deploy/lab/topology"
)

// pathSites is how many sites a network has whose paths are compared.
const pathSites = 10

// settle is how long a network gets before its paths are looked at.
const settle = 45 * time.Second

// measurePaths compares chosen paths with the shortest of random matrices, and with babeld's, which has the same matrix.
func measurePaths(ctx context.Context, b *bench) error {
	withBabel := missing(map[string]string{"babeld": "babeld"}) == ""
	all := map[string]*stretches{"vcpeer": {}, "direct": {}, "babeld": {}}
	for seed := range b.seeds {
		if err := b.pathsOf(ctx, uint64(seed+1), withBabel, all); err != nil {
			return err
		}
	}
	for _, name := range []string{"vcpeer", "babeld", "direct"} {
		s := all[name]
		if len(s.chosen) == 0 {
			b.row("stretch: "+name, "not measured: babeld is missing: apt-get install babeld")
			continue
		}
		b.row(fmt.Sprintf("stretch, %d sites, %d matrices: %s", pathSites, b.seeds, name), "median %.3f, 95 %% at most %.3f, max %.3f, without a way %d (n=%d)",
			median(s.chosen), quantile(s.chosen, 0.95), slices.Max(s.chosen), s.none, len(s.chosen))
		if len(s.measured) > 0 {
			b.row("  by echoes through it", "median %.3f, 95 %% at most %.3f", median(s.measured), quantile(s.measured, 0.95))
		}
	}
	gain := all["direct"].gain(all["vcpeer"])
	better := 0
	for _, g := range gain {
		if g > 0.1 {
			better++
		}
	}
	b.row("gain over the direct way", "more than 10 %% for %d %% of pairs; median of all %.0f %%, 95 %% at most %.0f %%", 100*better/len(gain), 100*median(gain), 100*quantile(gain, 0.95))
	return nil
}

// stretches are round trips divided by the shortest possible, pair by pair.
type stretches struct {
	chosen   []float64 // by the delays of the links that the path uses
	measured []float64
	none     int
}

func (s *stretches) gain(better *stretches) (out []float64) {
	for i := range min(len(s.chosen), len(better.chosen)) {
		out = append(out, 1-better.chosen[i]/s.chosen[i])
	}
	return out
}

// double is the same matrix for two networks side by side, far from each other.
func double(m topology.Matrix) topology.Matrix {
	n := len(m)
	out := make(topology.Matrix, 2*n)
	for i := range out {
		out[i] = make([]float64, 2*n)
		for j := range out {
			if i/n == j/n {
				out[i][j] = m[i%n][j%n]
			} else {
				out[i][j] = 1000
			}
		}
	}
	return out
}

func (b *bench) pathsOf(ctx context.Context, seed uint64, withBabel bool, all map[string]*stretches) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := topology.RandomMatrix(pathSites, seed)
	best, used := m.Shortest(), m
	var text strings.Builder
	text.WriteString("sites:\n")
	var nodes, other []string
	for i := range pathSites {
		fmt.Fprintf(&text, "  site%d:\n", i+1)
		nodes = append(nodes, fmt.Sprintf("site%d-1", i+1))
		other = append(other, fmt.Sprintf("babel%d-1", i+1))
	}
	if withBabel {
		used = double(m)
		for i := range pathSites {
			fmt.Fprintf(&text, "  babel%d: {start: no}\n", i+1)
		}
	}
	l, err := b.up(ctx, "paths", text.String(), used)
	if err != nil {
		return err
	}
	defer l.Down()
	routed := mesh{l, other}
	if withBabel {
		if err := static(ctx, routed); err != nil {
			return err
		}
		// The default price of an RTT ends at 120 ms and is as much as a hop: it would take no detour at all.
		if err := babel(ctx, routed, "hello-interval 1 rtt-min 1 rtt-max 400 max-rtt-penalty 4000"); err != nil {
			return err
		}
	}
	at, err := addresses(ctx, l, pathSites-1, nodes...)
	if err != nil {
		return err
	}
	if err := pause(ctx, settle); err != nil {
		return err
	}
	for i := range m {
		ways, err := chosen(ctx, l, nodes, i)
		if err != nil {
			return err
		}
		for j := range m {
			if i == j {
				continue
			}
			all["direct"].chosen = append(all["direct"].chosen, m[i][j]/best[i][j])
			all["vcpeer"].add(m, ways[j], best[i][j])
			if withBabel {
				way, err := routed.way(ctx, i, j)
				if err != nil {
					return err
				}
				all["babeld"].add(m, way, best[i][j])
			}
		}
	}
	return echoes(ctx, l, nodes, at, best, all["vcpeer"])
}

// add notes a way of nodes, both ends included; without one it counts as none.
func (s *stretches) add(m topology.Matrix, way []int, best float64) {
	if len(way) == 0 {
		s.none++
		return
	}
	sum := 0.0
	for k := range len(way) - 1 {
		sum += m[way[k]][way[k+1]]
	}
	s.chosen = append(s.chosen, sum/best)
}

// chosen asks node i for its way to each other.
func chosen(ctx context.Context, l *lab.Lab, nodes []string, i int) (ways [][]int, err error) {
	c := l.Client(nodes[i])
	defer c.Close()
	list, err := c.Paths(ctx, "")
	if err != nil {
		return nil, err
	}
	ways = make([][]int, len(nodes))
	for _, p := range list.Items {
		way := []int{i}
		for _, n := range append(slices.Clone(p.Via), p.To) {
			way = append(way, slices.Index(nodes, n))
		}
		if last := way[len(way)-1]; last >= 0 {
			ways[last] = way
		}
	}
	return ways, nil
}

// way follows the kernel's routes from node to node.
func (m mesh) way(ctx context.Context, i, j int) ([]int, error) {
	way := []int{i}
	for at := i; at != j; {
		out, err := m.lab.Exec(ctx, m.nodes[at], "ip", "-j", "route", "get", m.loopback(j))
		if err != nil {
			return nil, nil // there is none
		}
		var r []struct{ Gateway string }
		if err := json.Unmarshal(out, &r); err != nil || len(r) == 0 {
			return nil, fmt.Errorf("ip route get: %q: %v", out, err)
		}
		next := -1
		for k := range m.nodes {
			if m.addr(k) == r[0].Gateway {
				next = k
			}
		}
		if next < 0 || len(way) > len(m.nodes) {
			return nil, nil
		}
		at = next
		way = append(way, at)
	}
	return way, nil
}

// echoes measures each pair through the network.
func echoes(ctx context.Context, l *lab.Lab, nodes []string, at map[string]string, best topology.Matrix, s *stretches) error {
	stations := make([]*station, len(nodes))
	for i, n := range nodes {
		var err error
		if stations[i], err = newStation(ctx, l, n, at[n]); err != nil {
			return err
		}
	}
	for range 10 {
		for i := range nodes {
			for j := range nodes {
				if i != j {
					stations[i].send(isAsked, at[nodes[j]])
				}
			}
			if err := pause(ctx, 30*time.Millisecond); err != nil {
				return err
			}
		}
	}
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	for i := range nodes {
		for j, to := range nodes {
			var rtts []float64
			for _, e := range stations[i].heard(at[to]) {
				rtts = append(rtts, float64(e.came.Sub(e.sent))/float64(time.Millisecond))
			}
			if i != j && len(rtts) > 0 {
				s.measured = append(s.measured, slices.Min(rtts)/best[i][j])
			}
		}
	}
	return nil
}
