package group

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"vcpeer/crdt"
	"vcpeer/queue/wal"
)

// loop owns the core, the log and the streams. Everything in it is called from Run's goroutine.
type loop struct {
	g    *Group
	cfg  Config
	log  *wal.Log
	core *core
	id   uint64
	net  *transport

	full    bool // the disk has no room for new work
	parked  bool // the log refused a batch: out of the group until there is space
	writing bool // a snapshot is being written; its outcome comes by written
	written chan snapshotOutcome

	stride    int  // ticks that come at once
	receiving bool // a snapshot is coming in
	shown     vital

	asked map[crdt.NodeID]asked
	hint  hint // who leads, as a leader told while it asked
	// seen says which node spoke for a raft ID that our copy of the membership does not have yet.
	seen map[uint64]crdt.NodeID
}

// inbound is a message that a member sent.
type inbound struct {
	from crdt.NodeID
	m    *pb.Message
}

type snapshotOutcome struct {
	index, term uint64
	err         error
}

const (
	// planEvery is the pace of growth and healing, askEvery that of asking nodes for their raft IDs.
	planEvery = 250 * time.Millisecond
	askEvery  = time.Second
	// spaceEvery is how often the disk's free space is looked at.
	spaceEvery = time.Second
	// roomBytes must surely fit before a proposal is taken: what the largest batches in flight may need.
	roomBytes = 8 * MaxBytes
	// maxTurn bounds the messages and proposals of one turn, so that ticks are not late.
	maxTurn = 512
)

func (l *loop) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	l.written = make(chan snapshotOutcome, 1)
	l.net.begin(ctx)
	defer func() {
		cancel()
		l.net.wait()
		if l.writing {
			<-l.written
		}
		l.core.failWaiting(ErrStopped)
		l.core.failProposed(fmt.Errorf("%w: %w", ErrUncertain, ErrStopped))
		l.core.reads.fail(ErrStopped)
		l.core.transfer = l.core.transfer.end(ErrStopped)
	}()
	l.space()
	l.stride = 1
	tick, plan := time.NewTicker(l.cfg.Tick), time.NewTicker(planEvery)
	ask, space := time.NewTicker(askEvery), time.NewTicker(spaceEvery)
	defer tick.Stop()
	defer plan.Stop()
	defer ask.Stop()
	defer space.Stop()
	for {
		if err := guard(l.work); err != nil {
			return err
		}
		if v := l.vital(); v != l.shown {
			l.shown = v
			l.g.publish()
		}
		if n := l.ticksAtOnce(); n != l.stride {
			l.stride = n
			tick.Reset(time.Duration(n) * l.cfg.Tick)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			err = guard(l.tick)
			l.g.publish()
		case in := <-l.g.messages:
			err = guard(func() error { return l.messages(in) })
		case p := <-l.g.proposals:
			l.proposals(p)
		case f := <-l.g.requests:
			f(l)
		case o := <-l.written:
			err = l.snapshotWritten(o)
		case <-plan.C:
			err = guard(l.plan)
		case <-ask.C:
			l.ask()
		case <-space.C:
			l.space()
		}
		if err != nil {
			return err
		}
	}
}

// vital is what others must learn of at once; the rest of the status waits for the next tick.
type vital struct {
	soft         raft.SoftState
	term         uint64
	settled      bool
	conf         *pb.ConfState
	full, parked bool
	hint         hint
}

func (l *loop) vital() vital {
	c := l.core
	return vital{c.soft, c.term, c.settled, c.store.conf, l.full, l.parked, l.hint}
}

// tick moves the core's time by what has gone by.
func (l *loop) tick() error {
	if l.parked {
		return nil
	}
	for range l.stride {
		l.core.tick()
	}
	return nil
}

// ticksAtOnce is how many ticks come together: one by one they are a good part of what wakes an idle node, and where
// nobody else takes part only the plan waits for them.
func (l *loop) ticksAtOnce() int {
	if !l.core.alone() {
		return 1
	}
	return max(1, int(planEvery/l.cfg.Tick))
}

// messages takes what has come, the given one first, without waiting for more.
func (l *loop) messages(in inbound) error {
	site := l.siteNodes()
	for n := 0; ; n++ {
		if !l.parked && l.core.accepts(in.from, site[in.from], in.m) {
			l.note(in)
			if err := l.core.step(in.m); err != nil {
				l.cfg.Log.Warn("refused a raft message", "from", in.from, "type", in.m.GetType(), "err", err)
			}
		}
		if n == maxTurn {
			return nil
		}
		select {
		case in = <-l.g.messages:
		default:
			return nil
		}
	}
}

// maxSeen bounds what members of the site can make us remember.
const maxSeen = 64

// note remembers where an answer to a raft ID that we do not know must go.
func (l *loop) note(in inbound) {
	id := in.m.GetFrom()
	if _, known := l.core.roster[id]; known {
		delete(l.seen, id)
		return
	}
	if len(l.seen) >= maxSeen {
		clear(l.seen)
	}
	l.seen[id] = in.from
}

// proposals takes what is waiting, the given one first.
func (l *loop) proposals(p *proposal) {
	for n := 0; ; n++ {
		switch {
		case l.parked, l.full && l.core.leading():
			p.done(nil, fmt.Errorf("group: %s: %w", l.cfg.Dir, wal.ErrNoSpace))
		case !l.core.leading():
			p.done(nil, ErrNotLeader{l.leader()})
		default:
			l.core.propose(p)
		}
		if n == maxTurn {
			return
		}
		select {
		case p = <-l.g.proposals:
		default:
			return
		}
	}
}

// work does what the core wants done until it wants nothing more.
func (l *loop) work() error {
	for !l.parked {
		w, ok := l.core.ready()
		if !ok {
			return l.snapshot()
		}
		l.net.send(w.First)
		if err := l.save(w); err != nil {
			if errors.Is(err, wal.ErrNoSpace) {
				return l.park(err)
			}
			return err
		}
		l.net.send(w.Then)
		if err := l.core.done(); err != nil {
			return err
		}
	}
	return nil
}

func (l *loop) save(w work) error {
	if w.Snapshot != nil {
		if l.writing {
			// Two snapshots must not be written at once; this one has the later state.
			if err := l.snapshotWritten(<-l.written); err != nil {
				return err
			}
		}
		if err := l.log.WriteSnapshot(*w.Snapshot); err != nil {
			return err
		}
	}
	if err := l.log.Save(w.Batch); err != nil {
		return err
	}
	if w.Snapshot != nil {
		return l.log.Trim(w.Snapshot.Index)
	}
	return nil
}

// park leaves the group until there is space: what raft had in hand is dropped, as in a crash. Other voters elect a leader.
func (l *loop) park(cause error) error {
	l.cfg.Log.Error("queue log is full: this node leaves its group until there is space", "err", cause)
	l.parked = true
	return l.core.restart(fmt.Errorf("%w: %w", ErrUncertain, cause))
}

// space looks at the disk: a leader without room hands over, a parked member comes back when there is room.
func (l *loop) space() {
	if !l.parked && !l.writing {
		l.log.Maintain()
	}
	s, err := l.log.Space()
	if err != nil {
		l.cfg.Log.Warn("free space of the queue log is unknown", "err", err)
		return
	}
	was := l.full
	l.full = !s.Holds(roomBytes)
	if l.parked && !l.full {
		l.cfg.Log.Info("space is back: this node takes part again")
		l.parked = false
	}
	if l.full && !was {
		l.cfg.Log.Error("disk is full: new work is refused", "dir", l.cfg.Dir, "free", s.Free)
	}
	if l.full && l.core.leading() {
		l.core.handOver(func(error) {}) // without an heir we stay and refuse
	}
}

// snapshot starts to write a snapshot when one is due.
func (l *loop) snapshot() error {
	if l.writing {
		return nil
	}
	s, err := l.core.takeSnapshot()
	if err != nil || s == nil {
		return err
	}
	l.writing = true
	go func() { l.written <- snapshotOutcome{s.Index, s.Term, l.log.WriteSnapshot(*s)} }()
	return nil
}

func (l *loop) snapshotWritten(o snapshotOutcome) error {
	l.writing = false
	if errors.Is(o.err, wal.ErrNoSpace) {
		l.cfg.Log.Warn("no space for a snapshot of the queue", "err", o.err)
		l.core.snapshotFailed()
		return nil
	}
	if o.err != nil {
		return o.err
	}
	m, keep, ok := l.core.snapshotWritten(o.index, o.term)
	if !ok {
		return nil
	}
	if err := l.log.Compact(m, keep); err != nil && !errors.Is(err, wal.ErrNoSpace) {
		return err
	}
	return nil
}

// plan lets a leader change the membership by one step.
func (l *loop) plan() error {
	if l.parked {
		return nil
	}
	ch, err := l.core.plan(l.applicants())
	switch {
	case err != nil:
		l.cfg.Log.Debug("membership change was not taken", "err", err)
	case !ch.IsZero():
		l.cfg.Log.Info("changing the members of the queue group", "learn", len(ch.Learn), "promote", len(ch.Promote), "demote", len(ch.Demote), "remove", len(ch.Remove))
	}
	return nil
}

// siteNodes returns the nodes of this site. Those that are leaving count: a leader that leaves has to bring in its
// replacement first. The fabric lets the evicted say nothing.
func (l *loop) siteNodes() map[crdt.NodeID]bool {
	nodes := map[crdt.NodeID]bool{}
	for _, c := range l.cfg.Peers() {
		nodes[c.ID] = true
	}
	return nodes
}

// leader returns the node that leads: what raft says to a member, what a leader told to others.
func (l *loop) leader() crdt.NodeID {
	if r := l.core.role(); r == RoleWaiting || r == RoleSpare {
		return l.hint.leader
	}
	return l.core.leader()
}

func (l *loop) status() Status {
	st := l.core.status()
	if st.Role == RoleWaiting || st.Role == RoleSpare {
		st.Leader = l.leader()
		if st.Role == RoleWaiting && !st.Leader.IsZero() {
			st.Role, st.Problem = RoleSpare, ""
		}
	}
	switch {
	case l.parked:
		st.Role, st.Problem = RoleWaiting, "disk is full: this node has left its queue group until there is space"
	case l.full:
		st.Problem = "disk is full: new work is refused"
	}
	return st
}
