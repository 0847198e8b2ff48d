package spread

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"vcpeer/crdt"
)

// conn carries messages over one stream.
type conn struct {
	net.Conn
	codec codec
	limit limits
	until time.Time // of the whole session
	moved func(in, out int)
}

func (s *Spread) newConn(c net.Conn) *conn {
	return &conn{Conn: c, codec: newCodec(), limit: s.limit, until: time.Now().Add(s.limit.sessionTime), moved: func(in, out int) {
		s.count(func(st *Stats) { st.BytesIn += uint64(in); st.BytesOut += uint64(out) })
	}}
}

// deadline gives the next message its time.
func (c *conn) deadline() error {
	return c.SetDeadline(earlier(time.Now().Add(c.limit.frameTime), c.until))
}

func (c *conn) send(m message) error {
	b, err := c.codec.encode(m)
	if err != nil {
		return err
	}
	if err := c.deadline(); err != nil {
		return err
	}
	n, err := c.Write(b)
	c.moved(0, n)
	return err
}

func (c *conn) receive() (message, error) {
	if err := c.deadline(); err != nil {
		return message{}, err
	}
	m, n, err := c.codec.readFrame(c, c.limit.frameBytes)
	c.moved(n, 0)
	return m, err
}

// dial opens a stream that ends with ctx.
func (s *Spread) dial(ctx context.Context, to crdt.NodeID) (c *conn, hangUp func(), err error) {
	opening, cancel := context.WithTimeout(ctx, s.limit.dialTime)
	defer cancel()
	raw, err := s.cfg.Fabric.Open(opening, to, Protocol)
	if err != nil {
		return nil, nil, err
	}
	cut := context.AfterFunc(ctx, func() { raw.Close() })
	return s.newConn(raw), func() { cut(); raw.Close() }, nil
}

// push gives a peer fresh batches and returns its digest after them.
func (s *Spread) push(ctx context.Context, e push) (theirs [16]byte, err error) {
	c, hangUp, err := s.dial(ctx, e.to)
	if err != nil {
		return theirs, fmt.Errorf("spread: push to %s: %w", e.to.Short(), err)
	}
	defer hangUp()
	err = c.send(message{Kind: kindPush, Digest: s.cfg.Store.Digest(), Batches: e.batches, Ephemeral: e.ephemeral})
	var answer message
	if err == nil {
		answer, err = c.receive()
	}
	if err == nil && answer.Kind == kindBusy {
		err = errBusy
	}
	if err != nil {
		return theirs, fmt.Errorf("spread: push to %s: %w", e.to.Short(), err)
	}
	s.count(func(st *Stats) { st.Pushed += uint64(len(e.batches)) })
	return answer.Digest, nil
}

// session opens a session with a peer and sees it through.
func (s *Spread) session(ctx context.Context, to crdt.NodeID) (did outcome, err error) {
	defer func() { s.countSession(did, err) }()
	c, hangUp, err := s.dial(ctx, to)
	if err != nil {
		return moved, fmt.Errorf("spread: session with %s: %w", to.Short(), err)
	}
	defer hangUp()
	ses := s.newSession(to)
	for out, more := ses.open(), true; more; {
		if err := c.send(out); err != nil {
			return moved, fmt.Errorf("spread: session with %s: %w", to.Short(), err)
		}
		in, err := c.receive()
		if err == nil {
			out, more, err = ses.step(ctx, in)
		}
		if err != nil {
			return moved, fmt.Errorf("spread: session with %s: %w", to.Short(), err)
		}
	}
	s.settled(to, ses.last.theirs)
	return ses.outcome(), nil
}

func (s *Spread) newSession(with crdt.NodeID) *session {
	return &session{store: s.cfg.Store, limit: s.limit, fresh: func(b, e [][]byte) { s.got(with, b, e, false) }}
}

// heard tells the planner what a peer showed.
func (s *Spread) heard(from crdt.NodeID, theirs [16]byte) {
	own := s.cfg.Store.Digest()
	s.mu.Lock()
	s.plan.heard(time.Now(), from, theirs, own)
	s.mu.Unlock()
	s.kick()
}

// settled tells the planner how a session left a peer.
func (s *Spread) settled(with crdt.NodeID, theirs [16]byte) {
	own := s.cfg.Store.Digest()
	s.mu.Lock()
	s.plan.settled(time.Now(), with, theirs, own)
	s.mu.Unlock()
	s.kick()
}

// onDatagram takes an announcement or urgent entries. It must not wait, so it only looks up the store's digest.
func (s *Spread) onDatagram(from crdt.NodeID, b []byte) {
	if len(b) > 0 && b[0] == urgentVersion {
		s.onUrgent(from, b)
		return
	}
	if digest, err := decodeAnnouncement(b); err == nil && s.ctx.Err() == nil {
		s.heard(from, digest)
	}
}

// onStream serves a peer: one push, or the other side of a session.
func (s *Spread) onStream(ctx context.Context, from crdt.NodeID, raw net.Conn) {
	defer raw.Close()
	c := s.newConn(raw)
	if !s.serving.enter(from, time.Now()) {
		c.send(message{Kind: kindBusy}) //nolint:errcheck // it learns the same from the close
		return
	}
	defer s.serving.leave(from)
	done := make(chan struct{})
	if !s.start(func() { <-done }) { // Close waits for this stream
		return
	}
	defer close(done)
	ctx, cancel := context.WithTimeout(ctx, s.limit.sessionTime)
	defer cancel()
	defer context.AfterFunc(s.ctx, func() { cancel(); raw.Close() })()
	if err := s.serve(ctx, from, c); err != nil && !errors.Is(err, io.EOF) {
		s.cfg.Log.Debug("serving a sync stream", "peer", from.Short(), "err", err)
	}
}

func (s *Spread) serve(ctx context.Context, from crdt.NodeID, c *conn) error {
	ses := s.newSession(from)
	for {
		in, err := c.receive()
		if errors.Is(err, io.EOF) && ses.turns > 0 { // the end of the session
			s.settled(from, ses.last.theirs)
			return nil
		}
		if err != nil {
			return err
		}
		if in.Kind == kindPush {
			return s.servePush(ctx, from, c, in)
		}
		out, _, err := ses.step(ctx, in)
		if err != nil {
			return errors.Join(err, c.send(message{Kind: kindError}))
		}
		if err := c.send(out); err != nil {
			return err
		}
	}
}

// servePush takes a push. A peer that sends what no store could take has to wait before it is served again: checking
// signatures is the most that it can make this node do. What only cannot be taken yet is no fault.
func (s *Spread) servePush(ctx context.Context, from crdt.NodeID, c *conn, in message) error {
	var fresh [][]byte
	var err error
	if len(in.Batches) > 0 {
		fresh, err = s.cfg.Store.Receive(ctx, in.Batches)
	}
	entries, ephErr := [][]byte(nil), error(nil)
	if len(in.Ephemeral) > 0 {
		entries, ephErr = s.cfg.Store.ReceiveEphemeral(in.Ephemeral)
	}
	s.got(from, fresh, entries, true)
	err = errors.Join(err, ephErr)
	if isRubbish(err) {
		s.serving.strike(from, time.Now())
	}
	own := s.cfg.Store.Digest()
	s.heard(from, in.Digest)
	return errors.Join(err, c.send(message{Kind: kindTurn, Digest: own}))
}

// isRubbish reports whether a store refused what no store could take.
func isRubbish(err error) bool {
	return errors.Is(err, crdt.ErrMalformed) || errors.Is(err, crdt.ErrSignature) || errors.Is(err, crdt.ErrCluster)
}

// gate bounds what peers may have served at once.
type gate struct {
	perPeer, inAll int

	mu      sync.Mutex
	inside  map[crdt.NodeID]int
	all     int
	waiting map[crdt.NodeID]int // datagrams with urgent entries
	strikes map[crdt.NodeID]strike
}

// strike is how often a peer sent only rubbish in a row, and when it may come again.
type strike struct {
	n     int
	until time.Time
}

const maxStrikes = 4096 // peers remembered; beyond, all is forgiven

func newGate(perPeer, inAll int) *gate {
	return &gate{perPeer: perPeer, inAll: inAll, inside: map[crdt.NodeID]int{}, waiting: map[crdt.NodeID]int{}, strikes: map[crdt.NodeID]strike{}}
}

func (g *gate) enter(id crdt.NodeID, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all >= g.inAll || g.inside[id] >= g.perPeer || now.Before(g.strikes[id].until) {
		return false
	}
	g.all++
	g.inside[id]++
	return true
}

func (g *gate) leave(id crdt.NodeID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all--
	if g.inside[id]--; g.inside[id] == 0 {
		delete(g.inside, id)
	}
}

// hear admits a datagram with urgent entries, until heard.
func (g *gate) hear(id crdt.NodeID, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting[id] >= maxHeardPeer || now.Before(g.strikes[id].until) {
		return false
	}
	g.waiting[id]++
	return true
}

func (g *gate) heard(id crdt.NodeID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting[id]--; g.waiting[id] == 0 {
		delete(g.waiting, id)
	}
}

// strike shuts a peer out for 50 ms, doubled each time up to about 26 s; a minute without one and it counts anew.
func (g *gate) strike(id crdt.NodeID, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.strikes) >= maxStrikes {
		clear(g.strikes)
	}
	st := g.strikes[id]
	if now.Sub(st.until) > time.Minute {
		st = strike{}
	}
	g.strikes[id] = strike{min(st.n+1, 9), now.Add(50 * time.Millisecond << st.n)}
}
