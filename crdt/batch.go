package crdt

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
)

// Limits of one batch.
const (
	MaxBatch   = 512 << 10 // bytes encoded
	MaxChanges = 1024
	MaxContext = 1024 // entries; what does not fit goes with the author's next batch

	batchVersion = 1
	batchDomain  = "vcpeer batch 1\x00" // keeps a batch's signature from meaning anything elsewhere
)

// ErrSignature says that a signature does not verify.
var ErrSignature = errors.New("bad signature")

// Hash is the SHA-256 of a batch's header; it names the batch, since the header holds the root over the changes. The
// zero value is what comes before an author's first batch.
type Hash [32]byte

// Batch is what one author wrote at once: it is accepted, applied and voided as a whole. Immutable once made.
type Batch struct {
	Cluster ClusterID
	Author  NodeID
	First   uint64 // sequence number of Changes[0]; Changes[i] has the dot (Author, First+i)
	Prev    Hash   // the author's batch before
	Context Context
	Stamp   Stamp // above that of the batch before
	Changes []Change

	hash   Hash
	header []byte // as signed
	sig    []byte
	raw    []byte // as received: signed bytes are kept, never encoded again
}

type wireHeader struct {
	_       struct{} `cbor:",toarray"`
	Version uint16
	Cluster []byte
	Author  []byte
	First   uint64
	Count   uint32
	Prev    []byte
	Context []wireDot
	Stamp   uint64
	Root    []byte
}

type wireBatch struct {
	_       struct{} `cbor:",toarray"`
	Header  []byte
	Sig     []byte
	Changes [][]byte
}

// Last returns the sequence number of the last change.
func (b *Batch) Last() uint64 { return b.First + uint64(len(b.Changes)) - 1 }

// Hash names the batch.
func (b *Batch) Hash() Hash { return b.hash }

// Raw returns the bytes that travel and are stored. The caller must not change them.
func (b *Batch) Raw() []byte { return b.raw }

// sign fills in what the header holds, signs it with key, which must be the author's, and encodes the batch. An error
// says which limit a change breaks.
func (b *Batch) sign(key ed25519.PrivateKey) error {
	if len(b.Changes) == 0 || len(b.Changes) > MaxChanges {
		return fmt.Errorf("batch of %d changes, want 1 to %d: %w", len(b.Changes), MaxChanges, ErrMalformed)
	}
	changes := make([][]byte, len(b.Changes))
	for i := range b.Changes {
		if err := b.Changes[i].check(); err != nil {
			return err
		}
		changes[i] = b.Changes[i].encode()
	}
	root := rootOf(changes)
	b.header = marshal(wireHeader{
		Version: batchVersion, Cluster: b.Cluster[:], Author: b.Author[:], First: b.First, Count: uint32(len(changes)),
		Prev: b.Prev[:], Context: wireDots(b.Context), Stamp: uint64(b.Stamp), Root: root[:],
	})
	b.hash = hashHeader(b.header)
	b.sig = ed25519.Sign(key, signedBytes(b.header))
	b.raw = marshal(wireBatch{Header: b.header, Sig: b.sig, Changes: changes})
	if len(b.raw) > MaxBatch {
		return fmt.Errorf("batch of %d bytes, at most %d: %w", len(b.raw), MaxBatch, ErrMalformed)
	}
	return nil
}

// DecodeBatch reads a batch and checks everything but the signature (see [Batch.Verify]): form, limits, and that the
// changes are those of the header. It keeps raw, which the caller must not change afterwards. Errors wrap ErrMalformed.
func DecodeBatch(raw []byte) (*Batch, error) {
	if len(raw) > MaxBatch {
		return nil, fmt.Errorf("batch of %d bytes, at most %d: %w", len(raw), MaxBatch, ErrMalformed)
	}
	var w wireBatch
	if err := unmarshal(raw, &w, "batch"); err != nil {
		return nil, err
	}
	var h wireHeader
	if err := unmarshal(w.Header, &h, "batch header"); err != nil {
		return nil, err
	}
	b := &Batch{header: w.Header, sig: w.Sig, raw: raw, hash: hashHeader(w.Header), First: h.First, Stamp: Stamp(h.Stamp)}
	if err := b.readHeader(&h, w.Changes); err != nil {
		return nil, err
	}
	b.Changes = make([]Change, len(w.Changes))
	for i, c := range w.Changes {
		var err error
		if b.Changes[i], err = decodeChange(c); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *Batch) readHeader(h *wireHeader, changes [][]byte) error {
	switch n := uint64(len(changes)); {
	case h.Version != batchVersion:
		return fmt.Errorf("batch of format %d, this program reads %d: %w", h.Version, batchVersion, ErrMalformed)
	case n == 0 || n > MaxChanges || n != uint64(h.Count):
		return fmt.Errorf("batch of %d changes, header says %d, at most %d: %w", n, h.Count, MaxChanges, ErrMalformed)
	case h.First == 0 || h.First > math.MaxInt64-n:
		return fmt.Errorf("batch from sequence number %d: %w", h.First, ErrMalformed)
	case len(h.Context) > MaxContext:
		return fmt.Errorf("batch with a context of %d entries, at most %d: %w", len(h.Context), MaxContext, ErrMalformed)
	}
	if err := fixed(b.Cluster[:], h.Cluster, "batch: cluster ID"); err != nil {
		return err
	}
	if err := fixed(b.Author[:], h.Author, "batch: author"); err != nil {
		return err
	}
	if err := fixed(b.Prev[:], h.Prev, "batch: hash of the one before"); err != nil {
		return err
	}
	root := rootOf(changes)
	if string(h.Root) != string(root[:]) {
		return fmt.Errorf("batch: changes are not those of the header: %w", ErrMalformed)
	}
	var err error
	if b.Context, err = readDots(h.Context); err != nil {
		return fmt.Errorf("batch: context: %w", err)
	}
	for i := 1; i < len(b.Context); i++ {
		if b.Context[i-1].Author.Compare(b.Context[i].Author) >= 0 {
			return fmt.Errorf("batch: context out of order: %w", ErrMalformed)
		}
	}
	return nil
}

// Verify checks the author's signature over the bytes as received; about 80 µs. The error wraps ErrSignature.
func (b *Batch) Verify() error {
	if !ed25519.Verify(b.Author[:], signedBytes(b.header), b.sig) {
		return fmt.Errorf("batch %s/%d: %w", b.Author.Short(), b.First, ErrSignature)
	}
	return nil
}

func signedBytes(header []byte) []byte { return append([]byte(batchDomain), header...) }

// hashHeader leaves the signature out: an author can make many valid signatures of one header.
func hashHeader(header []byte) Hash {
	h := sha256.New()
	h.Write([]byte{2})
	h.Write(header)
	return Hash(h.Sum(nil))
}

func rootOf(changes [][]byte) [32]byte {
	h := sha256.New()
	h.Write([]byte{1})
	for _, c := range changes {
		l := leaf(c)
		h.Write(l[:])
	}
	return [32]byte(h.Sum(nil))
}
