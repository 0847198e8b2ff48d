package admit

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"slices"
	"sync"
	"testing"
	"time"

	"vcpeer/crdt"
	"vcpeer/peer/fabric"
)

func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func idOf(name string) crdt.NodeID { return crdt.NodeIDOf(testKey(name)) }

// ledger is a member's records in memory. What it writes reaches the ledgers it is linked to at once.
type ledger struct {
	key   ed25519.PrivateKey
	f     crdt.Founding
	links *[]*ledger // of the whole cluster

	mu      sync.Mutex
	state   *crdt.State
	clock   crdt.Clock
	batches []*crdt.Batch
	cut     bool // takes and sends nothing
}

var _ Records = (*ledger)(nil)

// found begins a cluster.
func found(t testing.TB, name string) *ledger {
	t.Helper()
	f, err := crdt.NewFounding("test", testKey(name), time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return newLedger(name, f, &[]*ledger{})
}

func newLedger(name string, f crdt.Founding, links *[]*ledger) *ledger {
	l := &ledger{key: testKey(name), f: f, links: links, state: crdt.NewState(f)}
	*links = append(*links, l)
	return l
}

// join makes a ledger of a node that from admits without a handshake.
func (l *ledger) join(t testing.TB, name string) *ledger {
	t.Helper()
	l.must(t, func(tx *crdt.Tx) error { return tx.AdmitMember(idOf(name), crdt.TokenID{}) })
	n := newLedger(name, l.f, l.links)
	l.mu.Lock()
	all := slices.Clone(l.batches)
	l.mu.Unlock()
	for _, b := range all {
		n.take(b)
	}
	return n
}

func (l *ledger) View() *crdt.View {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.View(time.Now())
}

func (l *ledger) Update(_ context.Context, write func(*crdt.Tx) error) error {
	b, err := l.write(write)
	if err != nil || b == nil {
		return err
	}
	if !l.isCut() {
		for _, other := range *l.links {
			if other != l && !other.isCut() {
				other.take(b)
			}
		}
	}
	return nil
}

func (l *ledger) write(write func(*crdt.Tx) error) (*crdt.Batch, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	tx := l.state.Begin(crdt.NodeIDOf(l.key), &l.clock, time.Now(), rand.Reader)
	if err := write(tx); err != nil {
		return nil, err
	}
	b, err := tx.Sign(l.key)
	if err != nil || b == nil {
		return nil, err
	}
	return b, l.applyLocked(b)
}

func (l *ledger) take(b *crdt.Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.applyLocked(b) // known already, or of somebody put out
}

func (l *ledger) applyLocked(b *crdt.Batch) error {
	if err := l.state.Check(b); err != nil {
		return err
	}
	l.state.Apply(b)
	l.batches = append(l.batches, b)
	if l.state.Stale() {
		l.state.Rebuild(slices.Values(l.batches))
	}
	return nil
}

func (l *ledger) AdmissionProof(n crdt.NodeID) (crdt.Proof, error) {
	path, ok := l.View().AdmissionPath(n)
	if !ok {
		return crdt.Proof{}, crdt.ErrNotMember
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p := crdt.Proof{Founding: l.f.Raw()}
	for _, d := range path {
		for _, b := range l.batches {
			if b.Author == d.Author && b.First <= d.Seq && d.Seq <= b.Last() {
				p.Batches = append(p.Batches, b.Raw())
			}
		}
	}
	return p, nil
}

func (l *ledger) isCut() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.cut }

// setCut parts l from the others, or joins it with them again and tells them what they missed.
func (l *ledger) setCut(cut bool) {
	l.mu.Lock()
	l.cut = cut
	all := slices.Clone(l.batches)
	l.mu.Unlock()
	for _, other := range *l.links {
		for _, b := range all {
			if other != l && !cut {
				other.take(b)
			}
		}
	}
}

func (l *ledger) must(t testing.TB, write func(*crdt.Tx) error) {
	t.Helper()
	if err := l.Update(context.Background(), write); err != nil {
		t.Fatal(err)
	}
}

// token makes a token that l issues.
func (l *ledger) token(t testing.TB, lasts time.Duration, reusable bool) Token {
	t.Helper()
	tok, err := NewToken(l.f.ID(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	l.must(t, func(tx *crdt.Tx) error {
		_, err := tx.AddToken(tok.Public(), time.Now().Add(lasts), reusable, "kyoto")
		return err
	})
	return tok
}

// node is a fabric with, for a member, its records and its Server.
type node struct {
	*fabric.Fabric
	records *ledger // nil: a newcomer

	mu     sync.Mutex
	trusts map[crdt.NodeID]bool // a newcomer's, once welcomed
	events []Event
}

func (n *node) standing(id crdt.NodeID) fabric.Standing {
	if n.records != nil {
		return fabric.StandingOf(n.records.View().Standing(id))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.trusts[id] {
		return fabric.Member
	}
	return fabric.Stranger
}

func (n *node) event(e Event) { n.mu.Lock(); defer n.mu.Unlock(); n.events = append(n.events, e) }

// lastEvent is what the member told of the answer it gave last.
func (n *node) lastEvent() Event {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.events) == 0 {
		return Event{}
	}
	return n.events[len(n.events)-1]
}

// start runs a node on loopback until the test ends.
func start(t testing.TB, name string, records *ledger) *node {
	t.Helper()
	n := &node{records: records, trusts: map[crdt.NodeID]bool{}}
	var err error
	n.Fabric, err = fabric.New(fabric.Config{Key: testKey(name), Listen: []string{"127.0.0.1:0"}, Standing: n.standing})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	if records != nil {
		Serve(Config{Fabric: n, Records: records, Events: n.event, Peers: func() []Peer { return []Peer{{n.Self(), n.Addrs()}} }})
	}
	return n
}
