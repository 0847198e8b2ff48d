package site

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"vcpeer/crdt"
	"vcpeer/queue"
)

// askTimeout is how long an answer that is not parked may take, and what is added to the time it is parked.
const askTimeout = 10 * time.Second

// maxIdle is how many streams to one node are kept for the next question.
const maxIdle = 4

// idleFor is how long the answering side keeps a silent stream; the asking side lets go earlier.
const idleFor = 2 * time.Minute

// peers asks other nodes over streams that are used again. Safe for concurrent use.
type peers struct {
	fabric Fabric
	mu     sync.Mutex
	idle   map[crdt.NodeID][]idleConn
	calls  map[*call]struct{}
	lost   map[crdt.NodeID]bool // gossip has given them up
	turn   turn
	closed bool
}

type idleConn struct {
	net.Conn
	since time.Time
}

func newPeers(f Fabric) *peers {
	return &peers{fabric: f, idle: map[crdt.NodeID][]idleConn{}, calls: map[*call]struct{}{}, turn: 1}
}

// ask sends a question and waits for the answer, at most as long as it may be parked and askTimeout more; it ends before
// with errMoved or errLost, see there. A stream kept from before may have died unseen: then a new one is tried, which is
// safe since all questions may be repeated.
func (p *peers) ask(ctx context.Context, to crdt.NodeID, q question, parked time.Duration, during turn) (answer, error) {
	ctx, end, err := p.begin(ctx, to, parked, during)
	if err != nil {
		return answer{}, err
	}
	defer end()
	if c := p.take(to); c != nil {
		if a, err := p.exchange(ctx, to, c, q); err == nil || ctx.Err() != nil {
			return a, err
		}
	}
	c, err := p.fabric.Open(ctx, to, Proto)
	if err != nil {
		return answer{}, errors.Join(context.Cause(ctx), err)
	}
	return p.exchange(ctx, to, c, q)
}

func (p *peers) exchange(ctx context.Context, to crdt.NodeID, c net.Conn, q question) (a answer, err error) {
	// Not Close: that may wait for the other side before it lets a reader go.
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	if err = writeFrame(c, q); err == nil {
		err = readFrame(c, &a)
	}
	if !stop() || err != nil {
		c.Close()
		if ctx.Err() != nil {
			return answer{}, context.Cause(ctx)
		}
		return answer{}, err
	}
	p.put(to, c)
	return a, nil
}

func (p *peers) take(to crdt.NodeID) net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[to]
	for len(list) > 0 {
		c := list[len(list)-1]
		list = list[:len(list)-1]
		p.idle[to] = list
		if time.Since(c.since) < idleFor/2 {
			return c.Conn
		}
		c.Close()
	}
	return nil
}

func (p *peers) put(to crdt.NodeID, c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.lost[to] || len(p.idle[to]) >= maxIdle {
		c.Close()
		return
	}
	p.idle[to] = append(p.idle[to], idleConn{c, time.Now()})
}

// close ends the kept streams; questions under way end with their contexts.
func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, list := range p.idle {
		for _, c := range list {
			c.Close()
		}
	}
	clear(p.idle)
}

// maxStreams bounds the streams that are answered at once, of all nodes; each node parks a few.
const maxStreams = 20_000

// serve answers the questions of one stream until it ends, is silent for idleFor, or ctx is over.
func (s *Service) serve(ctx context.Context, from crdt.NodeID, c net.Conn) {
	defer c.Close()
	if !s.enter() {
		return
	}
	defer s.leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	for ctx.Err() == nil {
		c.SetReadDeadline(time.Now().Add(idleFor))
		var q question
		if err := readFrame(c, &q); err != nil {
			if errors.Is(err, errFrame) {
				s.cfg.Log.Warn("queue: refused a stream", "from", from.Short(), "err", err)
			}
			return
		}
		c.SetReadDeadline(time.Time{})
		a := s.handle(ctx, from, q)
		c.SetWriteDeadline(time.Now().Add(askTimeout))
		if err := writeFrame(c, a); err != nil {
			return
		}
		c.SetWriteDeadline(time.Time{})
	}
}

func (s *Service) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped || s.streams >= maxStreams {
		return false
	}
	s.streams++
	s.work.Add(1)
	return true
}

func (s *Service) leave() {
	s.mu.Lock()
	s.streams--
	s.mu.Unlock()
	s.work.Done()
}

// ok packs the body of an answer.
func ok(v any) answer {
	b, err := wire.enc.Marshal(v)
	if err != nil {
		return no(&queue.Error{Code: queue.Unavailable, Text: "queue/site: encode: " + err.Error()})
	}
	if len(b) > maxFrame-1024 {
		return no(&queue.Error{Code: queue.Invalid, Text: "the answer is too large", Hint: "ask for less at once"})
	}
	return answer{Body: b}
}

func no(err *queue.Error) answer { return answer{Err: err} }

// unpack reads the body of an answer into v.
func (a answer) unpack(v any) error {
	if a.Err != nil {
		return a.Err
	}
	return unmarshal(a.Body, v)
}

func ask(o op, v any) (question, error) {
	b, err := wire.enc.Marshal(v)
	return question{o, b}, err
}
