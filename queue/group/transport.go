package group

import (
	"bufio"
	"context"
	"sync"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"vcpeer/crdt"
)

// transport sends the core's messages. The map belongs to the loop; each sender has a goroutine.
type transport struct {
	g       *Group
	fabric  Fabric
	ctx     context.Context // of the run
	tasks   sync.WaitGroup
	senders map[crdt.NodeID]*sender
}

func newTransport(g *Group) *transport {
	return &transport{g: g, fabric: g.cfg.Fabric, senders: map[crdt.NodeID]*sender{}}
}

func (t *transport) begin(ctx context.Context) { t.ctx = ctx }

// wait returns when all that the transport started has ended; ctx must be over.
func (t *transport) wait() { t.tasks.Wait() }

// goDo runs f beside the loop.
func (t *transport) goDo(f func(ctx context.Context)) { t.tasks.Go(func() { f(t.ctx) }) }

// later lets the loop do f.
func (t *transport) later(f func(*loop)) {
	select {
	case t.g.requests <- f:
	case <-t.ctx.Done():
	}
}

const (
	// senderQueue holds a second or so of messages under load; heartbeats alone never fill it.
	senderQueue = 1024
	// sendTimeout bounds one write: a peer that takes nothing for so long is as good as dead.
	sendTimeout = 5 * time.Second
	dialTimeout = 3 * time.Second
	// redialAfter is the pause after a failed dial. raft sends again by itself.
	redialAfter = 300 * time.Millisecond
	// idleAfter closes a stream that nobody needs, as after the member was removed.
	idleAfter = time.Minute
)

// send queues messages for their members; it never waits. What finds no room is dropped and reported: raft repeats it.
func (t *transport) send(ms []*pb.Message) {
	for _, m := range ms {
		node, ok := t.g.loop.core.roster[m.GetTo()]
		if !ok {
			// An answer to a leader or candidate that our copy of the membership does not have yet.
			node, ok = t.g.loop.seen[m.GetTo()]
		}
		switch {
		case !ok:
			t.g.loop.core.node.ReportUnreachable(m.GetTo())
		case m.GetType() == pb.MsgSnap:
			t.goDo(func(ctx context.Context) { t.sendSnapshot(ctx, node, m) })
		default:
			t.enqueue(node, m)
		}
	}
}

func (t *transport) enqueue(node crdt.NodeID, m *pb.Message) {
	s := t.senders[node]
	if s == nil || s.ended() {
		s = &sender{t: t, to: node, queue: make(chan *pb.Message, senderQueue), end: make(chan struct{})}
		t.senders[node] = s
		t.goDo(s.run)
	}
	select {
	case s.queue <- m:
	default:
		t.g.loop.core.node.ReportUnreachable(m.GetTo())
	}
}

// sender owns the stream to one node.
type sender struct {
	t     *transport
	to    crdt.NodeID
	queue chan *pb.Message
	end   chan struct{} // closed when run has ended
}

func (s *sender) ended() bool {
	select {
	case <-s.end:
		return true
	default:
		return false
	}
}

func (s *sender) run(ctx context.Context) {
	defer close(s.end)
	for ctx.Err() == nil {
		m, ok := s.next(ctx)
		if !ok {
			return
		}
		if err := s.stream(ctx, m); err == nil {
			return // idle
		}
		s.lost(ctx)
	}
}

// next waits for a message; false: none came for a long time, or ctx is over.
func (s *sender) next(ctx context.Context) (*pb.Message, bool) {
	idle := time.NewTimer(idleAfter)
	defer idle.Stop()
	select {
	case m := <-s.queue:
		return m, true
	case <-idle.C:
	case <-ctx.Done():
	}
	return nil, false
}

// stream opens a stream and writes messages, m first, until it fails or is idle (nil).
func (s *sender) stream(ctx context.Context, m *pb.Message) error {
	dial, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := s.t.fabric.Open(dial, s.to, Proto)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	w := bufio.NewWriterSize(conn, 64<<10)
	if err := writeCBOR(w, hello{Purpose: forMessages, Site: s.t.g.cfg.Site}); err != nil {
		return err
	}
	for ok := true; ok; m, ok = s.next(ctx) {
		if err := conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
			return err
		}
		if err := s.writeAll(w, m); err != nil {
			return err
		}
	}
	return nil
}

// writeAll writes m and what has gathered behind it, then flushes once.
func (s *sender) writeAll(w *bufio.Writer, m *pb.Message) error {
	for {
		b, err := proto.Marshal(m)
		if err != nil {
			return err
		}
		if err := writeFrame(w, b); err != nil {
			return err
		}
		select {
		case m = <-s.queue:
		default:
			return w.Flush()
		}
	}
}

// lost reports the peer unreachable, drops what was meant for the broken stream, and pauses.
func (s *sender) lost(ctx context.Context) {
	ids := map[uint64]bool{}
	for range len(s.queue) {
		ids[(<-s.queue).GetTo()] = true
	}
	s.t.later(func(l *loop) {
		for id, node := range l.core.roster {
			if node == s.to || ids[id] {
				l.core.node.ReportUnreachable(id)
			}
		}
	})
	pause := time.NewTimer(redialAfter)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	}
}

// snapshotStatus tells raft how the sending of a snapshot went.
func (t *transport) snapshotStatus(id uint64, err error) {
	status := raft.SnapshotFinish
	if err != nil {
		status = raft.SnapshotFailure
	}
	t.later(func(l *loop) { l.core.node.ReportSnapshot(id, status) })
}
