package exec

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkNull runs /bin/true as attempts on 2 and 8 slots, beside bare fork+exec+wait of the same, in one process each.
// CPU is that of this process and its ended children and, for attempts, of the shims; the latter is in shim-cpu-us/op.
func BenchmarkNull(b *testing.B) {
	for _, slots := range []int{2, 8} {
		b.Run(fmt.Sprintf("forkexec/slots=%d", slots), func(b *testing.B) {
			each(b, slots, func(int) error { return exec.Command("/bin/true").Run() })
		})
		for _, cg := range []string{CgroupOff, ""} {
			name := "attempt"
			if cg == "" {
				name = "attempt+cgroup"
			}
			b.Run(fmt.Sprintf("%s/slots=%d", name, slots), func(b *testing.B) {
				r := newRig(b, func(c *Config) { c.Cgroup = cg })
				ended := make([]chan struct{}, slots)
				var warm sync.WaitGroup
				for i := range slots {
					ended[i] = make(chan struct{}, 1)
				}
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				go func() {
					for {
						select {
						case res := <-r.Results():
							if res.Exit != 0 {
								b.Errorf("%+v", res)
							}
							r.Ack(res.Key)
							ended[res.Meta[0]] <- struct{}{}
						case <-ctx.Done():
							return
						}
					}
				}()
				run := func(slot, n int) error {
					s := Spec{Key: fmt.Sprintf("%d.%d.1", slot, n), Argv: []string{"/bin/true"}, Meta: []byte{byte(slot)}}
					if err := r.Start(ctx, s, time.Minute); err != nil {
						return err
					}
					<-ended[slot]
					return nil
				}
				for i := range slots {
					warm.Go(func() { run(i, 1<<30) })
				}
				warm.Wait()
				before := r.shimCPU()
				next := make([]int, slots)
				b.ResetTimer()
				each(b, slots, func(slot int) error { next[slot]++; return run(slot, next[slot]) })
				b.ReportMetric(float64((r.shimCPU()-before).Microseconds())/float64(b.N), "shim-cpu-us/op")
			})
		}
	}
}

// each calls f b.N times on so many goroutines and reports the CPU used.
func each(b *testing.B, slots int, f func(slot int) error) {
	var before, after, kids, kidsAfter unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &before)
	unix.Getrusage(unix.RUSAGE_CHILDREN, &kids)
	var wg sync.WaitGroup
	for s := range slots {
		wg.Go(func() {
			for i := s; i < b.N; i += slots {
				if err := f(s); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	unix.Getrusage(unix.RUSAGE_SELF, &after)
	unix.Getrusage(unix.RUSAGE_CHILDREN, &kidsAfter)
	cpu := func(r unix.Rusage) int64 { return r.Utime.Nano() + r.Stime.Nano() }
	b.ReportMetric(float64(cpu(after)-cpu(before)+cpu(kidsAfter)-cpu(kids))/1e3/float64(b.N), "cpu-us/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "attempts/s")
}

// shimCPU is the time of the shims and of the jobs they have waited for.
func (r *rig) shimCPU() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ticks int64
	for _, l := range r.links {
		ticks += cpuTicks(r.t, l.me.PID)
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// cpuTicks reads utime, stime, cutime and cstime, in units of 1/100 s.
func cpuTicks(t testing.TB, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var sum int64
	for _, i := range []int{11, 12, 13, 14} {
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}
