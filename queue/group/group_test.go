package group

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"vcpeer/deploy/test/bubble"
	"vcpeer/queue/wal"
	"vcpeer/queue/wal/waltest"
)

// inBubble runs f in virtual time on n nodes with disks in memory and ends them.
func inBubble(t *testing.T, n int, tune func(*Config), f func(t *testing.T, s *site)) {
	t.Helper()
	runBubble(t, n, "disk", &waltest.FS{}, tune, f)
}

// onDisk is inBubble on the real disk.
func onDisk(t *testing.T, n int, f func(t *testing.T, s *site)) {
	t.Helper()
	runBubble(t, n, t.TempDir(), wal.OS(), nil, f)
}

func runBubble(t *testing.T, n int, dir string, fs wal.FS, tune func(*Config), f func(t *testing.T, s *site)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		s := newSite(t, n, tune)
		for i := range n {
			s.start(i, filepath.Join(dir, fmt.Sprint(i)), fs, i == 0)
		}
		defer s.stop()
		f(t, s)
	})
}

func TestOneNodeServesAtOnce(t *testing.T) {
	inBubble(t, 1, nil, func(t *testing.T, s *site) {
		began := time.Now()
		s.put("a")
		if d := time.Since(began); d > 100*time.Millisecond {
			t.Errorf("first write after %v: a single voter must not wait for an election", d)
		}
		s.awaitVoters(1, 0)
	})
}

func TestGrowth(t *testing.T) {
	for _, tt := range []struct{ nodes, voters, learners int }{{2, 1, 1}, {3, 3, 0}, {4, 3, 0}, {6, 3, 0}, {7, 5, 0}} {
		t.Run(fmt.Sprint(tt.nodes), func(t *testing.T) {
			inBubble(t, tt.nodes, nil, func(t *testing.T, s *site) {
				s.put("first")
				s.awaitVoters(tt.voters, tt.learners)
				s.put("second")
				holders := 0
				s.await("copies", 10*time.Second, func() bool {
					holders = 0
					for _, n := range s.nodes {
						if n.holds("first") && n.holds("second") {
							holders++
						}
					}
					return holders >= tt.voters+tt.learners
				})
				for _, n := range s.nodes {
					s.await("everybody knows the leader", 10*time.Second, func() bool { return n.group.Status().Leader == s.leader().id })
					var notLeader ErrNotLeader
					if _, err := n.group.Propose(t.Context(), []byte("x")); n != s.leader() && (!errors.As(err, &notLeader) || notLeader.Leader != s.leader().id) {
						t.Errorf("propose on %s: %v, want the leader's name", n.group.Status().Role, err)
					}
				}
			})
		})
	}
}

func TestLeaderKilled(t *testing.T) {
	onDisk(t, 3, func(t *testing.T, s *site) {
		s.awaitVoters(3, 0)
		s.put("before")
		old := s.leader()
		s.kill(old)
		// Two are left: each time that both ask for votes at once costs an election timeout, at most 0.8 s. Nearly always
		// it takes one or two.
		if d := s.put("after"); d > 5*time.Second {
			t.Errorf("writes were away for %v", d)
		}
		n := s.start(indexOf(old), old.dir, old.fs, false)
		s.await("the old leader catches up", 10*time.Second, func() bool { return n.holds("before") && n.holds("after") })
	})
}

func indexOf(n *node) int {
	for i := 0; ; i++ {
		if nodeID(i) == n.id {
			return i
		}
	}
}

func TestSilentVoterIsReplaced(t *testing.T) {
	inBubble(t, 4, nil, func(t *testing.T, s *site) {
		s.awaitVoters(3, 0)
		leader := s.leader().group.Status()
		var victim *node
		for _, m := range leader.Voters {
			if m.Node != leader.Leader {
				victim = s.nodes[m.Node]
			}
		}
		s.kill(victim)
		time.Sleep(20 * time.Second)
		if !votes(s, victim) {
			t.Errorf("replaced after 20 s, ReplaceAfter is 30 s")
		}
		s.await("replacement", time.Minute, func() bool { return !votes(s, victim) })
		s.awaitVoters(3, 0)
		n := s.start(indexOf(victim), victim.dir, victim.fs, false)
		s.put("later")
		s.await("the replaced node learns that it is spare", 20*time.Second, func() bool { return n.group.Status().Role == RoleSpare })
	})
}

func votes(s *site, n *node) bool {
	l := s.leader()
	if l == nil {
		return true
	}
	for _, m := range l.group.Status().Voters {
		if m.Node == n.id {
			return true
		}
	}
	return false
}

func TestGoneVoterIsReplacedAtOnce(t *testing.T) {
	inBubble(t, 4, nil, func(t *testing.T, s *site) {
		s.awaitVoters(3, 0)
		leader := s.leader()
		s.mark(leader.id, false, true)
		began := time.Now()
		s.await("the leader itself is replaced", 10*time.Second, func() bool {
			l := s.leader()
			return l != nil && l != leader && !votes(s, leader) && len(l.group.Status().Voters) == 3
		})
		t.Logf("after %v", time.Since(began))
		s.put("after")
	})
}

func TestWipedDiskJoinsAsNew(t *testing.T) {
	onDisk(t, 3, func(t *testing.T, s *site) {
		s.awaitVoters(3, 0)
		s.put("kept")
		victim := s.leader()
		before := victim.group.Status().RaftID
		s.kill(victim)
		s.put("meanwhile")
		n := s.start(indexOf(victim), victim.dir+"-new", victim.fs, false)
		s.await("the new disk votes", 30*time.Second, func() bool { return n.group.Status().Role == RoleFollower && n.holds("kept") })
		s.awaitVoters(3, 0)
		for _, m := range s.leader().group.Status().Voters {
			if m.RaftID == before {
				t.Errorf("raft ID %x of the wiped disk still votes", before)
			}
		}
	})
}

func TestPowerCutOfAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	disks := []*waltest.FS{{}, {}, {}}
	bubble.Test(t, func(t *testing.T) {
		s := newSite(t, 3, func(c *Config) { c.WAL.Plain = true; c.SnapshotEntries = 40 })
		defer s.stop()
		for i := range 3 {
			s.start(i, "log", disks[i], i == 0)
		}
		s.awaitVoters(3, 0)
		for round := range 5 {
			for i := range 20 {
				s.put(fmt.Sprintf("%d.%d", round, i))
			}
			for i := range 3 {
				s.cutPower(s.nodes[nodeID(i)], disks[i])
				disks[i].Crash(rng)
			}
			began := time.Now()
			for i := range 3 {
				s.start(i, "log", disks[i], false)
			}
			s.await("a leader", 10*time.Second, func() bool { return s.leader() != nil })
			if d := time.Since(began); d > 5*time.Second {
				t.Errorf("round %d: writable after %v", round, d)
			}
			for i := range 20 {
				if want := fmt.Sprintf("%d.%d", round, i); !s.leader().holds(want) {
					t.Errorf("acknowledged %s is lost", want)
				}
			}
		}
	})
}

func TestReadIndexAndTransfer(t *testing.T) {
	inBubble(t, 3, nil, func(t *testing.T, s *site) {
		s.awaitVoters(3, 0)
		ctx := context.Background()
		for round := range 5 {
			key := fmt.Sprint("r", round)
			s.put(key)
			for _, n := range s.nodes {
				if err := n.group.ReadIndex(ctx); err != nil {
					t.Fatal(err)
				}
				if !n.holds(key) {
					t.Errorf("%s is missing behind a read barrier", key)
				}
			}
			old := s.leader()
			began := time.Now()
			if err := old.group.Transfer(ctx); err != nil {
				t.Fatalf("transfer: %v", err)
			}
			s.await("another leader", 2*time.Second, func() bool { l := s.leader(); return l != nil && l != old })
			if d := time.Since(began); d > 200*time.Millisecond {
				t.Errorf("transfer took %v", d)
			}
		}
	})
}

func TestCutOffLeaderRefuses(t *testing.T) {
	inBubble(t, 3, nil, func(t *testing.T, s *site) {
		s.awaitVoters(3, 0)
		old := s.leader()
		s.net.cut(old.id, true)
		_, err := old.group.Propose(context.Background(), []byte("into the void"))
		if !errors.Is(err, ErrUncertain) {
			t.Errorf("propose without quorum: %v, want ErrUncertain", err)
		}
		_, err = old.group.Propose(context.Background(), []byte("again"))
		if !errors.Is(err, ErrNoQuorum) {
			t.Errorf("propose without leader: %v, want ErrNoQuorum", err)
		}
		if p := old.group.Status().Problem; p == "" {
			t.Error("status does not say that there is no quorum")
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := old.group.ReadIndex(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("read without quorum: %v", err)
		}
		s.put("elsewhere")
		time.Sleep(time.Minute)
		// The two may have split the vote, and taken several terms to elect one of them.
		term := s.leader().group.Status().Term
		s.net.cut(old.id, false)
		s.await("the cut-off node follows", 10*time.Second, func() bool { return old.holds("elsewhere") })
		if now := old.group.Status().Term; now != term {
			t.Errorf("term went from %d to %d: the cut-off node disturbed the others", term, now)
		}
		var notLeader ErrNotLeader
		_, err = old.group.Propose(context.Background(), []byte("follower"))
		if l := s.leader(); l != old && (!errors.As(err, &notLeader) || notLeader.Leader != l.id) {
			t.Errorf("propose on a follower: %v", err)
		}
	})
}

func TestSnapshotsReachSlowMembers(t *testing.T) {
	tune := func(c *Config) { c.SnapshotEntries, c.TrailingEntries = 50, 10 }
	inBubble(t, 3, tune, func(t *testing.T, s *site) {
		s.awaitVoters(3, 0)
		var slow *node
		for _, n := range s.nodes {
			if n != s.leader() {
				slow = n
			}
		}
		s.kill(slow)
		for i := range 300 {
			s.put(fmt.Sprint(i))
		}
		slow = s.start(indexOf(slow), slow.dir, slow.fs, false)
		s.await("catch up by snapshot", 10*time.Second, func() bool { return slow.holds("0") && slow.holds("299") })
		if n := len(slow.group.loop.core.store.entries); n > 200 {
			t.Errorf("%d entries in memory: the snapshot was not used", n)
		}
	})
}

func TestConcurrentProposersShareEntries(t *testing.T) {
	onDisk(t, 3, func(t *testing.T, s *site) {
		s.awaitVoters(3, 0)
		l := s.leader()
		before := l.group.Status().Applied
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() {
				if _, err := l.group.Propose(t.Context(), fmt.Appendf(nil, "p%d", i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Second) // the status shows the applied index at the next tick
		if used := l.group.Status().Applied - before; used > 250 {
			t.Errorf("500 concurrent proposals took %d entries: they were not batched", used)
		}
		if _, err := l.group.Propose(t.Context(), make([]byte, MaxBytes+1)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("oversized proposal: %v", err)
		}
	})
}

func TestFullDiskHandsOver(t *testing.T) {
	disks := []*waltest.FS{{}, {}, {}}
	bubble.Test(t, func(t *testing.T) {
		s := newSite(t, 3, func(c *Config) { c.WAL.Plain = true })
		defer s.stop()
		for i := range 3 {
			s.start(i, "log", disks[i], i == 0)
		}
		s.awaitVoters(3, 0)
		s.put("before")
		full := s.leader()
		disk := disks[indexOf(full)]
		disk.SetCapacity(disk.Used() + 10)
		s.await("another leader", 10*time.Second, func() bool { l := s.leader(); return l != nil && l != full })
		s.put("while full")
		disk.SetCapacity(0)
		s.await("back when there is space", 10*time.Second, func() bool { return full.holds("while full") })
	})
}

func TestFullDiskOfOne(t *testing.T) {
	disk := &waltest.FS{}
	bubble.Test(t, func(t *testing.T) {
		s := newSite(t, 1, func(c *Config) { c.WAL.Plain = true })
		defer s.stop()
		n := s.start(0, "log", disk, true)
		s.put("before")
		disk.SetCapacity(disk.Used() + 10)
		_, err := n.group.Propose(t.Context(), make([]byte, 1000))
		if !errors.Is(err, wal.ErrNoSpace) {
			t.Errorf("propose on a full disk: %v, want wal.ErrNoSpace", err)
		}
		time.Sleep(3 * time.Second)
		if _, err = n.group.Propose(t.Context(), []byte("x")); !errors.Is(err, wal.ErrNoSpace) || errors.Is(err, ErrUncertain) {
			t.Errorf("propose while parked: %v, want wal.ErrNoSpace alone", err)
		}
		disk.SetCapacity(0)
		s.put("after")
		if !n.holds("before") {
			t.Error("acknowledged command is lost")
		}
	})
}

func TestFsyncErrorEndsTheMember(t *testing.T) {
	disk := &waltest.FS{}
	bubble.Test(t, func(t *testing.T) {
		s := newSite(t, 1, func(c *Config) { c.WAL.Plain = true })
		n := s.start(0, "log", disk, true)
		s.put("before")
		disk.FailSync(errors.New("input/output error"))
		if _, err := n.group.Propose(t.Context(), []byte("x")); !errors.Is(err, ErrUncertain) {
			t.Errorf("propose: %v, want ErrUncertain", err)
		}
		if err := <-n.err; !errors.Is(err, wal.ErrFailed) {
			t.Errorf("Run: %v, want wal.ErrFailed", err)
		}
		if _, err := n.group.Propose(t.Context(), []byte("x")); !errors.Is(err, ErrStopped) {
			t.Errorf("propose afterwards: %v, want ErrStopped", err)
		}
	})
}

func TestDirectoryOfAnotherSite(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Dir: dir, Self: nodeID(1), Site: "a", Fabric: newNetwork().fabric(t.Context(), nodeID(1)), Machine: &ledger{}, Peers: func() []Candidate { return nil }}
	g, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Found(); err != nil {
		t.Fatal(err)
	}
	if err := g.Found(); !errors.Is(err, ErrExists) {
		t.Errorf("second Found: %v, want ErrExists", err)
	}
	if _, err := Open(cfg); !errors.Is(err, wal.ErrLocked) {
		t.Errorf("second Open: %v, want wal.ErrLocked", err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Site = "b"
	if _, err := Open(cfg); !errors.Is(err, ErrForeign) {
		t.Errorf("Open for another site: %v, want ErrForeign", err)
	}
}
