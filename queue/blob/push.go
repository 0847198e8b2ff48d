package blob

import (
	"context"
	"errors"
	"fmt"
	"io"

	"vcpeer/crdt"
)

// Push gives a blob of the store to another node, going on from the byte reached after a cut. It returns when the blob is
// durable there. Errors: ErrNotFound (not here), ErrRefused (no room there), ErrCorrupt (ours does not match its hash; it
// is removed), or the last trouble on the way.
func (x *Exchange) Push(ctx context.Context, hash string, to crdt.NodeID) error {
	size, err := x.store.Size(hash)
	if err != nil {
		return err
	}
	var reached int64
	for idle := 0; ; {
		offset, err := x.pushOnce(ctx, hash, size, to)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrRefused), errors.Is(err, ErrNotFound):
			return fmt.Errorf("blob: push %s to %s: %w", hash, to.Short(), err)
		case errors.Is(err, ErrCorrupt):
			if v := x.store.Verify(ctx, hash); v != nil {
				return fmt.Errorf("blob: push %s to %s: %w", hash, to.Short(), v)
			}
		}
		if offset > reached {
			reached, idle = offset, 0
			continue
		}
		if idle++; idle >= x.lim.Passes {
			return fmt.Errorf("blob: push %s to %s: %w", hash, to.Short(), err)
		}
		if err := sleep(ctx, x.lim.Pause); err != nil {
			return err
		}
	}
}

// pushOnce returns from which offset the other side wanted the content.
func (x *Exchange) pushOnce(ctx context.Context, hash string, size int64, to crdt.NodeID) (int64, error) {
	c, done, err := x.open(ctx, to)
	if err != nil {
		return 0, err
	}
	defer done()
	if err := x.codec.send(c, &request{Op: opPut, Hash: hashToBytes(hash), Size: size}); err != nil {
		return 0, err
	}
	var ans answer
	if err := x.codec.receive(c, &ans); err != nil {
		return 0, err
	}
	switch {
	case ans.Code == codeHave:
		return size, nil
	case ans.Code != codeOK:
		return 0, ans.err()
	case ans.Size != size:
		return 0, errWire
	}
	r, _, err := x.store.Open(hash)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	if _, err := r.Seek(ans.Offset, io.SeekStart); err != nil {
		return 0, err
	}
	offset := ans.Offset
	if err := x.copyOut(c, r, size-offset); err != nil {
		return offset, err
	}
	if err := x.codec.receive(c, &ans); err != nil {
		return offset, err
	}
	if ans.Code != codeHave {
		return offset, ans.err()
	}
	return offset, nil
}
