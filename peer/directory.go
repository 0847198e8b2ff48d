package peer

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"vcpeer/crdt"
	"vcpeer/crdt/replica"
	"vcpeer/gossip"
	"vcpeer/queue"
	"vcpeer/queue/site"
)

// loadKind is the ephemeral kind under which every node says what it has free. It is written again every few seconds;
// what is older than loadTTL is of a node that is gone.
const (
	loadKind = "load"
	loadTTL  = time.Minute
)

// load is what a node says of itself beside what the queue needs.
type load struct {
	Queue    site.Load `cbor:"1,keyasint"`
	Slots    int       `cbor:"2,keyasint"` // in all
	MemBytes int64     `cbor:"3,keyasint"`
	Running  int       `cbor:"4,keyasint,omitempty"` // tasks
	Voters   int       `cbor:"5,keyasint,omitempty"` // of the site's group; said by its leader
}

// directory is what the queue may know of the cluster: the records, gossip and the loads, as one. It implements
// site.Directory.
type directory struct {
	self    crdt.NodeID
	replica *replica.Replica
	members *gossip.Membership
	rtt     func(crdt.NodeID) (time.Duration, bool)
	own     func(site.Load) load // completes what the queue publishes
	log     *slog.Logger
	changed chan struct{}

	mu    sync.Mutex
	cache map[crdt.NodeID]heardLoad // by author; decoded once for each version
}

// heardLoad is the newest load of a node and when it was heard.
type heardLoad struct {
	load
	version uint64
	at      time.Time
}

// run signals changes of members and records until ctx ends. Loads signal through touch.
func (d *directory) run(ctx context.Context) {
	members, stopMembers := d.members.Watch()
	defer stopMembers()
	records, stopRecords := d.replica.Watch()
	defer stopRecords()
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-members:
			if !ok {
				return
			}
		case <-records:
		}
		d.touch()
	}
}

// touch says that something has changed; it never waits.
func (d *directory) touch() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// Changed implements site.Directory.
func (d *directory) Changed() <-chan struct{} { return d.changed }

// Publish implements site.Directory.
func (d *directory) Publish(l site.Load) {
	value, err := cbor.Marshal(d.own(l))
	if err == nil {
		err = d.replica.SetEphemeral(loadKind, "", value, loadTTL)
	}
	if err != nil {
		d.log.Warn("this node's load is not published", "err", err)
	}
}

// Loads implements site.Directory.
func (d *directory) Loads() []site.Load {
	heard := d.heard()
	out := make([]site.Load, 0, len(heard))
	for _, l := range heard {
		out = append(out, l.Queue)
	}
	return out
}

// heard returns the newest load of every node, none of which speaks for another.
func (d *directory) heard() []heardLoad {
	entries := d.replica.Ephemeral(loadKind)
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]heardLoad, 0, len(entries))
	next := make(map[crdt.NodeID]heardLoad, len(entries))
	for _, e := range entries {
		l, ok := d.cache[e.Author]
		if !ok || l.version != e.Version {
			l = heardLoad{version: e.Version, at: e.Expires.Add(-loadTTL)}
			if err := cbor.Unmarshal(e.Value, &l.load); err != nil || l.Queue.Node != e.Author {
				d.log.Debug("a load that cannot be used", "node", e.Author.Short(), "err", err)
				continue
			}
		}
		next[e.Author] = l
		out = append(out, l)
	}
	d.cache = next
	return out
}

// Nodes implements site.Directory.
func (d *directory) Nodes() []queue.Node {
	loads := make(map[crdt.NodeID]heardLoad)
	for _, l := range d.heard() {
		loads[l.Queue.Node] = l
	}
	alive := d.alive()
	var out []queue.Node
	for _, h := range d.replica.View().Hosts() {
		if h.Standing != crdt.Joined {
			continue
		}
		n := queue.Node{ID: h.ID, Site: siteIDOf(h.Site), Alive: alive[h.ID], Slots: h.CPUs, Mem: h.MemBytes}
		if l, ok := loads[h.ID]; ok {
			n.Slots, n.Mem, n.FreeSlots, n.FreeMem = l.Slots, l.MemBytes, l.Queue.FreeSlots, l.Queue.FreeMem
		}
		out = append(out, n)
	}
	return out
}

func (d *directory) alive() map[crdt.NodeID]bool {
	alive := map[crdt.NodeID]bool{d.self: true}
	for _, id := range d.members.Alive() {
		alive[id] = true
	}
	return alive
}

// SiteName implements site.Directory.
func (d *directory) SiteName(id queue.SiteID) string {
	key, err := crdt.ParseSiteID(string(id))
	if err != nil {
		return ""
	}
	return siteName(d.replica.View(), key)
}

// SiteByName implements site.Directory.
func (d *directory) SiteByName(name string) (queue.SiteID, bool) {
	s, ok := d.replica.View().SiteNamed(name)
	return siteIDOf(s.ID), ok
}

// RTT implements site.Directory.
func (d *directory) RTT(id crdt.NodeID) (time.Duration, bool) { return d.rtt(id) }

// siteIDOf is the name by which the queue knows a site: its ID as text.
func siteIDOf(id crdt.SiteID) queue.SiteID { return queue.SiteID(id.String()) }

// listeningStore is the replica as package spread sees it, with an ear for loads that arrive.
type listeningStore struct {
	*replica.Replica
	heard func()
}

// ReceiveEphemeral passes entries on to the replica.
func (s listeningStore) ReceiveEphemeral(entries [][]byte) ([][]byte, error) {
	fresh, err := s.Replica.ReceiveEphemeral(entries)
	if len(fresh) > 0 {
		s.heard()
	}
	return fresh, err
}
