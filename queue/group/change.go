package group

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"vcpeer/crdt"
	"vcpeer/queue/wal"
)

// pendingChange is a configuration change that was proposed and is not applied yet.
type pendingChange struct {
	active bool
	since  uint64 // tick
}

// expire gives up on a change that raft may have refused silently; the planner will see what is there.
func (p *pendingChange) expire(c *core) {
	if p.active && c.ticks-p.since > uint64(10*c.cfg.ElectionTicks) {
		*p = pendingChange{}
	}
}

// observation is what a leader remembers of one member, in the core's time.
type observation struct {
	active time.Duration // when it last answered, or came into view
	inStep time.Duration // since when it has been active and close behind
	close  bool
}

// heard notes that a member answered the leader. raft's own mark for that, RecentActive, is reset at every election timeout:
// who looks just then, as in step with it, sees nobody active.
func (c *core) heard(m *pb.Message) {
	answer := m.GetType() == pb.MsgAppResp || m.GetType() == pb.MsgHeartbeatResp
	if !answer || !c.leading() || m.GetTerm() != c.term {
		return
	}
	o := c.observed[m.GetFrom()]
	o.active = c.now()
	c.observed[m.GetFrom()] = o
}

// observe brings what is known of the members up to date. Call it every few hundred milliseconds while leading.
func (c *core) observe() {
	now := c.now()
	commit := c.node.BasicStatus().HardState.GetCommit()
	seen := map[uint64]observation{}
	c.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		o, known := c.observed[id]
		if !known || id == c.id {
			o.active = now
		}
		inStep := pr.Match+promotableLag >= commit && c.answers(o)
		if inStep && !o.close {
			o.inStep = now
		}
		o.close = inStep && pr.Match > 0
		seen[id] = o
	})
	c.observed = seen
}

// answers reports whether a member has answered the leader lately.
func (c *core) answers(o observation) bool { return c.now()-o.active < c.grace() }

// grace is how long a member may be silent and still count as active.
func (c *core) grace() time.Duration { return time.Duration(2*c.cfg.ElectionTicks) * c.cfg.Tick }

// membership describes the group as the leader sees it.
func (c *core) membership() Membership {
	now := c.now()
	st := c.node.BasicStatus()
	m := Membership{
		Self: c.id,
		Busy: c.change.active || len(c.store.conf.GetVotersOutgoing()) > 0 || st.LeadTransferee != 0 || !c.settled,
	}
	c.node.WithProgress(func(id uint64, typ raft.ProgressType, pr tracker.Progress) {
		s := MemberState{ID: id, Node: c.roster[id], Voter: typ == raft.ProgressTypePeer}
		o := c.observed[id]
		if commit := st.HardState.GetCommit(); pr.Match < commit {
			s.Lag = commit - pr.Match
		}
		if !c.answers(o) {
			s.Silent = now - o.active
		}
		if o.close {
			s.InStep = now - o.inStep
		}
		m.Members = append(m.Members, s)
	})
	slices.SortFunc(m.Members, func(a, b MemberState) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return m
}

// plan proposes the next membership change, if there is one and this member leads. It returns the change.
func (c *core) plan(site []Applicant) (Change, error) {
	if !c.leading() {
		return Change{}, nil
	}
	c.observe()
	ch := PlanMembership(c.membership(), site, Policy{ReplaceAfter: c.cfg.ReplaceAfter, StableFor: c.cfg.StableFor})
	if ch.IsZero() {
		return ch, nil
	}
	cc, err := ch.confChange()
	if err != nil {
		return Change{}, err
	}
	if err := c.node.ProposeConfChange(cc); err != nil {
		return Change{}, c.refusal(err)
	}
	c.change = pendingChange{active: true, since: c.ticks}
	return ch, nil
}

// confChange translates the change for raft; new members' nodes ride in the context.
func (ch Change) confChange() (*pb.ConfChangeV2, error) {
	cc := &pb.ConfChangeV2{Transition: pb.ConfChangeTransitionAuto.Enum()}
	add := func(t pb.ConfChangeType, id uint64) {
		cc.Changes = append(cc.Changes, &pb.ConfChangeSingle{Type: t.Enum(), NodeId: new(id)})
	}
	var seats []seat
	for _, m := range ch.Learn {
		add(pb.ConfChangeAddLearnerNode, m.ID)
		seats = append(seats, seat{m.ID, m.Node})
	}
	for _, id := range ch.Promote {
		add(pb.ConfChangeAddNode, id)
	}
	for _, id := range ch.Demote {
		add(pb.ConfChangeAddLearnerNode, id)
	}
	for _, id := range ch.Remove {
		add(pb.ConfChangeRemoveNode, id)
	}
	if len(seats) > 0 {
		b, err := encoder().Marshal(seats)
		if err != nil {
			return nil, fmt.Errorf("group: encode members: %w", err)
		}
		cc.Context = b
	}
	return cc, nil
}

// ErrNoHeir says that leadership cannot be handed over: no other voter is up to date and active.
var ErrNoHeir = errors.New("no other voter can lead now")

// pendingTransfer is a hand-over of leadership that is under way.
type pendingTransfer struct {
	done  func(error)
	since uint64 // tick
}

func (p pendingTransfer) end(err error) pendingTransfer {
	if p.done != nil {
		p.done(err)
	}
	return pendingTransfer{}
}

func (p pendingTransfer) expire(c *core) pendingTransfer {
	if p.done != nil && c.ticks-p.since > uint64(2*c.cfg.ElectionTicks) {
		return p.end(fmt.Errorf("%w: it did not answer", ErrNoHeir))
	}
	return p
}

// handOver gives leadership to the voter that is furthest; done hears nil once this member no longer leads.
func (c *core) handOver(done func(error)) {
	if !c.leading() {
		done(ErrNotLeader{c.leader()})
		return
	}
	heir := c.heir()
	if heir == 0 || c.transfer.done != nil {
		done(ErrNoHeir)
		return
	}
	c.transfer = pendingTransfer{done: done, since: c.ticks}
	c.node.TransferLeader(heir)
}

// heir returns the active voter that is furthest, other than this leader; 0: there is none.
func (c *core) heir() uint64 {
	heir, match := uint64(0), uint64(0)
	c.node.WithProgress(func(id uint64, typ raft.ProgressType, pr tracker.Progress) {
		if id == c.id || typ != raft.ProgressTypePeer || !c.answers(c.observed[id]) || pr.State != tracker.StateReplicate {
			return
		}
		if heir == 0 || pr.Match > match || pr.Match == match && id < heir {
			heir, match = id, pr.Match
		}
	})
	return heir
}

// found returns what a directory must hold so that this member is the first and only voter of a new group.
func found(cfg Config, id uint64) (wal.Snapshot, wal.Batch, error) {
	machine, err := cfg.Machine.Snapshot()
	if err != nil {
		return wal.Snapshot{}, wal.Batch{}, fmt.Errorf("group: first snapshot: %w", err)
	}
	img := image{conf: &pb.ConfState{Voters: []uint64{id}}, roster: map[uint64]crdt.NodeID{id: cfg.Self}, machine: machine}
	data, err := img.encode()
	if err != nil {
		return wal.Snapshot{}, wal.Batch{}, err
	}
	// Index and term 1: every later member starts from a snapshot, which carries the roster.
	return wal.Snapshot{Index: 1, Term: 1, Data: data},
		wal.Batch{Hard: &wal.HardState{Term: 1, Commit: 1}, Marker: &wal.Marker{Index: 1, Term: 1}, Sync: true}, nil
}
