package crdt

import (
	"crypto/sha256"
	"fmt"
	"unicode/utf8"
)

// Limits of one change. A change beyond them is refused when it is written and when it is received.
const (
	MaxName  = 64       // bytes of a kind or field name
	MaxID    = 160      // bytes of an object ID
	MaxValue = 16 << 10 // bytes of a value
	MaxOver  = 1024     // dots that one change replaces
)

// Op says what a change does to its field.
type Op uint8

// The operations. They travel with the change, so that fields which this version does not know merge correctly too.
const (
	OpSet    Op = 1 // set a register; concurrent settings are kept until one replaces them
	OpAdd    Op = 2 // hold an element of a set up
	OpRemove Op = 3 // take an element out of a set where removal wins; stays, to beat concurrent adds, until an add replaces it
	OpGrow   Op = 4 // add to a set of which nothing is ever removed
	OpDrop   Op = 5 // only replace: how an element leaves a set where adding wins; leaves nothing behind

	opLast = OpDrop
)

// Kind names a sort of object.
type Kind string

// Change is one write to one field of one object.
type Change struct {
	Kind  Kind
	ID    string // the object's ID, binary
	Field string
	Op    Op
	Value []byte // CBOR; for a set, the element
	Over  []Dot  // what it replaces: dots of the same field
}

type wireDot struct {
	_      struct{} `cbor:",toarray"`
	Author []byte
	Seq    uint64
}

type wireChange struct {
	_     struct{} `cbor:",toarray"`
	Kind  string
	ID    []byte
	Field string
	Op    uint8
	Value []byte
	Over  []wireDot
}

// encode returns the bytes that are hashed, signed by way of the batch's root, and sent.
func (c *Change) encode() []byte {
	w := wireChange{Kind: string(c.Kind), ID: []byte(c.ID), Field: c.Field, Op: uint8(c.Op), Value: c.Value, Over: wireDots(c.Over)}
	if w.Value == nil {
		w.Value = []byte{}
	}
	return marshal(w)
}

func decodeChange(b []byte) (Change, error) {
	var w wireChange
	if err := unmarshal(b, &w, "change"); err != nil {
		return Change{}, err
	}
	over, err := readDots(w.Over)
	if err != nil {
		return Change{}, fmt.Errorf("change: replaced %w", err)
	}
	c := Change{Kind: Kind(w.Kind), ID: string(w.ID), Field: w.Field, Op: Op(w.Op), Value: w.Value, Over: over}
	return c, c.check()
}

// check returns an error that wraps ErrMalformed if a limit does not hold. An operation above opLast is one of a later
// version: kept and passed on, but not applied.
func (c *Change) check() error {
	switch {
	case c.Kind == "" || len(c.Kind) > MaxName || !utf8.ValidString(string(c.Kind)):
		return fmt.Errorf("change: kind of %d bytes: %w", len(c.Kind), ErrMalformed)
	case c.Field == "" || len(c.Field) > MaxName || !utf8.ValidString(c.Field):
		return fmt.Errorf("change: field of %d bytes: %w", len(c.Field), ErrMalformed)
	case c.ID == "" || len(c.ID) > MaxID:
		return fmt.Errorf("change: object ID of %d bytes: %w", len(c.ID), ErrMalformed)
	case len(c.Value) > MaxValue:
		return fmt.Errorf("change: value of %d bytes, at most %d: %w", len(c.Value), MaxValue, ErrMalformed)
	case len(c.Over) > MaxOver:
		return fmt.Errorf("change: replaces %d dots, at most %d: %w", len(c.Over), MaxOver, ErrMalformed)
	case c.Op == 0:
		return fmt.Errorf("change: no operation: %w", ErrMalformed)
	}
	return nil
}

// leaf is the hash of one encoded change. The batch signs only the leaves, so a change that has been replaced can be
// dropped to its leaf without breaking the signature.
func leaf(change []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(change)
	return [32]byte(h.Sum(nil))
}

func wireDots(dots []Dot) []wireDot {
	out := make([]wireDot, len(dots))
	for i, d := range dots {
		out[i] = wireDot{Author: d.Author[:], Seq: d.Seq}
	}
	return out
}

func readDots(w []wireDot) ([]Dot, error) {
	if len(w) == 0 {
		return nil, nil
	}
	out := make([]Dot, len(w))
	for i, d := range w {
		if err := fixed(out[i].Author[:], d.Author, "dot: author"); err != nil {
			return nil, err
		}
		if d.Seq == 0 {
			return nil, fmt.Errorf("dot: sequence number 0: %w", ErrMalformed)
		}
		out[i].Seq = d.Seq
	}
	return out, nil
}
