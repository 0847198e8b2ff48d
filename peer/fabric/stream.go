package fabric

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	mss "github.com/multiformats/go-multistream"
	"github.com/quic-go/quic-go"

	"vcpeer/crdt"
)

// JoinProtocol is the one protocol that strangers are meant for.
const JoinProtocol = "/vcpeer/join/1"

const (
	negotiateTimeout = 10 * time.Second // to agree on a stream's protocol
	lingerTimeout    = 5 * time.Second  // to hear that the protocol of a stream closed without a read was accepted
)

// ErrProtocol says that the peer does not offer the protocol (to this node).
var ErrProtocol = errors.New("peer does not offer the protocol")

// Handler serves one stream. It runs in a goroutine of its own and closes c. ctx is over when the connection or the
// fabric closes; c.RemoteAddr is the peer's IP address and port.
type Handler = func(ctx context.Context, from crdt.NodeID, c net.Conn)

// Stream is what the net.Conn of a stream can do beyond that interface.
type Stream interface {
	net.Conn
	CloseWrite() error // the peer reads EOF; reading goes on
	Reset() error      // gives up both directions; the peer gets an error, never EOF
}

var _ Stream = (*stream)(nil)

// Handle offers proto to members. Registering a protocol again replaces its handler.
func (f *Fabric) Handle(proto string, h Handler) {
	f.members.AddHandler(protocol.ID(proto), f.handler(h))
}

// HandleStrangers offers proto to everybody who is not evicted, members included.
func (f *Fabric) HandleStrangers(proto string, h Handler) {
	f.strangers.AddHandler(protocol.ID(proto), f.handler(h))
	f.Handle(proto, h)
}

// serve is called by the swarm in a new goroutine for every stream that a peer opens.
func (f *Fabric) serve(s network.Stream) {
	id, _ := nodeIDOf(s.Conn().RemotePeer())
	offers := f.strangers
	switch f.cfg.Standing(id) {
	case Member:
		offers = f.members
	case Evicted:
		f.closeConn(s.Conn(), network.ConnGated)
		return
	}
	_ = s.SetDeadline(time.Now().Add(negotiateTimeout)) // fails only on a stream that is already dead
	proto, run, err := offers.Negotiate(s)
	if err != nil {
		_ = s.ResetWithError(network.StreamProtocolNegotiationFailed)
		return
	}
	if err := s.SetProtocol(proto); err != nil { // over a limit
		_ = s.ResetWithError(network.StreamResourceLimitExceeded)
		return
	}
	_ = s.SetDeadline(time.Time{})
	_ = run(proto, s) // handlers report their errors themselves
}

// handler adapts h to the multiplexer.
func (f *Fabric) handler(h Handler) mss.HandlerFunc[protocol.ID] {
	return func(_ protocol.ID, rwc io.ReadWriteCloser) error {
		s := rwc.(network.Stream)
		id, _ := nodeIDOf(s.Conn().RemotePeer())
		ctx := f.connContext(id, s.Conn())
		f.running.Add(1)
		defer f.running.Done()
		h(ctx, id, &stream{Stream: s})
		return nil
	}
}

// connContext is the context that ends with the connection nc of id.
func (f *Fabric) connContext(id crdt.NodeID, nc network.Conn) context.Context {
	if l := f.peek(id); l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, c := range l.conns {
			if c.Conn == nc {
				return c.ctx
			}
		}
	}
	ctx, cancel := context.WithCancel(f.ctx) // the connection ended meanwhile
	cancel()
	return ctx
}

// Open opens a stream of the protocol to a member, connecting first if need be; ctx bounds only that. Errors wrap
// ErrNotMember, ErrEvicted, ErrProtocol, ErrClosed or the cause. The result is a [Stream].
//
// The first stream of a protocol waits a round trip for the peer's consent; later ones on the same connection do not,
// and a refusal then comes from Read.
func (f *Fabric) Open(ctx context.Context, to crdt.NodeID, proto string) (net.Conn, error) {
	s, err := f.open(ctx, to, proto, false)
	if err != nil {
		return nil, fmt.Errorf("fabric: open %s to %s: %w", proto, to.Short(), err)
	}
	return s, nil
}

// open opens a stream; direct: not through a relay.
func (f *Fabric) open(ctx context.Context, to crdt.NodeID, proto string, direct bool) (*stream, error) {
	if f.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if to == f.self || to.IsZero() {
		return nil, errors.New("that is this node itself, or nobody")
	}
	if err := f.gate.mayReach(to); err != nil {
		return nil, err
	}
	l := f.linkTo(to)
	ns, err := f.newStream(ctx, l, direct)
	if err != nil {
		f.forgetIdle(l)
		return nil, oneLine(ctx, err)
	}
	if err := ns.SetProtocol(protocol.ID(proto)); err != nil {
		_ = ns.Reset()
		return nil, err
	}
	l.mu.Lock()
	_, known := l.speaks[proto]
	l.mu.Unlock()
	if known {
		return &stream{Stream: ns, lazy: mss.NewMSSelect(ns, protocol.ID(proto))}, nil
	}
	if err := agree(ctx, ns, proto); err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.speaks[proto] = struct{}{}
	l.mu.Unlock()
	return &stream{Stream: ns}, nil
}

// newStream opens a stream on the best connection, or on a new one. It asks connections itself, not the swarm, which would
// prefer the one with most streams, dead or not, and lose the reason when the peer's gate has closed a new one already.
func (f *Fabric) newStream(ctx context.Context, l *link, direct bool) (network.Stream, error) {
	for _, c := range l.usable(direct) {
		s, err := c.NewStream(ctx)
		if err == nil || !c.IsClosed() {
			return s, err
		}
	}
	c, err := f.dial(ctx, l, direct)
	if err != nil {
		return nil, err
	}
	return c.NewStream(ctx)
}

// dial connects to a peer: at its own addresses, through its relays, and when none of these is known, or all of that fails, through
// this node's. Of a newcomer behind a NAT no relay is known for a second or two, and its own addresses only cost time: meanwhile
// gossip would take it for dead.
func (f *Fabric) dial(ctx context.Context, l *link, direct bool) (network.Conn, error) {
	p := peerIDOf(l.id)
	if direct {
		return f.host.DialPeer(network.WithForceDirectDial(ctx, "to a relay"), p)
	}
	early := l.hidden() && f.addDetours(l)
	c, err := f.host.DialPeer(ctx, p)
	if err == nil || early || ctx.Err() != nil || gateSaid(err) != nil || !f.addDetours(l) {
		return c, err
	}
	if c, again := f.host.DialPeer(ctx, p); again == nil {
		return c, nil
	}
	return nil, err
}

// agree negotiates the protocol of a fresh stream, and resets it when that fails.
func agree(ctx context.Context, s network.Stream, proto string) error {
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	_ = s.SetDeadline(time.Now().Add(negotiateTimeout))
	err := mss.SelectProtoOrFail(protocol.ID(proto), s)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		_ = s.SetDeadline(time.Time{})
		return nil
	}
	_ = s.Reset()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, mss.ErrNotSupported[protocol.ID]{}) {
		return ErrProtocol
	}
	if said := gateSaid(err); said != nil {
		return said
	}
	return fmt.Errorf("agree on the protocol: %w", err)
}

// gateSaid finds in an error what the peer's gate told when it closed the connection; nil: nothing.
func gateSaid(err error) error {
	var ce *network.ConnError
	if !errors.As(err, &ce) || !ce.Remote {
		return nil
	}
	switch ce.ErrorCode {
	case network.ConnGated:
		return ErrShutOut
	case network.ConnRateLimited:
		return ErrFull
	}
	return nil
}

// oneLine shortens libp2p's list of failed dials to what a log can take, and gives the context's end its own name.
func oneLine(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if said := gateSaid(err); said != nil {
		return said
	}
	var de *swarm.DialError
	if !errors.As(err, &de) || len(de.DialErrors) == 0 {
		return err
	}
	var parts []string
	for _, te := range de.DialErrors {
		parts = append(parts, fmt.Sprintf("%s: %v", te.Address, te.Cause))
	}
	return &dialError{text: "cannot connect: " + strings.Join(parts, "; "), cause: err}
}

type dialError struct {
	text  string
	cause error
}

func (e *dialError) Error() string { return e.text }
func (e *dialError) Unwrap() error { return e.cause }

// stream makes a libp2p stream a net.Conn.
type stream struct {
	network.Stream
	lazy mss.LazyConn // agrees on the protocol along with the first data; nil: agreed
	read atomic.Bool  // a Read has returned, so lazy has heard the peer's answer
}

func (s *stream) LocalAddr() net.Addr { return netAddr(s.Conn().LocalMultiaddr()) }

// RemoteAddr is where the peer is now: a NAT may have given it another address since it connected.
func (s *stream) RemoteAddr() net.Addr {
	var q *quic.Conn
	if s.Conn().As(&q) {
		return q.RemoteAddr()
	}
	return netAddr(s.Conn().RemoteMultiaddr())
}

func (s *stream) Read(b []byte) (int, error) {
	if s.lazy == nil {
		return s.Stream.Read(b)
	}
	n, err := s.lazy.Read(b)
	s.read.Store(true)
	if errors.Is(err, mss.ErrNotSupported[protocol.ID]{}) {
		err = ErrProtocol
	}
	return n, err
}

func (s *stream) Write(b []byte) (int, error) {
	if s.lazy == nil {
		return s.Stream.Write(b)
	}
	return s.lazy.Write(b)
}

func (s *stream) CloseWrite() error {
	if s.lazy != nil {
		if err := s.lazy.Flush(); err != nil {
			return err
		}
	}
	return s.Stream.CloseWrite()
}

// Close ends both directions; what was written is still delivered. A stream that was never read from is closed in the
// background once the peer has accepted its protocol, for the peer might else drop what was written.
func (s *stream) Close() error {
	if s.lazy == nil || s.read.Load() {
		return s.Stream.Close()
	}
	_ = s.SetDeadline(time.Now().Add(lingerTimeout))
	go func() { _ = s.lazy.Close() }()
	return nil
}
