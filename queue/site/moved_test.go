package site

import (
	"context"
	"testing"
	"time"

	"vcpeer/queue"
)

// leaderOf returns the node that leads a site, and the others.
func (c *cluster) leaderOf(site queue.SiteID) (leader *fakeNode, others []*fakeNode) {
	r := c.sites[site]
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, n := range c.nodes {
		switch {
		case n.site != site:
		case id == r.leader:
			leader = n
		default:
			others = append(others, n)
		}
	}
	return leader, others
}

// TestPausedLeader stops the leader without closing a connection and without gossip noticing. What waits there, claims,
// watches and questions, must go on at the next leader as soon as that is elected, files of the job included.
func TestPausedLeader(t *testing.T) {
	for seed := range 4 {
		inBubble(t, uint64(20+seed), func(t *testing.T, c *cluster) {
			for i := range 3 {
				c.add("s1", i+1, 2)
			}
			for _, n := range c.nodes {
				n.start()
			}
			old, others := c.leaderOf("s1")
			warm := submit(t, others[0], array(jobSpec(others[0], "warm", "1s"), 12)) // leaves idle streams everywhere
			waitFor(t, others[0], warm, time.Minute)
			watched := submit(t, others[1], jobSpec(others[1], "watched", "4s"))
			if v, _, err := others[0].svc.Get(t.Context(), queue.JobID{Seq: watched}, 0, 0); err != nil || v.State != queue.Running {
				t.Fatalf("before the pause: %+v, %v", v, err)
			}
			old.pause()
			began := time.Now()
			seq := submit(t, others[0], jobSpec(others[0], "after", "100ms"))
			if took := time.Since(began); took > 1500*time.Millisecond {
				t.Errorf("accepted %v after the election", took)
			}
			waitFor(t, others[1], seq, time.Minute)
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("run and back %v after the election", took)
			}
			old.resume()
			waitFor(t, old, seq, time.Minute)
			waitFor(t, others[1], watched, time.Minute)
		})
	}
}

// TestLostNode has gossip give up the leader of another site: a question that waits there must go on elsewhere.
func TestLostNode(t *testing.T) {
	inBubble(t, 30, func(t *testing.T, c *cluster) {
		for i := range 3 {
			c.add("s1", i+1, 1)
		}
		far := c.add("s2", 4, 1)
		for _, n := range c.nodes {
			n.start()
		}
		old, others := c.leaderOf("s1")
		seq := submit(t, others[0], jobSpec(others[0], "job", "1s"))
		id := queue.JobID{Seq: seq, Site: "s1-name"}
		if _, _, err := far.svc.Get(t.Context(), id, 0, 0); err != nil { // over a stream that is kept
			t.Fatal(err)
		}
		old.pause()
		began := time.Now()
		const noticed = 3 * time.Second
		time.AfterFunc(noticed, old.giveUp)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, _, err := far.svc.Get(ctx, id, 0, 0); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < noticed || took > noticed+time.Second {
			t.Errorf("answered %v after the pause, given up after %v", took, noticed)
		}
		if c := far.svc.peers.take(old.id); c != nil {
			t.Error("a stream to a node that was given up is kept")
		}
		old.resume()
	})
}
