package sealed

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"vcpeer/crdt"
	"vcpeer/overlay/label"
)

// Link carries the frames of one TAP to and from all peers. Its goroutines each own something: the reader the TAP, the
// sender the keys to seal with, the receiver those to open with, and Run who the peers are. Between reader and sender are
// the queues.
type Link struct {
	cfg   Config
	start time.Time

	wanted  atomic.Pointer[wanted]
	changed chan struct{} // holds one: wanted is another
	roster  atomic.Pointer[roster]

	mu    sync.Mutex // guards sched and the queues of the peers
	sched scheduler
	pool  pool

	send     chan struct{} // holds one: the sender has something to look at
	reopen   chan struct{} // holds one: the receiver has
	received chan Packets

	speak atomic.Bool // some session has something to say to its other end

	gone []*peer // that are none any more; owned by Run

	waiting atomic.Int64 // bytes of memory in received

	unknown, short, overrun, others atomic.Uint64
}

type wanted struct {
	self  label.Label
	peers []Peer
}

// What may wait to be opened: 30 ms of 1 Gbit/s, in as many batches as if each datagram came alone.
const (
	receivedBytes   = 4 << 20
	receivedBatches = 2048
)

// copyBelow is the length up to which datagrams are copied, since memory for 64 KiB would wait with them.
const copyBelow = 8 << 10

// New makes a link. It owns the device once Run is called.
func New(cfg Config) (*Link, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	l := &Link{cfg: cfg, start: time.Now(), changed: make(chan struct{}, 1), send: make(chan struct{}, 1), reopen: make(chan struct{}, 1),
		received: make(chan Packets, receivedBatches)}
	l.sched.dropped = l.pool.put
	l.roster.Store(&roster{})
	return l, nil
}

// SetPeers says who the peers are from now on, and this gateway's own label. With those of before that are not among them
// nothing is exchanged any more. A session that comes back goes on where it was, since its keys would seal two datagrams alike
// if they began anew. The Link keeps the slices: they must not change. A peer is named once, with a label of
// its own; of several the first counts.
func (l *Link) SetPeers(self label.Label, peers []Peer) {
	l.wanted.Store(&wanted{self, peers})
	poke(l.changed)
}

// poke puts one into a channel that holds one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Receive takes datagrams that came to the fabric's socket. It never waits: where they come too fast the link drops them.
func (l *Link) Receive(p Packets) {
	if len(p.Data) == 0 || p.Segment <= 0 {
		p.release()
		return
	}
	if len(p.Data) <= copyBelow {
		c := l.pool.get(len(p.Data))
		c.home = &l.pool
		p.Data = c.memory[:copy(c.memory, p.Data)]
		p.release()
		p.Owner = c
	}
	if l.waiting.Add(int64(p.memory())) <= receivedBytes {
		select {
		case l.received <- p:
			return
		default:
		}
	}
	l.waiting.Add(-int64(p.memory()))
	l.overrun.Add(uint64((len(p.Data)-1)/p.Segment + 1))
	p.release()
}

// Run carries frames until ctx ends or the device fails. It closes the device and all streams, and returns when all that
// it started has ended.
func (l *Link) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	streams := &sync.WaitGroup{}
	g.Go(func() error { return l.read(ctx) })
	g.Go(func() error { return newSender(l).run(ctx) })
	g.Go(func() error { return newReceiver(l).run(ctx) })
	g.Go(func() error { // owns who the peers are
		defer l.cfg.Device.Close()
		defer l.apply(&wanted{}, streams)
		for {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-l.changed:
				l.apply(l.wanted.Load(), streams)
			}
		}
	})
	err := g.Wait()
	streams.Wait()
	return err
}

// apply makes the roster that is wanted.
func (l *Link) apply(w *wanted, streams *sync.WaitGroup) {
	now := time.Now()
	old, next := l.roster.Load(), &roster{self: w.self, byLabel: map[label.Label]*peer{}}
	have := map[crdt.NodeID]*peer{}
	for _, p := range old.all {
		have[p.id] = p
	}
	back := func(id crdt.NodeID) *peer {
		i := slices.IndexFunc(l.gone, func(p *peer) bool { return p.id == id })
		if i < 0 {
			return nil
		}
		p := l.gone[i]
		l.gone = slices.Delete(l.gone, i, i+1)
		l.mu.Lock()
		p.queue.closed = false
		l.mu.Unlock()
		return p
	}
	for _, want := range w.peers {
		if want.ID.IsZero() || want.ID == l.cfg.Self || next.byLabel[want.Label] != nil || slices.ContainsFunc(next.all, func(p *peer) bool { return p.id == want.ID }) {
			continue
		}
		p := have[want.ID]
		if p == nil {
			p = back(want.ID)
		}
		if p == nil {
			p = &peer{id: want.ID, since: now}
			p.queue.owner = p
		}
		delete(have, want.ID)
		p.update(l.cfg.Self, want, now)
		l.restream(p, want.Stream, streams)
		next.byLabel[want.Label] = p
		next.all = append(next.all, p)
	}
	l.roster.Store(next)
	for _, gone := range have {
		gone.update(l.cfg.Self, Peer{ID: gone.id, Label: gone.labelNow()}, now)
		l.gone = append(l.gone, gone)
		l.restream(gone, nil, streams)
		l.mu.Lock()
		l.sched.forget(&gone.queue)
		gone.queue.closed = true
		l.mu.Unlock()
	}
	l.gone = slices.Delete(l.gone, 0, max(0, len(l.gone)-maxGone))
	l.speak.Store(true)
	poke(l.send)
	poke(l.reopen)
}

// maxGone is how many former peers are remembered: no fewer than there can be connections, so that none comes back with a
// session of before and is not known.
const maxGone = 2048

// read is the reader: it sorts the frames of the TAP into the queues.
func (l *Link) read(ctx context.Context) error {
	const most = 64 // frames before the sender hears of them
	var burst [most]struct {
		to *peer
		p  *packet
	}
	var answer [virtioBytes + arpBytes]byte
	scratch := l.pool.get(largestFrame)
	n, bytes := 0, 0
	for {
		got, err := l.cfg.Device.Read(scratch.memory, n == 0)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		if got > virtioBytes {
			to, p := l.classify(scratch, got)
			switch {
			case to != nil:
				if p == scratch {
					scratch = l.pool.get(largestFrame)
				}
				burst[n].to, burst[n].p = to, p
				n, bytes = n+1, bytes+len(p.frame)
			case !l.cfg.Plain && answerARP(l.cfg.Net, scratch.memory[virtioBytes:got], (*[arpBytes]byte)(answer[virtioBytes:])):
				_ = l.cfg.Device.Write(answer[:]) // or it is asked again
			default:
				l.others.Add(1)
			}
		}
		if n == most || bytes >= quantumBytes || got == 0 && n > 0 {
			now := time.Since(l.start)
			l.mu.Lock()
			for i := range burst[:n] {
				burst[i].p.at = now
				to := burst[i].to
				s := to.stream.Load()
				l.sched.put(&to.queue, burst[i].p, s != nil && to.best() == nil)
				if s != nil {
					poke(s.wake)
				}
				burst[i].to, burst[i].p = nil, nil
			}
			l.mu.Unlock()
			poke(l.send)
			n, bytes = 0, 0
		}
	}
}

// classify finds the peer of a frame that was read into scratch, and returns it as a packet: in scratch, or a copy in less
// memory. nil: it is for nobody.
func (l *Link) classify(scratch *packet, n int) (*peer, *packet) {
	v, frame := parseVirtio(scratch.memory), scratch.memory[virtioBytes:n]
	if len(frame) < etherBytes {
		return nil, nil
	}
	var to *peer
	var key uint32
	r := l.roster.Load()
	if l.cfg.Plain {
		if len(r.all) > 0 {
			to = r.all[0]
		}
	} else if gateway, k, inner, ok := unwrap(l.cfg.Net, frame); ok && v.kind == virtioNone {
		to, key, frame = r.byLabel[gateway], k, inner
	}
	if to == nil {
		return nil, nil
	}
	p := scratch
	if classOf(len(frame)) < classOf(largestFrame) {
		p = l.pool.get(len(frame))
		frame = p.memory[:copy(p.memory, frame)]
	}
	p.key, p.frame = key, frame
	if s, large := v.large(frame); large {
		p.large, p.shape, p.size = true, s, int(v.size)
	} else if v.flags&virtioOpen != 0 && !p.leaveOpen(v) {
		if p != scratch {
			l.pool.put(p)
		}
		return nil, nil
	}
	return to, p
}

// leaveOpen notes an open checksum, for the other end to finish, or finishes it where it cannot be told; false: it is
// outside of the frame.
func (p *packet) leaveOpen(v virtio) bool {
	start, check := int(v.start), int(v.check)
	if start < etherBytes || start+check+2 > len(p.frame) {
		return false
	}
	if start < 256 && check < 256 {
		p.how, p.start, p.check = howOpen, byte(start), byte(check)
	} else {
		finish(p.frame[start:], check)
	}
	return true
}
