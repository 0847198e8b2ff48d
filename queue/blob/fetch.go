package blob

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vcpeer/crdt"
)

// fetch is one flight: passes over the candidates until the blob is here or nothing moves any more.
func (x *Exchange) fetch(ctx context.Context, hash string, from []crdt.NodeID) error {
	select {
	case x.slots <- struct{}{}:
		defer func() { <-x.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := x.waitOwn(ctx, hash); err != nil {
		return err
	}
	defer x.disown(hash)
	if x.store.hold(hash) { // a push was faster
		return nil
	}
	p, err := x.store.openPartial(hash)
	if err != nil {
		return err
	}
	defer p.close()
	t := &tries{p: p, bad: map[crdt.NodeID]bool{}, last: map[crdt.NodeID]error{}}
	for idle := 0; idle < x.lim.Passes; {
		before := p.size
		asked, err := x.pass(ctx, t, from)
		if err == nil || ctx.Err() != nil || isLocal(err) {
			return err
		}
		if !asked {
			break
		}
		if p.size > before {
			idle = 0
			continue
		}
		if idle++; idle < x.lim.Passes {
			if err := sleep(ctx, x.lim.Pause); err != nil {
				return err
			}
		}
	}
	return t.verdict(from)
}

// waitOwn waits while another stream pushes the same blob to us.
func (x *Exchange) waitOwn(ctx context.Context, hash string) error {
	for !x.own(hash) {
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// isLocal reports whether another candidate would not help.
func isLocal(err error) bool {
	return errors.Is(err, ErrNoSpace) || errors.Is(err, ErrQuota) || errors.Is(err, ErrTooLarge)
}

// tries is what a flight has learned about its candidates.
type tries struct {
	p    *partial
	bad  map[crdt.NodeID]bool // sent wrong content, or do not have it
	last map[crdt.NodeID]error
	solo bool // content of several nodes was wrong together: from now on one alone must give all
}

// pass asks each candidate that is left once. asked is false when none is left.
func (x *Exchange) pass(ctx context.Context, t *tries, from []crdt.NodeID) (asked bool, err error) {
	err = ErrNotFound
	for _, n := range from {
		if t.bad[n] {
			continue
		}
		asked = true
		if t.solo && !t.p.onlyFrom(n) {
			if err := t.p.reset(); err != nil {
				return asked, err
			}
		}
		err = x.fetchFrom(ctx, n, t.p)
		if err == nil || ctx.Err() != nil || isLocal(err) {
			return asked, err
		}
		t.last[n] = err
		switch {
		case errors.Is(err, ErrNotFound), errors.Is(err, errBlame):
			t.bad[n] = true
		case errors.Is(err, ErrCorrupt):
			t.solo = true
		}
	}
	return asked, err
}

// verdict is the error when all is in vain.
func (t *tries) verdict(from []crdt.NodeID) error {
	all := make([]error, 0, len(from))
	for _, n := range from {
		if t.last[n] == nil || !errors.Is(t.last[n], ErrNotFound) {
			all = append(all, fmt.Errorf("%s: %w", n.Short(), t.last[n]))
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("%w at %d nodes", ErrNotFound, len(from))
	}
	return errors.Join(all...)
}

// errBlame marks wrong content that came from one node alone.
var errBlame = errors.New("sender is not asked again")

// fetchFrom goes on with the partial blob at one node.
func (x *Exchange) fetchFrom(ctx context.Context, n crdt.NodeID, p *partial) error {
	c, done, err := x.open(ctx, n)
	if err != nil {
		return err
	}
	defer done()
	if err := x.codec.send(c, &request{Op: opGet, Hash: hashToBytes(p.hash), Offset: p.size}); err != nil {
		return err
	}
	var ans answer
	if err := x.codec.receive(c, &ans); err != nil {
		return err
	}
	switch {
	case ans.Code != codeOK:
		return ans.err()
	case ans.Size > x.store.opt.MaxBytes:
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, ans.Size)
	case ans.Offset != p.size: // it is shorter than what we have: one of us is wrong
		if err := p.reset(); err != nil {
			return err
		}
		return fmt.Errorf("%w: %d bytes, but %d are here", errWire, ans.Size, p.size)
	}
	if err := p.receive(ctx, n, c, ans.Size); err != nil {
		return err
	}
	alone := p.onlyFrom(n) || p.size == 0
	err = p.finish()
	if alone && errors.Is(err, ErrCorrupt) {
		err = fmt.Errorf("%w: %w", err, errBlame)
	}
	return err
}
