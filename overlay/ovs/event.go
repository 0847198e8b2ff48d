package ovs

import (
	"context"
	"fmt"
	"sync"

	"vcpeer/overlay/flow"
)

// Kind says what an Event is about.
type Kind uint8

// What can happen.
const (
	Gone      Kind = iota + 1 // Daemon went away; for ovs-vswitchd, its tables went with it
	Restarted                 // Daemon is there again: Ensure and Program
	Changed                   // somebody else changed Bridge (its ports, flows or groups): Ensure and Program
	PortMoved                 // State of Port is another: number, link or error
	BFDMoved                  // what BFD says of Port is another
	Busy                      // programs or guests sent or got frames over Bridge since flows were last counted, to Hosts
)

func (k Kind) String() string {
	return [...]string{"unknown", "gone", "restarted", "changed", "port", "bfd", "busy"}[min(int(k), 6)]
}

// The daemons of Open vSwitch.
const (
	Vswitchd = "ovs-vswitchd"
	Ovsdb    = "ovsdb-server"
)

// Event is something that happened by itself or by somebody else's hand.
type Event struct {
	Kind   Kind
	Daemon string      // of Gone and Restarted
	Bridge string      // empty with Ovsdb
	Port   string      // of PortMoved and BFDMoved
	State  PortState   // of PortMoved and BFDMoved
	Hosts  []flow.Slot // of Busy, in order
}

func (e Event) String() string {
	switch e.Kind {
	case Gone, Restarted:
		return fmt.Sprintf("%v %s %s", e.Kind, e.Daemon, e.Bridge)
	case BFDMoved:
		return fmt.Sprintf("%v %s/%s forwarding=%t %s", e.Kind, e.Bridge, e.Port, e.State.BFD.Forwarding, e.State.BFD.State)
	case PortMoved:
		return fmt.Sprintf("%v %s/%s %d up=%t %s", e.Kind, e.Bridge, e.Port, e.State.OFPort, e.State.Up, e.State.Error)
	}
	return fmt.Sprintf("%v %s", e.Kind, e.Bridge)
}

// PortState is what Open vSwitch says of a port.
type PortState struct {
	OFPort int    // its number in flows; 0: none yet, -1: it could not be opened
	Error  string // why
	Up     bool   // the link
	MTU    int    // 0: unknown
	MAC    string // in use
	BFD    BFD
}

// BFD is what a session of RFC 5880 says of a port's other end.
type BFD struct {
	On         bool
	Forwarding bool   // frames get through
	State      string // "up", "down", "init", "admin_down"
	Remote     string // the other end's
	Diagnostic string
}

// mailbox holds events until they are taken; at most one of each kind, bridge and port.
type mailbox struct {
	out  chan Event
	wake chan struct{} // holds one

	mu      sync.Mutex
	order   []slot
	pending map[slot]Event
}

type slot struct {
	kind                 Kind
	daemon, bridge, port string
}

func (m *mailbox) init() {
	m.out, m.wake, m.pending = make(chan Event), make(chan struct{}, 1), map[slot]Event{}
}

func (m *mailbox) put(ev Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := slot{ev.Kind, ev.Daemon, ev.Bridge, ev.Port}
	if _, ok := m.pending[at]; !ok {
		m.order = append(m.order, at)
	}
	m.pending[at] = ev
	poke(m.wake)
}

// first takes the oldest out.
func (m *mailbox) first() (Event, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.order) == 0 {
		return Event{}, false
	}
	ev := m.pending[m.order[0]]
	delete(m.pending, m.order[0])
	m.order = m.order[1:]
	return ev, true
}

func (m *mailbox) run(ctx context.Context) {
	for {
		for ev, ok := m.first(); ok; ev, ok = m.first() {
			select {
			case <-ctx.Done():
				return
			case m.out <- ev:
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		}
	}
}
