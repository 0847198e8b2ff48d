// Package gossip says which nodes of the cluster are there: Serf, over memberlist, over the fabric. One pool spans all
// sites. It carries no data: records go by package spread, and what changes constantly by their ephemeral class.
//
//	m, err := gossip.Start(gossip.Config{Fabric: fabric, Cluster: id.Short(), Name: "node1", Log: log})
//	if err != nil { … }
//	defer m.Close()
//	err = m.Join(ctx, seeds)
//	for changed, stop := m.Watch(); ; { <-changed; use(m.Members()) … }
//
// A Serf node's name is its node ID, its host name only a tag: two hosts of one name must not put each other out. What
// Serf takes for an address is derived from the ID (see address.go); where a node really is, the fabric knows. Serf and
// memberlist stop at this package.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"sync"

	"github.com/hashicorp/serf/serf"

	"vcpeer/crdt"
)

// Protocol names the streams of memberlist, Class its datagrams.
const (
	Protocol      = "/vcpeer/gossip/1"
	Class    byte = 1
)

// TagName is the tag that holds the host name.
const TagName = "name"

// tagLeaving is the tag of a member that is about to leave.
const tagLeaving = "leaving"

// ErrClosed says that the membership was left or closed.
var ErrClosed = errors.New("gossip: membership is closed")

// Fabric is what the package needs of the network between nodes. Open dials on demand; Send never blocks, copies b and
// may drop it; handlers get nothing from anybody who is not admitted.
type Fabric interface {
	Self() crdt.NodeID
	Open(ctx context.Context, to crdt.NodeID, proto string) (net.Conn, error)
	Handle(proto string, h func(ctx context.Context, from crdt.NodeID, c net.Conn))
	Send(to crdt.NodeID, class byte, b []byte)
	Receive(class byte, h func(from crdt.NodeID, b []byte))
}

// Config is what Start needs.
type Config struct {
	Fabric  Fabric
	Cluster string            // 1 to 64 characters that name the cluster; packets with another one are dropped
	Name    string            // host name, the tag "name"; need not be unique
	Tags    map[string]string // more tags (site, version, …); with Name at most 512 bytes encoded
	Preset  Preset            // the zero value means Sites()
	Log     *slog.Logger      // nil: nothing is logged

	// Allowed reports whether a node may be a member now; false for strangers and the evicted. It is asked for each
	// message about a node and must be quick. Nil allows whoever the fabric admits.
	Allowed func(crdt.NodeID) bool

	// Rejoin returns the nodes that ought to be there, in any order, this one included or not. Those that are not in
	// view are contacted again and again, with back-off. Nil means none.
	Rejoin func() []crdt.NodeID
}

func (c *Config) validate() error {
	switch {
	case c.Fabric == nil:
		return errors.New("gossip: config: no fabric")
	case len(c.Cluster) < 1 || len(c.Cluster) > 64:
		return fmt.Errorf("gossip: config: cluster name of %d characters, want 1 to 64", len(c.Cluster))
	}
	if c.Preset == (Preset{}) {
		c.Preset = Sites()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Allowed == nil {
		c.Allowed = func(crdt.NodeID) bool { return true }
	}
	if c.Rejoin == nil {
		c.Rejoin = func() []crdt.NodeID { return nil }
	}
	return c.Preset.Validate()
}

// Membership is a running member of the pool. Its methods may be called from any goroutine.
type Membership struct {
	cfg   Config
	self  crdt.NodeID
	serf  *serf.Serf
	trans *transport
	view  *view

	// turn is held while Serf joins, leaves or takes new tags. Serf keeps a mutex during a join, which may take as
	// long as the dials do; waiting for a channel can be given up.
	turn chan struct{}

	stop context.CancelFunc
	done sync.WaitGroup

	mu       sync.Mutex
	closed   bool // nothing is started any more
	closeErr error
}

// Start makes this node a pool of one, which Join or Config.Rejoin merges with others. It does not wait for anybody.
func Start(cfg Config) (*Membership, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	m := &Membership{
		cfg: cfg, self: cfg.Fabric.Self(), turn: make(chan struct{}, 1),
		view: newView(cfg.Fabric.Self()),
	}
	m.trans = newTransport(cfg.Fabric, cfg.Allowed, cfg.Preset.Dial)
	events := make(chan serf.Event, eventBuffer)
	var err error
	if m.serf, err = serf.Create(m.serfConfig(events)); err != nil {
		m.trans.Shutdown()
		return nil, fmt.Errorf("gossip: start: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	m.start(func() { m.drain(ctx, events) })
	m.start(func() { m.keepTogether(ctx) })
	m.start(func() { m.reannounce(ctx) })
	m.trans.listen()
	return m, nil
}

// start runs f until its end, which Close waits for; false when the membership is closed.
func (m *Membership) start(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.done.Go(f)
	return true
}

// tags returns what Serf announces of this node.
func (c *Config) tags(more map[string]string) map[string]string {
	tags := maps.Clone(more)
	if tags == nil {
		tags = map[string]string{}
	}
	tags[TagName] = c.Name
	return tags
}

// take gets the turn or gives up.
func (m *Membership) take(ctx context.Context) error {
	select {
	case m.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-m.serf.ShutdownCh():
		return ErrClosed
	}
}

func (m *Membership) release() { <-m.turn }

// inTurn runs f, which cannot be interrupted, in its turn. When ctx ends first it returns; f goes on to its own end.
func (m *Membership) inTurn(ctx context.Context, f func() error) error {
	m.mu.Lock()
	closed := m.closed
	m.mu.Unlock()
	if closed {
		return ErrClosed // whatever ctx says
	}
	if err := m.take(ctx); err != nil {
		return err
	}
	result := make(chan error, 1)
	if !m.start(func() {
		defer m.release()
		result <- f()
	}) {
		m.release()
		return ErrClosed
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Join merges this node's pool with that of the first of ids that answers; a node that is in the pool already may be
// named. The error holds why each failed.
func (m *Membership) Join(ctx context.Context, ids []crdt.NodeID) error {
	var errs []error
	for _, id := range ids {
		if id == m.self {
			continue
		}
		err := m.inTurn(ctx, func() error {
			_, err := m.serf.Join([]string{joinAddress(id)}, true)
			return err
		})
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", id.Short(), err))
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 0 {
		return errors.New("gossip: join: no other node named")
	}
	return fmt.Errorf("gossip: join: %w", errors.Join(errs...))
}

// SetTags replaces the tags (not the host name) and returns when the change has been sent out. Too many are an error.
func (m *Membership) SetTags(ctx context.Context, tags map[string]string) error {
	all := m.cfg.tags(tags)
	if err := m.inTurn(ctx, func() error { return m.serf.SetTags(all) }); err != nil {
		return fmt.Errorf("gossip: set tags: %w", err)
	}
	return nil
}

// Leave tells the others that this node goes on purpose, waits for the word to spread (a few seconds, or until ctx
// ends) and closes.
func (m *Membership) Leave(ctx context.Context) error {
	m.announceLeave(ctx)
	err := m.inTurn(ctx, m.serf.Leave)
	if err = errors.Join(err, m.Close()); err != nil {
		return fmt.Errorf("gossip: leave: %w", err)
	}
	return nil
}

// announceLeave says by a tag that this node is about to go. Serf's own word for it may come after the news that the node
// is gone, which would look like a failure for a moment; the tag, which is sent before both, tells the two apart.
func (m *Membership) announceLeave(ctx context.Context) {
	self, ok := m.view.get(m.self)
	if !ok || len(m.Alive()) == 0 {
		return
	}
	tags := maps.Clone(self.Tags)
	tags[tagLeaving] = "1"
	if err := m.inTurn(ctx, func() error { return m.serf.SetTags(tags) }); err != nil {
		m.cfg.Log.Debug("gossip: leaving without notice", "err", err)
	}
}

// Close stops without a word: to the others this node failed, unless Leave came first. It returns when all that was
// started has ended, at the latest after a stream's time limit. A second call returns at once.
func (m *Membership) Close() error {
	m.mu.Lock()
	if m.closed {
		defer m.mu.Unlock()
		return m.closeErr
	}
	m.closed = true
	m.mu.Unlock()
	m.stop()
	err := m.serf.Shutdown()
	m.done.Wait()
	m.view.close()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closeErr = err
	return err
}
