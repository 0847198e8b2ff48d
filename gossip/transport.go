package gossip

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"vcpeer/crdt"
)

const (
	packetQueue = 512 // packets that wait for memberlist; about a second of a bad storm, the rest is dropped

	// What one peer and all peers together may have open here. memberlist reads a whole push/pull into memory; a
	// stream ends with an error after streamBytes, enough for the state of 10,000 nodes.
	streamsPerPeer = 2
	streamsInAll   = 32
	streamBytes    = 8 << 20
)

var (
	errNotAllowed = errors.New("gossip: the node is not a member of this cluster")
	errTooLong    = errors.New("gossip: stream is longer than a push/pull can be")
)

// transport is memberlist's way to the fabric. Writing a packet never dials and never waits: one goroutine of memberlist
// probes everybody, and a slow peer must not delay the probe of the next.
type transport struct {
	fabric  Fabric
	allowed func(crdt.NodeID) bool
	dial    time.Duration // limit; Serf tries one node after the other, and one that is cut off must not hold it up
	book    *book
	packets chan *memberlist.Packet
	streams chan net.Conn

	ctx  context.Context // ends with Shutdown
	stop context.CancelFunc

	mu   sync.Mutex
	open map[crdt.NodeID]int // streams that came in and are not closed
	all  int                 // their sum
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

func newTransport(fabric Fabric, allowed func(crdt.NodeID) bool, dial time.Duration) *transport {
	t := &transport{
		fabric: fabric, allowed: allowed, dial: dial, book: newBook(),
		packets: make(chan *memberlist.Packet, packetQueue), streams: make(chan net.Conn),
		open: map[crdt.NodeID]int{},
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	return t
}

// listen starts to take packets and streams from the fabric.
func (t *transport) listen() {
	t.fabric.Receive(Class, t.onPacket)
	t.fabric.Handle(Protocol, t.onStream)
}

func (t *transport) onPacket(from crdt.NodeID, b []byte) {
	if t.ctx.Err() != nil || !t.allowed(from) {
		return
	}
	p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: t.book.learn(from), Timestamp: time.Now()}
	select {
	case t.packets <- p:
	default: // lost, as any datagram may be
	}
}

// onStream gives a stream to memberlist, which closes it, and returns after that.
func (t *transport) onStream(ctx context.Context, from crdt.NodeID, c net.Conn) {
	if !t.allowed(from) || !t.admit(from) {
		c.Close()
		return
	}
	defer t.dismiss(from)
	s := &stream{Conn: c, left: streamBytes, closed: make(chan struct{})}
	defer s.Close()
	select {
	case t.streams <- s:
	case <-t.ctx.Done():
		return
	}
	select {
	case <-s.closed:
	case <-ctx.Done():
	case <-t.ctx.Done():
	}
}

func (t *transport) admit(from crdt.NodeID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all >= streamsInAll || t.open[from] >= streamsPerPeer {
		return false
	}
	t.all++
	t.open[from]++
	return true
}

func (t *transport) dismiss(from crdt.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all--
	if t.open[from]--; t.open[from] == 0 {
		delete(t.open, from)
	}
}

// WriteToAddress sends one packet. It succeeds also when the packet is lost at once, as the others may reach the node.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	id, err := t.book.find(a)
	if err != nil {
		return time.Time{}, err
	}
	if t.allowed(id) {
		t.fabric.Send(id, Class, b)
	}
	return time.Now(), nil
}

// DialAddressTimeout opens a stream to a node.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	id, err := t.book.find(a)
	if err != nil {
		return nil, err
	}
	if !t.allowed(id) {
		return nil, errNotAllowed
	}
	deadline := time.Now().Add(timeout)
	ctx, cancel := context.WithTimeout(t.ctx, min(timeout, t.dial))
	defer cancel()
	c, err := t.fabric.Open(ctx, id, Protocol)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(deadline); err != nil {
		c.Close()
		return nil, err
	}
	return &stream{Conn: c, left: streamBytes, closed: make(chan struct{})}, nil
}

// WriteTo sends to a node that was met before, by its address.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// DialTimeout opens a stream to a node that was met before, by its address.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// FinalAdvertiseAddr returns this node's address, whatever was configured.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.book.learn(t.fabric.Self()).IP, port, nil
}

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }
func (t *transport) StreamCh() <-chan net.Conn           { return t.streams }

// Shutdown refuses whatever comes from now on.
func (t *transport) Shutdown() error {
	t.stop()
	return nil
}

// stream is one stream with a limit on what is read from it, and a word when it is closed.
type stream struct {
	net.Conn
	left   int64 // bytes that may still be read
	closed chan struct{}
	once   sync.Once
}

func (s *stream) Read(b []byte) (int, error) {
	if s.left <= 0 {
		return 0, errTooLong
	}
	n, err := s.Conn.Read(b[:min(int64(len(b)), s.left)])
	s.left -= int64(n)
	return n, err
}

func (s *stream) Close() error {
	err := net.ErrClosed
	s.once.Do(func() {
		err = s.Conn.Close()
		close(s.closed)
	})
	return err
}
