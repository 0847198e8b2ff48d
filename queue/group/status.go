package group

import (
	"slices"

	"go.etcd.io/raft/v3"

	"vcpeer/crdt"
)

// Role of this node in its site's group.
type Role string

const (
	RoleWaiting   Role = "waiting"   // no group yet: nobody founded one here, and no leader has asked us in
	RoleSpare     Role = "spare"     // the group does well without us
	RoleLearner   Role = "learner"   // holds a copy, does not vote
	RoleFollower  Role = "follower"  // votes
	RoleCandidate Role = "candidate" // asks for votes
	RoleLeader    Role = "leader"
)

// Status is a snapshot of the group as this node sees it.
type Status struct {
	Role   Role
	RaftID uint64
	Leader crdt.NodeID // zero: not known
	Term   uint64
	Commit uint64
	// Applied is the raft index up to which the state machine is current.
	Applied  uint64
	Settled  bool     // leads, and the machine has all that earlier leaders acknowledged
	Voters   []Member // by raft ID
	Learners []Member
	Changing bool   // between two configurations
	Problem  string // why writes do not work here or soon may not; empty: all is well
}

// Member of the group.
type Member struct {
	RaftID uint64
	Node   crdt.NodeID
	// Active and Lag (entries behind) are known to the leader only.
	Active bool
	Lag    uint64
}

// Leadership is sent when the leader changes. Self is true once this node leads and its machine is up to date.
type Leadership struct {
	Leader crdt.NodeID
	Term   uint64
	Self   bool
}

// status describes the core; the loop adds what only it knows.
func (c *core) status() Status {
	st := c.node.BasicStatus()
	s := Status{
		Role: c.role(), RaftID: c.id, Leader: c.roster[st.Lead], Term: st.HardState.GetTerm(),
		Commit: st.HardState.GetCommit(), Applied: c.applied, Settled: c.settled,
		Changing: len(c.store.conf.GetVotersOutgoing()) > 0,
	}
	known := map[uint64]MemberState{}
	if c.leading() {
		for _, m := range c.membership().Members {
			known[m.ID] = m
		}
	}
	list := func(ids []uint64) []Member {
		ids = slices.Clone(ids)
		slices.Sort(ids)
		var out []Member
		for _, id := range slices.Compact(ids) {
			m, ok := known[id]
			out = append(out, Member{RaftID: id, Node: c.roster[id], Active: ok && m.Silent == 0, Lag: m.Lag})
		}
		return out
	}
	s.Voters = list(append(slices.Clone(c.store.conf.GetVoters()), c.store.conf.GetVotersOutgoing()...))
	s.Learners = list(c.store.conf.GetLearners())
	s.Problem = s.problem()
	return s
}

func (c *core) role() Role {
	switch {
	case len(c.store.conf.GetVoters()) == 0:
		return RoleWaiting
	case c.removed || !inConf(c.store.conf, c.id):
		return RoleSpare
	case c.soft.RaftState == raft.StateLeader:
		return RoleLeader
	case slices.Contains(c.store.conf.GetLearners(), c.id):
		return RoleLearner
	case c.soft.RaftState == raft.StateFollower:
		return RoleFollower
	}
	return RoleCandidate
}

func (s Status) problem() string {
	switch {
	case s.Role == RoleWaiting:
		return "this site has no queue group yet, or its leader has not found this node"
	case s.Role == RoleSpare:
		return ""
	case s.Leader.IsZero():
		return ErrNoQuorum.Error()
	case s.Role != RoleLeader:
		return ""
	}
	active := 0
	for _, m := range s.Voters {
		if m.Active {
			active++
		}
	}
	if active < len(s.Voters) && active == len(s.Voters)/2+1 {
		return "one more voter lost stops the queue: all but the bare majority are away"
	}
	return ""
}
