package stage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"

	"vcpeer/peer/api"
)

// sendAtOnce is how many files are hashed or sent side by side: more does not help on one disk.
const sendAtOnce = 4

// Store is the node's blob store as this package needs it; [api.Client] is one.
type Store interface {
	HasBlob(ctx context.Context, hash string) (bool, error)
	PutBlob(ctx context.Context, r io.Reader) (*api.Blob, error)
}

// Progress is how far a Send has come.
type Progress struct {
	Files, OfFiles int
	Bytes, OfBytes int64 // read so far, of all; a file that is there already counts when it has been hashed
}

// Send makes sure that the store holds every item and returns them in the same order. Report, when not nil, is called
// after each piece of work, one call at a time. A file that changes while it is read is stored as it was when it was sent.
func Send(ctx context.Context, store Store, items []Item, report func(Progress)) ([]api.File, error) {
	t := &tally{report: report, p: Progress{OfFiles: len(items)}}
	for _, it := range items {
		t.p.OfBytes += it.Size
	}
	files := make([]api.File, len(items))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(sendAtOnce)
	for i, it := range items {
		g.Go(func() error {
			blob, err := sendOne(ctx, store, it, t)
			if err != nil {
				return fmt.Errorf("input %s: %w", it.Src, err)
			}
			files[i] = api.File{Path: it.Path, Hash: blob.Hash, Size: blob.Size, Mode: it.Mode}
			t.add(1, 0)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return files, nil
}

func sendOne(ctx context.Context, store Store, it Item, t *tally) (*api.Blob, error) {
	f, err := os.Open(it.Src)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, &counted{ctx: ctx, r: f, t: t})
	if err != nil {
		return nil, err
	}
	hash := hex.EncodeToString(h.Sum(nil))
	have, err := store.HasBlob(ctx, hash)
	if err != nil || have {
		return &api.Blob{Hash: hash, Size: n}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return store.PutBlob(ctx, f)
}

// SendBytes stores a content that is in memory.
func SendBytes(ctx context.Context, store Store, b []byte) (*api.Blob, error) {
	sum := sha256.Sum256(b)
	hash := hex.EncodeToString(sum[:])
	if have, err := store.HasBlob(ctx, hash); err != nil || have {
		return &api.Blob{Hash: hash, Size: int64(len(b))}, err
	}
	return store.PutBlob(ctx, bytes.NewReader(b))
}

// tally adds up progress from several goroutines.
type tally struct {
	mu     sync.Mutex
	p      Progress
	report func(Progress)
}

func (t *tally) add(files int, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.p.Files += files
	t.p.Bytes += bytes
	if t.report != nil {
		t.report(t.p)
	}
}

// counted reports what is read and ends with the context.
type counted struct {
	ctx context.Context
	r   io.Reader
	t   *tally
}

func (c *counted) Read(b []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(b)
	c.t.add(0, int64(n))
	return n, err
}
