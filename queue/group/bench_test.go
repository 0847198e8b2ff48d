package group

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// BenchmarkPropose measures acknowledged proposals of 256 bytes on real disks: all members share one disk and the CPUs.
func BenchmarkPropose(b *testing.B) {
	for _, members := range []int{1, 3} {
		b.Run(fmt.Sprint("members=", members), func(b *testing.B) {
			s := newSite(b, members, func(c *Config) { c.WAL.SegmentBytes = 16 << 20; c.Machine = &counter{} })
			dir := b.TempDir()
			for i := range members {
				s.start(i, filepath.Join(dir, fmt.Sprint(i)), nil, i == 0)
			}
			defer s.stop()
			s.awaitVoters(members, 0)
			l := s.leader()
			for _, proposers := range []int{1, 16, 256} {
				b.Run(fmt.Sprint("proposers=", proposers), func(b *testing.B) {
					command := make([]byte, 256)
					work := make(chan struct{}, proposers)
					var wg sync.WaitGroup
					for range proposers {
						wg.Go(func() {
							for range work {
								if _, err := l.group.Propose(b.Context(), command); err != nil {
									b.Error(err)
								}
							}
						})
					}
					for range b.N {
						work <- struct{}{}
					}
					close(work)
					wg.Wait()
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "proposals/s")
				})
			}
		})
	}
}

// counter is the cheapest machine.
type counter struct{ n int }

func (c *counter) Apply(uint64, []byte) any  { c.n++; return c.n }
func (c *counter) Snapshot() ([]byte, error) { return nil, nil }
func (c *counter) Restore([]byte) error      { return nil }

// BenchmarkFailover measures from the loss of the leader to the next acknowledged write, on real disks and real time.
func BenchmarkFailover(b *testing.B) {
	s := newSite(b, 3, nil)
	dir := b.TempDir()
	for i := range 3 {
		s.start(i, filepath.Join(dir, fmt.Sprint(i)), nil, i == 0)
	}
	defer s.stop()
	s.awaitVoters(3, 0)
	var took []time.Duration
	for b.Loop() {
		l := s.leader()
		s.kill(l)
		took = append(took, s.put(fmt.Sprint("after ", len(took))))
		n := s.start(indexOf(l), l.dir, nil, false)
		s.await("it follows", time.Minute, func() bool { return n.group.Status().Role == RoleFollower })
		s.await("a leader", time.Minute, func() bool { return s.leader() != nil })
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "ms-p50")
	b.ReportMetric(float64(took[len(took)-1].Milliseconds()), "ms-max")
}
