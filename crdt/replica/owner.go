package replica

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"sync/atomic"
	"time"

	"vcpeer/crdt"
)

// groupBytes ends a group: what is collected by then, and one batch more, fits a transaction of the store.
const groupBytes = 512 << 10

// maxGroup bounds how many requests share one commit, so that none waits long for the ones behind it.
const maxGroup = 256

// request is one thing asked of the owner: exactly one of the first three is set.
type request struct {
	update  func(*crdt.Tx) error
	batches []*crdt.Batch
	adopt   *crdt.Founding

	taken atomic.Bool // by the owner, or by an asker who gave up
	fresh [][]byte    // batches that were new
	err   error
	done  chan struct{}
}

// ask hands a request to the owner and waits for its end. A cancelled ctx withdraws it if the owner has not begun.
func (r *Replica) ask(ctx context.Context, q *request) error {
	if ctx.Err() != nil {
		return context.Cause(ctx) // and not, at random, what the owner would do
	}
	q.done = make(chan struct{})
	select {
	case r.in <- q:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-r.stop:
		return ErrClosed
	}
	select {
	case <-q.done:
		return q.err
	case <-ctx.Done():
		if q.taken.CompareAndSwap(false, true) {
			return context.Cause(ctx)
		}
		<-q.done
		return q.err
	}
}

// group is what goes into one transaction.
type group struct {
	puts    []put
	bytes   int
	local   [][]byte
	fresh   []freshBatch
	waiting []*request // handled, to be answered after the commit
}

// freshBatch is a received batch to be reported to its request once it is durable.
type freshBatch struct {
	q   *request
	raw []byte
}

func (g *group) put(prefix byte, b *crdt.Batch) {
	g.puts = append(g.puts, put{batchKey(prefix, b.Author, b.First), b.Raw()})
	g.bytes += len(b.Raw()) + 64
}

// run owns r.state and all writing.
func (r *Replica) run() {
	defer close(r.ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-r.stop:
			return
		case q := <-r.in:
			r.collect(q)
		case <-timer.C: // a stamp from the future has come due
			r.broken = cmp.Or(r.broken, r.publish(nil))
		}
		if next := r.View().Next(); !next.IsZero() {
			timer.Reset(max(time.Millisecond, next.Sub(r.now())))
		}
	}
}

// collect takes q and what else waits into one group and commits it.
func (r *Replica) collect(q *request) {
	g := &group{}
	room := r.disk.checkSpace()
	for q != nil {
		if q.taken.CompareAndSwap(false, true) {
			if q.err = cmp.Or(r.broken, room); q.err == nil {
				q.err = r.handle(g, q)
			}
			g.waiting = append(g.waiting, q)
		}
		q = nil
		if len(g.waiting) < maxGroup && g.bytes < groupBytes && (r.state == nil || !r.state.Stale()) {
			select {
			case q = <-r.in:
			default:
			}
		}
	}
	_ = r.flush(g) // every request of the group has the error
}

func (r *Replica) handle(g *group, q *request) error {
	switch {
	case q.adopt != nil:
		return r.handleAdopt(*q.adopt)
	case r.state == nil:
		return ErrNoCluster
	case q.update != nil:
		return r.handleUpdate(g, q.update)
	}
	return r.handleReceive(g, q)
}

func (r *Replica) handleAdopt(f crdt.Founding) error {
	if have, ok := r.Founding(); ok {
		if have.ID() == f.ID() {
			return nil
		}
		return fmt.Errorf("adopt cluster %s: %w: %s", f.ID(), ErrFounded, have.ID())
	}
	if err := r.disk.write([]put{{[]byte(keyFounding), f.Raw()}}); err != nil {
		return err
	}
	return r.load(f)
}

func (r *Replica) handleUpdate(g *group, fn func(*crdt.Tx) error) error {
	if err := r.mayWrite(); err != nil {
		return err
	}
	r.mu.Lock() // a view may have to be built
	tx := r.state.Begin(r.self, &r.clock, r.now(), rand.Reader)
	r.mu.Unlock()
	if err := fn(tx); err != nil {
		return err
	}
	b, err := tx.Sign(r.key)
	if err != nil || b == nil {
		return err
	}
	r.mu.Lock()
	r.state.Apply(b)
	r.mu.Unlock()
	g.put(batchPrefix, b)
	g.local = append(g.local, b.Raw())
	return nil
}

// mayWrite says why this node must not write now.
func (r *Replica) mayWrite() error {
	switch {
	case r.restored.Load():
		return ErrRestored
	case r.state.Frozen(r.self):
		return fmt.Errorf("this node: %w", crdt.ErrFrozen)
	case !r.state.MayWrite(r.self):
		return fmt.Errorf("this node: %w", crdt.ErrNotMember)
	}
	return nil
}

// flush makes the group durable, publishes it and answers its requests; the group is empty afterwards. If the write fails
// the state is loaded again, since it holds what is not on disk.
func (r *Replica) flush(g *group) error {
	var err error
	if len(g.puts) > 0 {
		if err = r.disk.write(g.puts); err != nil {
			r.broken = r.load(r.state.Founding())
			g.local, g.fresh = nil, nil
		}
	}
	for _, f := range g.fresh {
		f.q.fresh = append(f.q.fresh, f.raw)
	}
	if r.broken == nil {
		r.broken = r.publish(g.local)
	}
	for _, q := range g.waiting {
		q.err = cmp.Or(q.err, err)
		close(q.done)
	}
	*g = group{}
	return err
}

// publish shows the state, all of which is on disk, to readers.
func (r *Replica) publish(local [][]byte) error {
	if r.state == nil {
		return nil
	}
	if err := r.rebuild(); err != nil {
		return err
	}
	r.mu.Lock()
	view := r.state.View(r.now())
	r.mu.Unlock()
	changed := r.view.Swap(view) != view
	r.pub.mu.Lock()
	defer r.pub.mu.Unlock()
	touched := r.state.TakeHeads(r.pub.heads)
	for i := range touched {
		r.pub.digest[i] ^= touched[i]
	}
	for _, b := range local {
		for _, f := range r.pub.onLocal {
			f(b)
		}
	}
	if changed {
		r.pub.signal()
	}
	return nil
}

func (p *published) signal() {
	for c := range p.watchers {
		select {
		case c <- struct{}{}:
		default: // one is waiting already
		}
	}
}
