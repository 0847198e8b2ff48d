package crdt

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
)

// MaxHeads bounds how many authors an encoded list of heads may name.
const MaxHeads = 1 << 17

// MaxHeadsBytes bounds an encoded list of heads.
const MaxHeadsBytes = 8 << 20

// Head is how far an author's log goes.
type Head struct {
	Author NodeID
	Seq    uint64   // of the last change that is kept
	Hash   [16]byte // begin of the hash of the last batch; zero without any
	Fork   bool     // the author is frozen here: the two batches that prove it follow
}

type wireHead struct {
	_      struct{} `cbor:",toarray"`
	Author []byte
	Seq    uint64
	Hash   []byte
	Fork   bool
}

// TakeHeads writes the heads that may have changed since the last call into heads, where an author without a batch has
// none, and returns the exclusive or of the sums of what went and what came. Heads are a function of the batches that
// are kept: replicas with equal heads have equal views.
func (s *State) TakeHeads(heads map[NodeID]Head) (change [16]byte) {
	mix := func(h Head) {
		for i, b := range h.Sum() {
			change[i] ^= b
		}
	}
	for a := range s.touched {
		if old, ok := heads[a]; ok {
			mix(old)
			delete(heads, a)
		}
		if h := s.headOf(a); h.Seq > 0 || h.Fork {
			mix(h)
			heads[a] = h
		}
	}
	clear(s.touched)
	return change
}

func (s *State) headOf(a NodeID) Head {
	l := s.logs[a]
	h := Head{Author: a, Fork: l.fork != 0}
	if i := l.count(s.extent(a)); i > 0 {
		h.Seq = l.entries[i-1].last
		copy(h.Hash[:], l.entries[i-1].hash[:])
	}
	return h
}

// HashAt returns the begin of the hash of the author's batch that ends with seq; false if none does.
func (s *State) HashAt(author NodeID, seq uint64) (hash [16]byte, ok bool) {
	l := s.logs[author]
	if i := l.count(seq); i > 0 && l.entries[i-1].last == seq {
		copy(hash[:], l.entries[i-1].hash[:])
		return hash, true
	}
	return hash, false
}

// Sum is a head's share of the digest over all heads, which is the exclusive or of them.
func (h Head) Sum() [16]byte {
	var b [32 + 8 + 16 + 1]byte
	copy(b[:], h.Author[:])
	binary.BigEndian.PutUint64(b[32:], h.Seq)
	copy(b[40:], h.Hash[:])
	if h.Fork {
		b[56] = 1
	}
	sum := sha256.Sum256(b[:])
	return [16]byte(sum[:16])
}

// EncodeHeads returns the list as it travels, about 55 bytes for each author. It sorts heads.
func EncodeHeads(heads []Head) []byte {
	slices.SortFunc(heads, func(a, b Head) int { return a.Author.Compare(b.Author) })
	w := make([]wireHead, len(heads))
	for i := range heads {
		h := &heads[i]
		w[i] = wireHead{Author: h.Author[:], Seq: h.Seq, Hash: h.Hash[:], Fork: h.Fork}
	}
	return marshal(w)
}

// DecodeHeads reads a list; empty bytes are an empty list. Errors wrap ErrMalformed.
func DecodeHeads(b []byte) (map[NodeID]Head, error) {
	if len(b) > MaxHeadsBytes {
		return nil, fmt.Errorf("heads of %d bytes, at most %d: %w", len(b), MaxHeadsBytes, ErrMalformed)
	}
	var w []wireHead
	if len(b) > 0 {
		if err := unmarshal(b, &w, "heads"); err != nil {
			return nil, err
		}
	}
	heads := make(map[NodeID]Head, len(w))
	for _, h := range w {
		out := Head{Seq: h.Seq, Fork: h.Fork}
		if err := fixed(out.Author[:], h.Author, "heads: author"); err != nil {
			return nil, err
		}
		if err := fixed(out.Hash[:], h.Hash, "heads: hash"); err != nil {
			return nil, err
		}
		if _, twice := heads[out.Author]; twice {
			return nil, fmt.Errorf("heads: author %s twice: %w", out.Author.Short(), ErrMalformed)
		}
		heads[out.Author] = out
	}
	return heads, nil
}
