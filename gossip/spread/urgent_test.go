package spread

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"vcpeer/crdt"
	"vcpeer/deploy/test/bubble"
	"vcpeer/gossip/simnet"
)

// TestUrgentReachesAll over links with one-way delays up to 90 ms, of which each datagram is lost with the given chance.
func TestUrgentReachesAll(t *testing.T) {
	for _, tt := range []struct {
		nodes int
		loss  float64
	}{{2, 0}, {3, 0.02}, {20, 0.02}, {20, 0.1}, {manyNodes, 0.02}, {manyNodes, 0.1}} {
		t.Run(fmt.Sprintf("%d nodes, loss %v", tt.nodes, tt.loss), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				opt := wan(1)
				opt.Loss = tt.loss
				p := newPool(t, opt, tt.nodes, 10)
				time.Sleep(time.Minute)
				const entries = 30
				var delays []time.Duration
				sent, size, whole := 0, 0, 0
				for v := range entries {
					from := p.nodes[v*7%tt.nodes]
					before := p.sent()
					start := time.Now()
					b := from.store.set(uint64(v+1), "urgent "+strings.Repeat("x", 200))
					time.Sleep(time.Second)
					sent, size = sent+p.sent()-before, len(b)
					missed := 0
					for _, m := range p.nodes {
						when, ok := m.store.heardAt(b)
						switch {
						case m == from:
						case !ok:
							missed++
							delays = append(delays, time.Minute)
						default:
							delays = append(delays, when.Sub(start))
						}
					}
					if missed == 0 {
						whole++
					}
					time.Sleep(5 * time.Second)
				}
				slices.Sort(delays)
				within := func(d time.Duration) float64 {
					n, _ := slices.BinarySearch(delays, d)
					return 100 * float64(n) / float64(len(delays))
				}
				t.Logf("%.2f%% have it after 100 ms, %.2f%% after 200 ms, %.3f%% after 1 s; all of them after 1 s in %d of %d cases; each node sends %d bytes for an entry of %d",
					within(100*time.Millisecond), within(200*time.Millisecond), within(time.Second), whole, entries, sent/entries/tt.nodes, size)
				if tt.nodes >= 20 && within(200*time.Millisecond) < 99 || within(time.Second) < 99.9 {
					t.Errorf("too few have it")
				}
				p.stop()
			})
		})
	}
}

// TestUrgentAtOnce has every node say something urgent in the same instant, as when a site goes dark.
func TestUrgentAtOnce(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const n = 20
		p := newPool(t, wan(9), n, 10)
		time.Sleep(time.Minute)
		before := p.sent()
		var entries [][]byte
		for _, m := range p.nodes {
			entries = append(entries, m.store.set(1, "urgent "+strings.Repeat("x", 200)))
		}
		time.Sleep(200 * time.Millisecond)
		missed := 0
		for _, m := range p.nodes {
			for _, b := range entries {
				if _, ok := m.store.heardAt(b); !ok {
					missed++
				}
			}
		}
		time.Sleep(800 * time.Millisecond)
		t.Logf("%d of %d are missing after 200 ms; each node sent %d bytes", missed, n*n, (p.sent()-before)/n)
		if missed > n*n/100 {
			t.Errorf("%d of %d are missing after 200 ms", missed, n*n)
		}
		p.stop()
	})
}

// TestUrgentWithoutEnd: a node that calls everything urgent costs the others a bounded rate, and is heard all the same.
func TestUrgentWithoutEnd(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := newPool(t, wan(10), 10, 5)
		time.Sleep(time.Minute)
		bad := p.nodes[0]
		var before uint64
		for _, m := range p.nodes[1:] {
			before += m.Stats().Urged
		}
		const seconds, perSecond = 10, 1000
		for v := range seconds * perSecond {
			bad.store.set(uint64(v+1), fmt.Sprint("urgent ", v))
			time.Sleep(time.Second / perSecond)
		}
		var sent uint64
		for _, m := range p.nodes[1:] {
			sent += m.Stats().Urged
		}
		// Each entry that is urgent goes to 6 peers, then to 3; at most urgentBurst and then urgentRate of them.
		if limit := uint64(9 * 9 * (bad.limit.urgentBurst + seconds*int(bad.limit.urgentRate) + 1)); sent-before > limit {
			t.Errorf("%d datagrams for %d entries, want at most %d", sent-before, seconds*perSecond, limit)
		}
		last := fmt.Sprint("urgent ", seconds*perSecond-1)
		p.eventually(time.Minute, "its last word is everywhere", func() bool {
			return !slices.ContainsFunc(p.nodes, func(m *member) bool { return m.store.value(bad.Self()) != last })
		})
		p.stop()
	})
}

// TestUrgentTooLarge: what does not fit a datagram goes as an ordinary entry.
func TestUrgentTooLarge(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := newPool(t, wan(11), 3, 1)
		b := p.nodes[0].store.set(1, "urgent "+strings.Repeat("x", 1200))
		p.eventually(10*time.Second, "all have it", func() bool {
			return !slices.ContainsFunc(p.nodes, func(m *member) bool { _, ok := m.store.heardAt(b); return !ok })
		})
		p.stop()
	})
}

// TestHostileUrgent floods a node with urgent datagrams that hold nothing of use.
func TestHostileUrgent(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := newPool(t, simnet.Options{Seed: 12, Delay: simnet.Sites(1, 0)}, 3, 1)
		bad, good, other := p.nodes[0], p.nodes[1], p.nodes[2]
		bad.Close()
		for i := range 2000 {
			bad.Send(good.Self(), Class, []byte{urgentVersion, 0xff})
			bad.Send(good.Self(), Class, encodeUrgent([][]byte{{byte(i)}}))
			if i%100 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		b := other.store.set(1, "urgent")
		time.Sleep(50 * time.Millisecond)
		if _, ok := good.store.heardAt(b); !ok {
			t.Error("others are not heard")
		}
		good.serving.mu.Lock()
		if n := len(good.serving.waiting); n != 0 {
			t.Errorf("%d peers wait to be heard", n)
		}
		good.serving.mu.Unlock()
		p.stop()
	})
}

func TestUrgentPrefersConnections(t *testing.T) {
	now := time.Unix(0, 0)
	p, peers := newTestPlanner(now), somePeers(40)
	for i := range peers {
		peers[i].linked = i%2 == 0
	}
	if !p.freshUrgent(now, someID(4), []byte("e")) {
		t.Fatal("not urgent")
	}
	if effects, next := p.step(now, [16]byte{}, peers); len(targets[urge](effects)) != 0 || next.After(now.Add(p.limit.gatherUrgent)) {
		t.Errorf("at once %v, next step at %v", effects, next)
	}
	effects, _ := p.step(now.Add(p.limit.gatherUrgent), [16]byte{}, peers)
	to := targets[urge](effects)
	if len(to) != 7 || slices.Contains(to, someID(4)) || slices.ContainsFunc(to, func(id crdt.NodeID) bool { return id[0]%2 == 0 }) {
		t.Errorf("told %v, want 7 peers with a connection without the one it came from", to)
	}
}

func TestUrgentDatagram(t *testing.T) {
	for _, entries := range [][][]byte{nil, {[]byte("a")}, {[]byte("a"), bytes.Repeat([]byte("b"), 300)}} {
		got, err := decodeUrgent(encodeUrgent(entries))
		if err != nil || !slices.EqualFunc(got, entries, bytes.Equal) {
			t.Errorf("%q came back as %q, %v", entries, got, err)
		}
	}
	for _, bad := range [][]byte{nil, {1}, {urgentVersion, 0}, {urgentVersion, 0, 0}, {urgentVersion, 0, 2, 1}} {
		if _, err := decodeUrgent(bad); err == nil {
			t.Errorf("%x is accepted", bad)
		}
	}
}

func FuzzUrgent(f *testing.F) {
	f.Add(encodeUrgent([][]byte{[]byte("entry"), {0}}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if entries, err := decodeUrgent(b); err == nil && !bytes.Equal(encodeUrgent(entries), b) {
			t.Fatalf("%x was read as %x", b, entries)
		}
	})
}
