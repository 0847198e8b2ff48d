// Package spread carries the records of the cluster to every node that should have them. It knows no record: a batch is
// bytes that the store verifies, and two stores agree when their digests do.
//
// Three ways lead to every node. A fresh batch is pushed at once to a few live peers, which push it on. A digest of 16
// bytes is announced to some more, and who does not have it asks. And every few seconds each node holds a session with
// a random peer, in which both give what the other lacks; a node that was away for an hour or a year catches up so.
// Ephemeral entries are gathered for half a second and go the same ways, except those that the configuration calls urgent.
//
//	s, err := spread.Start(spread.Config{Fabric: fabric, Store: replica, Peers: membership.Alive, Log: log})
//	if err != nil { … }
//	defer s.Close()
//	err = s.SyncWith(ctx, seed) // right after joining
//
// The core (planner, outbox, session) is pure; Spread is the shell around it.
package spread

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"vcpeer/crdt"
)

// Protocol names the streams of this package, Class its datagrams.
const (
	Protocol      = "/vcpeer/sync/1"
	Class    byte = 2
)

// Fabric is what the package needs of the network between nodes.
type Fabric interface {
	Self() crdt.NodeID
	Open(ctx context.Context, to crdt.NodeID, proto string) (net.Conn, error)
	Handle(proto string, h func(ctx context.Context, from crdt.NodeID, c net.Conn))
	Send(to crdt.NodeID, class byte, b []byte)
	Receive(class byte, h func(from crdt.NodeID, b []byte))
}

// Store holds the records. Its methods may be called from any goroutine. Receive may block for a disk; the others are
// quick. The slices that pass either way are not changed by either side afterwards.
type Store interface {
	Digest() [16]byte // over all heads: equal digests mean equal records
	Heads() []byte    // what this store has, for another's Since
	// Since returns what heads lacks, about limit bytes of it, in an order in which Receive takes it, and whether there is more.
	Since(heads []byte, limit int) (batches [][]byte, more bool, err error)
	// Receive keeps what is valid and new, durably, and returns exactly that, also beside an error about the rest.
	Receive(ctx context.Context, batches [][]byte) (fresh [][]byte, err error)
	OnLocal(func(batch []byte)) // called after a batch of this node is durable

	EphemeralDigest() []byte
	EphemeralSince(digest []byte, limit int) ([][]byte, error)
	ReceiveEphemeral([][]byte) (fresh [][]byte, err error)
	OnLocalEphemeral(func(entry []byte))
}

// Config is what Start needs.
type Config struct {
	Fabric Fabric
	Store  Store
	Peers  func() []crdt.NodeID   // the live ones, without this node; asked often
	Near   func(crdt.NodeID) bool // whether a peer is of this node's site; nil: none is
	Linked func(crdt.NodeID) bool // whether a connection with a peer stands, so that a datagram goes at once; nil: with all
	// Urgent tells ephemeral entries that are to reach all at once, within a few times the delay of the network; all nodes must
	// agree on it. They should be few (20 a second in the whole cluster) and small (1,100 bytes encoded): those beyond go
	// as ordinary ones. It must be quick. Nil: none is urgent.
	Urgent func(entry []byte) bool
	Log    *slog.Logger // nil: nothing is logged
}

// ErrClosed says that the work has ended.
var ErrClosed = errors.New("spread: closed")

// Spread is running dissemination. Its methods may be called from any goroutine.
type Spread struct {
	cfg   Config
	limit limits
	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	done  sync.WaitGroup
	wake  chan struct{} // something is due; see run

	mu     sync.Mutex
	plan   *planner // under mu
	stats  Stats    // under mu
	closed bool     // under mu

	serving     *gate // what peers have us do
	heardUrgent chan heardUrgent
}

// Start begins to spread what the store has and gets.
func Start(cfg Config) (*Spread, error) {
	if cfg.Fabric == nil || cfg.Store == nil || cfg.Peers == nil {
		return nil, errors.New("spread: config: Fabric, Store and Peers are needed")
	}
	if cfg.Near == nil {
		cfg.Near = func(crdt.NodeID) bool { return false }
	}
	if cfg.Linked == nil {
		cfg.Linked = func(crdt.NodeID) bool { return true }
	}
	if cfg.Urgent == nil {
		cfg.Urgent = func([]byte) bool { return false }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Spread{cfg: cfg, limit: standard(), wake: make(chan struct{}, 1), heardUrgent: make(chan heardUrgent, maxHeard)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.serving = newGate(s.limit.servePerPeer, s.limit.serveInAll)
	rng := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	s.plan = newPlanner(s.limit, rng, time.Now())
	cfg.Store.OnLocal(func(b []byte) { s.got(crdt.NodeID{}, [][]byte{b}, nil, false) })
	cfg.Store.OnLocalEphemeral(func(b []byte) { s.got(crdt.NodeID{}, nil, [][]byte{b}, true) })
	cfg.Fabric.Receive(Class, s.onDatagram)
	cfg.Fabric.Handle(Protocol, s.onStream)
	s.start(s.run)
	s.start(s.hearUrgent)
	return s, nil
}

// start runs f until its end, which Close waits for; false when closed.
func (s *Spread) start(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.done.Go(f)
	return true
}

// Close stops and returns when all that was started has ended. What peers lack by then they get from others, or later.
func (s *Spread) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.done.Wait()
}

// got passes fresh batches and ephemeral entries on; from is the peer they came from, zero for this node. Urgent entries are
// urgent as long as they are news: not any more when a session brought them.
func (s *Spread) got(from crdt.NodeID, batches, ephemeral [][]byte, news bool) {
	if len(batches)+len(ephemeral) == 0 {
		return
	}
	peers, now := s.peers(), time.Now()
	s.mu.Lock()
	if news {
		ephemeral = slices.DeleteFunc(slices.Clone(ephemeral), func(b []byte) bool {
			return s.cfg.Urgent(b) && s.plan.freshUrgent(now, from, b)
		})
	}
	s.plan.fresh(now, from, batches, ephemeral, peers)
	s.mu.Unlock()
	s.kick()
}

// peers returns the live peers with what the planner wants to know of them.
func (s *Spread) peers() []peer {
	ids := s.cfg.Peers()
	out := make([]peer, 0, len(ids))
	for _, id := range ids {
		if id != s.cfg.Fabric.Self() {
			out = append(out, peer{id: id, near: s.cfg.Near(id), linked: s.cfg.Linked(id)})
		}
	}
	return out
}

// kick wakes run.
func (s *Spread) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run performs what the planner says is due, until Close.
func (s *Spread) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-timer.C:
		case <-s.wake:
		}
		peers, digest := s.peers(), s.cfg.Store.Digest()
		s.mu.Lock()
		effects, next := s.plan.step(time.Now(), digest, peers)
		s.mu.Unlock()
		for _, e := range effects {
			s.perform(e)
		}
		timer.Reset(time.Until(next))
	}
}

// perform carries one effect out without waiting; its result comes back as an event of the planner.
func (s *Spread) perform(e effect) {
	switch e := e.(type) {
	case announce:
		s.cfg.Fabric.Send(e.to, Class, encodeAnnouncement(e.digest))
		s.count(func(st *Stats) { st.Announced++ })
	case urge:
		s.cfg.Fabric.Send(e.to, Class, encodeUrgent(e.entries))
		s.count(func(st *Stats) { st.Urged++ })
	case push:
		s.start(func() {
			theirs, err := s.push(s.ctx, e)
			s.after(func(now time.Time) { s.plan.pushed(now, e, theirs, err) })
		})
	case syncWith:
		s.start(func() {
			did, err := s.session(s.ctx, e.to)
			s.after(func(now time.Time) { s.plan.synced(now, e.to, did, err) })
		})
	}
}

// after gives a result to the planner and lets run look again.
func (s *Spread) after(event func(now time.Time)) {
	s.mu.Lock()
	event(time.Now())
	s.mu.Unlock()
	s.kick()
}
