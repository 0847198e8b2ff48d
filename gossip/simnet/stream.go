package simnet

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// windowBytes is how much one direction of a stream holds before its writer waits: a slow reader is felt.
const windowBytes = 256 << 10

// stream is one end of a stream. Each direction is a half, which its writer fills and its reader empties.
type stream struct {
	node, peer *Node
	in, out    *half
	once       sync.Once
}

// pipe returns the two ends of a stream from a to b.
func pipe(a, b *Node) (near, far *stream) {
	ab, ba := newHalf(), newHalf()
	return &stream{node: a, peer: b, in: ba, out: ab}, &stream{node: b, peer: a, in: ab, out: ba}
}

// half carries bytes one way.
type half struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced whenever something below changes
	ready   []byte        // arrived, not yet read
	flying  int           // bytes written that have not arrived
	last    time.Time     // when the latest piece arrives: pieces do not overtake each other
	closed  bool          // the writer's end arrived
	shut    bool          // the writer has closed; the news may still be on the way
	broken  bool          // nothing more arrives or is taken
	rd, wd  time.Time     // deadlines of reader and writer
}

func newHalf() *half { return &half{changed: make(chan struct{})} }

// change runs f under the lock and wakes who waits.
func (h *half) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	close(h.changed)
	h.changed = make(chan struct{})
}

// wait blocks until the half changes or the deadline passes; called with the lock held, returns with it held.
func (h *half) wait(deadline time.Time) error {
	changed := h.changed
	h.mu.Unlock()
	defer h.mu.Lock()
	if deadline.IsZero() {
		<-changed
		return nil
	}
	left := time.Until(deadline)
	if left <= 0 {
		return os.ErrDeadlineExceeded
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	}
	return nil
}

func (s *stream) Read(b []byte) (int, error) {
	h := s.in
	h.mu.Lock()
	for len(h.ready) == 0 {
		if h.closed || h.broken {
			defer h.mu.Unlock()
			if h.closed {
				return 0, io.EOF
			}
			return 0, io.ErrClosedPipe
		}
		if err := h.wait(h.rd); err != nil {
			h.mu.Unlock()
			return 0, err
		}
	}
	n := copy(b, h.ready)
	h.ready = append([]byte(nil), h.ready[n:]...)
	h.mu.Unlock()
	h.change(func() {})
	return n, nil
}

func (s *stream) Write(b []byte) (int, error) {
	written := 0
	for len(b) > 0 {
		piece := b[:min(len(b), windowBytes/4)]
		if err := s.write(piece); err != nil {
			return written, err
		}
		written, b = written+len(piece), b[len(piece):]
	}
	return written, nil
}

// write sends one piece when the window has room for it.
func (s *stream) write(b []byte) error {
	h := s.out
	h.mu.Lock()
	for !h.broken && !h.shut && len(h.ready)+h.flying+len(b) > windowBytes {
		if err := h.wait(h.wd); err != nil {
			h.mu.Unlock()
			return err
		}
	}
	if h.broken || h.shut {
		h.mu.Unlock()
		return io.ErrClosedPipe
	}
	h.flying += len(b)
	h.mu.Unlock()
	s.node.sent(len(b))
	b = append([]byte(nil), b...)
	s.later(func() { h.change(func() { h.flying -= len(b); h.ready = append(h.ready, b...) }) })
	return nil
}

// later runs f when a piece sent now arrives, in the order of sending; a cut on the way breaks the stream.
func (s *stream) later(f func()) {
	delay, lost := s.node.net.roll(s.node, s.peer)
	if lost {
		delay *= 3 // found missing by the peer's acknowledgement, sent again
	}
	h := s.out
	h.mu.Lock()
	at := time.Now().Add(delay)
	if at.Before(h.last) {
		at = h.last
	}
	at = at.Add(time.Nanosecond) // equal instants have no order
	h.last = at
	h.mu.Unlock()
	time.AfterFunc(time.Until(at), func() {
		if !s.node.net.joined(s.node, s.peer) {
			time.AfterFunc(10*time.Second, s.reset) // what a transport takes to give a silent peer up
			return
		}
		f()
	})
}

func (s *stream) reset() {
	s.in.change(func() { s.in.broken = true })
	s.out.change(func() { s.out.broken = true })
}

// Close ends both directions: the peer reads what is on the way and then io.EOF.
func (s *stream) Close() error {
	s.once.Do(func() {
		s.in.change(func() { s.in.broken = true })
		s.out.change(func() { s.out.shut = true })
		s.later(func() { s.out.change(func() { s.out.closed = true }) })
	})
	return nil
}

func (s *stream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

func (s *stream) SetReadDeadline(t time.Time) error {
	s.in.change(func() { s.in.rd = t })
	return nil
}

func (s *stream) SetWriteDeadline(t time.Time) error {
	s.out.change(func() { s.out.wd = t })
	return nil
}

func (s *stream) LocalAddr() net.Addr  { return addr(s.node.id.String()) }
func (s *stream) RemoteAddr() net.Addr { return addr(s.peer.id.String()) }

// addr is a node ID as a network address.
type addr string

func (addr) Network() string  { return "simnet" }
func (a addr) String() string { return string(a) }
