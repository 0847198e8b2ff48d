package queue

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"vcpeer/crdt"
)

// Version is the form of entries this code writes, and the newest it reads.
const Version = 1

// Limits of one entry. The leader splits what is more.
const (
	MaxEntryBytes = 1000 << 10
	MaxCommands   = 1024
)

// Entry is what one log entry holds: commands applied in order, and the leader's wall clock when it proposed them. The
// time is for people and for retention; nothing is ordered by it.
type Entry struct {
	Version  uint      `cbor:"1,keyasint"`
	At       int64     `cbor:"2,keyasint"` // Unix nanoseconds
	Commands []Command `cbor:"3,keyasint"`
}

// Command is one of its fields; the others are nil.
type Command struct {
	Submit   *Submit   `cbor:"1,keyasint,omitempty"`
	Grant    *Grant    `cbor:"2,keyasint,omitempty"`
	Complete *Complete `cbor:"3,keyasint,omitempty"`
	Lost     *Lost     `cbor:"4,keyasint,omitempty"`
	Release  *Release  `cbor:"5,keyasint,omitempty"`
	Cancel   *Cancel   `cbor:"6,keyasint,omitempty"`
	Returned *Returned `cbor:"7,keyasint,omitempty"`
	Forget   *Forget   `cbor:"8,keyasint,omitempty"`
}

// Submit makes a job. [Result].Job is its number; the number of the job that already has the same user and key if
// there is one (Known is then true).
type Submit struct {
	Spec Spec `cbor:"1,keyasint"`
}

// Grant gives a pending task to a node. [Result].Epoch is the attempt's epoch.
type Grant struct {
	Job  Seq         `cbor:"1,keyasint,omitempty"`
	Of   int         `cbor:"2,keyasint,omitempty"` // instead of Job: n means the job of the n-th command (from 1) of this entry, a Submit
	Task int         `cbor:"3,keyasint,omitempty"`
	Node crdt.NodeID `cbor:"4,keyasint"`
	Site SiteID      `cbor:"5,keyasint"` // of the node
}

// Complete ends an attempt and its task. A repetition is accepted again (Known), any other epoch is Stale.
type Complete struct {
	Ref
	Exit    int    `cbor:"4,keyasint"`           // exit code; 128+n for signal n
	Reason  string `cbor:"5,keyasint,omitempty"` // why it failed if the exit code does not say it
	Started int64  `cbor:"6,keyasint,omitempty"` // Unix nanoseconds, the worker's clock
	Ended   int64  `cbor:"7,keyasint,omitempty"`
	CPU     int64  `cbor:"8,keyasint,omitempty"` // nanoseconds
	MaxRSS  int64  `cbor:"9,keyasint,omitempty"` // bytes
	Stdout  *File  `cbor:"10,keyasint,omitempty"`
	Stderr  *File  `cbor:"11,keyasint,omitempty"`
	Outputs []File `cbor:"12,keyasint,omitempty"`
}

// Lost says that the lease of an attempt ended: the task waits again, or has failed if it may not be retried.
type Lost struct {
	Ref
	Confirmed bool `cbor:"4,keyasint,omitempty"` // the node had said that it runs it; else it most likely never started
}

// Release gives an attempt back that surely does not run: never started, or could not be started.
type Release struct {
	Ref
	Reason string `cbor:"4,keyasint,omitempty"`
	Failed bool   `cbor:"5,keyasint,omitempty"` // the node could not start it: counts as a retry
}

// Cancel ends pending tasks and marks live attempts to be stopped. [Result].Pending and Running count them.
type Cancel struct {
	Job   Seq    `cbor:"1,keyasint"`
	Tasks *Range `cbor:"2,keyasint,omitempty"` // nil: all
	By    string `cbor:"3,keyasint,omitempty"` // who, for the reason
}

// Returned says that results of ended tasks are in the submit directory, or cannot be brought there (Problem).
type Returned struct {
	Job     Seq    `cbor:"1,keyasint"`
	Tasks   []int  `cbor:"2,keyasint"`
	Problem string `cbor:"3,keyasint,omitempty"`
}

// Forget drops ended jobs, oldest end first: all that ended before Before; and beyond the newest Jobs jobs or Records
// tasks those whose results are back (all, beyond twice as many).
type Forget struct {
	Before  int64 `cbor:"1,keyasint"` // Unix nanoseconds
	Jobs    int   `cbor:"2,keyasint"`
	Records int   `cbor:"3,keyasint"`
}

// Result is what one command did.
type Result struct {
	Err     *Error `cbor:"1,keyasint,omitempty"` // nil: done, or it was done already (Known)
	Known   bool   `cbor:"2,keyasint,omitempty"`
	Job     Seq    `cbor:"3,keyasint,omitempty"`
	Epoch   Epoch  `cbor:"4,keyasint,omitempty"`
	Pending int    `cbor:"5,keyasint,omitempty"`
	Running int    `cbor:"6,keyasint,omitempty"`
}

// ErrUnknown says that an entry or a snapshot is of a form that this code does not know, or damaged. A replica
// that meets it must stop: to skip it would make its state differ from the others'.
var ErrUnknown = errors.New("queue: entry of an unknown form")

// ErrTooLarge says that an entry is over MaxEntryBytes or MaxCommands.
var ErrTooLarge = errors.New("queue: entry too large")

// Encode returns the canonical bytes, in the version of this code.
func (e Entry) Encode() ([]byte, error) {
	e.Version = Version
	if len(e.Commands) > MaxCommands {
		return nil, fmt.Errorf("%w: %d commands", ErrTooLarge, len(e.Commands))
	}
	b, err := encode(e)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxEntryBytes {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(b))
	}
	return b, nil
}

// DecodeEntry is the inverse of Encode. The error wraps ErrUnknown or ErrTooLarge.
func DecodeEntry(b []byte) (Entry, error) {
	if len(b) > MaxEntryBytes {
		return Entry{}, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(b))
	}
	var e Entry
	if err := decode(b, &e); err != nil {
		return Entry{}, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	if e.Version != Version {
		return Entry{}, fmt.Errorf("%w: version %d, this code reads %d", ErrUnknown, e.Version, Version)
	}
	if len(e.Commands) > MaxCommands {
		return Entry{}, fmt.Errorf("%w: %d commands", ErrTooLarge, len(e.Commands))
	}
	for i := range e.Commands {
		if e.Commands[i].kinds() != 1 {
			return Entry{}, fmt.Errorf("%w: command %d is not one command", ErrUnknown, i)
		}
	}
	return e, nil
}

func (c *Command) kinds() (n int) {
	for _, set := range []bool{c.Submit != nil, c.Grant != nil, c.Complete != nil, c.Lost != nil,
		c.Release != nil, c.Cancel != nil, c.Returned != nil, c.Forget != nil} {
		if set {
			n++
		}
	}
	return n
}

// codec makes the modes of the wire and disk form: core deterministic encoding (RFC 8949, 4.2.1), and a decoder that
// refuses duplicate keys, unknown fields, indefinite lengths and tags. They are built for each call site once.
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

func newCodec() codec {
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(fmt.Sprintf("queue: CBOR options: %v", err))
	}
	dec, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		UTF8:              cbor.UTF8RejectInvalid,
		MaxNestedLevels:   16,
		MaxArrayElements:  maxElements,
		MaxMapPairs:       maxElements,
	}.DecMode()
	if err != nil {
		panic(fmt.Sprintf("queue: CBOR options: %v", err))
	}
	return codec{enc, dec}
}

// maxElements bounds arrays and maps of a snapshot; an entry is bounded by its bytes.
const maxElements = 1 << 27

// wire is immutable after it is made.
var wire = newCodec()

func encode(v any) ([]byte, error) { return wire.enc.Marshal(v) }
func decode(b []byte, v any) error { return wire.dec.Unmarshal(b, v) }
