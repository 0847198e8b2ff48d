package replica

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"vcpeer/crdt"
)

// Errors that a caller may have to tell apart.
var (
	ErrNoCluster = errors.New("this node belongs to no cluster yet")
	ErrFounded   = errors.New("this node belongs to a cluster already")
	ErrNoSpace   = errors.New("too little free disk space")
	ErrDamaged   = errors.New("the record store is damaged")
	ErrClosed    = errors.New("the record store is closed")

	// ErrRestored says that a peer holds batches this node signed and does not have: its disk is an old copy, or a second
	// machine runs with its key. Until Recover, nothing is written: a second batch under a used number would freeze the
	// node everywhere and for good.
	ErrRestored = errors.New("peers hold newer records signed by this node: its disk was restored from a backup or copied")
)

// Options says where and as whom. All fields are needed except Log.
type Options struct {
	Dir string             // made if absent; one process at a time
	Key ed25519.PrivateKey // the node's identity
	Now func() time.Time   // wall clock
	Log *slog.Logger       // nil: no log
}

// Replica is a node's copy of the records. Safe for concurrent use.
type Replica struct {
	self crdt.NodeID
	key  ed25519.PrivateKey
	now  func() time.Time
	log  *slog.Logger
	disk *store

	in     chan *request // unbuffered: the owner takes what waits in one group
	stop   chan struct{}
	ended  chan struct{}
	closed sync.Once

	mu       sync.RWMutex // guards state against readers; only the owner changes it
	state    *crdt.State  // nil before Found or Adopt
	clock    crdt.Clock   // owner's
	broken   error        // owner's: the state could not be brought back after a failed write; nothing works any more
	restored atomic.Bool  // see ErrRestored
	recover  atomic.Bool  // own batches from peers are taken in

	view atomic.Pointer[crdt.View]
	pub  published
	eph  ephemeral
}

// published is what others may know: only what is durable.
type published struct {
	mu       sync.Mutex
	founding crdt.Founding
	heads    map[crdt.NodeID]crdt.Head
	digest   [16]byte
	watchers map[chan struct{}]struct{}
	onLocal  []func([]byte)
}

// Open opens or makes the store in o.Dir and loads it: 64 µs for each batch on a busy machine with two cores. Errors wrap ErrDamaged if records of this
// node are unreadable; damaged records of others are dropped, to come again from peers.
func Open(o Options) (*Replica, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	disk, err := openStore(o.Dir, o.Log)
	if err != nil {
		return nil, err
	}
	r := &Replica{
		self: crdt.NodeIDOf(o.Key), key: o.Key, now: o.Now, log: o.Log, disk: disk,
		in: make(chan *request), stop: make(chan struct{}), ended: make(chan struct{}),
	}
	r.pub.heads, r.pub.watchers = map[crdt.NodeID]crdt.Head{}, map[chan struct{}]struct{}{}
	r.view.Store(crdt.EmptyView())
	if err := r.start(); err != nil {
		return nil, errors.Join(err, disk.close())
	}
	go r.run()
	return r, nil
}

func (r *Replica) start() error {
	if err := r.disk.checkSpace(); err != nil {
		return err
	}
	boots, err := r.disk.nextBoot()
	if err != nil {
		return err
	}
	r.eph.init(boots)
	f, ok, err := r.disk.founding()
	if err != nil || !ok {
		return err
	}
	return r.load(f)
}

// Close ends writing, waits for the group in hand, and closes the store. Views stay usable.
func (r *Replica) Close() error {
	err := error(nil)
	r.closed.Do(func() {
		close(r.stop)
		<-r.ended
		err = r.disk.close()
	})
	return err
}

// Self returns this node's identity.
func (r *Replica) Self() crdt.NodeID { return r.self }

// Founding returns the record of the cluster that this node belongs to; false if to none.
func (r *Replica) Founding() (crdt.Founding, bool) {
	r.pub.mu.Lock()
	defer r.pub.mu.Unlock()
	return r.pub.founding, r.pub.founding.Raw() != nil
}

// ClusterID returns the cluster's ID; zero before Found or Adopt.
func (r *Replica) ClusterID() crdt.ClusterID {
	if f, ok := r.Founding(); ok {
		return f.ID()
	}
	return crdt.ClusterID{}
}

// Found makes a new cluster with this node as its first member. ErrFounded if it belongs to one.
func (r *Replica) Found(name string) (crdt.ClusterID, error) {
	return r.FoundIn(crdt.DefaultRange(), name)
}

// FoundIn is Found with a range for the overlay's addresses, fixed for good. An error wraps crdt.ErrInvalid if it cannot be one.
func (r *Replica) FoundIn(overlay netip.Prefix, name string) (crdt.ClusterID, error) {
	f, err := crdt.NewFoundingIn(overlay, name, r.key, r.now(), rand.Reader)
	if err != nil {
		return crdt.ClusterID{}, err
	}
	return f.ID(), r.Adopt(f.Raw())
}

// Adopt makes this node's replica one of the cluster with that founding record; the rest comes by Receive. Adopting the
// same record again does nothing; another gives ErrFounded. The founder's admission of this node is not checked here.
func (r *Replica) Adopt(founding []byte) error {
	f, err := crdt.DecodeFounding(founding)
	if err != nil {
		return err
	}
	return r.ask(context.Background(), &request{adopt: &f})
}

// Update runs fn on a transaction and makes what it wrote durable as one signed batch before it returns. fn runs in the
// owner's goroutine: it must be quick and must not call this Replica. An error of fn is returned as it is and nothing is
// written. Other errors wrap ErrNoCluster, ErrNoSpace, ErrRestored, crdt.ErrFrozen, crdt.ErrNotMember (this node is evicted),
// ErrClosed, or the store's. Cancelling ctx helps only before fn has begun.
func (r *Replica) Update(ctx context.Context, fn func(*crdt.Tx) error) error {
	return r.ask(ctx, &request{update: fn})
}

// View returns the newest durable snapshot; never nil, empty before Found or Adopt.
func (r *Replica) View() *crdt.View { return r.view.Load() }

// Watch returns a channel that receives after the view has changed, at most one signal waiting however many changes, and
// a function that ends the watch.
func (r *Replica) Watch() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	r.pub.mu.Lock()
	defer r.pub.mu.Unlock()
	r.pub.watchers[c] = struct{}{}
	return c, func() {
		r.pub.mu.Lock()
		defer r.pub.mu.Unlock()
		delete(r.pub.watchers, c)
	}
}

// OnLocal has f called with every batch that this node writes, after it is durable, in order. f must not block.
func (r *Replica) OnLocal(f func(batch []byte)) {
	r.pub.mu.Lock()
	defer r.pub.mu.Unlock()
	r.pub.onLocal = append(r.pub.onLocal, f)
}

// Recover lets this node, after ErrRestored, take its own missing batches from peers and write again. Only for an
// operator who knows that no other machine runs with this key and that a peer with the newest batch will be reached.
func (r *Replica) Recover() {
	r.recover.Store(true)
	r.restored.Store(false)
}

// AdmissionProof returns what proves to somebody who knows only the cluster's ID that n is a member. Errors wrap
// crdt.ErrNotMember, or are the store's.
func (r *Replica) AdmissionProof(n crdt.NodeID) (crdt.Proof, error) {
	f, ok := r.Founding()
	if !ok {
		return crdt.Proof{}, ErrNoCluster
	}
	path, ok := r.View().AdmissionPath(n)
	if !ok {
		return crdt.Proof{}, fmt.Errorf("admission proof: %s: %w", n, crdt.ErrNotMember)
	}
	p := crdt.Proof{Founding: f.Raw()}
	for _, d := range path {
		raw, err := r.disk.batchWith(d)
		if err != nil {
			return crdt.Proof{}, err
		}
		p.Batches = append(p.Batches, raw)
	}
	return p, nil
}
