package site

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"vcpeer/crdt"
	"vcpeer/queue"
)

// Service is the queue on one node. Make it with New, start it with Run.
type Service struct {
	cfg   Config
	peers *peers

	ctx    context.Context // over when Run ends: for what is asked from outside
	stop   context.CancelCauseFunc
	events chan func(*leader)
	work   sync.WaitGroup

	worker  *worker
	publish chan struct{}

	heard atomic.Pointer[map[crdt.NodeID]bool] // nodes that gossip hears; never changed once there

	mu       sync.Mutex
	stopped  bool
	streams  int
	leaders  map[queue.SiteID]crdt.NodeID // as last heard
	asking   map[queue.SiteID]bool        // a pull is on its way
	askAgain map[queue.SiteID]time.Time   // not before
}

// maxEvents is how many requests may wait for the leader's loop; then their senders wait, each on its own stream.
const maxEvents = 1024

// New returns a service that does nothing yet. It registers its protocol with the fabric.
func New(cfg Config) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	s := &Service{cfg: cfg, peers: newPeers(cfg.Fabric), events: make(chan func(*leader), maxEvents), publish: make(chan struct{}, 1),
		leaders: map[queue.SiteID]crdt.NodeID{}, asking: map[queue.SiteID]bool{}, askAgain: map[queue.SiteID]time.Time{}}
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	s.worker = newWorker(s)
	s.look()
	cfg.Fabric.Handle(Proto, s.serve)
	return s, nil
}

// Run serves until ctx is over or the queue's log holds an entry that this build does not understand, which is the error
// then. Running attempts live on in their shims. It returns after all it started has ended, and is called once.
func (s *Service) Run(ctx context.Context) error {
	defer s.shut()
	defer context.AfterFunc(ctx, func() { s.stop(context.Cause(ctx)) })()
	for _, loop := range []func(context.Context){s.lead, s.worker.run, s.bringBack, s.publishLoop, s.watchDirectory} {
		s.work.Go(func() { loop(s.ctx) })
	}
	select {
	case <-s.ctx.Done():
	case <-s.cfg.Book.Failed():
		err := fmt.Errorf("queue/site: this build cannot go on: %w", s.cfg.Book.Err())
		s.stop(err)
		return err
	}
	return context.Cause(ctx)
}

func (s *Service) shut() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.stop(errStopped)
	s.peers.close()
	s.work.Wait()
}

var errStopped = errors.New("queue/site: the service has stopped")

// Drain takes no new work and waits until what is being started runs or has been given back. Attempts that run live on;
// the next daemon adopts them.
func (s *Service) Drain(ctx context.Context) error { return s.worker.drain(ctx) }

// post hands an event to the leader's loop. It is dropped when the service has ended.
func (s *Service) post(f func(*leader)) {
	select {
	case s.events <- f:
	case <-s.ctx.Done():
	}
}

// voters returns the nodes that vote in this site's group.
func (s *Service) voters() []crdt.NodeID {
	st := s.cfg.Group.Status()
	all := make([]crdt.NodeID, len(st.Voters))
	for i, m := range st.Voters {
		all[i] = m.Node
	}
	return all
}

func (s *Service) watchDirectory(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.cfg.Directory.Changed():
			s.look()
			s.post(func(*leader) {}) // looks abroad
		}
	}
}

// look takes from the directory who is heard.
func (s *Service) look() {
	heard, lost := map[crdt.NodeID]bool{s.cfg.Self: true}, map[crdt.NodeID]bool{}
	for _, n := range s.cfg.Directory.Nodes() {
		switch {
		case n.Alive:
			heard[n.ID] = true
		case n.ID != s.cfg.Self:
			lost[n.ID] = true
		}
	}
	s.heard.Store(&heard)
	s.peers.setLost(lost)
}

// publishEvery is the least time between two publications of this node's load.
const publishEvery = 250 * time.Millisecond

// publishSoon has the load published, once for all that changed meanwhile.
func (s *Service) publishSoon() {
	select {
	case s.publish <- struct{}{}:
	default:
	}
}

// publishAgain is how often the load is published without a change, so that it does not expire.
const publishAgain = 20 * time.Second

func (s *Service) publishLoop(ctx context.Context) {
	again := time.NewTicker(publishAgain)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.publish:
		case <-again.C:
		}
		s.cfg.Directory.Publish(s.load())
		select {
		case <-ctx.Done():
			return
		case <-time.After(publishEvery):
		}
	}
}

func (s *Service) load() Load {
	l := Load{Node: s.cfg.Self, Site: s.cfg.Site}
	l.FreeSlots, l.FreeMem = s.worker.free()
	if s.cfg.Group.Status().Leader == s.cfg.Self {
		l.Leads = true
		s.cfg.Book.Read(func(m *queue.Machine) { l.Backlog = m.Backlog() })
	}
	return l
}
