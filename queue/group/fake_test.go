package group

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"vcpeer/crdt"
	"vcpeer/queue/wal"
	"vcpeer/queue/wal/waltest"
)

// ledger is a machine that remembers every command in order.
type ledger struct {
	mu       sync.Mutex // tests look while the group runs
	commands []string
	last     uint64
}

func (l *ledger) Apply(position uint64, command []byte) any {
	l.mu.Lock()
	defer l.mu.Unlock()
	if position <= l.last {
		panic(fmt.Sprintf("position %d after %d", position, l.last))
	}
	l.last = position
	l.commands = append(l.commands, string(command))
	return len(l.commands)
}

func (l *ledger) Snapshot() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := binary.BigEndian.AppendUint64(nil, l.last)
	for _, c := range l.commands {
		b = binary.AppendUvarint(b, uint64(len(c)))
		b = append(b, c...)
	}
	return b, nil
}

func (l *ledger) Restore(b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(b) < 8 {
		return errors.New("short snapshot")
	}
	l.last, l.commands = binary.BigEndian.Uint64(b), nil
	for b = b[8:]; len(b) > 0; {
		n, k := binary.Uvarint(b)
		l.commands = append(l.commands, string(b[k:k+int(n)]))
		b = b[k+int(n):]
	}
	return nil
}

func (l *ledger) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.commands...)
}

// network joins fake fabrics in one process. A cut closes streams and refuses new ones.
type network struct {
	mu    sync.Mutex
	ports map[crdt.NodeID]*port
	away  map[crdt.NodeID]bool
	conns map[net.Conn][2]crdt.NodeID
}

type port struct {
	net     *network
	self    crdt.NodeID
	ctx     context.Context
	handler func(context.Context, crdt.NodeID, net.Conn)
}

func newNetwork() *network {
	return &network{ports: map[crdt.NodeID]*port{}, away: map[crdt.NodeID]bool{}, conns: map[net.Conn][2]crdt.NodeID{}}
}

func (n *network) fabric(ctx context.Context, self crdt.NodeID) *port {
	return &port{net: n, self: self, ctx: ctx}
}

func (p *port) Handle(proto string, h func(context.Context, crdt.NodeID, net.Conn)) {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	p.handler = h
	p.net.ports[p.self] = p
}

func (p *port) Open(ctx context.Context, to crdt.NodeID, proto string) (net.Conn, error) {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	peer := p.net.ports[to]
	if peer == nil || p.net.away[to] || p.net.away[p.self] {
		return nil, errors.New("unreachable")
	}
	a, b := net.Pipe()
	p.net.conns[a] = [2]crdt.NodeID{p.self, to}
	go peer.handler(peer.ctx, p.self, b)
	return a, nil
}

// cut takes a node off the network, or puts it back.
func (n *network) cut(id crdt.NodeID, away bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.away[id] = away
	for c, ends := range n.conns {
		if away && (ends[0] == id || ends[1] == id) {
			c.Close()
			delete(n.conns, c)
		}
	}
}

// site is a set of nodes whose groups run.
type site struct {
	t     testing.TB
	net   *network
	mu    sync.Mutex
	peers []Candidate
	nodes map[crdt.NodeID]*node
	tune  func(*Config)
}

type node struct {
	id      crdt.NodeID
	dir     string
	fs      wal.FS
	group   *Group
	machine *ledger
	cancel  context.CancelFunc
	err     chan error
}

func nodeID(i int) crdt.NodeID {
	return crdt.NodeID(sha256.Sum256([]byte(fmt.Sprint("node ", i))))
}

func newSite(t testing.TB, n int, tune func(*Config)) *site {
	s := &site{t: t, net: newNetwork(), nodes: map[crdt.NodeID]*node{}, tune: tune}
	for i := range n {
		s.peers = append(s.peers, Candidate{ID: nodeID(i), Alive: true})
	}
	return s
}

func (s *site) candidates() []Candidate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Candidate(nil), s.peers...)
}

func (s *site) mark(id crdt.NodeID, alive, gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.peers {
		if s.peers[i].ID == id {
			s.peers[i].Alive, s.peers[i].Gone = alive, gone
		}
	}
}

// start runs node i on a directory; fs nil is the real disk.
func (s *site) start(i int, dir string, fs wal.FS, founder bool) *node {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{id: nodeID(i), dir: dir, fs: fs, machine: &ledger{}, cancel: cancel, err: make(chan error, 1)}
	cfg := Config{
		Dir: dir, Self: n.id, Site: "site-1", Fabric: s.net.fabric(ctx, n.id), Machine: n.machine, Peers: s.candidates,
		WAL: wal.Options{FS: fs, SegmentBytes: 256 << 10, BallastBytes: -1},
	}
	if s.tune != nil {
		s.tune(&cfg)
	}
	g, err := Open(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	n.group = g
	if founder {
		if err := g.Found(); err != nil {
			s.t.Fatal(err)
		}
	}
	s.net.cut(n.id, false)
	s.mark(n.id, true, false)
	s.nodes[n.id] = n
	go func() { n.err <- g.Run(ctx) }()
	return n
}

// kill cuts the node off first, so that it says no goodbye, and then ends it.
func (s *site) kill(n *node) {
	if err := s.end(n); err != nil {
		s.t.Errorf("node %s: %v", n.id.Short(), err)
	}
}

// cutPower ends a node that loses its disk while it still runs: nothing that it does from then on gets there.
func (s *site) cutPower(n *node, disk *waltest.FS) {
	disk.CutPower(0)
	if err := s.end(n); err != nil && !errors.Is(err, waltest.ErrOff) {
		s.t.Errorf("node %s: %v", n.id.Short(), err)
	}
}

// end takes a node off the network and ends it, and returns what its Run says.
func (s *site) end(n *node) error {
	s.net.cut(n.id, true)
	s.mark(n.id, false, false)
	n.cancel()
	delete(s.nodes, n.id)
	return <-n.err
}

func (s *site) stop() {
	for _, n := range s.nodes {
		n.cancel()
	}
	for _, n := range s.nodes {
		if err := <-n.err; err != nil {
			s.t.Errorf("node %s: %v", n.id.Short(), err)
		}
	}
	clear(s.nodes)
}

// await waits until ok, in whatever time the test lives in.
func (s *site) await(what string, limit time.Duration, ok func() bool) {
	s.t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for !ok() {
		select {
		case <-look.C:
		case <-deadline.C:
			for _, n := range s.nodes {
				s.t.Logf("%s: %+v", n.id.Short(), n.group.Status())
			}
			s.t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// leader returns the node that leads and has settled; nil: none.
func (s *site) leader() *node {
	var best *node
	for _, n := range s.nodes {
		if st := n.group.Status(); st.Role == RoleLeader && st.Settled && (best == nil || st.Term > best.group.Status().Term) {
			best = n
		}
	}
	return best
}

// awaitVoters waits for a configuration that all its running members know. One that has not heard that a change is over
// needs the voters from before it to elect a leader.
func (s *site) awaitVoters(voters, learners int) {
	s.t.Helper()
	s.await(fmt.Sprintf("%d voters, %d learners", voters, learners), time.Minute, func() bool {
		l := s.leader()
		if l == nil {
			return false
		}
		st := l.group.Status()
		if len(st.Voters) != voters || len(st.Learners) != learners {
			return false
		}
		for _, m := range slices.Concat(st.Voters, st.Learners) {
			if n := s.nodes[m.Node]; n != nil && !sameMembers(n.group.Status(), st) {
				return false
			}
		}
		return true
	})
}

// sameMembers reports whether both are in one configuration, with no change under way.
func sameMembers(a, b Status) bool {
	same := func(a, b Member) bool { return a.RaftID == b.RaftID }
	return !a.Changing && !b.Changing && slices.EqualFunc(a.Voters, b.Voters, same) && slices.EqualFunc(a.Learners, b.Learners, same)
}

// put proposes until it is acknowledged, and returns how long that took.
func (s *site) put(command string) time.Duration {
	s.t.Helper()
	began := time.Now()
	s.await("write "+command, time.Minute, func() bool {
		l := s.leader()
		if l == nil {
			return false
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, err := l.group.Propose(ctx, []byte(command))
		return err == nil
	})
	return time.Since(began)
}

// holds reports whether a node's machine has a command.
func (n *node) holds(command string) bool {
	for _, c := range n.machine.all() {
		if c == command {
			return true
		}
	}
	return false
}
