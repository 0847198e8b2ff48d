package fabric

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"vcpeer/crdt"
)

type packet struct {
	from crdt.NodeID
	body string
}

// collect keeps what f receives of a class.
func collect(f *Fabric, class byte) <-chan packet {
	out := make(chan packet, 1024)
	f.Receive(class, func(from crdt.NodeID, b []byte) {
		select {
		case out <- packet{from, string(b)}:
		default:
		}
	})
	return out
}

func next(t testing.TB, in <-chan packet) packet {
	t.Helper()
	select {
	case p := <-in:
		return p
	case <-time.After(10 * time.Second):
		t.Fatal("no datagram in 10 s")
		return packet{}
	}
}

func TestDatagrams(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts []option
	}{{"quic", nil}, {"stream", []option{overTCP}}} {
		t.Run(tt.name, func(t *testing.T) {
			fs := mesh(t, &book{}, "a b", tt.opts...)
			a, b := fs[0], fs[1]
			at, bt := collect(a, 7), collect(b, 7)
			other := collect(b, 8)
			body := string(bytes.Repeat([]byte("x"), a.MaxDatagram()))
			a.Send(b.Self(), 7, []byte(body)) // dials
			if p := next(t, bt); p.from != a.Self() || p.body != body {
				t.Errorf("b got %d bytes from %s", len(p.body), p.from.Short())
			}
			big := string(bytes.Repeat([]byte("y"), 10_000)) // more than any QUIC packet holds
			a.Send(b.Self(), 7, []byte(big))
			if p := next(t, bt); p.body != big {
				t.Errorf("b got %d of %d bytes", len(p.body), len(big))
			}
			b.Send(a.Self(), 7, nil)
			if p := next(t, at); p.from != b.Self() || p.body != "" {
				t.Errorf("a got %+v", p)
			}
			if len(other) != 0 {
				t.Error("a datagram came under another class")
			}
			eventually(t, "a round trip time", func() bool { d, ok := a.RTT(b.Self()); return ok && d > 0 && d < 5*time.Second })
		})
	}
}

// Send copies: the caller may reuse its buffer at once.
func TestSendCopies(t *testing.T) {
	fs := mesh(t, &book{}, "a b")
	in := collect(fs[1], 3)
	buf := []byte("one")
	fs[0].Send(fs[1].Self(), 3, buf)
	copy(buf, "two")
	if p := next(t, in); p.body != "one" {
		t.Errorf("got %q", p.body)
	}
}

// Sending to the dead must be quick and cost no dial each time; when the peer comes back it is reached again.
func TestSendToDeadPeer(t *testing.T) {
	records, dead := &book{}, idOf("b")
	a := mesh(t, records, "a")[0]
	records.set(Member, dead)
	a.Learn(dead, []string{"/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/1/quic-v1"})
	begin := time.Now()
	for range 10_000 {
		a.Send(dead, 1, []byte("anybody there?"))
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("10,000 sends to a dead peer took %v", d)
	}
	l := a.linkTo(dead)
	l.mu.Lock()
	waiting := len(l.out.queue)
	l.mu.Unlock()
	if waiting > outboxDialling {
		t.Errorf("%d datagrams wait for a dead peer", waiting)
	}
	if n := a.Dropped(dead); n < 10_000-2*outboxDialling {
		t.Errorf("%d of 10,000 datagrams counted as dropped", n)
	}
	b := start(t, "b", records)
	in := collect(b, 1)
	a.Learn(b.Self(), b.Addrs())
	eventually(t, "b to hear from a", func() bool {
		a.Send(b.Self(), 1, []byte("hello"))
		return len(in) > 0
	})
}

// Members flood a slow one: nobody waits, memory stays bounded, the newest arrives.
func TestSendNeverBlocks(t *testing.T) {
	fs := mesh(t, &book{}, "a b")
	a, b := fs[0], fs[1]
	var got atomic.Int64
	hold := make(chan struct{})
	b.Receive(1, func(crdt.NodeID, []byte) { got.Add(1); <-hold })
	body := make([]byte, a.MaxDatagram())
	begin := time.Now()
	for range 20_000 {
		a.Send(b.Self(), 1, body)
	}
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("20,000 sends to a stuck peer took %v", d)
	}
	eventually(t, "b to get something", func() bool { return got.Load() > 0 })
	l := a.linkTo(b.Self())
	l.mu.Lock()
	if n := len(l.out.queue); n > outboxConnected {
		t.Errorf("%d datagrams queued", n)
	}
	l.mu.Unlock()
	close(hold)
}

func TestOutbox(t *testing.T) {
	now := time.Unix(1e9, 0)
	var o outbox
	for i := range 100 {
		if start := o.put([]byte{byte(i)}, true, now); start != (i == 0) {
			t.Fatalf("put %d: start = %v", i, start)
		}
	}
	if len(o.queue) != outboxConnected || o.queue[0][0] != 100-outboxConnected {
		t.Errorf("queue holds %d from %d; want the newest %d", len(o.queue), o.queue[0][0], outboxConnected)
	}
	for o.take() != nil {
	}
	if o.draining {
		t.Error("empty and still draining")
	}
	var waits []time.Duration
	for range 10 {
		o.put([]byte{1}, false, o.retry)
		o.fail(o.retry)
		o.take()
		waits = append(waits, 0)
		if o.put([]byte{1}, false, o.retry.Add(-time.Nanosecond)) {
			t.Fatalf("a dial before its time, after %d failures", len(waits))
		}
	}
	begin := o.retry
	o.fail(begin)
	if d := o.retry.Sub(begin); d < retryMost*3/4 || d > retryMost*5/4 {
		t.Errorf("after many failures the next dial is in %v, want about %v", d, retryMost)
	}
	o.take()
	o.revive()
	if !o.put([]byte{1}, false, begin) {
		t.Error("a peer that came back is not dialled at once")
	}
}

func ExampleSplitAddr() {
	for _, s := range []string{"kyoto.example.org", "192.0.2.7:8000", "2001:db8::7", "[2001:db8::7]:8000"} {
		host, port, _ := SplitAddr(s)
		fmt.Println(host, port)
	}
	// Output:
	// kyoto.example.org 7475
	// 192.0.2.7 8000
	// 2001:db8::7 7475
	// 2001:db8::7 8000
}
