package site

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vcpeer/deploy/test/bubble"
	"vcpeer/queue"
)

func jobSpec(n *fakeNode, name, takes string) queue.Spec {
	script := n.put([]byte("#!/bin/sh\n"))
	return queue.Spec{Key: name, User: "ann", Name: name, Argv: []string{takes}, Script: &queue.File{Hash: script, Size: 10},
		Dir: n.dir, Retries: 10}
}

func array(s queue.Spec, n int) queue.Spec {
	s.Array = &queue.Range{First: 1, Last: n, Step: 1}
	return s
}

// inBubble runs f in a bubble with a cluster that is stopped at the end, and checks the ledger.
func inBubble(t *testing.T, seed uint64, f func(t *testing.T, c *cluster)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		c := newCluster(t, seed)
		f(t, c)
		c.stopAll()
		for _, o := range c.led.overlap {
			t.Error(o)
		}
	})
}

func submit(t *testing.T, n *fakeNode, s queue.Spec) queue.Seq {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seq, err := n.svc.Submit(ctx, s)
	if err != nil {
		t.Fatalf("submit: %v", err)
	}
	return seq
}

// waitFor waits until a job has ended and its results are back.
func waitFor(t *testing.T, n *fakeNode, seq queue.Seq, most time.Duration) queue.JobView {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), most)
	defer cancel()
	var last queue.JobView
	err := n.svc.Wait(ctx, queue.JobID{Seq: seq}, func(v queue.JobView) error { last = v; return nil })
	if err != nil {
		t.Fatalf("wait: %v; last seen %+v, owed %d", err, last.Counts, last.Owed)
	}
	return last
}

// TestKills runs an array of 200 tasks on three nodes of one site, whose daemons are killed at random, the leader's
// among them. Every task must run through to its end exactly once, and its output come back.
func TestKills(t *testing.T) {
	seeds := 4
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		inBubble(t, uint64(seed), func(t *testing.T, c *cluster) {
			home, others := c.add("s1", 1, 4), []*fakeNode{c.add("s1", 2, 4), c.add("s1", 3, 4)}
			for _, n := range c.nodes {
				n.start()
			}
			seq := submit(t, home, array(jobSpec(home, "kills", "20s"), 200))
			for range 12 {
				time.Sleep(time.Duration(c.float() * float64(8*time.Second)))
				n := others[c.rand(2)]
				if c.float() < 0.3 {
					n = home
				}
				n.kill()
				time.Sleep(time.Duration(c.float() * float64(6*time.Second)))
				n.start()
			}
			v := waitFor(t, home, seq, time.Hour)
			checkOnce(t, c, home, v, 200)
		})
	}
}

// checkOnce wants each task done, run to its end once, and its output in the submit directory.
func checkOnce(t *testing.T, c *cluster, home *fakeNode, v queue.JobView, tasks int) {
	t.Helper()
	if v.Counts.Done != tasks {
		t.Errorf("counts %+v, want %d done", v.Counts, tasks)
	}
	for i := 1; i <= tasks; i++ {
		task := fmt.Sprintf("%d.%d.%s", v.Seq, i, home.site)
		if got := c.led.ended[task]; got != 1 {
			t.Errorf("task %s ran through %d times", task, got)
		}
		b, err := os.ReadFile(filepath.Join(home.dir, fmt.Sprintf("%s.o%d.%d", v.Spec.Name, v.Seq, i)))
		if want := "output of " + task; err != nil || string(b) != want {
			t.Errorf("output of task %d: %q, %v; want %q", i, b, err, want)
		}
	}
}

// TestPowerLoss also takes the running tasks with the daemons, and the whole site once: tasks run again, one at a time.
func TestPowerLoss(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		home := c.add("s1", 1, 4)
		c.add("s1", 2, 4)
		c.add("s1", 3, 4)
		for _, n := range c.nodes {
			n.start()
		}
		seq := submit(t, home, array(jobSpec(home, "power", "30s"), 100))
		for i := range 4 {
			time.Sleep(7 * time.Second)
			for k, n := range []*fakeNode{home, c.nodes[nodeID(2)], c.nodes[nodeID(3)]} {
				if i == 3 || k == i {
					n.power()
				}
			}
			time.Sleep(5 * time.Second)
			for _, n := range c.nodes {
				if !n.up {
					n.start()
				}
			}
		}
		if v := waitFor(t, home, seq, time.Hour); v.Counts.Done != 100 {
			t.Errorf("counts %+v", v.Counts)
		}
	})
}

// TestPull has one site with much work and little room, and one with much room: work must go there, and results and
// epochs hold while the owner's whole site is gone for a while.
func TestPull(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		home, away := c.add("s1", 1, 1), []*fakeNode{c.add("s2", 2, 4), c.add("s2", 3, 4)}
		for _, n := range c.nodes {
			n.start()
		}
		seq := submit(t, home, array(jobSpec(home, "pull", "30s"), 60))
		time.Sleep(20 * time.Second)
		home.kill()
		time.Sleep(20 * time.Second)
		home.start()
		v := waitFor(t, home, seq, time.Hour)
		checkOnce(t, c, home, v, 60)
		by := map[string]int{}
		for _, n := range c.led.where {
			by[n]++
		}
		for _, n := range append(away, home) {
			if by[n.id.String()] == 0 {
				t.Errorf("node %s ran nothing: %v", n.id.Short(), by)
			}
		}
	})
}

// TestPinned keeps a pinned job at home, however full that is, and runs one pinned elsewhere there.
func TestPinned(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		home, away := c.add("s1", 1, 1), c.add("s2", 2, 8)
		home.start()
		away.start()
		stay, go2 := array(jobSpec(home, "stay", "5s"), 10), array(jobSpec(home, "go", "5s"), 10)
		stay.Pin, go2.Pin = "s1", "s2"
		a, b := submit(t, home, stay), submit(t, home, go2)
		waitFor(t, home, a, time.Hour)
		waitFor(t, home, b, time.Hour)
		for task, n := range c.led.where {
			want := home
			if strings.HasPrefix(task, fmt.Sprint(b)+".") {
				want = away
			}
			if n != want.id.String() {
				t.Errorf("task %s ran at the wrong site", task)
			}
		}
		far := jobSpec(home, "nowhere", "1s")
		far.Pin = "s3"
		if _, err := home.svc.Submit(t.Context(), far); !errors.Is(err, queue.Impossible) {
			t.Errorf("submit for an unknown site: %v", err)
		}
	})
}

// TestCancel wants waiting tasks gone at once and running ones stopped within a second, by their owner only.
func TestCancel(t *testing.T) {
	inBubble(t, 4, func(t *testing.T, c *cluster) {
		a, b := c.add("s1", 1, 2), c.add("s2", 2, 2)
		a.start()
		b.start()
		seq := submit(t, a, array(jobSpec(a, "cancel", "100h"), 10))
		time.Sleep(10 * time.Second) // both sites run some
		id := queue.JobID{Seq: seq, Site: "s1-name"}
		if _, _, err := b.svc.Cancel(t.Context(), id, "bob", "", false); !errors.Is(err, queue.Denied) {
			t.Errorf("cancel of another user's job: %v", err)
		}
		one := 10
		if p, r, err := b.svc.Cancel(t.Context(), queue.JobID{Seq: seq, Site: "s1-name", Task: &one}, "ann", "", false); p != 1 || r != 0 || err != nil {
			t.Errorf("cancel of a task: %d, %d, %v", p, r, err)
		}
		began := time.Now()
		p, r, err := b.svc.Cancel(t.Context(), id, "ann", "", false)
		if p != 5 || r != 4 || err != nil {
			t.Errorf("cancel: %d waiting, %d running, %v", p, r, err)
		}
		v := waitFor(t, a, seq, time.Minute)
		if took := time.Since(began); v.Counts.Cancelled != 10 || took > time.Second {
			t.Errorf("after %v: %+v", took, v.Counts)
		}
	})
}

// TestQuestions asks about jobs from another site, and about a site that is gone.
func TestQuestions(t *testing.T) {
	inBubble(t, 5, func(t *testing.T, c *cluster) {
		a, b := c.add("s1", 1, 1), c.add("s2", 2, 1)
		a.start()
		b.start()
		big := jobSpec(a, "big", "1h")
		big.Pin = "s1"
		seq := submit(t, a, array(big, 3))
		time.Sleep(time.Second)
		id := queue.JobID{Seq: seq, Site: "s1-name"}
		v, tasks, err := b.svc.Get(t.Context(), id, 0, 0)
		if err != nil || v.State != queue.Running || len(tasks) != 1 || tasks[0].Node != a.id || !tasks[0].Ended.IsZero() {
			t.Errorf("get: %v, %+v, %+v", err, v.Counts, tasks)
		}
		w, err := b.svc.Why(t.Context(), id)
		if err != nil || len(w.Reasons) != 2 {
			t.Errorf("why: %v, %+v", err, w)
		}
		if l := b.svc.List(t.Context(), nil, "", true, 0); len(l) != 2 || len(l[0].Jobs) != 0 || len(l[1].Jobs) != 1 || l[0].Err != nil || l[1].Err != nil {
			t.Errorf("list: %+v", l)
		}
		if _, _, err := b.svc.Get(t.Context(), queue.JobID{Seq: 99}, 0, 0); !errors.Is(err, queue.NotFound) {
			t.Errorf("no such job: %v", err)
		}
		a.power()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if l := b.svc.List(ctx, nil, "", true, 0); !errors.Is(l[1].Err, queue.Unavailable) || l[0].Err != nil {
			t.Errorf("list with a site gone: %+v", l)
		}
	})
}

// TestDispatch wants a task that is submitted while a node waits to be granted by the commit of the submit.
func TestDispatch(t *testing.T) {
	inBubble(t, 6, func(t *testing.T, c *cluster) {
		n := c.add("s1", 1, 1)
		n.start()
		time.Sleep(time.Second)
		before := len(c.sites["s1"].log)
		s := jobSpec(n, "quick", "1h")
		seq := submit(t, n, s)
		if v, _, err := n.svc.Get(t.Context(), queue.JobID{Seq: seq}, 0, 0); err != nil || v.State != queue.Running {
			t.Errorf("right after the submit: %v, %+v", err, v.Counts)
		}
		if got := len(c.sites["s1"].log) - before; got != 1 {
			t.Errorf("%d entries for a submit and its grant, want 1", got)
		}
		if again := submit(t, n, s); again != seq {
			t.Errorf("the same key made job %d beside %d", again, seq)
		}
	})
}

// TestDrain wants no new work after it, and running attempts to go on and be taken over.
func TestDrain(t *testing.T) {
	inBubble(t, 7, func(t *testing.T, c *cluster) {
		a, b := c.add("s1", 1, 1), c.add("s1", 2, 1)
		a.start()
		b.start()
		seq := submit(t, a, array(jobSpec(a, "drain", "100s"), 8))
		time.Sleep(5 * time.Second)
		if err := b.svc.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Second)
		if got := len(b.daemon.Running()); got != 0 {
			t.Errorf("%d attempts run on a drained node", got)
		}
		b.kill()
		b.start()
		checkOnce(t, c, a, waitFor(t, a, seq, time.Hour), 8)
	})
}
