package fabric

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"vcpeer/crdt"
)

const (
	datagramProtocol = "/vcpeer/dgram/1"

	// maxDatagram fits a QUIC packet on a path whose MTU is not known yet: 1,280 bytes from the start, less QUIC's own.
	maxDatagram = 1150

	maxBackgroundDials = 16 // dials that Send has caused, at once
	backgroundDialTime = 10 * time.Second

	// Class 0 is the fabric's own: pings on datagram streams, which unlike QUIC measure no round trip time.
	classControl   = 0
	controlPing    = 1
	controlPong    = 2
	controlNothing = 3 // asks for no more than QUIC's acknowledgement
	controlBytes   = 1 + 8
	pingPeriod     = 15 * time.Second // while datagrams go out on a stream
)

// MaxDatagram returns the payload bytes that a datagram surely can carry. Send takes up to 16 KiB, but what is above
// MaxDatagram may go by a stream, behind what was lost there.
func (f *Fabric) MaxDatagram() int { return maxDatagram }

// Receive sets the handler of a class of datagrams (1 to 255), from members only. It is called from several goroutines
// (one for each connection), must not wait, and must not keep b.
func (f *Fabric) Receive(class byte, h func(from crdt.NodeID, b []byte)) {
	if class == classControl {
		panic("fabric: datagram class 0 is the fabric's own")
	}
	f.classes[class].Store(&h)
}

// Send sends b to a member as a datagram of the class: at most once, in no order, without waiting and perhaps not at
// all. It goes by QUIC, or where the peer has no QUIC connection by a stream. A peer not connected is dialled in the
// background, with growing pauses while that fails. b is copied.
func (f *Fabric) Send(to crdt.NodeID, class byte, b []byte) {
	if len(b) >= maxDatagramOnWire || class == classControl || to == f.self || f.ctx.Err() != nil || f.cfg.Standing(to) != Member {
		return
	}
	d := make([]byte, 1+len(b))
	d[0] = class
	copy(d[1:], b)
	f.post(f.linkTo(to), d)
}

// post queues d, class and payload, which it keeps.
func (f *Fabric) post(l *link, d []byte) {
	l.mu.Lock()
	start := l.out.put(d, len(l.conns) > 0, time.Now())
	l.mu.Unlock()
	if start {
		f.running.Go(func() { f.drain(l) })
	}
}

// drain sends what is queued for one peer; one such goroutine runs for a peer, and only while there is something.
func (f *Fabric) drain(l *link) {
	defer f.forgetIdle(l)
	for {
		l.mu.Lock()
		d := l.out.take()
		l.mu.Unlock()
		if d == nil {
			return
		}
		if err := f.carry(l, d); err != nil {
			l.mu.Lock()
			l.out.fail(time.Now())
			l.mu.Unlock()
			f.log.Debug("datagrams given up", "peer", l.id, "err", err)
		}
	}
}

// carry sends one datagram, connecting first if need be. An error means that the peer cannot be reached.
func (f *Fabric) carry(l *link, d []byte) error {
	if f.cfg.Standing(l.id) != Member {
		return ErrNotMember
	}
	if !l.connected() {
		if err := f.connect(l); err != nil {
			return err
		}
	}
	if q := l.bestQUIC(); q != nil {
		if l.out.stream != nil { // of a time without QUIC
			l.out.stream.Close()
			l.out.stream = nil
		}
		err := q.SendDatagram(d) // waits while the connection is congested
		if tooLarge := (*quic.DatagramTooLargeError)(nil); !errors.As(err, &tooLarge) {
			return nil // sent; or lost with the connection, as datagrams may be
		}
	}
	return f.carryByStream(l, d)
}

// connect makes sure that there is a connection with l, dialling again when the peer revives while it is dialled.
func (f *Fabric) connect(l *link) error {
	select {
	case f.dials <- struct{}{}:
		defer func() { <-f.dials }()
	case <-f.ctx.Done():
		return ErrClosed
	}
	for {
		ctx, cancel := context.WithTimeout(f.ctx, backgroundDialTime)
		l.mu.Lock()
		connected, before := len(l.conns) > 0, l.out.revived
		l.out.cancel = cancel
		l.mu.Unlock()
		var err error
		if !connected {
			_, err = f.dial(ctx, l, false)
			err = oneLine(ctx, err)
		}
		cancel()
		l.mu.Lock()
		again := l.out.revived != before
		l.out.cancel = nil
		l.mu.Unlock()
		if err == nil || !again {
			return err
		}
	}
}

// carryByStream sends d on the peer's datagram stream, which is kept open. A stream that fails is opened anew once: the
// connection under the old one may be gone.
func (f *Fabric) carryByStream(l *link, d []byte) error {
	o := &l.out
	fresh := o.stream == nil
	for {
		if o.stream == nil {
			ctx, cancel := context.WithTimeout(f.ctx, backgroundDialTime)
			s, err := f.open(ctx, l.id, datagramProtocol, false)
			cancel()
			if err != nil {
				return err
			}
			o.stream, o.pinged = s, time.Time{}
		}
		err := o.stream.SetWriteDeadline(time.Now().Add(datagramSendBudget))
		if err == nil {
			_, err = o.stream.Write(l.framesFor(d))
		}
		if err == nil {
			return nil
		}
		reset(o.stream)
		o.stream = nil
		if fresh {
			return err
		}
		fresh = true
	}
}

// framesFor returns the frame of d, with a ping before it when one is due.
func (l *link) framesFor(d []byte) []byte {
	b := make([]byte, 0, 2*frameHeaderBytes+1+controlBytes+len(d))
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.out.pinged) >= pingPeriod {
		l.out.pinged, l.out.nonce = now, uint64(now.UnixNano())
		b = appendFrame(b, controlMessage(controlPing, l.out.nonce))
	}
	return appendFrame(b, d)
}

func controlMessage(kind byte, nonce uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{classControl, kind}, nonce)
}

// receiveQUIC takes the datagrams of one QUIC connection until it closes.
func (f *Fabric) receiveQUIC(from crdt.NodeID, c *conn) {
	for {
		d, err := c.quic.ReceiveDatagram(c.ctx)
		if err != nil {
			return
		}
		f.dispatch(from, d)
	}
}

// receiveStream takes the datagrams of one stream until it ends.
func (f *Fabric) receiveStream(_ context.Context, from crdt.NodeID, c net.Conn) {
	defer reset(c)
	r := bufio.NewReaderSize(c, 4<<10)
	buf := make([]byte, maxFrameBytes)
	for {
		d, err := readFrame(r, buf)
		if err != nil {
			if errors.Is(err, errFrame) {
				f.log.Debug("datagram stream closed", "peer", from, "err", err)
			}
			return
		}
		f.dispatch(from, d)
	}
}

// dispatch hands a datagram on, if it is from a member: whether it is may have changed since it connected.
func (f *Fabric) dispatch(from crdt.NodeID, d []byte) {
	if len(d) == 0 || f.cfg.Standing(from) != Member {
		return
	}
	if d[0] == classControl {
		f.control(from, d[1:])
		return
	}
	if h := f.classes[d[0]].Load(); h != nil {
		(*h)(from, d[1:])
	}
}

// control answers pings and takes their answers.
func (f *Fabric) control(from crdt.NodeID, b []byte) {
	if len(b) != controlBytes {
		return
	}
	l, nonce := f.linkTo(from), binary.BigEndian.Uint64(b[1:])
	switch b[0] {
	case controlPing:
		f.post(l, controlMessage(controlPong, nonce))
	case controlPong:
		l.mu.Lock()
		if l.out.nonce != 0 && l.out.nonce == nonce {
			l.rtt, l.out.nonce = time.Since(l.out.pinged), 0
		}
		l.mu.Unlock()
	}
}

// reset gives a stream up in both directions.
func reset(c net.Conn) {
	if s, ok := c.(Stream); ok {
		_ = s.Reset()
		return
	}
	_ = c.Close()
}

// Dropped returns how many datagrams for id were given up on this side, since it was first addressed.
func (f *Fabric) Dropped(id crdt.NodeID) uint64 {
	l := f.peek(id)
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.dropped
}
