package sealed

import (
	"bufio"
	"encoding/binary"
	"io"
	"sync"
	"time"
)

// A stream carries what datagrams carry inside, each with its length before it: 2 bytes, big endian, of what follows.
const lengthBytes = 2

// streamLink carries the frames of a peer over a stream. One goroutine writes: it alone empties the peer's queue while
// there is no session, and what waits too long there is dropped as anywhere. Another reads.
type streamLink struct {
	rwc  io.ReadWriteCloser
	wake chan struct{} // holds one: the queue is not empty
	over chan struct{} // closed when it ends
	once sync.Once
}

func (s *streamLink) end() {
	s.once.Do(func() {
		close(s.over)
		s.rwc.Close()
	})
}

// restream makes a peer use a stream, or none.
func (l *Link) restream(p *peer, want io.ReadWriteCloser, running *sync.WaitGroup) {
	old := p.stream.Load()
	if old != nil && old.rwc == want {
		return // also when it has ended: it is not tried again
	}
	var next *streamLink
	if want != nil {
		next = &streamLink{rwc: want, wake: make(chan struct{}, 1), over: make(chan struct{})}
	}
	p.stream.Store(next)
	if old != nil {
		old.end()
	}
	if next == nil {
		return
	}
	running.Go(func() {
		defer next.end()
		if err := l.writeStream(p, next); err != nil {
			l.cfg.Log.Debug("stream ended", "peer", p.id, "err", err)
		}
	})
	running.Go(func() {
		defer next.end()
		l.cfg.Log.Debug("stream ended", "peer", p.id, "err", l.readStream(p, next))
	})
}

// writeStream empties the peer's queue into a stream, until that ends.
func (l *Link) writeStream(p *peer, s *streamLink) error {
	batch, buf := make([]*packet, 0, 128), make([]byte, 0, 2*largestFrame)
	for {
		batch = batch[:0]
		if p.best() == nil {
			l.mu.Lock()
			batch = l.sched.drain(&p.queue, time.Since(l.start), batch)
			l.mu.Unlock()
		}
		if len(batch) == 0 {
			select {
			case <-s.over:
				return nil
			case <-s.wake:
			}
			continue
		}
		packets, bytes := 0, 0
		for _, q := range batch {
			n := 0
			if buf, n = q.appendTo(buf[:len(buf):cap(buf)]); n == 0 {
				p.drops.malformed.Add(1)
			}
			packets, bytes = packets+n, bytes+len(q.frame)
			l.pool.put(q)
		}
		p.sent.add(packets, bytes)
		if _, err := s.rwc.Write(buf); err != nil {
			return err
		}
		buf = buf[:0]
	}
}

// appendTo adds a packet to what a stream is to carry, and says in how many frames; none: it is not what it is said to be.
func (p *packet) appendTo(b []byte) ([]byte, int) {
	put := func(m meta, n int) []byte {
		at := len(b)
		b = append(b, make([]byte, lengthBytes+metaBytes+n)...)
		binary.BigEndian.PutUint16(b[at:], uint16(metaBytes+n))
		m.put(b[at+lengthBytes:])
		return b[at+lengthBytes+metaBytes:]
	}
	if !p.large {
		if metaBytes+len(p.frame) > 0xffff {
			return b, 0
		}
		copy(put(meta{p.key, p.how, p.start, p.check}, len(p.frame)), p.frame)
		return b, 1
	}
	cut, err := split(p.frame, p.shape, p.size)
	if err != nil || cut.headers > 255 {
		return b, 0
	}
	cut.skip(p.less)
	m := meta{p.key, howSegment | howOpen, byte(cut.start), byte(cut.headers)}
	if cut.udp {
		m.how |= howUDP
	}
	n := cut.count - cut.next
	for !cut.done() {
		cut.put(put(m, cut.bytes()))
	}
	return b, n
}

// readStream brings what comes over a stream to the TAP, until that ends.
func (l *Link) readStream(p *peer, s *streamLink) error {
	in := bufio.NewReaderSize(s.rwc, 64<<10)
	var length [lengthBytes]byte
	buf := make([]byte, 1<<16)
	w := newReceiver(l) // for its way to write; it has no keys
	for {
		if _, err := io.ReadFull(in, length[:]); err != nil {
			return err
		}
		b := buf[:binary.BigEndian.Uint16(length[:])]
		if _, err := io.ReadFull(in, b); err != nil {
			return err
		}
		if len(b) < metaBytes {
			p.drops.malformed.Add(1)
			continue
		}
		m, frame, ok := parseMeta(b)
		if !ok {
			p.drops.malformed.Add(1)
			continue
		}
		if w.roster != l.roster.Load() {
			w.roster, w.from = l.roster.Load(), nil
		}
		if l.isPeer(w.roster, p) {
			w.single(p, m, frame)
			p.got.add(1, len(frame))
		}
	}
}

// isPeer reports whether p still is one.
func (l *Link) isPeer(r *roster, p *peer) bool { return r.byLabel[p.labelNow()] == p }
