package crdt

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

// BenchmarkViewOneChange measures a change of one host among many, with the view after it.
func BenchmarkViewOneChange(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprintf("hosts=%d", n), func(b *testing.B) {
			w := newWorld(b, 1)
			founder := w.nodes[0]
			for i := 1; i < n; i++ {
				id := NodeIDOf(testKey(i))
				w.update(b, 0, func(tx *Tx) error {
					if err := tx.AdmitMember(id, TokenID{}); err != nil {
						return err
					}
					key := string(id[:])
					tx.set(kindHost, key, fieldName, fmt.Sprintf("n%d", i))
					tx.set(kindHost, key, fieldAddress, uint64(i))
					for _, f := range []string{fieldOS, fieldArch, fieldVersion} {
						tx.set(kindHost, key, f, "linux")
					}
					tx.set(kindHost, key, fieldAddrs, []string{"/ip4/192.0.2.1/udp/7475/quic-v1"})
					tx.set(kindHost, key, fieldCPUs, uint64(8))
					tx.set(kindHost, key, fieldMem, uint64(1<<34))
					tx.set(kindHost, key, fieldOverlay, uint64(1))
					tx.set(kindHost, key, fieldUnderlay, [][]byte{{192, 0, 2, 1}})
					tx.set(kindHost, key, fieldUnderlayMTU, uint64(1500))
					return nil
				})
			}
			i, before := 0, cpuTime(b)
			for b.Loop() {
				i++
				w.update(b, 0, func(tx *Tx) error { return tx.PutHost(HostFacts{CPUs: i%100 + 1}) })
				if len(founder.state.View(w.now).Members()) != n {
					b.Fatal("members are missing")
				}
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// cpuTime is what the process has used of the processors: a busy machine does not change it.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
