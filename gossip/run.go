package gossip

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/serf/serf"

	"vcpeer/crdt"
)

// drain takes Serf's events for as long as it runs: Serf stands still, locks held, when nobody does. After a shutdown
// what is still to come fits into the channel.
func (m *Membership) drain(ctx context.Context, events <-chan serf.Event) {
	for {
		select {
		case e := <-events:
			if me, ok := e.(serf.MemberEvent); ok { // no others are sent in this cluster
				m.view.apply(m.wanted(me), time.Now())
			}
		case <-ctx.Done():
			return
		}
	}
}

// wanted drops the members of an event that are not allowed (any more), except when one goes that is still in view.
func (m *Membership) wanted(e serf.MemberEvent) serf.MemberEvent {
	if e.Type == serf.EventMemberReap {
		return e
	}
	kept := serf.MemberEvent{Type: e.Type}
	for _, sm := range e.Members {
		id, err := crdt.ParseNodeID(sm.Name)
		going := e.Type == serf.EventMemberFailed || e.Type == serf.EventMemberLeave
		if err == nil && (id == m.self || m.cfg.Allowed(id) || going && m.stateOf(id) != 0) {
			kept.Members = append(kept.Members, sm)
		}
	}
	return kept
}

// keepTogether contacts those that ought to be in view and are not.
func (m *Membership) keepTogether(ctx context.Context) {
	r := newRejoin(m.cfg.Preset, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	tick := time.NewTicker(m.cfg.Preset.RejoinCheck)
	defer tick.Stop()
	for {
		for _, id := range r.step(time.Now(), m.expected(), m.stateOf, len(m.Alive())) {
			if err := m.Join(ctx, []crdt.NodeID{id}); err != nil && ctx.Err() == nil {
				m.cfg.Log.Debug("member out of view does not answer", "member", id.Short(), "err", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// expected returns the other nodes that ought to be there.
func (m *Membership) expected() []crdt.NodeID {
	var ids []crdt.NodeID
	for _, id := range m.cfg.Rejoin() {
		if id != m.self && m.cfg.Allowed(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (m *Membership) stateOf(id crdt.NodeID) State {
	mem, _ := m.view.get(id)
	return mem.State
}

// reannounce says a few times after the start that this node is alive. Nodes that get the record of a newcomer only
// after the gossip about it have refused it; they take it with the next word, which is cheaper than everybody asking.
func (m *Membership) reannounce(ctx context.Context) {
	for _, pause := range []time.Duration{2 * time.Second, 4 * time.Second, 14 * time.Second, 40 * time.Second} {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		err := m.inTurn(ctx, func() error { return m.serf.Memberlist().UpdateNode(m.cfg.Preset.LeaveSpread) })
		if err != nil && ctx.Err() == nil {
			m.cfg.Log.Debug("announcing this node again", "err", err)
		}
	}
}

// Remove takes an evicted node out of view at once, and after a moment out of Serf's lists everywhere. Config.Allowed
// must refuse it by now. All nodes learn of an eviction at about the same time, so each waits a random while and only
// those that nobody was faster than spend a broadcast.
func (m *Membership) Remove(id crdt.NodeID) {
	m.view.drop(id, time.Now())
	spread := min(10*time.Second, time.Duration(m.serf.NumNodes())*50*time.Millisecond)
	wait := time.Duration(rand.Int64N(int64(spread) + 1))
	m.start(func() {
		select {
		case <-time.After(wait):
		case <-m.serf.ShutdownCh():
			return
		}
		for _, sm := range m.serf.Members() {
			if sm.Name != id.String() || sm.Status == serf.StatusLeaving || sm.Status == serf.StatusLeft {
				continue
			}
			if err := m.serf.RemoveFailedNodePrune(sm.Name); err != nil {
				m.cfg.Log.Debug("removing an evicted member", "member", id.Short(), "err", err)
			}
		}
	})
}
