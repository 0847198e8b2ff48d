package sealed

import (
	"context"
	"errors"
	"syscall"
	"time"
)

// What one call of Config.Send gets at most: the system takes that much at once (UDP_MAX_SEGMENTS, the length of UDP).
const (
	maxBatchBytes    = 65000
	maxBatchSegments = 64
)

// Times of control datagrams, and the rate at which they are looked at.
const (
	lookEvery  = 500 * time.Millisecond
	speakEvery = 10 * time.Second // NATs forget UDP after 30 s
)

// maxCounter is how many datagrams a key seals at the very most, if the other end never says that it has the next.
const maxCounter = 1 << 32

// sender owns the keys to seal with and takes frames out of the queues.
type sender struct {
	l      *Link
	batch  []*packet
	looked time.Time

	// The datagrams that go out in one call: all of segment bytes but the last.
	buf     []byte
	n       int
	segment int
	count   int
	short   bool // the last is shorter: no other can follow
	to      route
	of      *peer

	packets, bytes int // sealed since they were last counted
}

func newSender(l *Link) *sender {
	return &sender{l: l, buf: make([]byte, maxBatchBytes+largestFrame), batch: make([]*packet, 0, 128)}
}

func (s *sender) run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		now := time.Now()
		if s.l.speak.Swap(false) || now.Sub(s.looked) >= lookEvery {
			s.looked = now
			s.control(now)
		}
		s.l.mu.Lock()
		q, batch := s.l.sched.take(now.Sub(s.l.start), s.batch[:0])
		s.l.mu.Unlock()
		if q == nil {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-s.l.send:
			case <-tick.C:
			}
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.carry(q.owner, batch, now)
		for i, p := range batch {
			s.l.pool.put(p)
			batch[i] = nil
		}
	}
}

// carry seals packets and sends them to a peer.
func (s *sender) carry(to *peer, batch []*packet, now time.Time) {
	via := to.best()
	if via == nil {
		to.drops.noWay.Add(uint64(len(batch)))
		return
	}
	via.rotate(&s.l.cfg, now)
	s.of, s.to = to, *via.route.Load()
	for _, p := range batch {
		if via.out.counter >= maxCounter {
			to.drops.noWay.Add(1)
			continue
		}
		if !p.large {
			s.single(via, p)
		} else if cut, err := split(p.frame, p.shape, p.size); err != nil {
			to.drops.malformed.Add(1)
		} else {
			cut.skip(p.less)
			s.segments(via, p.key, &cut)
		}
	}
	s.flush()
	to.sent.add(s.packets, s.bytes)
	s.packets, s.bytes = 0, 0
}

func (s *sender) single(via *session, p *packet) {
	b := s.room(len(p.frame))
	meta{p.key, p.how, p.start, p.check}.put(b[headerBytes:])
	copy(b[headerBytes+metaBytes:], p.frame)
	via.out.seal(typeData, b)
}

func (s *sender) segments(via *session, key uint32, p *large) {
	m := meta{key, howSegment | howOpen, byte(p.start), byte(p.headers)}
	if p.udp {
		m.how |= howUDP
	}
	if p.headers > 255 {
		s.of.drops.malformed.Add(1) // no headers are as long
		return
	}
	for !p.done() {
		b := s.room(p.bytes())
		m.put(b[headerBytes:])
		p.put(b[headerBytes+metaBytes : len(b)-tagBytes])
		via.out.seal(typeData, b)
		m.how |= howJoins
	}
}

// room returns memory for a datagram with a frame, in the batch that goes out next.
func (s *sender) room(frame int) []byte {
	n := frame + Overhead
	if s.n > 0 && (s.short || n > s.segment || s.count == maxBatchSegments || s.n+n > maxBatchBytes) {
		s.flush()
	}
	if s.n == 0 {
		s.segment = n
	}
	s.short = n < s.segment
	b := s.buf[s.n : s.n+n]
	s.n += n
	s.count++
	s.packets++
	s.bytes += frame
	return b
}

// flush sends the batch.
func (s *sender) flush() {
	if s.n == 0 {
		return
	}
	err := s.l.cfg.Send(s.to.local, s.to.remote, s.buf[:s.n], s.segment)
	switch {
	case errors.Is(err, syscall.EMSGSIZE):
		s.of.drops.tooLarge.Add(uint64(s.count))
	case err != nil:
		s.of.drops.system.Add(uint64(s.count))
	}
	s.n, s.count, s.short = 0, 0, false
}

// seal seals a datagram, of which all but the header and the tag is there.
func (o *outgoing) seal(kind byte, b []byte) {
	h := header{kind, o.key.id, o.counter}
	o.counter++
	h.put(b)
	h.nonce(&o.nonce)
	o.key.aead.Seal(b[headerBytes:headerBytes], o.nonce[:], b[headerBytes:len(b)-tagBytes], nil)
}

// rotate goes on to the next key when this one has served, and the other end has it: so it has the next as well.
func (v *session) rotate(cfg *Config, now time.Time) {
	o := &v.out
	if (o.counter < cfg.RekeyPackets && now.Sub(o.since) < cfg.RekeyAfter) || v.arrived.Load() <= o.key.epoch {
		return
	}
	o.key, o.since, o.counter = o.chain.next(), now, 0
	v.epoch.Store(o.key.epoch)
}

// control sends the control datagrams that are due: to prove new keys, to answer, and to keep the hole in the NAT open.
func (s *sender) control(now time.Time) {
	var b [headerBytes + controlBytes + tagBytes]byte
	for _, p := range s.l.roster.Load().all {
		all := p.sessions.Load()
		if all == nil {
			continue
		}
		for _, v := range *all {
			ask := !v.proven.Load() || v.arrived.Load() <= v.out.key.epoch
			owes := v.owes.Swap(false)
			if !owes && now.Sub(v.out.spoke) < speakEvery && !(ask && now.Sub(v.out.spoke) >= lookEvery) || v.out.counter >= maxCounter {
				continue
			}
			v.out.spoke = now
			control{answer: ask, epoch: v.heard.Load()}.put(b[headerBytes:])
			v.out.seal(typeControl, b[:])
			r := v.route.Load()
			if err := s.l.cfg.Send(r.local, r.remote, b[:], len(b)); err != nil {
				p.drops.system.Add(1)
			}
		}
	}
}
