package blob

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"vcpeer/crdt"
)

// Errors of transfers, besides those of the Store.
var (
	ErrBusy    = errors.New("too many transfers at once, try later")
	ErrRefused = errors.New("the other node has no room for the blob")
)

// Limits of an Exchange. Zero values take the defaults.
type Limits struct {
	Serve  int           // streams served at once; 64. More are answered busy
	Fetch  int           // fetches at once; 16. More wait
	Stall  time.Duration // without a byte for so long a transfer is given up and resumed elsewhere; 20 s
	Passes int           // rounds over all candidates without progress before Fetch and Push give up; 3
	Pause  time.Duration // between such rounds; 500 ms
}

func (l Limits) withDefaults() Limits {
	if l.Serve == 0 {
		l.Serve = 64
	}
	if l.Fetch == 0 {
		l.Fetch = 16
	}
	if l.Stall == 0 {
		l.Stall = 20 * time.Second
	}
	if l.Passes == 0 {
		l.Passes = 3
	}
	if l.Pause == 0 {
		l.Pause = 500 * time.Millisecond
	}
	return l
}

// Exchange moves blobs between the Store and other nodes. Safe for concurrent use.
type Exchange struct {
	store   *Store
	fabric  Fabric
	lim     Limits
	codec   codec
	serving chan struct{} // semaphores
	slots   chan struct{}

	mu      sync.Mutex
	flights map[string]*flight // fetches under way, by hash
	busy    map[string]bool    // hashes whose partial file has an owner
}

// NewExchange serves the store's blobs to members of the fabric, and takes what they push, from now on.
func NewExchange(s *Store, f Fabric, lim Limits) *Exchange {
	lim = lim.withDefaults()
	x := &Exchange{store: s, fabric: f, lim: lim, codec: newCodec(), serving: make(chan struct{}, lim.Serve),
		slots: make(chan struct{}, lim.Fetch), flights: map[string]*flight{}, busy: map[string]bool{}}
	f.Handle(Protocol, x.serve)
	return x
}

// own takes the partial file of a hash, if nobody has it.
func (x *Exchange) own(hash string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.busy[hash] {
		return false
	}
	x.busy[hash] = true
	return true
}

func (x *Exchange) disown(hash string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.busy, hash)
}

// open dials a node. The connection is closed when ctx ends, so that nothing waits on it longer.
func (x *Exchange) open(ctx context.Context, to crdt.NodeID) (moving, func(), error) {
	c, err := x.fabric.Open(ctx, to, Protocol)
	if err != nil {
		return moving{}, nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	return moving{c, x.lim.Stall}, func() { stop(); c.Close() }, nil
}

// flight is one fetch that several callers wait for.
type flight struct {
	done    chan struct{}
	err     error // after done
	waiters int   // by Exchange.mu; at zero the fetch is cancelled
	cancel  context.CancelFunc
}

// Fetch brings the blob into the store from any of the candidates, trying them in order and going on elsewhere, from the
// byte reached, after a cut. The blob becomes visible only when its hash is right; a node that sent wrong content is not
// asked again. Calls for one hash share one transfer. Held already: returns at once. Errors: ErrNotFound when nobody has
// it, ErrNoSpace, ErrQuota, ErrTooLarge, ErrCorrupt, or the last trouble with each candidate.
func (x *Exchange) Fetch(ctx context.Context, hash string, from ...crdt.NodeID) error {
	if err := checkHash(hash); err != nil {
		return err
	}
	for {
		if x.store.hold(hash) {
			return nil
		}
		f, mine := x.join(ctx, hash, from)
		err := x.await(ctx, f)
		if err == nil || mine || ctx.Err() != nil {
			return err
		}
		// Another's fetch failed; ours may have better candidates.
	}
}

// join returns the flight for the hash; mine: it was started for this call.
func (x *Exchange) join(ctx context.Context, hash string, from []crdt.NodeID) (f *flight, mine bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f := x.flights[hash]; f != nil && f.waiters > 0 {
		f.waiters++
		return f, false
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f = &flight{done: make(chan struct{}), waiters: 1, cancel: cancel}
	x.flights[hash] = f
	go func() {
		defer cancel()
		err := x.fetch(own, hash, from)
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.flights[hash] == f {
			delete(x.flights, hash)
		}
		if err != nil {
			f.err = fmt.Errorf("blob: fetch %s: %w", hash, err)
		}
		close(f.done)
	}()
	return f, true
}

func (x *Exchange) await(ctx context.Context, f *flight) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		x.mu.Lock()
		defer x.mu.Unlock()
		if f.waiters--; f.waiters == 0 {
			f.cancel()
		}
		return ctx.Err()
	}
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Query asks a node which of the hashes it holds; the answer has one entry for each.
func (x *Exchange) Query(ctx context.Context, to crdt.NodeID, hashes ...string) ([]bool, error) {
	for _, h := range hashes {
		if err := checkHash(h); err != nil {
			return nil, err
		}
	}
	if len(hashes) == 0 {
		return nil, nil
	}
	c, done, err := x.open(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("blob: query: %w", err)
	}
	defer done()
	have := make([]bool, 0, len(hashes))
	for len(have) < len(hashes) {
		part := hashes[len(have):min(len(have)+maxQuery, len(hashes))]
		got, err := x.queryPart(c, part)
		if err != nil {
			return nil, fmt.Errorf("blob: query: %w", err)
		}
		have = append(have, got...)
	}
	return have, nil
}

func (x *Exchange) queryPart(c net.Conn, hashes []string) ([]bool, error) {
	req := request{Op: opQuery}
	for _, h := range hashes {
		req.Hashes = append(req.Hashes, hashToBytes(h))
	}
	var ans answer
	if err := x.codec.send(c, &req); err != nil {
		return nil, err
	}
	if err := x.codec.receive(c, &ans); err != nil {
		return nil, err
	}
	if ans.Code != codeOK {
		return nil, ans.err()
	}
	if len(ans.Have) != len(hashes) {
		return nil, errWire
	}
	return ans.Have, nil
}
