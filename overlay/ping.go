package overlay

import (
	"time"

	"vcpeer/crdt"
	"vcpeer/overlay/label"
)

// PingAsk asks for probes of one way, which go where frames go.
type PingAsk struct {
	To       crdt.NodeID   // one that this node has a link or a path to, see [Status]
	Chosen   bool          // by the path that frames take when the probe is sent; Via counts for nothing
	Via      []label.Label // else over these transit gateways, in order; empty: by the direct link
	Count    int           // 0: until the context ends
	Interval time.Duration // 0: a second
	Size     int           // of IP packets as large as the probes, bytes; 0: as small as they can be
}

// Pong is what became of one probe.
type Pong struct {
	Seq  int // from 1
	Lost bool
	RTT  time.Duration // of one that is not lost
	Via  []label.Label // how it went; never written to
}
