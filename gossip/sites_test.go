package gossip_test

import (
	"os"
	"runtime/debug"
	"testing"
	"time"

	"vcpeer/deploy/test/bubble"
	"vcpeer/gossip"
)

// TestMain trades memory for time: half of a simulation of many nodes is the collection of their garbage.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}

// TestFailureIsSeen kills nodes one after the other; each must be seen failed by all within ten seconds.
func TestFailureIsSeen(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCluster(t, wan(1))
		c.grow(killNodes)
		var worst time.Duration
		for range kills {
			victim := c.any()
			c.crash(victim)
			took := c.eventually(10*time.Second, "the killed node is seen failed", func() bool {
				return c.sees(c.nodes, victim.Self(), gossip.Failed)
			})
			worst = max(worst, took)
			t.Logf("%d nodes: failed everywhere after %v", len(c.nodes), took)
			time.Sleep(5 * time.Second)
		}
		t.Logf("worst %v", worst)
		c.stop()
	})
}

// TestNoFalseAlarm watches a lossy pool for ten minutes in which nothing happens.
func TestNoFalseAlarm(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCluster(t, wan(2))
		n := quietNodes
		if os.Getenv("VCPEER_LONG") != "" {
			n = longNodes
		}
		c.grow(n)
		time.Sleep(time.Minute) // the words that follow a start
		c.forget()
		const quiet = 10 * time.Minute
		before := c.nodes[0].Count()
		time.Sleep(quiet)
		if n := c.count(gossip.Failed); n != 0 {
			t.Errorf("%d times a live node was called failed", n)
		}
		sent := c.nodes[0].Count().Sub(before)
		s := quiet.Seconds()
		t.Logf("%d nodes, %v: one node sent %.1f datagrams/s, %.0f B/s, %.2f streams/s, %.0f B/s on streams", len(c.nodes), quiet,
			float64(sent.Datagrams)/s, float64(sent.DatagramBytes)/s, float64(sent.Streams)/s, float64(sent.StreamBytes)/s)
		c.stop()
	})
}
