package spread

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"vcpeer/crdt"
	"vcpeer/deploy/test/bubble"
	"vcpeer/gossip/simnet"
)

// pool is nodes with stores in memory over a simulated network; all think all others alive.
type pool struct {
	t     *testing.T
	net   *simnet.Network
	nodes []*member
}

type member struct {
	*simnet.Node
	*Spread
	store *memory
}

func newPool(t *testing.T, opt simnet.Options, n, sites int) *pool {
	t.Helper()
	p := &pool{t: t, net: simnet.New(opt)}
	var all []crdt.NodeID
	num := map[crdt.NodeID]int{}
	for i := range n {
		node := p.net.Add()
		p.nodes = append(p.nodes, &member{Node: node, store: newMemory(node.Self())})
		all = append(all, node.Self())
		num[node.Self()] = i
	}
	for i, m := range p.nodes {
		s, err := Start(Config{
			Fabric: m.Node, Store: m.store,
			Peers:  func() []crdt.NodeID { return all },
			Near:   func(id crdt.NodeID) bool { return num[id]%sites == i%sites },
			Urgent: func(b []byte) bool { return bytes.HasPrefix(b[40:], []byte("urgent")) },
		})
		if err != nil {
			t.Fatal(err)
		}
		m.Spread = s
	}
	return p
}

func (p *pool) stop() {
	for _, m := range p.nodes {
		m.Close()
	}
	time.Sleep(time.Minute) // packets and streams on their way end too
}

// sent returns the bytes that all nodes have sent.
func (p *pool) sent() (n int) {
	for _, m := range p.nodes {
		c := m.Count()
		n += c.StreamBytes + c.DatagramBytes
	}
	return n
}

// equal reports whether all stores are.
func (p *pool) equal() bool {
	d := p.nodes[0].store.Digest()
	return !slices.ContainsFunc(p.nodes, func(m *member) bool { return m.store.Digest() != d })
}

func (p *pool) eventually(limit time.Duration, what string, ok func() bool) time.Duration {
	p.t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			p.t.Fatalf("not after %v: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(start)
}

// wan is round trips of 100 ms on average and 2% loss.
func wan(seed uint64) simnet.Options {
	return simnet.Options{Seed: seed, Delay: simnet.Sites(10, 90*time.Millisecond), Jitter: 0.05, Loss: 0.02}
}

func TestUpdateReachesAll(t *testing.T) {
	for _, n := range []int{2, 3, 5, 20, manyNodes} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				p := newPool(t, wan(1), n, 10)
				time.Sleep(time.Minute)
				var delays []time.Duration
				copies := 0
				const updates = 10
				for i := range updates {
					from := p.nodes[i*7%n]
					start := time.Now()
					b := from.store.write(bytes.Repeat([]byte{byte(i)}, 400))
					time.Sleep(10 * time.Second)
					for _, m := range p.nodes {
						if !m.store.has(b) {
							t.Fatalf("update %d has not reached node %d after ten seconds", i, m.Number())
						}
						if m != from {
							delays = append(delays, m.store.arrived[string(b)].Sub(start))
							copies += m.store.got[string(b)]
						}
					}
				}
				slices.Sort(delays)
				p99 := delays[len(delays)*99/100]
				t.Logf("%d nodes: p50 %v p99 %v max %v, %.2f copies a node", n, delays[len(delays)/2].Round(time.Millisecond),
					p99.Round(time.Millisecond), delays[len(delays)-1].Round(time.Millisecond), float64(copies)/float64(len(delays)))
				if p99 > 2*time.Second {
					t.Errorf("p99 is %v, want at most two seconds", p99)
				}
				p.stop()
			})
		})
	}
}

func TestBurst(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const n, updates, size = manyNodes / 2, 200, 400
		p := newPool(t, wan(2), n, 10)
		time.Sleep(time.Minute)
		var before []simnet.Count
		for _, m := range p.nodes {
			before = append(before, m.Count())
		}
		for i := range updates {
			p.nodes[i%n].store.write(bytes.Repeat([]byte{byte(i)}, size))
			time.Sleep(5 * time.Millisecond)
		}
		took := p.eventually(20*time.Second, "the burst is everywhere", p.equal)
		sent := 0
		for i, m := range p.nodes {
			c := m.Count().Sub(before[i])
			sent += c.StreamBytes + c.DatagramBytes
		}
		ratio := float64(sent) / float64(updates*(size+40)*(n-1))
		t.Logf("%d updates of %d bytes at %d nodes: everywhere %v after the last, %.2f × payload", updates, size, n, took, ratio)
		if ratio > 6 {
			t.Errorf("sent %.2f × the payload, want at most 6", ratio)
		}
		p.stop()
	})
}

func TestCutOffForAnHour(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := newPool(t, wan(3), 10, 3)
		away := p.nodes[4]
		p.net.Split(away.Node)
		for i := range 60 {
			p.nodes[i%4].store.write(bytes.Repeat([]byte{byte(i)}, 20<<10)) // more than one chunk in all
			away.store.write([]byte("meanwhile"))
			time.Sleep(time.Minute)
		}
		p.net.Heal()
		took := p.eventually(2*time.Minute, "all are equal after the cut", p.equal)
		t.Logf("equal %v after an hour's cut", took)
		p.eventually(5*time.Minute, "all know that they are equal", func() bool {
			return !slices.ContainsFunc(p.nodes, func(m *member) bool { return !m.Stats().Converged() })
		})
		p.stop()
	})
}

func TestSyncWith(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := newPool(t, simnet.Options{Seed: 4, Delay: simnet.Sites(2, 100*time.Millisecond)}, 2, 2)
		a, b := p.nodes[0], p.nodes[1]
		a.Close()
		b.Close() // only what the test opens
		p.nodes = nil
		for i := range 3000 {
			a.store.write(bytes.Repeat([]byte{byte(i)}, 300))
		}
		b.store.write([]byte("one of its own"))
		a.store.onEph = func([]byte) {}
		a.store.set(1, "load 3")
		s, err := Start(Config{Fabric: a.Node, Store: a.store, Peers: func() []crdt.NodeID { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		r, err := Start(Config{Fabric: b.Node, Store: b.store, Peers: func() []crdt.NodeID { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := r.SyncWith(t.Context(), a.Self()); err != nil {
			t.Fatal(err)
		}
		if a.store.Digest() != b.store.Digest() {
			t.Error("stores differ after a session")
		}
		if got := b.store.value(a.Self()); got != "load 3" {
			t.Errorf("ephemeral entry is %q after a session", got)
		}
		st := r.Stats()
		t.Logf("3000 batches of 300 bytes: %v, %d bytes in", time.Since(start), st.BytesIn)
		if st.Sessions != 1 || st.Equal != 0 || st.LastSync.IsZero() {
			t.Errorf("stats after one session: %+v", st)
		}
		if err := r.SyncWith(t.Context(), a.Self()); err != nil {
			t.Fatal(err)
		}
		if again := r.Stats(); again.Equal != 1 || again.BytesIn-st.BytesIn > 100 {
			t.Errorf("a session of equals: %+v after %+v", again, st)
		}
		p.net.Down(a.Node)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.SyncWith(ctx, a.Self()); err == nil {
			t.Error("a session with a dead node succeeds")
		}
		r.Close()
		if err := r.SyncWith(t.Context(), a.Self()); err != ErrClosed {
			t.Errorf("after Close: %v, want ErrClosed", err)
		}
		s.Close()
		time.Sleep(time.Minute)
	})
}

func TestEphemeral(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := newPool(t, wan(5), 30, 5)
		time.Sleep(time.Second)
		for v := range 5 {
			for _, m := range p.nodes {
				m.store.set(uint64(v+1), fmt.Sprintf("load %d", v))
			}
			time.Sleep(10 * time.Second)
		}
		seen := 0
		for _, m := range p.nodes {
			for _, o := range p.nodes {
				if m.store.value(o.Self()) == "load 4" {
					seen++
				}
			}
		}
		if want := 30 * 30 * 95 / 100; seen < want {
			t.Errorf("%d of 900 views are the newest after ten seconds, want %d", seen, want)
		}
		p.eventually(2*time.Minute, "all values are everywhere", func() bool {
			return !slices.ContainsFunc(p.nodes, func(m *member) bool {
				return !bytes.Equal(m.store.EphemeralDigest(), p.nodes[0].store.EphemeralDigest())
			})
		})
		p.stop()
	})
}

// TestSlowPeer has a peer that takes a push and never answers, while batches go on.
func TestSlowPeer(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := newPool(t, simnet.Options{Seed: 6, Delay: simnet.Sites(1, 0)}, 2, 1)
		fast, slow := p.nodes[0], p.nodes[1]
		end := make(chan struct{})
		slow.Handle(Protocol, func(context.Context, crdt.NodeID, net.Conn) {
			<-end // reads nothing
		})
		most := 0
		for range 2000 {
			fast.store.write(make([]byte, 1000))
			most = max(most, fast.Stats().Waiting)
			time.Sleep(5 * time.Millisecond)
		}
		if limit := fast.limit.boxBytes; most > limit || most < limit/2 {
			t.Errorf("up to %d bytes waited for the slow peer, want at most %d and more than half of it", most, limit)
		}
		slow.Handle(Protocol, slow.onStream)
		took := p.eventually(3*time.Minute, "the slow peer catches up", p.equal)
		close(end)
		t.Logf("2 MB written, at most %d bytes waiting; equal %v after the peer woke", most, took)
		p.stop()
	})
}

// TestHostilePeer opens streams without end, announces frames that never come and sends rubbish.
func TestHostilePeer(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := newPool(t, simnet.Options{Seed: 7, Delay: simnet.Sites(1, 0)}, 3, 1)
		bad, good, other := p.nodes[0], p.nodes[1], p.nodes[2]
		bad.Close()
		for i := range 200 {
			c, err := bad.Open(t.Context(), good.Self(), Protocol)
			if err != nil {
				t.Fatal(err)
			}
			switch i % 4 {
			case 0:
				c.Write([]byte{0, 0x3f, 0xff, 0xff}) // four megabytes, it says
			case 1:
				c.Write([]byte{0xff, 0xff, 0xff, 0xff})
			case 2:
				c.Write([]byte("\x00\x00\x00\x04rubb"))
			case 3:
				b, err := newCodec().encode(message{Kind: kindPush, Batches: [][]byte{[]byte("no batch")}})
				if err != nil {
					t.Fatal(err)
				}
				c.Write(b)
				go func() { io.Copy(io.Discard, c) }()
			}
			bad.Send(good.Self(), Class, encodeAnnouncement([16]byte{byte(i), 1}))
			bad.Send(good.Self(), Class, []byte{byte(i)})
			time.Sleep(time.Millisecond)
			good.serving.mu.Lock()
			if n := good.serving.all; n > good.limit.servePerPeer {
				t.Errorf("%d streams of one peer are served", n)
			}
			good.serving.mu.Unlock()
			good.mu.Lock()
			if n := len(good.plan.wants); n > 3 {
				t.Errorf("%d digests wait to be asked for", n)
			}
			good.mu.Unlock()
		}
		b := other.store.write([]byte("in the midst of it"))
		p.eventually(10*time.Second, "others are served all the same", func() bool { return good.store.has(b) })
		p.stop()
	})
}

// TestRefused has a peer whose records a store refuses for ever; sessions with it must still end.
func TestRefused(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := newPool(t, simnet.Options{Seed: 8, Delay: simnet.Sites(1, 0)}, 2, 1)
		a, b := p.nodes[0], p.nodes[1]
		b.store.mu.Lock()
		b.store.refusing = true
		b.store.mu.Unlock()
		for range 2000 {
			a.store.write(make([]byte, 1000))
		}
		time.Sleep(10 * time.Minute)
		c := a.Count()
		if limit := 40 << 20; c.StreamBytes > limit {
			t.Errorf("%d bytes went to a peer that refuses them, want at most %d", c.StreamBytes, limit)
		}
		if n := a.Stats().Sessions + b.Stats().Sessions; n == 0 {
			t.Error("no session came to an end")
		}
		b.store.mu.Lock()
		b.store.refusing = false
		b.store.mu.Unlock()
		p.eventually(2*time.Minute, "they are equal once it takes them", p.equal)
		p.stop()
	})
}
