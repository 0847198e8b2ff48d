package group

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"vcpeer/crdt"
	"vcpeer/queue/wal"
)

// Group is this node's member of its site's group. Its methods may be called from any goroutine.
type Group struct {
	cfg  Config
	loop *loop // owned by Run

	proposals chan *proposal
	requests  chan func(*loop) // rare things for the loop to do
	messages  chan inbound
	changes   chan Leadership
	status    atomic.Pointer[Status]
	started   atomic.Bool
	running   chan struct{} // closed when Run begins
	stopped   chan struct{} // closed when Run has ended
}

const (
	// maxWaiting proposals gather while the loop is busy; the next caller waits its turn.
	maxWaiting = 1024
	// maxInbound messages wait for the loop; then their streams wait, and the sender's queue drops.
	maxInbound = 1024
)

// Open opens the member's directory and begins to accept streams. Run does the rest. Errors: ErrForeign, wal.ErrLocked,
// wal.ErrCorrupt: the directory must then be set aside, and the node joins again as a new member.
func Open(cfg Config) (*Group, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	log, st, err := wal.Open(cfg.Dir, cfg.WAL)
	if err != nil {
		return nil, fmt.Errorf("group: %w", err)
	}
	g := &Group{
		cfg:       cfg,
		proposals: make(chan *proposal, maxWaiting),
		requests:  make(chan func(*loop), 64),
		messages:  make(chan inbound, maxInbound),
		changes:   make(chan Leadership, 1),
		running:   make(chan struct{}),
		stopped:   make(chan struct{}),
	}
	if g.loop, err = openLoop(g, log, st); err != nil {
		_ = log.Close() // the first error counts
		return nil, err
	}
	g.publish()
	cfg.Fabric.Handle(Proto, g.accept)
	return g, nil
}

func openLoop(g *Group, log *wal.Log, st wal.State) (*loop, error) {
	id, err := identify(g.cfg, log, st)
	if err != nil {
		return nil, err
	}
	if st.DroppedBytes > 0 {
		g.cfg.Log.Info("dropped the torn end of the queue log", "bytes", st.DroppedBytes)
	}
	l := &loop{g: g, cfg: g.cfg, log: log, id: id, asked: map[crdt.NodeID]asked{}, seen: map[uint64]crdt.NodeID{}}
	if err := guard(func() (err error) { l.core, err = newCore(g.cfg, id, st, nil); return err }); err != nil {
		return nil, err
	}
	l.net = newTransport(g)
	return l, nil
}

// identify returns the directory's raft ID, drawing one for a new directory.
func identify(cfg Config, log *wal.Log, st wal.State) (uint64, error) {
	owner := cfg.Site + "/" + cfg.Self.String()
	if st.Identity != nil {
		if st.Identity.Owner != owner {
			return 0, fmt.Errorf("group: %s is of %q, not of %q: %w", cfg.Dir, st.Identity.Owner, owner, ErrForeign)
		}
		return st.Identity.ID, nil
	}
	id, err := newRaftID()
	if err != nil {
		return 0, err
	}
	if err := log.Save(wal.Batch{Identity: &wal.Identity{ID: id, Owner: owner}, Sync: true}); err != nil {
		return 0, fmt.Errorf("group: %w", err)
	}
	return id, nil
}

// newRaftID draws a raft ID: not 0, and not one of the two highest, which raft keeps for itself.
func newRaftID() (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("group: draw raft ID: %w", err)
	}
	return max(1, binary.BigEndian.Uint64(b[:])>>1), nil
}

// Found makes this node the first voter of a new group. Call it before Run, on one node of a new site. ErrExists: the
// directory already belongs to a group.
func (g *Group) Found() error {
	if g.started.Load() {
		return errors.New("group: Found after Run")
	}
	l := g.loop
	if len(l.core.store.conf.GetVoters()) > 0 {
		return ErrExists
	}
	snap, first, err := found(g.cfg, l.id)
	if err != nil {
		return err
	}
	if err := l.log.WriteSnapshot(snap); err != nil {
		return err
	}
	if err := l.log.Save(first); err != nil {
		return err
	}
	core, err := newCore(g.cfg, l.id, wal.State{Hard: *first.Hard, Snapshot: &snap}, nil)
	if err != nil {
		return err
	}
	l.core = core
	g.publish()
	return nil
}

// Run is the member's life. It returns after all that it started has ended: nil when ctx is over, else why the member had to
// stop, such as wal.ErrFailed (the disk) or ErrRolledBack. Call it once.
func (g *Group) Run(ctx context.Context) error {
	if g.started.Swap(true) {
		return errors.New("group: Run called twice")
	}
	close(g.running)
	err := g.loop.run(ctx)
	close(g.stopped)
	g.drain()
	if cerr := g.loop.log.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("group: close log: %w", cerr)
	}
	return err
}

// Close releases the directory of a group that never ran.
func (g *Group) Close() error {
	if g.started.Swap(true) {
		return errors.New("group: Close after Run; end its context instead")
	}
	close(g.stopped)
	return g.loop.log.Close()
}

// drain answers what came after the loop had ended.
func (g *Group) drain() {
	for {
		select {
		case p := <-g.proposals:
			p.done(nil, ErrStopped)
		default:
			return
		}
	}
}

// Propose appends a command to the group's log and returns what the machine's Apply returned for it on this node, once
// it is durable on a majority. Only a leader can: others return ErrNotLeader. Errors after which nothing was done:
// ErrNotLeader, ErrBusy, ErrTooLarge, wal.ErrNoSpace alone. With ErrUncertain, or when ctx ends, the outcome is unknown.
func (g *Group) Propose(ctx context.Context, command []byte) (any, error) {
	results, err := g.ProposeBatch(ctx, [][]byte{command})
	if err != nil {
		return nil, err
	}
	return results[0], nil
}

// ProposeBatch appends up to MaxCommands commands of together at most MaxBytes as one entry: all or none of them happen,
// without others between. The caller must not change them afterwards.
func (g *Group) ProposeBatch(ctx context.Context, commands [][]byte) ([]any, error) {
	type outcome struct {
		results []any
		err     error
	}
	reply := make(chan outcome, 1)
	p := &proposal{commands: commands, done: func(r []any, err error) { reply <- outcome{r, err} }}
	if len(commands) == 0 {
		return nil, nil
	}
	if len(commands) > MaxCommands || p.size() > MaxBytes {
		return nil, fmt.Errorf("%w: %d commands of %d bytes, at most %d of %d", ErrTooLarge, len(commands), p.size(), MaxCommands, MaxBytes)
	}
	select {
	case g.proposals <- p:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-g.stopped:
		return nil, ErrStopped
	}
	select {
	case o := <-reply:
		return o.results, o.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUncertain, context.Cause(ctx))
	case <-g.stopped:
		select {
		case o := <-reply:
			return o.results, o.err
		default:
			return nil, fmt.Errorf("%w: %w", ErrUncertain, ErrStopped)
		}
	}
}

// ReadIndex returns when this node's machine has all that was acknowledged anywhere before the call: a barrier for
// linearizable reads, on any member. Without a leader it waits until ctx ends.
func (g *Group) ReadIndex(ctx context.Context) error {
	return g.request(ctx, func(l *loop, done func(error)) {
		l.core.reads.waiting = append(l.core.reads.waiting, &read{gone: func() bool { return ctx.Err() != nil }, done: done})
	})
}

// Transfer hands leadership to another voter, as before a planned stop. ErrNoHeir: there is none.
func (g *Group) Transfer(ctx context.Context) error {
	return g.request(ctx, func(l *loop, done func(error)) { l.core.handOver(done) })
}

// request lets the loop do f and waits for done, which must be called at most once.
func (g *Group) request(ctx context.Context, f func(l *loop, done func(error))) error {
	reply := make(chan error, 1)
	select {
	case g.requests <- func(l *loop) { f(l, func(err error) { reply <- err }) }:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-g.stopped:
		return ErrStopped
	}
	select {
	case err := <-reply:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-g.stopped:
		return ErrStopped
	}
}

// Status returns the newest snapshot, at most 250 ms old. It shares no memory that changes.
func (g *Group) Status() Status { return *g.status.Load() }

// LeaderChanges tells of a new leader. It holds the newest only: who reads late misses what is no longer true.
func (g *Group) LeaderChanges() <-chan Leadership { return g.changes }

// Space tells how full the log's disk is, so that callers can refuse new work first.
func (g *Group) Space() (wal.Space, error) { return g.loop.log.Space() }

// publish makes the loop's state visible.
func (g *Group) publish() {
	st := g.loop.status()
	old := g.status.Swap(&st)
	now := Leadership{Leader: st.Leader, Term: st.Term, Self: st.Settled}
	if old == nil || now == (Leadership{Leader: old.Leader, Term: old.Term, Self: old.Settled}) {
		return
	}
	// One slot, one sender: after taking out the stale value there is room.
	select {
	case <-g.changes:
	default:
	}
	g.changes <- now
}
