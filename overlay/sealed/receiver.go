package sealed

import (
	"context"
	"net/netip"
)

// receiver owns the keys to open with and writes frames to the TAP.
type receiver struct {
	l      *Link
	roster *roster
	known  map[*session]struct{}
	keys   map[uint32]*openKey
	last   *openKey // that was found for the datagram before

	join  joiner
	held  []Packets // their memory holds parts of join
	nonce [nonceBytes]byte
	head  [virtioBytes + wrapBytes]byte
	wrap  wrapping
	from  *peer // of wrap
	parts [][]byte
}

// maxHeld is how many batches are held back while more are there to join with.
const maxHeld = 64

func newReceiver(l *Link) *receiver {
	return &receiver{l: l, known: map[*session]struct{}{}, keys: map[uint32]*openKey{}, join: newJoiner(), parts: make([][]byte, 0, maxJoined+1),
		held: make([]Packets, 0, maxHeld)}
}

func (r *receiver) run(ctx context.Context) error {
	defer r.letGo()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-r.l.reopen:
			r.meet()
		case p := <-r.l.received:
			r.l.waiting.Add(-int64(p.memory()))
			if r.roster != r.l.roster.Load() {
				r.meet()
			}
			r.take(p)
		}
	}
}

// meet learns the keys of new sessions and forgets those of sessions that are no more.
func (r *receiver) meet() {
	r.roster, r.from = r.l.roster.Load(), nil
	next := make(map[*session]struct{}, len(r.known))
	for _, p := range r.roster.all {
		all := p.sessions.Load()
		if all == nil {
			continue // it went meanwhile
		}
		for _, s := range *all {
			next[s] = struct{}{}
			if _, ok := r.known[s]; !ok {
				for _, k := range s.in.keys {
					r.add(k)
				}
			}
		}
	}
	for s := range r.known {
		if _, ok := next[s]; !ok {
			for _, k := range s.in.keys {
				r.remove(k)
			}
		}
	}
	r.known = next
}

func (r *receiver) add(k *openKey) {
	if k == nil {
		return
	}
	if k.also = r.keys[k.id]; k.also != nil {
		k.also.shared = true
	}
	r.keys[k.id] = k
}

func (r *receiver) remove(k *openKey) {
	if k == nil {
		return
	}
	r.last = nil
	if r.keys[k.id] == k {
		if r.keys[k.id] = k.also; k.also == nil {
			delete(r.keys, k.id)
		}
		return
	}
	for o := r.keys[k.id]; o != nil; o = o.also {
		if o.also == k {
			o.also = k.also
		}
	}
}

// take opens a batch. What can be joined with what comes next is kept back only while something is there already.
func (r *receiver) take(p Packets) {
	var of *peer
	packets, bytes, newest := 0, 0, false
	for data := p.Data; len(data) > 0; {
		n := min(p.Segment, len(data))
		k, size, high := r.open(data[:n:n])
		data = data[n:]
		if k == nil {
			continue
		}
		if of != k.session.peer && of != nil {
			of.got.add(packets, bytes)
			packets, bytes = 0, 0
		}
		of, bytes = k.session.peer, bytes+size
		if size > 0 {
			packets++
		}
		if high && !newest {
			newest = true
			k.session.follow(p.From, p.Local)
		}
	}
	if of != nil {
		of.got.add(packets, bytes)
	}
	if r.join.ended {
		r.flush()
	}
	if r.join.empty() {
		p.release()
		r.letGo()
		return
	}
	r.held = append(r.held, p)
	if len(r.l.received) == 0 || len(r.held) == maxHeld {
		r.letGo()
	}
}

// letGo writes what was kept back.
func (r *receiver) letGo() {
	r.flush()
	for i := range r.held {
		r.held[i].release()
	}
	r.held = r.held[:0]
}

// open opens one datagram and delivers what is in it. It returns the key that opened it and the bytes of the frame, 0 if it
// had none; nil: no key did.
func (r *receiver) open(b []byte) (k *openKey, size int, newest bool) {
	h, err := parseHeader(b)
	if err != nil {
		r.l.short.Add(1)
		return nil, 0, false
	}
	k = r.last
	if k == nil || k.id != h.key || k.also != nil || k.shared {
		if k = r.keys[h.key]; k == nil {
			r.l.unknown.Add(1)
			return nil, 0, false
		}
	}
	var plain []byte
	h.nonce(&r.nonce)
	for seen := (*openKey)(nil); ; k = k.also {
		sealed, opened := b[headerBytes:], false
		if !k.window.fresh(h.counter) {
			seen = k
		} else {
			if k.also != nil {
				sealed = append([]byte(nil), sealed...) // a failure destroys it, and the next is to have it whole
			}
			plain, err = k.aead.Open(sealed[:0], r.nonce[:], sealed, nil)
			opened = err == nil
		}
		if opened {
			break
		}
		if k.also == nil {
			if seen != nil {
				seen.session.peer.drops.replayed.Add(1)
			} else {
				k.session.peer.drops.forged.Add(1)
			}
			return nil, 0, false
		}
	}
	r.last = k
	newest = k.window.see(h.counter)
	s := k.session
	if !s.proven.Load() {
		s.proven.Store(true)
	}
	if k.epoch >= s.heard.Load() {
		r.advance(k)
	}
	if h.kind == typeControl {
		r.control(s, plain)
		return k, 0, newest
	}
	m, frame, ok := parseMeta(plain)
	if !ok {
		s.peer.drops.malformed.Add(1)
		return k, 0, newest
	}
	r.deliver(k, h.counter, m, frame)
	return k, len(frame), newest
}

// advance notes that a key came into use that was not before.
func (r *receiver) advance(k *openKey) {
	s := k.session
	if k == s.in.keys[2] {
		r.remove(s.in.keys[0])
		s.in.keys[0], s.in.keys[1], s.in.keys[2] = s.in.keys[1], k, s.nextIn()
		r.add(s.in.keys[2])
		r.last = k
	}
	s.heard.Store(k.epoch + 1)
	s.owe(r.l)
}

func (r *receiver) control(s *session, b []byte) {
	c, ok := parseControl(b)
	if !ok {
		s.peer.drops.malformed.Add(1)
		return
	}
	for had := s.arrived.Load(); c.epoch > had; had = s.arrived.Load() {
		s.arrived.CompareAndSwap(had, c.epoch)
	}
	if c.answer {
		s.owe(r.l)
	}
}

// owe has the other end told which keys have come.
func (s *session) owe(l *Link) {
	s.owes.Store(true)
	l.speak.Store(true)
	poke(l.send)
}

// follow sends to where a datagram came from that is newer than all before, and opened.
func (s *session) follow(from, local netip.AddrPort) {
	if now := s.route.Load(); now.remote != from {
		s.route.Store(&route{local: local, remote: from})
	}
}

// deliver brings a frame to the TAP, or keeps a segment back to be joined.
func (r *receiver) deliver(k *openKey, counter uint64, m meta, frame []byte) {
	if m.how&howSegment != 0 && r.l.cfg.Device.Offloads() && r.l.cfg.Plain {
		if !r.join.add(&k.epochKey, counter, m, frame) {
			r.flush()
			r.join.begin(k.session.peer, &k.epochKey, counter, m, frame)
		}
		return
	}
	r.flush()
	r.single(k.session.peer, m, frame)
}

// single brings a frame to the TAP as it is.
func (r *receiver) single(from *peer, m meta, frame []byte) {
	v := virtio{}
	if m.how&howOpen != 0 {
		start, check := int(m.start), int(m.headers)
		if m.how&howSegment != 0 {
			check = m.shape().checkAt()
		}
		if r.l.cfg.Plain && r.l.cfg.Device.Offloads() {
			v = virtio{flags: virtioOpen, start: uint16(start), check: uint16(check)}
		} else {
			finish(frame[start:], check)
		}
	}
	r.write(from, m.key, v, frame)
}

// flush writes what was joined.
func (r *receiver) flush() {
	if r.join.empty() {
		return
	}
	via, key := r.join.via, r.join.of.key
	parts, v := r.join.take()
	r.write(via, key, v, parts...)
}

// write writes a frame to the TAP, wrapped as coming from a peer if need be.
func (r *receiver) write(from *peer, key uint32, v virtio, frame ...[]byte) {
	n := virtioBytes
	v.put(r.head[:])
	if !r.l.cfg.Plain {
		if r.from != from {
			r.wrap, r.from = newWrapping(r.l.cfg.Net, r.l.cfg.Device.MAC(), from.labelNow(), r.roster.self), from
		}
		r.wrap.fill(key, len(frame[0]))
		n += copy(r.head[n:], r.wrap[:])
	}
	r.parts = append(append(r.parts[:0], r.head[:n]), frame...)
	if err := r.l.cfg.Device.Write(r.parts...); err != nil {
		from.drops.system.Add(1)
	}
}
