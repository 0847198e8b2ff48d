package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"vcpeer/deploy/lab/topology"
)

// TestOverlayPathsAreShortest wants the paths that gateways choose to be as short as the RTTs between the sites allow, by
// what these are and not by what was measured.
func TestOverlayPathsAreShortest(t *testing.T) {
	const sites = 8
	top, err := topology.New(topology.Options{Sites: sites})
	if err != nil {
		t.Fatal(err)
	}
	rtts := topology.RandomMatrix(sites, 11)
	if top, err = top.WithMatrix(rtts); err != nil {
		t.Fatal(err)
	}
	best := rtts.Shortest()
	n := newNet(t, quickBinary(t), top)
	index := map[string]int{}
	for i, node := range n.Nodes() {
		index[node.Name] = i
	}
	var stretch, straight []float64
	var longer [][2]string // the pairs whose path is not the shortest
	look := func() bool {
		stretch, straight, longer = nil, nil, nil
		for from := range index {
			for _, p := range n.pathsOf(from) {
				hops := slices.Concat([]string{from}, p.Via, []string{p.To})
				length := 0.0
				for i := 1; i < len(hops); i++ {
					length += rtts[index[hops[i-1]]][index[hops[i]]]
				}
				a, b := index[from], index[p.To]
				stretch, straight = append(stretch, length/best[a][b]), append(straight, rtts[a][b]/best[a][b])
				if length > 1.05*best[a][b] {
					longer = append(longer, [2]string{from, p.To})
				}
			}
		}
		slices.Sort(stretch)
		slices.Sort(straight)
		return len(stretch) == sites*(sites-1) && quantile(stretch, 0.5) == 1 && quantile(stretch, 0.95) <= 1.05
	}
	say := func(s []float64) string {
		return fmt.Sprintf("%d pairs, median %.3f, 95%% %.3f, most %.3f", len(s), quantile(s, 0.5), quantile(s, 0.95), quantile(s, 1))
	}
	defer func() {
		t.Logf("stretch: %s; of the direct paths: %s", say(stretch), say(straight))
		if !t.Failed() {
			return
		}
		for _, p := range longer {
			out, err := n.Exec(n.ctx, p[0], "vcpeer", "why", p[0], p[1])
			t.Logf("not the shortest: %s%v", out, err)
		}
	}()
	took := n.within(90*time.Second, "the paths are the shortest", look)
	t.Logf("shortest after %v", took.Round(time.Second))
}
