package peer

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"vcpeer/crdt"
	"vcpeer/overlay"
	"vcpeer/overlay/sealed"
	"vcpeer/peer/fabric"
)

// sealedProtocol carries the frames of a sealed link between two members that have no direct way by UDP: over TCP, or through
// a relay, which sees only what is encrypted for the other. Of the two the one with the lower ID opens it.
const sealedProtocol = "/vcpeer/sealed/1"

const (
	sealedTag   = "sealed link"
	sealedLook  = time.Second      // how often ways are looked after though nothing has happened
	sealedDial  = 10 * time.Second // to reach a member
	sealedDials = 8                // at once
	sealedAgain = time.Second      // after a failure, doubled each time …
	sealedMost  = time.Minute      // … up to this
	// A stream is kept for so long after there was a direct way: the other end may still use it, and the way may go again.
	streamRest = 10 * time.Second
)

// sealer keeps connections with the members that sealed links are wanted to, and tells the network how they are reached. Its
// run owns it; others hand something over.
type sealer struct {
	*node
	wants chan []crdt.NodeID // holds the newest
	came  chan *frameStream  // that either side has opened
	ended chan struct{}      // holds one: a stream has ended
	tried chan tried
	turns chan struct{} // to dial

	ways map[crdt.NodeID]*sealedWay
	told map[crdt.NodeID]overlay.Way
}

// sealedWay is what is known of the way to one member.
type sealedWay struct {
	stream *frameStream // nil: there is none
	busy   bool         // it is being dialled
	fails  int          // in a row
	next   time.Time    // it is not dialled before
	direct time.Time    // since when there are sessions; zero: there are none
	there  bool         // there is a connection, of whatever kind
}

// tried is what came of dialling a member.
type tried struct {
	id  crdt.NodeID
	err error
}

func newSealer(n *node) *sealer {
	return &sealer{
		node: n, wants: make(chan []crdt.NodeID, 1), came: make(chan *frameStream), ended: make(chan struct{}, 1), tried: make(chan tried, sealedDials),
		turns: make(chan struct{}, sealedDials), ways: map[crdt.NodeID]*sealedWay{}, told: map[crdt.NodeID]overlay.Way{},
	}
}

// want says whom sealed links are wanted to from now on. It never waits.
func (s *sealer) want(ids []crdt.NodeID) {
	for {
		select {
		case s.wants <- ids:
			return
		default:
		}
		select {
		case <-s.wants: // older
		default:
		}
	}
}

// receive hands datagrams to the network.
func (s *sealer) receive(p *fabric.Packets) {
	s.overlay.Receive(sealed.Packets{From: p.From, Local: p.Local, Segment: p.Segment, Data: p.Data, Owner: p})
}

// run looks after the ways until ctx ends.
func (s *sealer) run(ctx context.Context) {
	s.fabric.HandlePackets(s.receive)
	defer s.fabric.HandlePackets(nil)
	s.fabric.Handle(sealedProtocol, func(conn context.Context, from crdt.NodeID, c net.Conn) {
		s.hold(ctx, conn, newFrameStream(from, c, false))
	})
	changed, stop := s.fabric.WatchSessions()
	defer stop()
	tick := time.NewTicker(sealedLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case ids := <-s.wants:
			s.keep(ids)
		case st := <-s.came:
			s.take(st)
		case t := <-s.tried:
			s.note(t, time.Now())
		case <-s.ended:
		case <-changed:
		case <-tick.C:
		}
		s.round(ctx, time.Now())
	}
}

// keep brings the members that are looked after to those that are wanted.
func (s *sealer) keep(ids []crdt.NodeID) {
	for id, w := range s.ways {
		if !slices.Contains(ids, id) {
			s.fabric.Keep(id, sealedTag, false)
			w.replace(nil)
			delete(s.ways, id)
		}
	}
	for _, id := range ids {
		if s.ways[id] == nil {
			s.ways[id] = &sealedWay{}
			s.fabric.Keep(id, sealedTag, true)
		}
	}
}

// take uses a stream that was opened, in the place of the one before.
func (s *sealer) take(st *frameStream) {
	w := s.ways[st.from]
	if w == nil {
		_ = st.Close() // nothing is wanted from there
		return
	}
	w.replace(st)
}

func (w *sealedWay) replace(st *frameStream) {
	if w.stream != nil {
		_ = w.stream.Close()
	}
	w.stream = st
}

// note takes in how dialling went.
func (s *sealer) note(t tried, now time.Time) {
	w := s.ways[t.id]
	if w == nil {
		return
	}
	w.busy = false
	if t.err == nil {
		w.fails, w.next = 0, now.Add(sealedAgain)
		return
	}
	w.next = now.Add(min(sealedAgain<<min(w.fails, 10), sealedMost))
	if w.fails++; w.fails == 1 {
		s.log.Debug("no way for sealed frames", "peer", t.id, "err", t.err)
	}
}

// round dials those to whom there is no way, and tells the network of changes.
func (s *sealer) round(ctx context.Context, now time.Time) {
	ways := make(map[crdt.NodeID]overlay.Way, len(s.ways))
	for id, w := range s.ways {
		sessions, relayed := s.sessions(id)
		w.look(len(sessions) > 0, now)
		w.meet(s.fabric.Connected(id))
		if w.due(len(sessions) > 0, relayed, now) {
			w.busy = true
			s.carriers.Go(func() { s.dial(ctx, id) })
		}
		way := overlay.Way{Sessions: sessions}
		if w.stream != nil {
			way.Stream = w.stream
		}
		if len(sessions) > 0 || w.stream != nil {
			ways[id] = way
		}
	}
	if !sameWays(ways, s.told) {
		s.told = ways
		s.overlay.SetWays(ways)
	}
}

// look drops a stream that has ended, and one that a direct way has made needless.
func (w *sealedWay) look(direct bool, now time.Time) {
	switch {
	case !direct:
		w.direct = time.Time{}
	case w.direct.IsZero():
		w.direct = now
	}
	if w.stream != nil && (w.stream.over() || direct && now.Sub(w.direct) > streamRest) {
		w.replace(nil)
	}
}

// meet takes note of whether there is a connection. A member that has come back can be dialled, whatever failed before.
func (w *sealedWay) meet(there bool) {
	if there && !w.there {
		w.fails, w.next = 0, time.Time{}
	}
	w.there = there
}

// due reports whether the member is to be dialled: there is no way, or the stream goes through a relay and need not.
func (w *sealedWay) due(direct, relayed bool, now time.Time) bool {
	return !direct && !w.busy && !now.Before(w.next) && (w.stream == nil || w.stream.relayed && !relayed)
}

// sessions are those with a member that work, and whether it is reached through a relay alone: then the sessions that there
// still are do not answer.
func (s *sealer) sessions(id crdt.NodeID) (out []sealed.Session, relayed bool) {
	way, ok := s.fabric.Way(id)
	if !ok || way.Link.Transport == "relay" {
		return nil, ok
	}
	for _, f := range s.fabric.Sessions(id) {
		if secret, err := f.Export(sealed.ExportLabel, sealed.SecretBytes); err == nil {
			out = append(out, sealed.Session{ID: f.ID, Secret: secret, Local: f.Local, Remote: f.Remote})
		}
	}
	return out, false
}

// dial makes sure that there is a connection with a member, and where that is not by UDP, a stream.
func (s *sealer) dial(ctx context.Context, id crdt.NodeID) {
	select {
	case s.turns <- struct{}{}:
	case <-ctx.Done():
		return
	}
	st, err := s.open(ctx, id)
	<-s.turns
	select {
	case s.tried <- tried{id, err}:
	case <-ctx.Done():
	}
	if st != nil {
		s.hold(ctx, ctx, st)
	}
}

func (s *sealer) open(ctx context.Context, id crdt.NodeID) (*frameStream, error) {
	ctx, cancel := context.WithTimeout(ctx, sealedDial)
	defer cancel()
	if err := s.fabric.Try(ctx, id); err != nil {
		return nil, err
	}
	sessions, relayed := s.sessions(id)
	if len(sessions) > 0 || s.self.Compare(id) > 0 {
		return nil, nil
	}
	c, err := s.fabric.Open(ctx, id, sealedProtocol)
	if err != nil {
		return nil, fmt.Errorf("stream for sealed frames: %w", err)
	}
	return newFrameStream(id, c, relayed), nil
}

// hold hands a stream over and returns when it has ended.
func (s *sealer) hold(ctx, conn context.Context, st *frameStream) {
	defer st.Close()
	select {
	case s.came <- st:
	case <-ctx.Done():
		return
	case <-conn.Done():
		return
	}
	select {
	case <-st.done:
	case <-ctx.Done():
	case <-conn.Done():
	}
	_ = st.Close()
	select {
	case s.ended <- struct{}{}:
	default:
	}
}

// frameStream is a stream for frames. Whoever uses it closes it.
type frameStream struct {
	net.Conn
	from    crdt.NodeID
	relayed bool          // it was opened here, through a relay
	done    chan struct{} // closed with it
	close   func() error  // once
}

func newFrameStream(from crdt.NodeID, c net.Conn, relayed bool) *frameStream {
	s := &frameStream{Conn: c, from: from, relayed: relayed, done: make(chan struct{})}
	s.close = sync.OnceValue(func() error {
		defer close(s.done)
		if f, ok := c.(fabric.Stream); ok {
			return f.Reset() // what still waits is late
		}
		return c.Close()
	})
	return s
}

// Close ends both directions.
func (s *frameStream) Close() error { return s.close() }

func (s *frameStream) over() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// sameWays reports whether a says what b does.
func sameWays(a, b map[crdt.NodeID]overlay.Way) bool {
	if len(a) != len(b) {
		return false
	}
	for id, w := range a {
		o, ok := b[id]
		if !ok || w.Stream != o.Stream || !slices.EqualFunc(w.Sessions, o.Sessions, func(x, y sealed.Session) bool {
			return x.ID == y.ID && x.Local == y.Local && x.Remote == y.Remote
		}) {
			return false
		}
	}
	return true
}
