package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"vcpeer/crdt"
)

// partial is a blob that is being received. It has one owner, whoever has its hash in Exchange.busy.
type partial struct {
	store *Store
	hash  string
	file  *os.File
	size  int64 // bytes of file, which sum covers
	sum   hash.Hash
	from  map[crdt.NodeID]bool // who sent them; the zero ID stands for an earlier process
}

// openPartial opens what has been received of the blob so far, reading it once to hash it.
func (s *Store) openPartial(hash string) (*partial, error) {
	f, err := os.OpenFile(filepath.Join(s.partialDir(), hash), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	p := &partial{store: s, hash: hash, file: f, sum: sha256.New(), from: map[crdt.NodeID]bool{}}
	buf := s.buf.Get().(*[chunkBytes]byte)
	defer s.buf.Put(buf)
	if p.size, err = io.CopyBuffer(p.sum, struct{ io.Reader }{f}, buf[:]); err != nil {
		f.Close()
		return nil, err
	}
	if p.size > 0 {
		p.from[crdt.NodeID{}] = true
	}
	return p, nil
}

// Write implements io.Writer: it appends.
func (p *partial) Write(b []byte) (int, error) {
	n, err := p.file.Write(b)
	p.sum.Write(b[:n])
	p.size += int64(n)
	return n, err
}

// reset forgets all that was received.
func (p *partial) reset() error {
	p.size = 0
	p.sum.Reset()
	clear(p.from)
	if err := p.file.Truncate(0); err != nil {
		return err
	}
	_, err := p.file.Seek(0, io.SeekStart)
	return err
}

// receive appends size-p.size bytes from r, sent by a node. Progress is kept when it fails.
func (p *partial) receive(ctx context.Context, from crdt.NodeID, r io.Reader, size int64) error {
	if err := p.store.room(size - p.size); err != nil {
		return err
	}
	buf := p.store.buf.Get().(*[chunkBytes]byte)
	defer p.store.buf.Put(buf)
	looked := p.size
	for p.size < size {
		n, err := r.Read(buf[:min(int64(chunkBytes), size-p.size)])
		if n > 0 {
			p.from[from] = true
			if _, err := p.Write(buf[:n]); err != nil {
				return errors.Join(err, p.reset()) // what is in the file is not known now
			}
		}
		if err == io.EOF && p.size < size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil && p.size < size {
			return err
		}
		if p.size-looked >= spaceEvery {
			looked = p.size
			if err := p.store.room(size - p.size); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// finish makes the blob visible if the hash is right, else forgets the content and returns ErrCorrupt.
func (p *partial) finish() error {
	if got := hex.EncodeToString(p.sum.Sum(nil)); got != p.hash {
		return errors.Join(fmt.Errorf("%w: received %s", ErrCorrupt, got), p.reset())
	}
	if p.hash == Empty {
		return nil
	}
	st := &staged{ref: Ref{p.hash, p.size}, file: p.file, path: p.file.Name()}
	return p.store.commit.do(p.store, []*staged{st})
}

// onlyFrom reports whether all content came from this node, which then answers for it.
func (p *partial) onlyFrom(n crdt.NodeID) bool { return len(p.from) == 1 && p.from[n] }

// close keeps what was received for a later attempt, unless there is nothing.
func (p *partial) close() {
	if p.size == 0 {
		os.Remove(p.file.Name()) // GC takes it otherwise
	}
	p.file.Close() // after finish its content is flushed; before, it may be lost
}
