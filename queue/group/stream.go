package group

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"vcpeer/crdt"
)

const (
	helloTimeout = 10 * time.Second
	// idleReads ends a stream on which nothing came for so long: its sender has closed it long ago.
	idleReads = 3 * time.Minute
	// snapshotTimeout bounds the transfer of one snapshot.
	snapshotTimeout = 5 * time.Minute
)

// accept serves one stream that another node opened.
func (g *Group) accept(ctx context.Context, from crdt.NodeID, c net.Conn) {
	defer c.Close()
	select {
	case <-g.running:
	default:
		return // not yet: the sender tries again
	}
	select {
	case <-g.stopped:
		return
	default:
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-g.stopped:
		case <-ctx.Done():
		case <-done:
			return
		}
		c.Close()
	}()
	if err := g.serve(from, c); err != nil {
		g.cfg.Log.Debug("stream of the queue group ended", "from", from, "err", err)
	}
}

func (g *Group) serve(from crdt.NodeID, c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	r := bufio.NewReaderSize(c, 64<<10)
	var h hello
	if err := readCBOR(r, maxHelloBytes, &h); err != nil {
		return err
	}
	if h.Site != g.cfg.Site {
		return fmt.Errorf("stream for site %q, this is %q", h.Site, g.cfg.Site)
	}
	switch h.Purpose {
	case forMessages:
		return g.receiveMessages(from, c, r)
	case forSnapshot:
		return g.receiveSnapshot(from, c, r)
	case forAsking:
		return g.answerAsk(from, c, h)
	}
	return fmt.Errorf("%w: purpose %d", errFrame, h.Purpose)
}

func (g *Group) receiveMessages(from crdt.NodeID, c net.Conn, r *bufio.Reader) error {
	for {
		if err := c.SetDeadline(time.Now().Add(idleReads)); err != nil {
			return err
		}
		b, err := readFrame(r, maxMessageBytes)
		if err != nil {
			return err
		}
		m, err := decodeMessage(b)
		if err != nil {
			return err
		}
		if m.GetType() == pb.MsgSnap {
			return fmt.Errorf("%w: snapshot among messages", errFrame)
		}
		if err := g.deliver(inbound{from, m}); err != nil {
			return err
		}
	}
}

func (g *Group) deliver(in inbound) error {
	select {
	case g.messages <- in:
		return nil
	case <-g.stopped:
		return ErrStopped
	}
}

// receiveSnapshot takes a snapshot if its sender may send one; nothing large is read before that is known.
func (g *Group) receiveSnapshot(from crdt.NodeID, c net.Conn, r *bufio.Reader) error {
	if err := c.SetDeadline(time.Now().Add(snapshotTimeout)); err != nil {
		return err
	}
	b, err := readFrame(r, maxHelloBytes)
	if err != nil {
		return err
	}
	m, err := decodeMessage(b)
	if err != nil {
		return err
	}
	if m.GetType() != pb.MsgSnap || m.GetSnapshot().GetMetadata() == nil {
		return fmt.Errorf("%w: no snapshot", errFrame)
	}
	if !g.onLoop(func(l *loop) bool { return l.admitSnapshot(from, m) }) {
		return fmt.Errorf("snapshot from %v is not wanted", from)
	}
	defer g.onLoop(func(l *loop) bool { l.receiving = false; return true })
	if m.Snapshot.Data, err = readSnapshot(r); err != nil {
		return err
	}
	if err := g.deliver(inbound{from, m}); err != nil {
		return err
	}
	return writeCBOR(c, answer{ID: g.loop.id})
}

// admitSnapshot lets one snapshot at a time in, from members only.
func (l *loop) admitSnapshot(from crdt.NodeID, m *pb.Message) bool {
	if l.parked || l.receiving || !l.core.accepts(from, l.siteNodes()[from], m) {
		return false
	}
	l.receiving = true
	return true
}

// onLoop lets the loop answer a question; false when it has ended.
func (g *Group) onLoop(f func(*loop) bool) bool {
	reply := make(chan bool, 1)
	select {
	case g.requests <- func(l *loop) { reply <- f(l) }:
	case <-g.stopped:
		return false
	}
	select {
	case ok := <-reply:
		return ok
	case <-g.stopped:
		return false
	}
}

func readSnapshot(r io.Reader) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint64(head[:])
	if n > maxSnapshotBytes {
		return nil, fmt.Errorf("%w: snapshot of %d bytes, at most %d", errFrame, n, maxSnapshotBytes)
	}
	return readN(r, int64(n))
}

// sendSnapshot sends the snapshot that m speaks of, from disk, on a stream of its own. If it has been replaced in the
// meantime, raft hears of a failure and asks for the newer one.
func (t *transport) sendSnapshot(ctx context.Context, to crdt.NodeID, m *pb.Message) {
	err := t.trySnapshot(ctx, to, m)
	if err != nil {
		t.g.cfg.Log.Debug("sending a snapshot of the queue failed", "to", to, "err", err)
	}
	t.snapshotStatus(m.GetTo(), err)
}

func (t *transport) trySnapshot(ctx context.Context, to crdt.NodeID, m *pb.Message) error {
	snap, err := t.g.loop.log.ReadSnapshot(m.GetSnapshot().GetMetadata().GetIndex())
	if err != nil {
		return err
	}
	head, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
	defer cancel()
	conn, err := t.fabric.Open(ctx, to, Proto)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := writeCBOR(conn, hello{Purpose: forSnapshot, Site: t.g.cfg.Site}); err != nil {
		return err
	}
	if err := writeFrame(conn, head); err != nil {
		return err
	}
	if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, uint64(len(snap.Data)))); err != nil {
		return err
	}
	if _, err := conn.Write(snap.Data); err != nil {
		return err
	}
	var a answer
	return readCBOR(conn, maxHelloBytes, &a)
}
