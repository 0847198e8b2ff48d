package crdt

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// ErrTaken says that a chosen value is held already; the text says by whom.
var ErrTaken = errors.New("taken already")

// ErrNotFound says that there is no such object.
var ErrNotFound = errors.New("not found")

// Tx collects the changes of one batch. Its methods check against the view that the transaction began with and against
// what the same transaction wrote before; a method that returns an error has changed nothing. What is written as it
// already is makes no change. Not for concurrent use, and not after the function it was given to has returned.
type Tx struct {
	s       *State
	v       *View
	self    NodeID
	first   uint64
	prev    Hash
	stamp   Stamp
	now     time.Time
	rand    io.Reader
	changes []Change
	over    map[fieldKey][]fact // fields as this transaction has left them
	taken   map[claimKey]string // values it has claimed, with the claimant's ID
	site    SiteID              // its own host's site, if this transaction set that
}

// Begin starts a transaction of author on s. clock gives the stamp; rand gives IDs.
func (s *State) Begin(author NodeID, clock *Clock, now time.Time, rand io.Reader) *Tx {
	seq, hash, stamp := s.Head(author)
	clock.Restore(stamp)
	return &Tx{
		s: s, v: s.View(now), self: author, first: seq + 1, prev: hash, stamp: clock.Next(now), now: now, rand: rand,
		over: map[fieldKey][]fact{}, taken: map[claimKey]string{},
	}
}

// Sign makes the batch, nil if nothing was written. An error wrapping ErrMalformed says that a limit is broken. The batch is
// not applied.
func (tx *Tx) Sign(key ed25519.PrivateKey) (*Batch, error) {
	if len(tx.changes) == 0 {
		return nil, nil
	}
	b := &Batch{
		Cluster: tx.s.cluster, Author: tx.self, First: tx.first, Prev: tx.prev, Context: tx.s.context(tx.self), Stamp: tx.stamp,
		Changes: tx.changes,
	}
	if err := b.sign(key); err != nil {
		return nil, err
	}
	return b, nil
}

// View returns the view that the transaction began with.
func (tx *Tx) View() *View { return tx.v }

// Self returns the author.
func (tx *Tx) Self() NodeID { return tx.self }

// Now returns the time of the transaction.
func (tx *Tx) Now() time.Time { return tx.now }

func (tx *Tx) facts(k fieldKey) []fact {
	if f, ok := tx.over[k]; ok {
		return f
	}
	return tx.s.objects.facts(k)
}

// write adds a change that replaces the given facts of its field.
func (tx *Tx) write(k fieldKey, op Op, value []byte, replaced func(fact) bool) {
	c := Change{Kind: k.kind, ID: k.id, Field: k.field, Op: op, Value: value}
	var rest []fact
	for _, f := range tx.facts(k) {
		if f.op != OpGrow && replaced(f) && len(c.Over) < MaxOver {
			c.Over = append(c.Over, f.dot)
		} else {
			rest = append(rest, f)
		}
	}
	if op != OpDrop {
		dot := Dot{tx.self, tx.first + uint64(len(tx.changes))}
		rest = append(rest, fact{dot, tx.stamp, op, string(value)})
	}
	tx.changes = append(tx.changes, c)
	tx.over[k] = rest
}

func always(fact) bool { return true }

// set sets a register, unless it shows the value and nothing contests it.
func (tx *Tx) set(kind Kind, id, field string, value any) {
	k, v := fieldKey{kind, id, field}, marshal(value)
	facts := tx.facts(k)
	if len(facts) == 1 && facts[0].op == OpSet && facts[0].value == string(v) {
		return
	}
	tx.write(k, OpSet, v, always)
}

// put sets a register, or empties it if value is what it reads as when it is empty: defaults are never written.
func (tx *Tx) put(kind Kind, id, field string, value any, isDefault bool) {
	if isDefault {
		tx.clear(kind, id, field)
		return
	}
	tx.set(kind, id, field, value)
}

// clear empties a field, except of what only grows. What was written concurrently stays.
func (tx *Tx) clear(kind Kind, id, field string) {
	if k := (fieldKey{kind, id, field}); slices.ContainsFunc(tx.facts(k), func(f fact) bool { return f.op != OpGrow }) {
		tx.write(k, OpDrop, nil, always)
	}
}

// clearAll takes away all fields of an object that this node has seen, also those of other versions, except what only grows.
func (tx *Tx) clearAll(kind Kind, id string) {
	fields := map[string]bool{}
	if obj := tx.s.objects.kinds[kind][id]; obj != nil {
		for f := range obj.fields {
			fields[f] = true
		}
	}
	for k := range tx.over {
		if k.kind == kind && k.id == id {
			fields[k.field] = true
		}
	}
	for _, f := range slices.Sorted(maps.Keys(fields)) {
		tx.clear(kind, id, f)
	}
}

// force sets a register even to what it shows, to make the claim anew.
func (tx *Tx) force(kind Kind, id, field string, value any) {
	tx.write(fieldKey{kind, id, field}, OpSet, marshal(value), always)
}

// grow adds to a grow-only set.
func (tx *Tx) grow(kind Kind, id, field string, value any) {
	k, v := fieldKey{kind, id, field}, marshal(value)
	if !slices.ContainsFunc(tx.facts(k), func(f fact) bool { return f.op == OpGrow && f.value == string(v) }) {
		tx.write(k, OpGrow, v, func(fact) bool { return false })
	}
}

// add holds an element up; in a set where removal wins that overrides the removals it has seen.
func (tx *Tx) add(kind Kind, id, field string, value any, removeWins bool) {
	k, v := fieldKey{kind, id, field}, marshal(value)
	if !slices.Contains(elements(tx.facts(k), removeWins), string(v)) {
		tx.write(k, OpAdd, v, func(f fact) bool { return f.value == string(v) })
	}
}

// remove takes an element out of a set where removal wins, or only drops what holds it up where adding wins.
func (tx *Tx) remove(kind Kind, id, field string, value any, removeWins bool) {
	k, v := fieldKey{kind, id, field}, marshal(value)
	if !slices.Contains(elements(tx.facts(k), removeWins), string(v)) {
		return
	}
	op := OpDrop
	if removeWins {
		op = OpRemove
	}
	tx.write(k, op, v, func(f fact) bool { return f.value == string(v) })
}

// exists reports whether an object has any field, counting this transaction.
func (tx *Tx) exists(kind Kind, id string) bool {
	if obj := tx.s.objects.kinds[kind][id]; obj != nil && len(obj.fields) > 0 {
		return true
	}
	for k, f := range tx.over {
		if k.kind == kind && k.id == id && len(f) > 0 {
			return true
		}
	}
	return false
}

// draw fills an ID with random bits.
func (tx *Tx) draw(id []byte) error {
	if _, err := io.ReadFull(tx.rand, id); err != nil {
		return fmt.Errorf("draw an ID: %w", err)
	}
	return nil
}

// claim notes a value as taken, or says who holds it. Values held by what has gone (see rankGone) are free.
func (tx *Tx) claim(b book, kind, value, id string) error {
	k := claimKey{kind, value}
	if by := tx.taken[k]; by != "" && by != id {
		return fmt.Errorf("%s %s: %w by %s", kind, value, ErrTaken, by)
	}
	place := kind == ClaimHostName || kind == ClaimSiteName || kind == ClaimAddress
	if c := b[k]; len(c) > 0 && c[0].id != id && !(place && c[0].rank == rankGone) {
		return fmt.Errorf("%s %s: %w by %s", kind, value, ErrTaken, c[0].id)
	}
	tx.taken[k] = id
	return nil
}
