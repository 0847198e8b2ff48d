package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"vcpeer/crdt"
)

// Stream is what circuits are made of.
type Stream interface {
	net.Conn
	CloseWrite() error
	Reset() error
}

// Limits bound what a relay carries. The zero value of a field means its default.
type Limits struct {
	Places            int   // held at once; 0: 1,024
	PlacesPerMember   int   // 0: 4; a member that comes back may still have an old one
	Circuits          int   // at once; 0: 2,048
	CircuitsPerMember int   // at once, counted at both ends; 0: 256
	BytesPerSecond    int64 // of all circuits together, each direction counted; 0: 100 MB/s, less than 0: no limit
}

func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		field *int
		value int
	}{{&l.Places, 1024}, {&l.PlacesPerMember, 4}, {&l.Circuits, 2048}, {&l.CircuitsPerMember, 256}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if l.BytesPerSecond == 0 {
		l.BytesPerSecond = 100e6
	}
	return l
}

const (
	askTimeout  = 10 * time.Second // from the opening of a stream to what it is for
	openTimeout = 5 * time.Second  // to reach the other end of a circuit
	holdSilence = 15 * time.Second // a place whose member says nothing for so long is given up
	idleTimeout = 5 * time.Minute  // a circuit that carries nothing for so long ends; the connections in it say something oftener

	quietBytes = 2 << 10  // a direction with little to carry has a buffer of this size …
	busyBytes  = 32 << 10 // … and one that filled it gets this
	maxBusy    = 1024     // of these there are so many: 32 MiB in flight in all
)

var largeBuffers = sync.Pool{New: func() any { return new([busyBytes]byte) }}

// Config is what a Server needs. Open is required.
type Config struct {
	// Open brings a stream of Incoming to a member that this node is, or can be, connected with directly.
	Open   func(ctx context.Context, to crdt.NodeID) (Stream, error)
	Keep   func(id crdt.NodeID, on bool) // the connection with a member must (not) be kept open; may be nil
	Limits Limits
	Log    *slog.Logger // nil: nothing is logged
}

// Stats say what a relay is doing.
type Stats struct {
	Places, Circuits int
	Bytes            uint64 // carried since the start, both directions
}

// Server is a relay. Safe for concurrent use.
type Server struct {
	cfg    Config
	limits Limits
	shares *shares
	busy   chan struct{} // one token for each large buffer in use

	carried atomic.Uint64 // bytes

	mu       sync.Mutex
	off      bool
	places   map[crdt.NodeID]int
	circuits map[crdt.NodeID]int // at either end
	stats    Stats
}

// NewServer makes a relay.
func NewServer(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Keep == nil {
		cfg.Keep = func(crdt.NodeID, bool) {}
	}
	limits := cfg.Limits.withDefaults()
	return &Server{
		cfg: cfg, limits: limits, shares: newShares(limits.BytesPerSecond), busy: make(chan struct{}, maxBusy),
		places: map[crdt.NodeID]int{}, circuits: map[crdt.NodeID]int{},
	}
}

// Accept sets whether new places and circuits are given; those there are go on. A Server begins with yes.
func (s *Server) Accept(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = !yes
}

// Stats returns what the relay is doing now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Bytes = s.carried.Load()
	return st
}

// Serve answers one stream of Protocol. Who it is from must have been found a member; ctx ends with its connection.
func (s *Server) Serve(ctx context.Context, from crdt.NodeID, c net.Conn) {
	in, ok := c.(Stream)
	if !ok {
		c.Close()
		return
	}
	_ = in.SetDeadline(time.Now().Add(askTimeout))
	kind, to, err := readRequest(in)
	switch {
	case err != nil:
		s.cfg.Log.Debug("a request to relay that cannot be read", "peer", from, "err", err)
		_ = in.Reset()
	case kind == askHold:
		s.hold(from, in)
	default:
		s.connect(ctx, from, to, in)
	}
}

// hold serves a place until its member goes.
func (s *Server) hold(from crdt.NodeID, c Stream) {
	defer c.Reset()
	err := s.enterPlace(from)
	if err == nil {
		defer s.leavePlace(from)
	}
	if _, werr := c.Write([]byte{byte(statusOf(err))}); err != nil || werr != nil {
		_ = c.CloseWrite()
		_, _ = c.Read(make([]byte, 1)) // until the answer has been read and the stream closed
		return
	}
	var b [1]byte
	for {
		_ = c.SetDeadline(time.Now().Add(holdSilence))
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return
		}
		var seen netip.AddrPort
		if at, ok := c.RemoteAddr().(*net.UDPAddr); ok { // through TCP it would say nothing of where packets come from
			seen = netip.AddrPortFrom(at.AddrPort().Addr().Unmap(), at.AddrPort().Port())
		}
		if _, err := c.Write(echo(b[0], seen)); err != nil {
			return
		}
	}
}

func (s *Server) enterPlace(who crdt.NodeID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.off {
		return ErrRefused
	}
	if s.stats.Places >= s.limits.Places || s.places[who] >= s.limits.PlacesPerMember {
		return ErrFull
	}
	s.places[who]++
	s.stats.Places++
	s.cfg.Keep(who, true)
	return nil
}

func (s *Server) leavePlace(who crdt.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Places--
	if s.places[who]--; s.places[who] == 0 {
		delete(s.places, who)
		s.cfg.Keep(who, false)
	}
}

// enterCircuit counts a circuit between two members.
func (s *Server) enterCircuit(a, b crdt.NodeID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.off:
		return ErrRefused
	case s.stats.Circuits >= s.limits.Circuits, s.circuits[a] >= s.limits.CircuitsPerMember, s.circuits[b] >= s.limits.CircuitsPerMember:
		return ErrFull
	}
	s.circuits[a]++
	s.circuits[b]++
	s.stats.Circuits++
	return nil
}

func (s *Server) leaveCircuit(a, b crdt.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Circuits--
	for _, id := range []crdt.NodeID{a, b} {
		if s.circuits[id]--; s.circuits[id] <= 0 {
			delete(s.circuits, id)
		}
	}
}

// connect makes a circuit and carries it until it ends.
func (s *Server) connect(ctx context.Context, from, to crdt.NodeID, in Stream) {
	out, leave, err := s.reach(ctx, from, to)
	defer leave()
	if _, werr := in.Write([]byte{byte(statusOf(err))}); err != nil || werr != nil {
		s.cfg.Log.Debug("no circuit", "from", from, "to", to, "err", errors.Join(err, werr))
		if out != nil {
			_ = out.Reset()
		}
		_ = in.Close()
		return
	}
	s.cfg.Log.Debug("carrying a circuit", "from", from, "to", to)
	s.splice(ctx, from, in, to, out)
}

// reach opens the far half of a circuit. leave is to be called in any case.
func (s *Server) reach(ctx context.Context, from, to crdt.NodeID) (_ Stream, leave func(), err error) {
	if from == to {
		return nil, func() {}, fmt.Errorf("%w: a circuit to itself", ErrMalformed)
	}
	if err := s.enterCircuit(from, to); err != nil {
		return nil, func() {}, err
	}
	leave = func() { s.leaveCircuit(from, to) }
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	out, err := s.cfg.Open(ctx, to)
	if err != nil {
		return nil, leave, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	_ = out.SetDeadline(time.Now().Add(askTimeout))
	if _, err = out.Write(from[:]); err == nil {
		err = readStatus(out)
	}
	if err != nil {
		_ = out.Reset()
		return nil, leave, err
	}
	return out, leave, nil
}

// splice carries both directions until both have ended, or one has failed.
func (s *Server) splice(ctx context.Context, a crdt.NodeID, as Stream, b crdt.NodeID, bs Stream) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_ = as.SetDeadline(time.Time{})
	_ = bs.SetDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() {
		_ = as.Reset()
		_ = bs.Reset()
	})
	defer stop()
	var both sync.WaitGroup
	carry := func(who crdt.NodeID, from, to Stream) {
		if s.carry(ctx, who, from, to) != nil {
			cancel()
		}
	}
	both.Go(func() { carry(a, as, bs) })
	both.Go(func() { carry(b, bs, as) })
	both.Wait()
	_ = as.Close()
	_ = bs.Close()
}

// carry copies what from says until its end.
func (s *Server) carry(ctx context.Context, who crdt.NodeID, from, to Stream) error {
	quiet := make([]byte, quietBytes)
	buf := quiet
	calm := func() {
		if len(buf) == busyBytes {
			largeBuffers.Put((*[busyBytes]byte)(buf))
			<-s.busy
			buf = quiet
		}
	}
	defer calm()
	for {
		_ = from.SetReadDeadline(time.Now().Add(idleTimeout))
		n, err := from.Read(buf)
		if n > 0 {
			if err := s.shares.take(ctx, who, n); err != nil {
				return err
			}
			s.carried.Add(uint64(n))
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return to.CloseWrite()
		}
		if err != nil {
			return err
		}
		switch {
		case n < quietBytes:
			calm()
		case len(buf) == quietBytes:
			select {
			case s.busy <- struct{}{}:
				buf = largeBuffers.Get().(*[busyBytes]byte)[:]
			default: // many are busy: it goes on in small pieces
			}
		}
	}
}
