package probe

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"vcpeer/overlay/label"
)

// gateways are labels 1 to n; rtts are by chance and the same in both directions.
func gateways(n int) (out []label.Label, rtt func(a, b label.Label) time.Duration) {
	for i := range n {
		out = append(out, label.Label(i+1))
	}
	return out, func(a, b label.Label) time.Duration {
		return time.Millisecond + time.Duration(pairHash(a, b)>>8%300_000)*time.Microsecond
	}
}

func classesOf(self label.Label, all []label.Label, rtt func(a, b label.Label) time.Duration, inUse []label.Label) []Class {
	others := slices.DeleteFunc(slices.Clone(all), func(l label.Label) bool { return l == self })
	return Classify(self, others, func(l label.Label) time.Duration { return rtt(self, l) }, inUse)
}

// TestCost prints what probing takes and holds it to its aim.
func TestCost(t *testing.T) {
	var b strings.Builder
	fmt.Fprintf(&b, "gateways  in use  fast near rest  packets/s   kB/s (each direction, on the wire)\n")
	for _, n := range []int{8, 20, 100, 1000} {
		for _, used := range []int{0, 4, 16} {
			all, rtt := gateways(n)
			direct, paths := used-used/2, used/2 // those over transit gateways are probed as a whole
			c := classesOf(1, all, rtt, all[1:min(n, 1+direct)])
			count := map[Class]int{}
			for _, class := range c {
				count[class]++
			}
			cost := Default().Cost(c, paths)
			fmt.Fprintf(&b, "%8d  %6d  %4d %4d %4d  %9.0f %6.1f\n", n, used, count[Fast], count[Near], count[Rest], cost.Packets, cost.Bytes/1000)
			if n == 1000 && (used == 0 && cost.Bytes > 10e3 || cost.Bytes > 20e3) {
				t.Errorf("%d gateways, %d in use: %.0f B/s", n, used, cost.Bytes)
			}
		}
	}
	t.Logf("\n%s", &b)
}

// What Cost says is what cores send.
func TestCostIsWhatIsSent(t *testing.T) {
	w := newWorld(t, 1)
	var ids []ID
	for i := range 12 {
		ids = append(ids, Gateway(label.Label(i+1)))
		w.add(ids[i])
	}
	for _, id := range ids {
		w.know(id, Fast, 1458, slices.DeleteFunc(slices.Clone(ids), func(o ID) bool { return o == id })...)
	}
	w.run(10 * time.Second)
	sent, bytes := w.sent, w.bytes
	w.run(2 * time.Minute)
	want := Default().Cost(make([]Class, 11), 0)
	got := Cost{float64(w.sent-sent) / 120 / 12, float64(w.bytes-bytes) / 120 / 12}
	t.Logf("sent %+v, said %+v", got, want)
	if got.Bytes > 1.05*want.Bytes || got.Bytes < 0.95*want.Bytes || got.Packets > 1.05*want.Packets {
		t.Errorf("sent %+v, said %+v", got, want)
	}
}

func TestClassify(t *testing.T) {
	all, rtt := gateways(300)
	near := map[[2]label.Label]bool{}
	total := 0
	for _, g := range all {
		c := classesOf(g, all, func(a, b label.Label) time.Duration { return 0 }, nil) // by chance alone
		for i, o := range slices.DeleteFunc(slices.Clone(all), func(l label.Label) bool { return l == g }) {
			if c[i] == Near {
				near[[2]label.Label{g, o}] = true
				total++
			}
		}
	}
	for p := range near {
		if !near[[2]label.Label{p[1], p[0]}] {
			t.Errorf("%v has %v for a neighbour, not the other way", p[0], p[1])
		}
	}
	if mean := float64(total) / 300; mean < 7 || mean > 9 {
		t.Errorf("%.1f neighbours by chance", mean)
	}
	c := classesOf(1, all, rtt, []label.Label{250, 251, 9999})
	if c[248] != Fast || c[249] != Fast {
		t.Errorf("what is in use is %v, %v", c[248], c[249])
	}
	order := slices.Clone(all[1:])
	slices.SortFunc(order, func(a, b label.Label) int { return int(rtt(1, a) - rtt(1, b)) })
	for _, l := range order[:nearest] {
		if c[l-2] == Rest {
			t.Errorf("%v, at %v, is not near", l, rtt(1, l))
		}
	}
	if c := classesOf(1, all[:9], rtt, nil); slices.Max(c) != Fast {
		t.Errorf("of 8 others some are not fast")
	}
	unknown := func(a, b label.Label) time.Duration {
		if b == 4 {
			return 0
		}
		return rtt(a, b)
	}
	for i, class := range classesOf(1, all[:25], unknown, []label.Label{7}) {
		want := Near
		if l := label.Label(i + 2); l == 7 || l == 4 {
			want = Fast
		}
		if class != want {
			t.Errorf("of 24 others %d is %v, want %v", i+2, class, want)
		}
	}
}

// A thousand targets are all asked within the first seconds, and then evenly.
func TestThousandAreSpread(t *testing.T) {
	now := time.Unix(1e9, 0)
	c := New(Default(), rand.New(rand.NewPCG(1, 1)), now)
	var targets []Target
	for i := range 1000 {
		targets = append(targets, Target{ID: Gateway(label.Label(i + 2)), Class: Rest})
	}
	c.Set(now, Self{Label: 1}, targets)
	perSecond := make([]int, 300)
	end := now.Add(300 * time.Second)
	for at := now; at.Before(end); {
		out, next := c.Tick(at)
		for _, f := range out.Frames { // all are up
			m, _ := parse(f[etherBytes:])
			r := message{kind: reply, from: m.way.id, way: way{id: m.from}, size: messageBytes, session: m.session, seq: m.seq}
			b := make([]byte, messageBytes)
			r.put(b)
			perSecond[at.Sub(now)/time.Second]++
			c.Receive(at, at, b)
		}
		at = next
		if n := c.Next(at); n.Before(at) {
			at = n
		}
	}
	first, most := 0, 0
	for s, n := range perSecond {
		if s <= 10 {
			first += n
		}
		if s > 180 {
			most = max(most, n)
		}
	}
	if first < 1000 || most > 60 {
		t.Errorf("%d probes in 10 s; at most %d in one second later, of 18 on average", first, most)
	}
}
