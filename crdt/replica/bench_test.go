package replica

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vcpeer/crdt"
)

// BenchmarkUpdate measures durable updates: one writer alone pays a disk flush for each, many share it.
func BenchmarkUpdate(b *testing.B) {
	for _, writers := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			r := cluster(b, 1)[0]
			var n atomic.Uint64
			b.SetParallelism(max(1, writers/runtime.GOMAXPROCS(0)))
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					version := strconv.FormatUint(n.Add(1), 10)
					if err := r.Update(context.Background(), func(tx *crdt.Tx) error {
						return tx.PutHost(crdt.HostFacts{Version: version})
					}); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// history returns n batches of a founder, as a store would send them.
func history(b *testing.B, n int) (founding []byte, batches [][]byte) {
	b.Helper()
	r := cluster(b, 1)[0]
	r.OnLocal(func(raw []byte) { batches = append(batches, raw) })
	var next atomic.Int64
	b.SetParallelism(64)
	for range n / 100 {
		done := make(chan error)
		for range 100 {
			i := next.Add(1)
			go func() {
				done <- r.Update(context.Background(), func(tx *crdt.Tx) error {
					return tx.PutHost(crdt.HostFacts{CPUs: int(i), MemBytes: i})
				})
			}()
		}
		for range 100 {
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
	}
	f, _ := r.Founding()
	return f.Raw(), batches
}

// BenchmarkReceive measures taking in 10,000 batches, of which verifying the signatures is most.
func BenchmarkReceive(b *testing.B) {
	founding, batches := history(b, 10_000)
	b.ResetTimer()
	for b.Loop() {
		b.StopTimer()
		r := open(b, b.TempDir(), keyOf(2))
		if err := r.Adopt(founding); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if fresh, err := r.Receive(context.Background(), batches); err != nil || len(fresh) != len(batches) {
			b.Fatal(len(fresh), err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batches)), "ns/batch")
}

// BenchmarkReopen measures a restart, and what the process then holds.
func BenchmarkReopen(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			founding, batches := history(b, n)
			dir := b.TempDir()
			r, err := Open(Options{Dir: dir, Key: keyOf(2), Now: time.Now})
			if err != nil {
				b.Fatal(err)
			}
			if err := r.Adopt(founding); err != nil {
				b.Fatal(err)
			}
			if _, err := r.Receive(context.Background(), batches); err != nil {
				b.Fatal(err)
			}
			batches = nil
			if err := r.Close(); err != nil {
				b.Fatal(err)
			}
			debug.FreeOSMemory()
			b.ResetTimer()
			for b.Loop() {
				r, err := Open(Options{Dir: dir, Key: keyOf(2), Now: time.Now})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				debug.FreeOSMemory()
				b.ReportMetric(rssMiB(b), "MiB-RSS")
				if err := r.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// rssMiB is the resident memory of this process.
func rssMiB(b *testing.B) float64 {
	b.Helper()
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip(err)
	}
	for line := range strings.Lines(string(raw)) {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.Fields(kb)[0])
			if err != nil {
				b.Fatal(err)
			}
			return float64(n) / 1024
		}
	}
	return 0
}
