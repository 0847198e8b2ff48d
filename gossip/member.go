package gossip

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/serf/serf"

	"vcpeer/crdt"
)

// State is what this node believes of a member.
type State uint8

// A member answers, stopped answering, or said goodbye. Serf shows nobody its suspicions.
const (
	Alive State = iota + 1
	Failed
	Left
)

// String returns "alive", "failed" or "left".
func (s State) String() string {
	switch s {
	case Alive:
		return "alive"
	case Failed:
		return "failed"
	case Left:
		return "left"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Member is a node of the pool as this node sees it.
type Member struct {
	ID    crdt.NodeID
	State State
	Tags  map[string]string // not to be changed
	Since time.Time         // when this node came to believe State, by its own clock
}

// Name returns the member's host name as it said it.
func (m Member) Name() string { return m.Tags[TagName] }

// Event is one change of a member.
type Event struct {
	Time   time.Time
	Member Member // as it is after the change
	Was    State  // 0: not in view before
	Gone   bool   // not in view any more: removed, or failed or left long ago
	Lost   int    // so many events before this one were dropped, since nobody took them
}

// admission refuses, member by member, what Config.Allowed does not want in view, and members that lie about their
// address. Of a whole pool that is merged it refuses nothing: one evicted node in somebody's list must not keep two halves
// apart, and memberlist asks again for each member of it.
type admission struct {
	self    crdt.NodeID
	allowed func(crdt.NodeID) bool
}

func (a *admission) NotifyMerge(members []*serf.Member) error {
	if len(members) != 1 {
		return nil
	}
	m := members[0]
	id, err := crdt.ParseNodeID(m.Name)
	if err != nil {
		return fmt.Errorf("gossip: member name: %w", err)
	}
	if at, ok := netip.AddrFromSlice(m.Addr); !ok || at != addressOf(id) || m.Port != port {
		return fmt.Errorf("gossip: member %s at %s:%d: not its address", id.Short(), m.Addr, m.Port)
	}
	if id != a.self && !a.allowed(id) {
		return fmt.Errorf("%w: %s", errNotAllowed, id.Short())
	}
	return nil
}
