package gossip_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vcpeer/crdt"
	"vcpeer/deploy/test/bubble"
	"vcpeer/gossip"
)

func TestJoinOfOne(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCluster(t, wan(3))
		c.grow(someNodes)
		time.Sleep(time.Minute)
		start := time.Now()
		n := c.start()
		ctx, cancel := within(10 * time.Second)
		defer cancel()
		if err := n.Join(ctx, c.ids()[:1]); err != nil {
			t.Fatal(err)
		}
		joined := time.Since(start)
		took := c.eventually(10*time.Second, "the newcomer is seen by all and sees all", func() bool {
			return c.full(c.nodes, len(c.nodes))
		})
		t.Logf("joined after %v, seen by all after %v", joined, took)
		c.stop()
	})
}

func TestPartitionHeals(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		for _, cut := range []time.Duration{20 * time.Second, 3 * time.Minute} {
			c := newCluster(t, wan(4))
			c.grow(someNodes)
			half := c.nodes[:len(c.nodes)/2]
			c.split(half)
			time.Sleep(cut)
			if !c.full(half, len(half)) || !c.full(c.nodes[len(half):], len(c.nodes)-len(half)) {
				t.Errorf("after %v the halves do not see exactly themselves", cut)
			}
			c.net.Heal()
			took := c.eventually(time.Minute, "the halves are one again", func() bool { return c.full(c.nodes, len(c.nodes)) })
			t.Logf("cut for %v: one again after %v", cut, took)
			c.stop()
		}
	})
}

func TestLeaveIsNotFailure(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCluster(t, wan(5))
		c.grow(someNodes)
		c.forget()
		gone := c.nodes[len(c.nodes)-1]
		c.nodes = c.nodes[:len(c.nodes)-1]
		ctx, cancel := within(20 * time.Second)
		defer cancel()
		start := time.Now()
		if err := gone.Leave(ctx); err != nil {
			t.Fatal(err)
		}
		c.eventually(5*time.Second, "all see it left", func() bool { return c.sees(c.nodes, gone.Self(), gossip.Left) })
		t.Logf("left after %v", time.Since(start))
		time.Sleep(time.Minute)
		if n := c.count(gossip.Failed); n != 0 {
			t.Errorf("a leave was called a failure %d times", n)
		}
		if err := gone.Join(ctx, c.ids()); !errors.Is(err, gossip.ErrClosed) {
			t.Errorf("join after leave: %v, want ErrClosed", err)
		}
		back := c.startOn(c.net.Restart(gone.Node), c.ids())
		c.eventually(30*time.Second, "it is back", func() bool {
			return c.sees(c.nodes, back.Self(), gossip.Alive) && c.full(c.nodes, len(c.nodes))
		})
		c.stop()
	})
}

func TestRestart(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCluster(t, lan(6))
		c.grow(5)
		for _, away := range []time.Duration{time.Second, time.Minute} {
			old := c.nodes[len(c.nodes)-1]
			c.crash(old)
			time.Sleep(away)
			known := c.ids()
			c.startOn(c.net.Restart(old.Node), known)
			took := c.eventually(30*time.Second, "the restarted node is back", func() bool { return c.full(c.nodes, 5) })
			t.Logf("away for %v: back after %v", away, took)
			time.Sleep(20 * time.Second)
			if !c.full(c.nodes, 5) {
				t.Errorf("away for %v: lost again", away)
			}
		}
		c.stop()
	})
}

func TestTags(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCluster(t, wan(7))
		c.grow(someNodes)
		n := c.any()
		since, _ := c.nodes[0].Member(n.Self())
		changed, stop := c.nodes[0].Watch()
		ctx, cancel := within(10 * time.Second)
		defer cancel()
		if err := n.SetTags(ctx, map[string]string{"site": "kyoto"}); err != nil {
			t.Fatal(err)
		}
		took := c.eventually(5*time.Second, "all know the tag", func() bool {
			for _, o := range c.nodes {
				if m, _ := o.Member(n.Self()); m.Tags["site"] != "kyoto" || m.Name() != "host" {
					return false
				}
			}
			return true
		})
		t.Logf("known to all after %v", took)
		select {
		case <-changed:
		default:
			t.Error("the watch is silent")
		}
		stop()
		stop()
		if _, open := <-changed; open {
			t.Error("a stopped watch is not closed")
		}
		if now, _ := c.nodes[0].Member(n.Self()); !now.Since.Equal(since.Since) {
			t.Error("a tag changed how long the member is alive")
		}
		if err := n.SetTags(ctx, map[string]string{"long": strings.Repeat("x", 600)}); err == nil {
			t.Error("tags over 512 bytes are accepted")
		}
		c.stop()
	})
}

// TestGarbage floods a node with packets and streams from a member gone mad.
func TestGarbage(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCluster(t, lan(8))
		c.grow(6)
		rng := rand.New(rand.NewPCG(1, 2))
		mad, target := c.nodes[0], c.nodes[1]
		taken := make(chan []byte, 1000)
		c.nodes[2].Node.Receive(gossip.Class, func(_ crdt.NodeID, b []byte) {
			select {
			case taken <- append([]byte(nil), b...):
			default:
			}
		})
		time.Sleep(2 * time.Second) // real packets to spoil; the node that gives them is deaf from now on
		var samples [][]byte
		for len(taken) > 0 {
			samples = append(samples, <-taken)
		}
		if len(samples) == 0 {
			t.Fatal("no packet to spoil")
		}
		for i := range 8000 {
			b := make([]byte, rng.IntN(1150))
			for j := range b {
				b[j] = byte(rng.Uint32())
			}
			if i%2 == 0 {
				b = append([]byte(nil), samples[rng.IntN(len(samples))]...)
				b[rng.IntN(len(b))] = byte(rng.Uint32())
			} else if i%3 == 0 {
				b = append([]byte("\xf4\x04test"), b...) // the right label
			}
			mad.Node.Send(target.Self(), gossip.Class, b)
			if i%100 == 0 {
				s, err := mad.Open(t.Context(), target.Self(), gossip.Protocol)
				if err != nil {
					t.Fatal(err)
				}
				s.Write(b)
				defer s.Close()
				time.Sleep(10 * time.Millisecond)
			}
		}
		time.Sleep(30 * time.Second)
		if m, _ := mad.Member(target.Self()); m.State != gossip.Alive {
			t.Errorf("the flooded node is %v", m.State)
		}
		for _, o := range c.nodes[3:] {
			if m, _ := o.Member(target.Self()); m.State != gossip.Alive {
				t.Errorf("the flooded node is %v to another", m.State)
			}
		}
		c.stop()
	})
}

// TestEvicted has a member that all put out, one that comes back as evicted, and a pool whose lists still name it.
func TestEvicted(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCluster(t, wan(9))
		var evicted atomic.Pointer[crdt.NodeID]
		c.cfg = func(cfg *gossip.Config) {
			cfg.Allowed = func(id crdt.NodeID) bool { p := evicted.Load(); return p == nil || *p != id }
		}
		c.grow(10)
		out := c.nodes[9]
		id := out.Self()
		c.nodes = c.nodes[:9]
		evicted.Store(&id)
		for _, n := range c.nodes {
			n.Remove(id)
		}
		if !c.sees(c.nodes, id, 0) {
			t.Error("still in view right after Remove")
		}
		time.Sleep(2 * time.Minute)
		if !c.sees(c.nodes, id, 0) || !c.full(c.nodes, 9) {
			t.Error("in view again, or others are missing")
		}
		late := c.start() // knows only members, joins a pool that has known the evicted
		c.eventually(30*time.Second, "a newcomer joins", func() bool { return c.full(c.nodes, 10) })
		if _, seen := late.Member(id); seen {
			t.Error("the newcomer sees the evicted")
		}
		c.nodes = append(c.nodes, out)
		c.stop()
	})
}

// TestRecordComesLate has a newcomer whose record reaches some nodes only after the gossip about it.
func TestRecordComesLate(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCluster(t, wan(10))
		var newcomer atomic.Pointer[crdt.NodeID]
		var known atomic.Bool
		c.cfg = func(cfg *gossip.Config) {
			odd := len(c.nodes)%2 == 1
			cfg.Allowed = func(id crdt.NodeID) bool {
				p := newcomer.Load()
				return p == nil || *p != id || known.Load() || !odd
			}
		}
		c.grow(20)
		at := c.net.Add()
		id := at.Self()
		newcomer.Store(&id)
		n := c.startOn(at, []crdt.NodeID{c.nodes[0].Self()})
		time.Sleep(3 * time.Second)
		known.Store(true)
		took := c.eventually(20*time.Second, "all see the newcomer", func() bool { return c.sees(c.nodes, n.Self(), gossip.Alive) })
		t.Logf("all see the newcomer %v after the last record came", took)
		c.stop()
	})
}

func TestConfig(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCluster(t, lan(11))
		at := c.net.Add()
		bad := gossip.Sites()
		bad.ProbeTimeout = bad.ProbeInterval
		for what, cfg := range map[string]gossip.Config{
			"no fabric":   {Cluster: "test"},
			"no cluster":  {Fabric: at},
			"long name":   {Fabric: at, Cluster: "test", Name: strings.Repeat("x", 600)},
			"bad preset":  {Fabric: at, Cluster: "test", Preset: bad},
			"long label":  {Fabric: at, Cluster: strings.Repeat("x", 65)},
			"half preset": {Fabric: at, Cluster: "test", Preset: gossip.Preset{ProbeInterval: 2, ProbeTimeout: 1}},
		} {
			if m, err := gossip.Start(cfg); err == nil {
				t.Errorf("%s: started", what)
				m.Close()
			}
		}
		time.Sleep(time.Minute)
	})
}
