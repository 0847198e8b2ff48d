package replica

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"vcpeer/crdt"
)

// maxErrors bounds how many causes one Receive reports.
const maxErrors = 8

// Digest is a hash over all heads: replicas with equal digests have equal records. Zero without any.
func (r *Replica) Digest() [16]byte {
	r.pub.mu.Lock()
	defer r.pub.mu.Unlock()
	return r.pub.digest
}

// Heads returns, encoded, how far each author's log goes here: about 55 bytes for each author.
func (r *Replica) Heads() []byte { return crdt.EncodeHeads(r.headList()) }

func (r *Replica) headList() []crdt.Head {
	r.pub.mu.Lock()
	defer r.pub.mu.Unlock()
	list := make([]crdt.Head, 0, len(r.pub.heads))
	for _, h := range r.pub.heads {
		list = append(list, h)
	}
	return list
}

// Since returns batches that a replica with the given heads lacks, in an order in which they can be applied: of the founder
// first, then of those it admitted, and so on. It stops after about limit bytes, but gives at least one batch; more
// says that there is more. Errors wrap crdt.ErrMalformed (the heads) or are the store's.
func (r *Replica) Since(theirHeads []byte, limit int) (batches [][]byte, more bool, err error) {
	theirs, err := crdt.DecodeHeads(theirHeads)
	if err != nil {
		return nil, false, err
	}
	out := &sending{limit: limit}
	for _, ours := range r.inOrder() {
		if err := r.sendAuthor(out, ours, theirs[ours.Author]); err != nil {
			return nil, false, err
		}
		if out.full {
			break
		}
	}
	return out.batches, out.full, nil
}

// sending collects batches up to a limit.
type sending struct {
	batches [][]byte
	bytes   int
	limit   int
	full    bool
}

// add returns false, and does not add, if that would break the limit.
func (s *sending) add(raw []byte) bool {
	if len(s.batches) > 0 && s.bytes+len(raw) > s.limit {
		s.full = true
		return false
	}
	s.batches = append(s.batches, raw)
	s.bytes += len(raw)
	return true
}

// inOrder returns our heads, authors nearer to the founder first, those whose admission is void last.
func (r *Replica) inOrder() []crdt.Head {
	view, list := r.View(), r.headList()
	level := func(h crdt.Head) int {
		if l, ok := view.AdmissionLevel(h.Author); ok {
			return l
		}
		return math.MaxInt
	}
	slices.SortFunc(list, func(a, b crdt.Head) int {
		return cmp.Or(cmp.Compare(level(a), level(b)), a.Author.Compare(b.Author))
	})
	return list
}

// sendAuthor adds what the other side lacks of one author.
func (r *Replica) sendAuthor(out *sending, ours, theirs crdt.Head) error {
	last := ours.Seq
	if theirs.Fork {
		if theirs.Seq <= ours.Seq {
			last = min(last, theirs.Seq) // beyond that nothing counts for them
		}
	}
	first := theirs.Seq + 1
	if theirs.Seq > 0 && theirs.Seq <= ours.Seq && !r.sameAt(theirs) {
		first = 1 // the logs part somewhere before: they find where
	}
	if first <= last {
		if err := r.sendRange(out, ours.Author, first, last); err != nil {
			return err
		}
	}
	if ours.Fork && !(theirs.Fork && theirs.Seq <= ours.Seq) && !out.full {
		return r.sendFork(out, ours)
	}
	return nil
}

func (r *Replica) sameAt(h crdt.Head) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	hash, ok := r.state.HashAt(h.Author, h.Seq)
	return ok && hash == h.Hash
}

// sendRange adds the author's batches from one that begins at first up to one that ends by last.
func (r *Replica) sendRange(out *sending, author crdt.NodeID, first, last uint64) error {
	start := batchKey(batchPrefix, author, first)
	return r.disk.each(start[:33], start, func(key, raw []byte) bool {
		return bytes.Compare(key, batchKey(batchPrefix, author, last)) <= 0 && out.add(raw)
	})
}

// sendFork adds the two batches that prove the fork behind a head: both, or none of them this time.
func (r *Replica) sendFork(out *sending, h crdt.Head) error {
	for _, prefix := range []byte{batchPrefix, forkPrefix} {
		raw, ok, err := r.disk.get(string(batchKey(prefix, h.Author, h.Seq+1)))
		if err != nil {
			return err
		}
		if ok && !out.add(raw) {
			return nil
		}
	}
	return nil
}

// Receive verifies batches, stores those that are new, and returns them once they are durable, to be passed on. What cannot be
// applied now is skipped; the error joins the causes (at most 8 of them), which wrap crdt.ErrMalformed, crdt.ErrSignature,
// crdt.ErrCluster, crdt.ErrNotMember, crdt.ErrGap, crdt.ErrFrozen or ErrRestored: such a batch comes again with a later sync if it is
// needed. A failure of the store, ErrNoSpace or ErrClosed is in the error too; fresh holds what is durable in any case. The
// slices in batches are kept: the caller must not change them afterwards.
func (r *Replica) Receive(ctx context.Context, batches [][]byte) (fresh [][]byte, err error) {
	var causes causes
	q := &request{}
	for _, raw := range batches {
		b, err := r.verified(raw)
		switch {
		case err != nil:
			causes.add(err)
		case b != nil:
			q.batches = append(q.batches, b)
		}
	}
	if len(q.batches) > 0 {
		causes.add(r.ask(ctx, q))
	}
	return q.fresh, errors.Join(causes...)
}

// causes collects at most maxErrors errors.
type causes []error

func (c *causes) add(err error) {
	if err != nil && len(*c) < maxErrors {
		*c = append(*c, err)
	}
}

// verified decodes a batch and checks its signature, in the caller's goroutine; nil for one that is here already, whose
// signature need not be checked again.
func (r *Replica) verified(raw []byte) (*crdt.Batch, error) {
	b, err := crdt.DecodeBatch(raw)
	if err != nil {
		return nil, err
	}
	r.mu.RLock()
	if r.state == nil {
		r.mu.RUnlock()
		return nil, ErrNoCluster
	}
	err = r.state.Check(b)
	r.mu.RUnlock()
	if errors.Is(err, crdt.ErrKnown) || errors.Is(err, crdt.ErrCluster) {
		return nil, ignoreKnown(err)
	}
	return b, b.Verify()
}

func ignoreKnown(err error) error {
	if errors.Is(err, crdt.ErrKnown) {
		return nil
	}
	return err
}

// handleReceive applies what it can, again and again while that helps, since one batch may admit the author of another.
func (r *Replica) handleReceive(g *group, q *request) error {
	rest := q.batches
	for {
		var causes causes
		left := rest[:0]
		for _, b := range rest {
			if err := r.accept(g, q, b); err != nil {
				causes.add(err)
				left = append(left, b)
			}
			if g.bytes >= groupBytes || r.state.Stale() {
				if err := r.flush(g); err != nil {
					return err
				}
			}
		}
		if len(left) == len(rest) || len(left) == 0 {
			return errors.Join(causes...)
		}
		rest = left
	}
}

// accept applies one verified batch; nil too if it was here already.
func (r *Replica) accept(g *group, q *request, b *crdt.Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.state.Check(b)
	if seq, _, _ := r.state.Head(r.self); b.Author == r.self && b.Last() > seq && !r.recover.Load() && !errors.Is(err, crdt.ErrFrozen) {
		r.restored.Store(true)
		return fmt.Errorf("batch %d to %d, have up to %d: %w", b.First, b.Last(), seq, ErrRestored)
	}
	var fork *crdt.ForkError
	switch {
	case errors.As(err, &fork):
		if r.state.AddFork(b) {
			g.put(forkPrefix, b)
			g.fresh = append(g.fresh, freshBatch{q, b.Raw()})
		}
		return nil
	case err != nil:
		return ignoreKnown(err)
	}
	r.clock.Observe(b.Stamp, r.now())
	r.state.Apply(b)
	g.put(batchPrefix, b)
	g.fresh = append(g.fresh, freshBatch{q, b.Raw()})
	return nil
}
