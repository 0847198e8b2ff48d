package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vcpeer/crdt"
)

// world is a fabric in memory.
type world struct {
	mu    sync.Mutex
	nodes map[crdt.NodeID]*node
	opens atomic.Int64
}

// node is one end of it.
type node struct {
	w     *world
	id    crdt.NodeID
	h     func(context.Context, crdt.NodeID, net.Conn)
	store *Store
	x     *Exchange
	wrap  func(net.Conn) net.Conn // applied to the serving end
}

func (n *node) Handle(_ string, h func(context.Context, crdt.NodeID, net.Conn)) { n.h = h }

func (n *node) Open(_ context.Context, to crdt.NodeID, proto string) (net.Conn, error) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	o := n.w.nodes[to]
	if o == nil || proto != Protocol {
		return nil, errors.New("unreachable")
	}
	n.w.opens.Add(1)
	a, b := net.Pipe()
	if o.wrap != nil {
		b = o.wrap(b)
	}
	go o.h(context.Background(), n.id, b)
	return a, nil
}

func newWorld(t testing.TB, count int) []*node {
	w := &world{nodes: map[crdt.NodeID]*node{}}
	var list []*node
	for i := range count {
		n := &node{w: w, id: crdt.NodeID{byte(i + 1)}, store: newStore(t, nil)}
		n.x = NewExchange(n.store, n, Limits{Stall: 300 * time.Millisecond, Pause: 5 * time.Millisecond})
		w.nodes[n.id] = n
		list = append(list, n)
	}
	return list
}

// cutConn breaks after so many written bytes.
type cutConn struct {
	net.Conn
	left int
}

func (c *cutConn) Write(p []byte) (int, error) {
	if len(p) >= c.left {
		n, _ := c.Conn.Write(p[:c.left])
		c.left = 0
		c.Conn.Close()
		return n, io.ErrClosedPipe
	}
	c.left -= len(p)
	return c.Conn.Write(p)
}

// liar flips a byte of what it serves.
type liar struct{ net.Conn }

func (c liar) Write(p []byte) (int, error) {
	if len(p) < 1000 {
		return c.Conn.Write(p)
	}
	q := bytes.Clone(p)
	q[500] ^= 1
	return c.Conn.Write(q)
}

// stalled stops after the first chunk.
type stalled struct {
	net.Conn
	n int
}

func (c *stalled) Write(p []byte) (int, error) {
	if c.n++; c.n > 2 {
		one := make([]byte, 1)
		c.Conn.Read(one) // nothing comes until the other side closes
		return 0, io.ErrClosedPipe
	}
	return c.Conn.Write(p)
}

func TestFetch(t *testing.T) {
	n := newWorld(t, 4)
	for _, size := range []int{0, 10, chunkBytes, 5*chunkBytes + 3} {
		c := noise(uint64(size), size)
		h := put(t, n[1].store, c)
		if err := n[0].x.Fetch(t.Context(), h, n[2].id, n[3].id, n[1].id); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if !bytes.Equal(content(t, n[0].store, h), c) {
			t.Errorf("%d bytes: wrong content", size)
		}
	}
	absent := hashOf([]byte("absent"))
	if err := n[0].x.Fetch(t.Context(), absent, n[1].id, n[2].id); !errors.Is(err, ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
	if err := n[0].x.Fetch(t.Context(), absent); !errors.Is(err, ErrNotFound) {
		t.Errorf("no candidates: %v", err)
	}
	if err := n[0].x.Fetch(t.Context(), absent, crdt.NodeID{99}); err == nil {
		t.Error("fetched from nowhere")
	}
	have, err := n[0].x.Query(t.Context(), n[1].id, absent, Empty, hashOf(noise(10, 10)))
	if err != nil || fmt.Sprint(have) != "[false true true]" {
		t.Errorf("query: %v %v", have, err)
	}
}

func TestCutAndResume(t *testing.T) {
	n := newWorld(t, 3)
	c := noise(7, 10*chunkBytes+11)
	h := put(t, n[1].store, c)
	put(t, n[2].store, c)
	var sent atomic.Int64
	n[1].wrap = func(b net.Conn) net.Conn { return &counter{&cutConn{b, 3*chunkBytes + 100}, &sent} }
	n[2].wrap = func(b net.Conn) net.Conn { return &counter{&cutConn{b, 2*chunkBytes + 100}, &sent} }
	if err := n[0].x.Fetch(t.Context(), h, n[1].id, n[2].id); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content(t, n[0].store, h), c) {
		t.Error("wrong content")
	}
	if over := sent.Load() - int64(len(c)); over > 5000 {
		t.Errorf("%d bytes were sent again", over)
	}
}

type counter struct {
	net.Conn
	n *atomic.Int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.n.Add(int64(n))
	return n, err
}

func TestResumeAfterRestart(t *testing.T) {
	n := newWorld(t, 2)
	c := noise(7, 6*chunkBytes)
	h := put(t, n[1].store, c)
	if err := os.WriteFile(filepath.Join(n[0].store.partialDir(), h), c[:4*chunkBytes+9], 0o600); err != nil {
		t.Fatal(err)
	}
	var sent atomic.Int64
	n[1].wrap = func(b net.Conn) net.Conn { return &counter{b, &sent} }
	if err := n[0].x.Fetch(t.Context(), h, n[1].id); err != nil {
		t.Fatal(err)
	}
	if got := sent.Load(); got > 2*chunkBytes+1000 || !bytes.Equal(content(t, n[0].store, h), c) {
		t.Errorf("%d bytes sent", got)
	}
	// What lies there may be wrong, or longer than the blob: it costs time, not the blob.
	for seed, junk := range [][]byte{noise(99, chunkBytes), noise(98, 9*chunkBytes)} {
		d := noise(uint64(20+seed), 2*chunkBytes)
		h := put(t, n[1].store, d)
		os.WriteFile(filepath.Join(n[0].store.partialDir(), h), junk, 0o600)
		if err := n[0].x.Fetch(t.Context(), h, n[1].id); err != nil || !bytes.Equal(content(t, n[0].store, h), d) {
			t.Errorf("junk %d: %v", seed, err)
		}
	}
}

func TestCorruptSender(t *testing.T) {
	n := newWorld(t, 3)
	c := noise(5, 3*chunkBytes)
	h := put(t, n[1].store, c)
	n[1].wrap = func(b net.Conn) net.Conn { return liar{b} }
	if err := n[0].x.Fetch(t.Context(), h, n[1].id); !errors.Is(err, ErrCorrupt) || n[0].store.Has(h) {
		t.Errorf("from a liar: %v", err)
	}
	if got := n[0].w.opens.Load(); got != 1 {
		t.Errorf("a liar was asked %d times", got)
	}
	put(t, n[2].store, c)
	if err := n[0].x.Fetch(t.Context(), h, n[1].id, n[2].id); err != nil || !bytes.Equal(content(t, n[0].store, h), c) {
		t.Errorf("from a liar and an honest one: %v", err)
	}
	// The liar is cut, the honest one completes wrong content: nobody is to blame, one alone gives all.
	n[1].wrap = func(b net.Conn) net.Conn { return &cutConn{liar{b}, chunkBytes + 50} }
	if err := n[0].store.Delete(h); err != nil {
		t.Fatal(err)
	}
	if err := n[0].x.Fetch(t.Context(), h, n[1].id, n[2].id); err != nil || !bytes.Equal(content(t, n[0].store, h), c) {
		t.Errorf("from a cut liar and an honest one: %v", err)
	}
}

func TestStall(t *testing.T) {
	n := newWorld(t, 3)
	c := noise(5, 3*chunkBytes)
	h := put(t, n[1].store, c)
	put(t, n[2].store, c)
	n[1].wrap = func(b net.Conn) net.Conn { return &stalled{Conn: b} }
	if err := n[0].x.Fetch(t.Context(), h, n[1].id, n[2].id); err != nil {
		t.Errorf("a stalled sender holds up the fetch: %v", err)
	}
}

func TestConcurrentFetchesShareOne(t *testing.T) {
	n := newWorld(t, 2)
	c := noise(5, 20*chunkBytes)
	h := put(t, n[1].store, c)
	gate := make(chan struct{})
	n[1].wrap = func(b net.Conn) net.Conn { <-gate; return b }
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 10 {
		wg.Go(func() {
			own := t.Context()
			if i == 0 {
				own = ctx
			}
			if err := n[0].x.Fetch(own, h, n[1].id); err != nil && (i != 0 || !errors.Is(err, context.Canceled)) {
				t.Error(err)
			}
		})
	}
	for joined := 0; joined < 10; {
		n[0].x.mu.Lock()
		if f := n[0].x.flights[h]; f != nil {
			joined = f.waiters
		}
		n[0].x.mu.Unlock()
	}
	cancel() // one caller leaves: the others still get it
	close(gate)
	wg.Wait()
	if got := n[0].w.opens.Load(); got != 1 {
		t.Errorf("%d transfers for one blob", got)
	}
}

func TestPush(t *testing.T) {
	n := newWorld(t, 2)
	c := noise(5, 8*chunkBytes+1)
	h := put(t, n[0].store, c)
	if err := n[0].x.Push(t.Context(), h, n[1].id); err != nil || !bytes.Equal(content(t, n[1].store, h), c) {
		t.Fatalf("push: %v", err)
	}
	if err := n[0].x.Push(t.Context(), h, n[1].id); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := n[0].x.Push(t.Context(), hashOf([]byte("absent")), n[1].id); !errors.Is(err, ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
	cuts := 0
	n[1].wrap = func(b net.Conn) net.Conn {
		if cuts++; cuts < 4 {
			return &readCut{Conn: b, left: 2 * chunkBytes}
		}
		return b
	}
	d := noise(6, 9*chunkBytes)
	hd := put(t, n[0].store, d)
	if err := n[0].x.Push(t.Context(), hd, n[1].id); err != nil || !bytes.Equal(content(t, n[1].store, hd), d) {
		t.Errorf("push over a line that breaks: %v", err)
	}
	n[1].store.opt.QuotaBytes = 1
	full := put(t, n[0].store, noise(7, 1000))
	if err := n[0].x.Push(t.Context(), full, n[1].id); !errors.Is(err, ErrRefused) {
		t.Errorf("push to a full store: %v", err)
	}
}

type readCut struct {
	net.Conn
	left int
}

func (c *readCut) Read(p []byte) (int, error) {
	if c.left <= 0 {
		c.Conn.Close()
		return 0, io.ErrClosedPipe
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// TestGarbage: whatever a member sends, the stream ends and the store serves on.
func TestGarbage(t *testing.T) {
	n := newWorld(t, 2)
	for _, b := range [][]byte{{}, {0}, {0xff, 0xff, 0xff, 0xff}, {0, 0, 0, 1, 0xff}, bytes.Repeat([]byte{0}, 100), noise(3, 5000)} {
		c, err := n[0].Open(t.Context(), n[1].id, Protocol)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		go func() { c.Write(b) }()
		if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("%x: stream stays open: %v", b[:min(8, len(b))], err)
		}
		c.Close()
	}
	h := put(t, n[1].store, []byte("still here"))
	if err := n[0].x.Fetch(t.Context(), h, n[1].id); err != nil {
		t.Error(err)
	}
}

func TestBusy(t *testing.T) {
	n := newWorld(t, 2)
	h := put(t, n[1].store, []byte("x"))
	for range cap(n[1].x.serving) {
		n[1].x.serving <- struct{}{}
	}
	if err := n[0].x.Fetch(t.Context(), h, n[1].id); !errors.Is(err, ErrBusy) {
		t.Errorf("busy: %v", err)
	}
}

func FuzzRequest(f *testing.F) {
	c := newCodec()
	for _, r := range []request{{Op: opGet, Hash: make([]byte, 32), Offset: 5}, {Op: opQuery, Hashes: [][]byte{make([]byte, 32)}}} {
		b, err := c.enc.Marshal(&r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0xa1, 0x01, 0x09})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r request
		if c.decode(b, &r) != nil {
			return
		}
		again, err := c.enc.Marshal(&r)
		var s request
		if err != nil || c.decode(again, &s) != nil || fmt.Sprint(r) != fmt.Sprint(s) {
			t.Errorf("%+v does not come back: %v", r, err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	c := newCodec()
	b, err := c.enc.Marshal(&answer{Code: codeOK, Size: 9, Offset: 3, Have: []bool{true}, Text: "x"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var a answer
		if c.decode(b, &a) == nil && (a.Offset > a.Size || a.Size < 0) {
			t.Errorf("accepted %+v", a)
		}
		if c.receive(bytes.NewReader(b), &a) == nil && len(b) < 4 {
			t.Error("a frame without a head")
		}
	})
}

func BenchmarkFetch(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 20} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			n := newWorld(b, 2)
			h := put(b, n[1].store, noise(1, size))
			b.SetBytes(int64(size))
			for b.Loop() {
				if err := n[0].x.Fetch(b.Context(), h, n[1].id); err != nil {
					b.Fatal(err)
				}
				n[0].store.Delete(h)
			}
		})
	}
}
