package gossip

import (
	"bytes"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/serf/serf"

	"vcpeer/crdt"
)

// feedSize is how many events a reader of Events may be behind. It sees how many it lost; Members is always right.
const feedSize = 256

// view is the members as Serf's events tell them, and who watches.
type view struct {
	self crdt.NodeID

	mu      sync.Mutex
	members map[crdt.NodeID]Member
	alive   []crdt.NodeID // without self, in order; nil: members have changed since. Never changed in place
	watch   map[chan struct{}]struct{}
	feeds   map[*feed]struct{}
	closed  bool
}

// feed is one reader of events.
type feed struct {
	ch   chan Event
	lost int
}

func newView(self crdt.NodeID) *view {
	return &view{
		self: self, members: map[crdt.NodeID]Member{},
		watch: map[chan struct{}]struct{}{}, feeds: map[*feed]struct{}{},
	}
}

// apply takes one of Serf's events in. Members whose name is no node ID do not exist: admission keeps them out.
func (v *view) apply(e serf.MemberEvent, now time.Time) {
	for _, sm := range e.Members {
		id, err := crdt.ParseNodeID(sm.Name)
		if err != nil {
			continue
		}
		switch e.Type {
		case serf.EventMemberJoin:
			v.put(id, Alive, sm.Tags, now)
		case serf.EventMemberFailed:
			state := Failed
			if sm.Tags[tagLeaving] != "" { // it went before its good-bye came
				state = Left
			}
			v.put(id, state, sm.Tags, now)
		case serf.EventMemberLeave:
			v.put(id, Left, sm.Tags, now)
		case serf.EventMemberUpdate:
			v.put(id, 0, sm.Tags, now)
		case serf.EventMemberReap:
			v.drop(id, now)
		}
	}
}

// put sets what is believed of a member; state 0 keeps the one it has.
func (v *view) put(id crdt.NodeID, state State, tags map[string]string, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	old, known := v.members[id]
	if state == 0 {
		state = old.State
	}
	if !known && state == 0 {
		return
	}
	m := Member{ID: id, State: state, Tags: maps.Clone(tags), Since: now}
	if old.State == state {
		m.Since = old.Since
		if maps.Equal(old.Tags, tags) {
			return
		}
	}
	v.members[id] = m
	v.alive = nil
	v.tell(Event{Time: now, Member: m, Was: old.State})
}

func (v *view) drop(id crdt.NodeID, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	old, ok := v.members[id]
	if !ok {
		return
	}
	delete(v.members, id)
	v.alive = nil
	v.tell(Event{Time: now, Member: old, Was: old.State, Gone: true})
}

// tell passes an event on without waiting; called with the lock held.
func (v *view) tell(e Event) {
	for ch := range v.watch {
		select {
		case ch <- struct{}{}:
		default: // it has not taken the last word yet; that one stands for this change too
		}
	}
	for f := range v.feeds {
		e.Lost = f.lost
		select {
		case f.ch <- e:
			f.lost = 0
		default:
			f.lost++
		}
	}
}

func (v *view) list() []Member {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.SortedFunc(maps.Values(v.members), func(a, b Member) int { return bytes.Compare(a.ID[:], b.ID[:]) })
}

// others lists who is alive beside this node. It is asked some times a second by several, and changes seldom. The list is
// shared.
func (v *view) others() []crdt.NodeID {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.alive == nil {
		v.alive = []crdt.NodeID{}
		for id, m := range v.members {
			if m.State == Alive && id != v.self {
				v.alive = append(v.alive, id)
			}
		}
		slices.SortFunc(v.alive, func(a, b crdt.NodeID) int { return bytes.Compare(a[:], b[:]) })
	}
	return v.alive
}

func (v *view) get(id crdt.NodeID) (Member, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	m, ok := v.members[id]
	return m, ok
}

// close ends every watch and feed.
func (v *view) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
	for ch := range v.watch {
		close(ch)
	}
	for f := range v.feeds {
		close(f.ch)
	}
	clear(v.watch)
	clear(v.feeds)
}

// Members returns all members in view, this node among them, in the order of their IDs.
func (m *Membership) Members() []Member { return m.view.list() }

// Member returns one member; false if it is not in view.
func (m *Membership) Member(id crdt.NodeID) (Member, bool) { return m.view.get(id) }

// Alive returns the other members that are alive, in the order of their IDs.
func (m *Membership) Alive() []crdt.NodeID { return slices.Clone(m.view.others()) }

// Watch returns a channel that says "something changed" once for any number of changes since it was last read. stop
// ends it; it is closed then, and when the membership closes.
func (m *Membership) Watch() (changed <-chan struct{}, stop func()) {
	v, ch := m.view, make(chan struct{}, 1)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		close(ch)
		return ch, func() {}
	}
	v.watch[ch] = struct{}{}
	return ch, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if _, on := v.watch[ch]; on {
			delete(v.watch, ch)
			close(ch)
		}
	}
}

// Events returns every change from now on, for people to look at; a reader that does not keep up loses some, which
// Event.Lost counts. stop ends it; it is closed then, and when the membership closes.
func (m *Membership) Events() (events <-chan Event, stop func()) {
	v, f := m.view, &feed{ch: make(chan Event, feedSize)}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		close(f.ch)
		return f.ch, func() {}
	}
	v.feeds[f] = struct{}{}
	return f.ch, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if _, on := v.feeds[f]; on {
			delete(v.feeds, f)
			close(f.ch)
		}
	}
}
