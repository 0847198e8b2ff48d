package fabric

import (
	"sync/atomic"
	"testing"
	"time"

	"vcpeer/crdt"
)

// BenchmarkDatagram sends datagrams of the size of a gossip packet, keeping 16 under way.
func BenchmarkDatagram(b *testing.B) {
	for name, opts := range map[string][]option{"quic": nil, "stream": {overTCP}} {
		b.Run(name, func(b *testing.B) {
			fs := mesh(b, &book{}, "a b", opts...)
			var got atomic.Int64
			room := make(chan struct{}, 16)
			fs[1].Receive(1, func(crdt.NodeID, []byte) {
				got.Add(1)
				select {
				case <-room:
				default:
				}
			})
			body := make([]byte, 1100)
			b.SetBytes(int64(len(body)))
			fs[0].Send(fs[1].Self(), 1, body)
			eventually(b, "the first", func() bool { return got.Load() > 0 })
			got.Store(0)
			lost := time.NewTimer(0)
			b.ResetTimer()
			for range b.N {
				lost.Reset(50 * time.Millisecond)
				select {
				case room <- struct{}{}:
				case <-lost.C: // one was dropped and will never make room
				}
				fs[0].Send(fs[1].Self(), 1, body)
			}
			b.StopTimer()
			b.ReportMetric(float64(got.Load())/float64(b.N), "delivered")
		})
	}
}

// BenchmarkSend is what a Send costs its caller.
func BenchmarkSend(b *testing.B) {
	fs := mesh(b, &book{}, "a b")
	body := make([]byte, 200)
	b.ReportAllocs()
	for b.Loop() {
		fs[0].Send(fs[1].Self(), 1, body)
	}
}

// BenchmarkStream opens a stream, asks and is answered.
func BenchmarkStream(b *testing.B) {
	for name, opts := range map[string][]option{"quic": nil, "tcp": {overTCP}} {
		b.Run(name, func(b *testing.B) {
			fs := mesh(b, &book{}, "a b", opts...)
			fs[1].Handle(echoProto, echo)
			b.ReportAllocs()
			for b.Loop() {
				c, err := fs[0].Open(b.Context(), fs[1].Self(), echoProto)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := c.Write([]byte("ping")); err != nil {
					b.Fatal(err)
				}
				var buf [4]byte
				if _, err := c.Read(buf[:]); err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
		})
	}
}

// BenchmarkConnect makes a connection and throws it away.
func BenchmarkConnect(b *testing.B) {
	for name, opts := range map[string][]option{"quic": nil, "tcp": {overTCP}} {
		b.Run(name, func(b *testing.B) {
			fs := mesh(b, &book{}, "a b", opts...)
			fs[1].Handle(echoProto, echo)
			for b.Loop() {
				c, err := fs[0].Open(b.Context(), fs[1].Self(), echoProto)
				if err != nil {
					b.Fatal(err)
				}
				c.Close()
				fs[0].Disconnect(fs[1].Self())
			}
		})
	}
}
