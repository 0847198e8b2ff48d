package probe

import (
	"fmt"
	"time"

	"vcpeer/overlay/label"
)

// EventKind is what an event tells.
type EventKind uint8

const (
	Up       EventKind = iota // frames get through, for the first time or again
	Down                      // they do not
	MTU                       // what fits became known or changed
	Step                      // the RTT is another for good
	Pong                      // a ping was answered
	PingLost                  // one was not
	PingDone                  // the last of a Ping was
)

func (k EventKind) String() string {
	return [...]string{"up", "down", "mtu", "step", "pong", "lost", "done"}[k]
}

// Event is something to act on or to log. Those of one call come in the order in which they happened.
type Event struct {
	Kind  EventKind
	ID    ID
	Via   []label.Label // transit gateways of the path; nil: the direct link. Never written to
	RTT   time.Duration // Up, Pong: measured; Step: from now on
	From  time.Duration // Step: before
	Bytes int           // MTU: of the largest IP packet; 0: small ones pass and none of a usual size does
	Ping  PingID        // Pong, PingLost, PingDone
	Seq   int           // Pong, PingLost: which, from 1; PingDone: how many were answered
}

func (e Event) String() string {
	s := fmt.Sprintf("%v %v", e.Kind, e.ID)
	for i, l := range e.Via {
		if i == 0 {
			s += " via"
		}
		s += " " + l.String()
	}
	switch e.Kind {
	case Up:
		s += fmt.Sprintf(" %v", e.RTT)
	case Step:
		s += fmt.Sprintf(" %v to %v", e.From, e.RTT)
	case MTU:
		s += fmt.Sprintf(" %d", e.Bytes)
	case Pong:
		s += fmt.Sprintf(" #%d %v", e.Seq, e.RTT)
	case PingLost, PingDone:
		s += fmt.Sprintf(" #%d", e.Seq)
	}
	return s
}
