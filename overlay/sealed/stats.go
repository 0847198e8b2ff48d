package sealed

import (
	"net/netip"
	"sync/atomic"
	"time"

	"vcpeer/crdt"
	"vcpeer/overlay/label"
)

// Count is frames: a large packet counts as the segments that it travels in.
type Count struct{ Packets, Bytes uint64 }

// Drops are frames of or for one peer that went no further, by cause.
type Drops struct {
	Full      uint64 // the queue was full, they were the oldest
	Late      uint64 // they had waited too long
	NoWay     uint64 // there is neither session nor stream
	TooLarge  uint64 // for the path, as the system says
	System    uint64 // the system did not send or deliver them
	Replayed  uint64 // came a second time, or too late to tell
	Forged    uint64 // could not be opened
	Malformed uint64 // were sealed well and made badly
}

// PeerStats is what a link knows of a peer.
type PeerStats struct {
	ID       crdt.NodeID
	Label    label.Label
	Via      string         // "datagrams", "stream", or empty: there is no way
	Remote   netip.AddrPort // of datagrams
	Proven   bool           // something has come with the keys in use
	Epoch    uint32         // of the keys in use
	Since    time.Time      // it is a peer
	Sent     Count
	Received Count
	Waiting  int // bytes in the queue
	Drops    Drops
}

// Stats is what a link has done.
type Stats struct {
	Peers   []PeerStats
	Unknown uint64 // datagrams with a key that nobody has
	Short   uint64 // cut short, or of another type
	Overrun uint64 // came faster than they could be opened
	Others  uint64 // frames on the TAP that are for no peer
}

type counter struct{ packets, bytes atomic.Uint64 }

func (c *counter) add(packets, bytes int) {
	c.packets.Add(uint64(packets))
	c.bytes.Add(uint64(bytes))
}

func (c *counter) now() Count { return Count{c.packets.Load(), c.bytes.Load()} }

type drops struct {
	full, late, noWay, tooLarge, system, replayed, forged, malformed atomic.Uint64
}

func (d *drops) now() Drops {
	return Drops{d.full.Load(), d.late.Load(), d.noWay.Load(), d.tooLarge.Load(), d.system.Load(), d.replayed.Load(), d.forged.Load(),
		d.malformed.Load()}
}

// Stats returns what has been done so far. It may be called from anywhere.
func (l *Link) Stats() Stats {
	out := Stats{Unknown: l.unknown.Load(), Short: l.short.Load(), Overrun: l.overrun.Load(), Others: l.others.Load()}
	r := l.roster.Load()
	for _, p := range r.all {
		s := PeerStats{ID: p.id, Label: p.labelNow(), Since: p.since, Sent: p.sent.now(), Received: p.got.now(), Drops: p.drops.now()}
		l.mu.Lock()
		s.Waiting = p.queue.bytes
		l.mu.Unlock()
		if b := p.best(); b != nil {
			s.Via, s.Remote, s.Proven, s.Epoch = "datagrams", b.route.Load().remote, b.proven.Load(), b.epoch.Load()
		} else if p.stream.Load() != nil {
			s.Via, s.Proven = "stream", true
		}
		out.Peers = append(out.Peers, s)
	}
	return out
}
