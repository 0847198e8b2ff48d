package group

import (
	"fmt"
	"math/rand/v2"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"vcpeer/crdt"
	"vcpeer/queue/wal"
)

// core is one member without clock, disk or network. Its owner calls an input (tick, step, propose …), then, as long as
// ready returns work, performs the work and calls done. Reply functions are called from within these calls, once each.
type core struct {
	cfg    Config
	id     uint64 // raft ID; never 0
	origin uint64 // of this run's proposals
	logger raft.Logger

	node    *raft.RawNode
	store   *store
	roster  roster
	applied uint64 // index of the last applied entry
	rd      raft.Ready
	work    work

	soft    raft.SoftState
	term    uint64
	settled bool // leading, and an entry of this term is applied: the machine has all that earlier leaders acknowledged

	ticks     uint64
	seq       uint64
	waiting   []*proposal            // not yet in an entry
	proposed  map[uint64][]*proposal // by sequence number of the entry, in the order of its commands
	reads     reads
	change    pendingChange
	transfer  pendingTransfer
	observed  map[uint64]observation // leading: what is known of each member; kept by heard and observe
	snapBytes uint64                 // of entries applied since the last snapshot
	snapping  bool                   // a snapshot is being written
	removed   bool                   // the leader said that this ID is no longer a member
}

// work is what the owner must do, in the order of its fields, before it calls done.
type work struct {
	// First may be sent at once: a leader's entries go out while it writes them itself.
	First []*pb.Message
	// Snapshot, when not nil, must be durable before Batch, which has its marker.
	Snapshot *wal.Snapshot
	Batch    wal.Batch
	// Then must not be sent before Batch is durable: promises to other members.
	Then []*pb.Message
}

// proposal is one call of Propose or ProposeBatch. Its commands share an entry.
type proposal struct {
	commands [][]byte
	done     func(results []any, err error)
}

func (p *proposal) size() int {
	n := 0
	for _, c := range p.commands {
		n += len(c) + 4
	}
	return n
}

// maxUncommittedBytes bounds what a leader without quorum collects; beyond it proposals get ErrBusy.
const maxUncommittedBytes = 64 << 20

// newCore starts a member from what its log held. rng may be nil for the runtime's.
func newCore(cfg Config, id uint64, st wal.State, rng *rand.Rand) (*core, error) {
	origin := rand.Uint64()
	if rng != nil {
		origin = rng.Uint64()
	}
	c := &core{cfg: cfg, id: id, origin: origin, roster: roster{}, proposed: map[uint64][]*proposal{}, logger: raftLogger{cfg.Log}}
	conf := &pb.ConfState{}
	if st.Snapshot != nil {
		img, err := decodeImage(st.Snapshot.Data)
		if err != nil {
			return nil, fmt.Errorf("group: %w", err)
		}
		if err := cfg.Machine.Restore(img.machine); err != nil {
			return nil, fmt.Errorf("group: restore snapshot %d: %w", st.Snapshot.Index, err)
		}
		conf, c.roster, c.applied = img.conf, img.roster, st.Snapshot.Index
		// The commit index is written lazily; a snapshot is of committed entries only.
		st.Hard.Commit = max(st.Hard.Commit, st.Snapshot.Index)
	}
	c.store = newStore(st, conf)
	return c, c.start()
}

// start makes a new RawNode from the store: at the beginning, and after a full disk made us drop what raft had in hand.
func (c *core) start() error {
	node, err := raft.NewRawNode(&raft.Config{
		ID:                        c.id,
		ElectionTick:              c.cfg.ElectionTicks,
		HeartbeatTick:             c.cfg.HeartbeatTicks,
		Storage:                   c.store,
		Applied:                   c.applied,
		MaxSizePerMsg:             MaxBytes,
		MaxCommittedSizePerReady:  4 * MaxBytes,
		MaxUncommittedEntriesSize: maxUncommittedBytes,
		MaxInflightMsgs:           64,
		CheckQuorum:               true,
		PreVote:                   true,
		ReadOnlyOption:            raft.ReadOnlySafe,
		DisableProposalForwarding: true,
		StepDownOnRemoval:         true,
		Logger:                    c.logger,
	})
	if err != nil {
		return fmt.Errorf("group: start raft: %w", err)
	}
	c.node = node
	c.rd, c.soft, c.term, c.settled = raft.Ready{}, raft.SoftState{}, c.store.hard.Term, false
	if c.soleVoter() {
		// Nobody else could lead: no reason to wait for the timeout.
		return node.Campaign()
	}
	return nil
}

// restart drops all that is not durable, as a crash would, and starts again. err is what waiting proposals hear.
func (c *core) restart(err error) error {
	c.failWaiting(err)
	c.failProposed(err)
	c.change, c.transfer = pendingChange{}, c.transfer.end(ErrStopped)
	return c.start()
}

// now is the time this core has lived through, by its ticks.
func (c *core) now() time.Duration { return time.Duration(c.ticks) * c.cfg.Tick }

// tick moves the time by one Tick.
func (c *core) tick() {
	c.ticks++
	if !c.removed {
		c.node.Tick()
	}
	c.reads.expire(c)
	c.change.expire(c)
	c.transfer = c.transfer.expire(c)
}

// accepts reports whether a message may come from a node: it is for this very member, of a kind that members send, and of
// a raft ID that is not another node's. siteNode says that the node is of this site, which admits IDs we do not know yet.
func (c *core) accepts(from crdt.NodeID, siteNode bool, m *pb.Message) bool {
	if m.GetTo() != c.id || m.GetFrom() == 0 || m.GetFrom() == c.id || !fromMembers(m.GetType()) {
		return false
	}
	if node, known := c.roster[m.GetFrom()]; known {
		return node == from
	}
	return siteNode
}

// fromMembers reports whether a message of this type comes over the network.
func fromMembers(t pb.MessageType) bool {
	switch t {
	case pb.MsgApp, pb.MsgAppResp, pb.MsgVote, pb.MsgVoteResp, pb.MsgPreVote, pb.MsgPreVoteResp, pb.MsgSnap,
		pb.MsgHeartbeat, pb.MsgHeartbeatResp, pb.MsgTimeoutNow, pb.MsgReadIndex, pb.MsgReadIndexResp:
		return true
	}
	return false
}

// step takes a message that accepts let pass. A snapshot's configuration is read from its data.
func (c *core) step(m *pb.Message) error {
	if m.GetType() == pb.MsgSnap {
		img, err := decodeImage(m.GetSnapshot().GetData())
		if err != nil {
			return err
		}
		if m.GetSnapshot().GetMetadata() == nil {
			return fmt.Errorf("snapshot without index")
		}
		m.Snapshot.Metadata.ConfState = pb.EnsureConfState(img.conf)
	}
	switch m.GetType() {
	case pb.MsgApp, pb.MsgSnap, pb.MsgHeartbeat:
		// Only members get these.
		c.removed = false
	case pb.MsgReadIndex:
		if c.leading() && !c.settled {
			// A single voter would answer with a commit index from before its restart. The asker asks again.
			return nil
		}
	}
	switch err := c.node.Step(m); err {
	case nil:
		c.heard(m)
	case raft.ErrStepPeerNotFound, raft.ErrProposalDropped:
	default:
		return err
	}
	return nil
}

// ready returns the next work; false: nothing to do until the next input.
func (c *core) ready() (work, bool) {
	c.flush()
	c.reads.ask(c)
	if !c.node.HasReady() {
		return work{}, false
	}
	c.rd = c.node.Ready()
	c.observeState()
	w := work{Batch: wal.Batch{Sync: c.rd.MustSync}}
	for _, m := range c.rd.Messages {
		switch m.GetType() {
		case pb.MsgAppResp, pb.MsgVoteResp, pb.MsgPreVoteResp:
			w.Then = append(w.Then, m)
		default:
			w.First = append(w.First, m)
		}
	}
	if !raft.IsEmptyHardState(c.rd.HardState) {
		w.Batch.Hard = &wal.HardState{Term: c.rd.HardState.GetTerm(), Vote: c.rd.HardState.GetVote(), Commit: c.rd.HardState.GetCommit()}
	}
	if !raft.IsEmptySnap(c.rd.Snapshot) {
		md := c.rd.Snapshot.GetMetadata()
		w.Snapshot = &wal.Snapshot{Index: md.GetIndex(), Term: md.GetTerm(), Data: c.rd.Snapshot.GetData()}
		w.Batch.Marker = &wal.Marker{Index: md.GetIndex(), Term: md.GetTerm(), Reset: true}
		w.Batch.Sync = true
	}
	for _, e := range c.rd.Entries {
		w.Batch.Entries = append(w.Batch.Entries, wal.Entry{Index: e.GetIndex(), Term: e.GetTerm(), Type: byte(e.GetType()), Data: e.GetData()})
	}
	c.work = w
	return w, true
}

// done says that the work is durable. It applies what is committed. An error is final.
func (c *core) done() error {
	w := c.work
	if w.Batch.Hard != nil {
		c.store.hard = *w.Batch.Hard
	}
	if w.Snapshot != nil {
		if err := c.restore(w); err != nil {
			return err
		}
	}
	for _, e := range c.rd.Entries {
		c.store.put(e)
	}
	for _, e := range c.rd.CommittedEntries {
		if err := c.apply(e); err != nil {
			return fmt.Errorf("group: entry %d: %w", e.GetIndex(), err)
		}
	}
	c.reads.confirm(c.rd.ReadStates)
	c.reads.release(c.applied)
	rd := c.rd
	c.rd, c.work = raft.Ready{}, work{}
	c.node.Advance(rd)
	return nil
}

// restore takes over a leader's snapshot.
func (c *core) restore(w work) error {
	img, err := decodeImage(w.Snapshot.Data)
	if err != nil {
		return err
	}
	if err := c.cfg.Machine.Restore(img.machine); err != nil {
		return fmt.Errorf("group: restore snapshot %d: %w", w.Snapshot.Index, err)
	}
	c.store.reset(*w.Batch.Marker)
	c.store.conf, c.roster, c.applied, c.snapBytes = img.conf, img.roster, w.Snapshot.Index, 0
	return nil
}

// apply executes one committed entry.
func (c *core) apply(e *pb.Entry) error {
	c.applied = e.GetIndex()
	c.snapBytes += uint64(len(e.GetData()))
	switch e.GetType() {
	case pb.EntryConfChange:
		cc := &pb.ConfChange{}
		if err := proto.Unmarshal(e.GetData(), cc); err != nil {
			return fmt.Errorf("%w: %w", ErrBadEntry, err)
		}
		return c.reconfigure(e.GetIndex(), cc)
	case pb.EntryConfChangeV2:
		cc := &pb.ConfChangeV2{}
		if err := proto.Unmarshal(e.GetData(), cc); err != nil {
			return fmt.Errorf("%w: %w", ErrBadEntry, err)
		}
		return c.reconfigure(e.GetIndex(), cc)
	case pb.EntryNormal:
		return c.execute(e)
	}
	return fmt.Errorf("%w: type %d", ErrBadEntry, e.GetType())
}

func (c *core) reconfigure(index uint64, cc pb.ConfChangeI) error {
	if len(cc.AsV2().Context) > 0 {
		c.store.joined = index
	}
	c.store.conf = c.node.ApplyConfChange(cc)
	c.change = pendingChange{}
	return c.roster.apply(cc.AsV2().Context, c.store.conf)
}

// execute runs the commands of an entry and answers those of ours who wait for it.
func (c *core) execute(e *pb.Entry) error {
	if e.GetTerm() == c.term && c.soft.RaftState == raft.StateLeader {
		c.settled = true
	}
	if len(e.GetData()) == 0 {
		return nil // a new leader's first entry
	}
	b, err := decodeBatch(e.GetData())
	if err != nil {
		return err
	}
	results := make([]any, len(b.commands))
	for i, command := range b.commands {
		results[i] = c.cfg.Machine.Apply(e.GetIndex()*MaxCommands+uint64(i), command)
	}
	if b.origin != c.origin {
		return nil
	}
	for _, p := range c.proposed[b.seq] {
		n := len(p.commands)
		p.done(results[:n:n], nil)
		results = results[n:]
	}
	delete(c.proposed, b.seq)
	return nil
}

// observeState follows raft's role and term.
func (c *core) observeState() {
	old, oldTerm := c.soft, c.term
	if c.rd.SoftState != nil {
		c.soft = *c.rd.SoftState
	}
	if c.rd.HardState != nil {
		c.term = c.rd.HardState.GetTerm()
	}
	wasLeader, isLeader := old.RaftState == raft.StateLeader, c.soft.RaftState == raft.StateLeader
	if wasLeader && (!isLeader || c.term != oldTerm) {
		// Others may still commit what we sent, so it has not failed.
		c.failProposed(ErrUncertain)
		c.change, c.settled = pendingChange{}, false
		c.transfer = c.transfer.end(nil)
	}
	if isLeader && (!wasLeader || c.term != oldTerm) {
		c.observed = map[uint64]observation{}
		c.settled = false
	}
}

func (c *core) leading() bool { return c.soft.RaftState == raft.StateLeader }

// soleVoter reports whether nobody else could lead.
func (c *core) soleVoter() bool {
	voters := c.store.conf.GetVoters()
	return len(voters) == 1 && voters[0] == c.id && len(c.store.conf.GetVotersOutgoing()) == 0
}

// alone reports whether time alone moves nothing: a group of one has nobody to tell that its leader lives.
func (c *core) alone() bool {
	return c.soleVoter() && len(c.store.conf.GetLearners()) == 0 && c.leading() && !c.change.active && c.transfer.done == nil
}

// leader returns the node that leads, as far as is known; zero: none.
func (c *core) leader() crdt.NodeID { return c.roster[c.soft.Lead] }
