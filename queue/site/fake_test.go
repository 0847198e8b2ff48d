package site

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"vcpeer/crdt"
	"vcpeer/queue"
	"vcpeer/queue/exec"
	"vcpeer/queue/group"
)

// A cluster of fakes: everything of a node but the service itself. All of it runs in a bubble.

type cluster struct {
	t     *testing.T
	mu    sync.Mutex
	rng   *rand.Rand
	nodes map[crdt.NodeID]*fakeNode
	sites map[queue.SiteID]*fakeRaft
	loads map[crdt.NodeID]Load
	conns map[*fakeConn]struct{}
	cut   map[[2]crdt.NodeID]bool
	led   *ledger
	times queue.Times
}

type fakeNode struct {
	c       *cluster
	id      crdt.NodeID
	site    queue.SiteID
	slots   int
	dir     string
	blobs   map[string][]byte
	shims   map[string]*shim
	handler func(ctx context.Context, from crdt.NodeID, c net.Conn)
	changed chan struct{}
	up      bool
	paused  chan struct{} // closed when it goes on; nil: it is not paused
	svc     *Service
	daemon  *daemon
	stop    context.CancelFunc
	ended   chan error
}

func newCluster(t *testing.T, seed uint64) *cluster {
	return &cluster{t: t, rng: rand.New(rand.NewPCG(seed, 7)), nodes: map[crdt.NodeID]*fakeNode{}, sites: map[queue.SiteID]*fakeRaft{},
		loads: map[crdt.NodeID]Load{}, conns: map[*fakeConn]struct{}{}, cut: map[[2]crdt.NodeID]bool{}, led: &ledger{t: t},
		times: queue.DefaultTimes}
}

func (c *cluster) add(site queue.SiteID, n, slots int) *fakeNode {
	id := crdt.NodeID{byte(n), 0xBB}
	f := &fakeNode{c: c, id: id, site: site, slots: slots, dir: c.t.TempDir(), blobs: map[string][]byte{}, shims: map[string]*shim{},
		changed: make(chan struct{}, 1)}
	c.nodes[id] = f
	if c.sites[site] == nil {
		c.sites[site] = &fakeRaft{c: c, site: site, members: map[crdt.NodeID]*fakeGroup{}}
	}
	return f
}

func (c *cluster) float() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rng.Float64()
}

// start runs a daemon on the node: a new one after a kill.
func (n *fakeNode) start() {
	n.c.t.Helper()
	book := NewBook(queue.New(n.site, 0))
	g := n.c.sites[n.site].join(n.id, book)
	n.daemon = &daemon{node: n, results: make(chan exec.Result)}
	svc, err := New(Config{Self: n.id, Site: n.site, Fabric: n, Group: g, Book: book, Executor: n.daemon, Blobs: fakeBlobs{n}, Directory: n,
		Deliver: Files{fakeBlobs{n}, noAccount}, Account: noAccount, Slots: n.slots, MemBytes: 1 << 30, Boot: n.boot, Times: n.c.times})
	if err != nil {
		n.c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.c.mu.Lock()
	n.svc, n.stop, n.ended, n.up = svc, cancel, make(chan error, 1), true
	n.c.mu.Unlock()
	n.daemon.begin(ctx)
	n.c.sites[n.site].elect()
	go func() { n.ended <- svc.Run(ctx) }()
	n.c.changedAll()
}

// kill ends the daemon at once: its connections break, its group member is gone; shims go on.
func (n *fakeNode) kill() {
	n.c.mu.Lock()
	n.up = false
	for f := range n.c.conns {
		if f.from == n.id || f.to == n.id {
			f.Conn.Close()
		}
	}
	n.c.mu.Unlock()
	n.c.sites[n.site].leave(n.id)
	n.stop()
	<-n.ended
	n.daemon.work.Wait()
	n.c.changedAll()
}

// power kills the daemon and all that runs.
func (n *fakeNode) power() {
	n.kill()
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	for _, s := range n.shims {
		if !s.ended {
			s.ended, s.result.Lost = true, true
			close(s.over)
			n.c.led.end(s, false)
		}
	}
}

// pause leaves the node without a word, as SIGSTOP does: its connections stay and carry nothing, its group elects another
// leader, and gossip does not notice.
func (n *fakeNode) pause() {
	n.c.mu.Lock()
	n.paused = make(chan struct{})
	n.c.mu.Unlock()
	n.c.sites[n.site].leave(n.id)
}

// giveUp is gossip noticing that the node does not answer.
func (n *fakeNode) giveUp() {
	n.c.mu.Lock()
	n.up = false
	n.c.mu.Unlock()
	n.c.changedAll()
}

func (n *fakeNode) resume() {
	n.c.mu.Lock()
	close(n.paused)
	n.paused, n.up = nil, true
	n.c.mu.Unlock()
	n.c.sites[n.site].back(n)
	n.c.changedAll()
}

func (c *cluster) stopAll() {
	for _, n := range c.nodes {
		if n.up {
			n.power()
		}
	}
}

func (c *cluster) changedAll() {
	for _, n := range c.nodes {
		select {
		case n.changed <- struct{}{}:
		default:
		}
	}
}

func noAccount(context.Context, string) (*exec.Account, error) { return nil, nil }

// epoch of the bubble's clock, for a boot clock.
func (n *fakeNode) boot() exec.BootTime {
	return exec.BootTime(time.Since(time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)))
}

// --- fabric

type fakeConn struct {
	net.Conn
	c        *cluster
	from, to crdt.NodeID
	once     sync.Once
	closed   chan struct{}
}

func (f *fakeConn) Close() error {
	f.c.mu.Lock()
	delete(f.c.conns, f)
	f.c.mu.Unlock()
	f.once.Do(func() { close(f.closed) })
	return f.Conn.Close()
}

// SetDeadline in the past lets a reader go that waits for a paused node.
func (f *fakeConn) SetDeadline(t time.Time) error {
	if !t.After(time.Now()) {
		f.once.Do(func() { close(f.closed) })
	}
	return f.Conn.SetDeadline(t)
}

// Read gives out what came only while both ends run.
func (f *fakeConn) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	for _, id := range []crdt.NodeID{f.from, f.to} {
		f.c.nodes[id].await(f.closed)
	}
	return n, err
}

// await waits while the node is paused, until gone is closed.
func (n *fakeNode) await(gone <-chan struct{}) {
	n.c.mu.Lock()
	paused := n.paused
	n.c.mu.Unlock()
	if paused == nil {
		return
	}
	select {
	case <-paused:
	case <-gone:
	}
}

var errDown = errors.New("node is down")

func (n *fakeNode) Open(_ context.Context, to crdt.NodeID, _ string) (net.Conn, error) {
	time.Sleep(time.Millisecond)
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	other := n.c.nodes[to]
	if other == nil || !other.up || !n.up || n.c.cut[[2]crdt.NodeID{n.id, to}] {
		return nil, errDown
	}
	a, b := net.Pipe()
	here := &fakeConn{Conn: a, c: n.c, from: n.id, to: to, closed: make(chan struct{})}
	there := &fakeConn{Conn: b, c: n.c, from: n.id, to: to, closed: make(chan struct{})}
	n.c.conns[here], n.c.conns[there] = struct{}{}, struct{}{}
	go other.handler(context.Background(), n.id, there)
	return here, nil
}

func (n *fakeNode) Handle(_ string, h func(ctx context.Context, from crdt.NodeID, c net.Conn)) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	n.handler = h
}

// --- directory

func (n *fakeNode) Nodes() []queue.Node {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	var all []queue.Node
	for _, f := range n.c.nodes {
		all = append(all, queue.Node{ID: f.id, Site: f.site, Alive: f.up, Slots: f.slots, FreeSlots: n.c.loads[f.id].FreeSlots, Mem: 1 << 30, FreeMem: 1 << 30})
	}
	slices.SortFunc(all, func(a, b queue.Node) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return all
}

func (n *fakeNode) SiteName(id queue.SiteID) string { return string(id) + "-name" }

func (n *fakeNode) SiteByName(name string) (queue.SiteID, bool) {
	for id := range n.c.sites {
		if string(id)+"-name" == name {
			return id, true
		}
	}
	return "", false
}

func (n *fakeNode) RTT(crdt.NodeID) (time.Duration, bool) { return time.Millisecond, true }

func (n *fakeNode) Loads() []Load {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	var all []Load
	for _, l := range n.c.loads {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b Load) int { return slices.Compare(a.Node[:], b.Node[:]) })
	return all
}

func (n *fakeNode) Publish(l Load) {
	n.c.mu.Lock()
	n.c.loads[n.id] = l
	n.c.mu.Unlock()
	n.c.changedAll()
}

func (n *fakeNode) Changed() <-chan struct{} { return n.changed }

// --- blobs

type fakeBlobs struct{ *fakeNode }

func (b fakeBlobs) Open(hash string) (io.ReadSeekCloser, int64, error) { return b.blob(hash) }

func (n *fakeNode) put(b []byte) string {
	h := fmt.Sprintf("%x", sha256.Sum256(b))
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	n.blobs[h] = b
	return h
}

func (n *fakeNode) Has(hash string) bool {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	return n.blobs[hash] != nil
}

type seeker struct{ *bytes.Reader }

func (seeker) Close() error { return nil }

func (n *fakeNode) blob(hash string) (io.ReadSeekCloser, int64, error) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	b := n.blobs[hash]
	if b == nil {
		return nil, 0, errors.New("no such blob")
	}
	return seeker{bytes.NewReader(b)}, int64(len(b)), nil
}

func (n *fakeNode) Fetch(_ context.Context, hash string, from ...crdt.NodeID) error {
	time.Sleep(2 * time.Millisecond)
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	for _, f := range from {
		if o := n.c.nodes[f]; o != nil && o.up && n.up && o.blobs[hash] != nil && !n.c.cut[[2]crdt.NodeID{n.id, f}] {
			n.blobs[hash] = o.blobs[hash]
			return nil
		}
	}
	return fmt.Errorf("blob %.8s: nobody of %d has it", hash, len(from))
}

func (n *fakeNode) Push(ctx context.Context, hash string, to crdt.NodeID) error {
	time.Sleep(2 * time.Millisecond)
	n.c.nodes[to].await(ctx.Done())
	if ctx.Err() != nil {
		return ctx.Err()
	}
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	o := n.c.nodes[to]
	if o == nil || !o.up || !n.up || n.c.cut[[2]crdt.NodeID{n.id, to}] {
		return errDown
	}
	o.blobs[hash] = n.blobs[hash]
	return nil
}

// --- raft: one true log a site; members apply it; the leader is who was elected last

type fakeRaft struct {
	c       *cluster
	site    queue.SiteID
	mu      sync.Mutex
	log     [][]byte
	members map[crdt.NodeID]*fakeGroup
	leader  crdt.NodeID
	term    uint64
	voters  []crdt.NodeID
}

type fakeGroup struct {
	r       *fakeRaft
	id      crdt.NodeID
	book    *Book
	applied int
	changes chan group.Leadership
}

func (r *fakeRaft) join(id crdt.NodeID, b *Book) *fakeGroup {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := &fakeGroup{r: r, id: id, book: b, changes: make(chan group.Leadership, 1)}
	r.members[id] = g
	if !slices.Contains(r.voters, id) {
		r.voters = append(r.voters, id)
	}
	g.catchUp()
	return g
}

func (g *fakeGroup) catchUp() (last any) {
	for g.applied < len(g.r.log) {
		g.applied++
		last = g.book.Apply(uint64(g.applied), g.r.log[g.applied-1])
	}
	return last
}

func (r *fakeRaft) leave(id crdt.NodeID) {
	r.mu.Lock()
	delete(r.members, id)
	gone := r.leader == id
	if gone {
		r.leader = crdt.NodeID{}
	}
	r.mu.Unlock()
	if gone {
		time.Sleep(500 * time.Millisecond)
		r.elect()
	}
}

// back is a member that was away and has missed what happened.
func (r *fakeRaft) back(n *fakeNode) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := n.svc.cfg.Group.(*fakeGroup)
	r.members[n.id] = g
	g.catchUp()
	r.tell()
}

// elect chooses a leader if there is none and a majority is up.
func (r *fakeRaft) elect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.leader.IsZero() || len(r.members) <= len(r.voters)/2 {
		return
	}
	var ids []crdt.NodeID
	for id := range r.members {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b crdt.NodeID) int { return slices.Compare(a[:], b[:]) })
	r.leader = ids[r.c.rand(len(ids))]
	r.term++
	r.tell()
}

func (c *cluster) rand(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rng.IntN(n)
}

func (r *fakeRaft) tell() {
	for _, g := range r.members {
		select {
		case g.changes <- group.Leadership{Leader: r.leader, Term: r.term, Self: g.id == r.leader}:
		default:
		}
	}
}

func (g *fakeGroup) Propose(_ context.Context, command []byte) (any, error) {
	time.Sleep(time.Millisecond)
	g.r.mu.Lock()
	defer g.r.mu.Unlock()
	if g.r.leader != g.id || len(g.r.members) <= len(g.r.voters)/2 {
		return nil, group.ErrNotLeader{Leader: g.r.leader}
	}
	g.r.log = append(g.r.log, command)
	var result any
	for _, m := range g.r.members {
		if last := m.catchUp(); m == g {
			result = last
		}
	}
	if g.r.c.float() < 0.01 {
		return nil, group.ErrUncertain // in the log all the same
	}
	return result, nil
}

func (g *fakeGroup) ReadIndex(context.Context) error {
	time.Sleep(time.Millisecond)
	g.r.mu.Lock()
	defer g.r.mu.Unlock()
	if g.r.leader != g.id {
		return group.ErrNotLeader{Leader: g.r.leader}
	}
	return nil
}

func (g *fakeGroup) Status() group.Status {
	g.r.mu.Lock()
	defer g.r.mu.Unlock()
	st := group.Status{Role: group.RoleFollower, Leader: g.r.leader, Term: g.r.term}
	if g.r.leader == g.id && g.r.members[g.id] == g {
		st.Role, st.Settled = group.RoleLeader, true
	}
	for _, v := range g.r.voters {
		st.Voters = append(st.Voters, group.Member{Node: v})
	}
	return st
}

func (g *fakeGroup) LeaderChanges() <-chan group.Leadership { return g.changes }

func nodeID(n int) crdt.NodeID { return crdt.NodeID{byte(n), 0xBB} }
