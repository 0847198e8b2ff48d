package site

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/fxamacker/cbor/v2"

	"vcpeer/crdt"
	"vcpeer/queue"
)

// Messages are frames: a length (4 bytes, big endian) and that many bytes of CBOR. A stream carries any number of
// questions, each followed by its answer.

// maxFrame bounds one message. The largest are lists of jobs and results with many outputs.
const maxFrame = 4 << 20

// errFrame says that the other side sends what is no message of this protocol.
var errFrame = errors.New("queue/site: not a message of this protocol")

// op is the kind of a question.
type op string

// The questions. Those marked L go to the leader of the job's site, W to a node's worker.
const (
	opClaim  op = "claim"  // L: work for free slots; parked until there is some
	opPull   op = "pull"   // L: work for nodes of another site
	opRenew  op = "renew"  // L: leases of running attempts
	opReport op = "report" // L: attempts that ended or are given back
	opSubmit op = "submit" // L
	opCancel op = "cancel" // L
	opOwed   op = "owed"   // L: results to bring back to a node; parked until there are some
	opBack   op = "back"   // L: results that are back
	opList   op = "list"   // L
	opGet    op = "get"    // L
	opWhy    op = "why"    // L
	opWatch  op = "watch"  // L: a job, when it has changed
	opPoke   op = "poke"   // W: renew now, something is to be stopped
)

// question is what is asked; answer what comes back: an error or a body.
type question struct {
	Op   op              `cbor:"1,keyasint"`
	Body cbor.RawMessage `cbor:"2,keyasint"`
}

type answer struct {
	Err    *queue.Error    `cbor:"1,keyasint,omitempty"`
	Leader crdt.NodeID     `cbor:"2,keyasint"` // with notLeader: who leads, zero if not known
	Body   cbor.RawMessage `cbor:"3,keyasint,omitempty"`
}

// notLeader is the code that sends the asker elsewhere. Nothing was done.
const notLeader queue.Code = "not-leader"

// claim offers what a node has free, in all; it replaces the node's claim before.
type claim struct {
	ID       uint64 `cbor:"1,keyasint"` // rises with each claim of the node's daemon
	Known    uint64 `cbor:"2,keyasint"` // the newest claim that this one takes the answer of into account
	Life     uint64 `cbor:"3,keyasint"` // rises when the daemon restarts
	Slots    int    `cbor:"4,keyasint"`
	MemBytes int64  `cbor:"5,keyasint"`
	WaitMS   int64  `cbor:"6,keyasint"`

	// What the node has in all.
	AllSlots    int   `cbor:"7,keyasint,omitempty"`
	AllMemBytes int64 `cbor:"8,keyasint,omitempty"`
}

// granted is one attempt for a node.
type granted struct {
	Ref    queue.Ref     `cbor:"1,keyasint"`
	Owner  queue.SiteID  `cbor:"2,keyasint"`
	Node   crdt.NodeID   `cbor:"3,keyasint"`
	Spec   queue.Spec    `cbor:"4,keyasint"`
	Held   time.Duration `cbor:"5,keyasint"` // between the claim's arrival and the commit, on the clocks of those who held it
	Voters []crdt.NodeID `cbor:"6,keyasint"` // of the owner: they have the job's blobs

	Attempt uint32 `cbor:"7,keyasint,omitempty"` // of the task, from 1
}

type grantedList struct {
	Grants []granted `cbor:"1,keyasint"`
}

// pull offers nodes of the asking leader's site.
type pull struct {
	Offers []queue.Offer `cbor:"1,keyasint"`
}

// renewal asks for full leases, for attempts of one owner on the asking node.
type renewal struct {
	Refs []queue.Ref `cbor:"1,keyasint"`
}

// verdict on a lease.
type verdict uint8

const (
	leaseOK     verdict = iota // runs on for a TTL from when it was asked
	leaseDoomed                // lease given, but the task is cancelled: stop it and report
	leaseGone                  // not the live attempt: stop it, nobody waits for its result
)

type renewed struct {
	Verdicts []verdict     `cbor:"1,keyasint"` // one for each asked
	Voters   []crdt.NodeID `cbor:"2,keyasint"`
}

// report is one end of an attempt of the asking node.
type report struct {
	Complete *queue.Complete `cbor:"1,keyasint,omitempty"`
	Release  *queue.Release  `cbor:"2,keyasint,omitempty"`
}

type cancel struct {
	Job   queue.Seq    `cbor:"1,keyasint"`
	Tasks *queue.Range `cbor:"2,keyasint,omitempty"`
	By    string       `cbor:"3,keyasint"`
	ByID  string       `cbor:"5,keyasint,omitempty"` // account, as in queue.Spec
	Admin bool         `cbor:"4,keyasint"`           // may cancel jobs of others
}

// owed is parked until the asking node has results to bring back.
type owed struct {
	WaitMS int64 `cbor:"1,keyasint"`
}

type owedJob struct {
	Job    queue.Seq        `cbor:"1,keyasint"`
	Spec   queue.Spec       `cbor:"2,keyasint"`
	Tasks  []queue.TaskView `cbor:"3,keyasint"`
	Voters []crdt.NodeID    `cbor:"4,keyasint"`
}

type owedList struct {
	Jobs []owedJob `cbor:"1,keyasint"`
}

type list struct {
	User  string `cbor:"1,keyasint"`
	Open  bool   `cbor:"2,keyasint"`
	Limit int    `cbor:"3,keyasint"`
}

type jobList struct {
	Jobs []queue.JobView `cbor:"1,keyasint"`
}

// get asks for a job; From and Limit page its tasks.
type get struct {
	Job   queue.Seq `cbor:"1,keyasint"`
	From  int       `cbor:"2,keyasint"`
	Limit int       `cbor:"3,keyasint"`
}

type jobDetail struct {
	Job   queue.JobView    `cbor:"1,keyasint"`
	Tasks []queue.TaskView `cbor:"2,keyasint"`
}

// watch is parked until the job's counts differ from those last seen.
type watch struct {
	Job    queue.Seq    `cbor:"1,keyasint"`
	Seen   queue.Counts `cbor:"2,keyasint"`
	Owed   int          `cbor:"3,keyasint"`
	WaitMS int64        `cbor:"4,keyasint"`
}

type none struct{}

// codec is the wire form: times keep their nanoseconds; what is malformed, unknown or too deep is refused.
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

func newCodec() codec {
	opts := cbor.CoreDetEncOptions()
	opts.Time = cbor.TimeRFC3339Nano
	enc, err := opts.EncMode()
	if err != nil {
		panic(fmt.Sprintf("queue/site: CBOR options: %v", err))
	}
	dec, err := cbor.DecOptions{
		DupMapKey:       cbor.DupMapKeyEnforcedAPF,
		IndefLength:     cbor.IndefLengthForbidden,
		TagsMd:          cbor.TagsForbidden,
		MaxNestedLevels: 16,
	}.DecMode()
	if err != nil {
		panic(fmt.Sprintf("queue/site: CBOR options: %v", err))
	}
	return codec{enc, dec}
}

// wire is immutable after it is made.
var wire = newCodec()

func writeFrame(w io.Writer, v any) error {
	b, err := wire.enc.Marshal(v)
	if err != nil {
		return fmt.Errorf("queue/site: encode: %w", err)
	}
	if len(b) > maxFrame {
		return fmt.Errorf("queue/site: message of %d bytes, at most %d", len(b), maxFrame)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b)))
	_, err = w.Write(append(frame, b...))
	return err
}

// readFrame reads one message. An error other than errFrame is the connection's.
func readFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return fmt.Errorf("%w: %d bytes announced, at most %d", errFrame, n, maxFrame)
	}
	b, err := readN(r, int(n))
	if err != nil {
		return err
	}
	return unmarshal(b, v)
}

// readN reads n bytes and takes memory only as they come, so that an announced length alone costs nothing.
func readN(r io.Reader, n int) ([]byte, error) {
	const step = 64 << 10
	b := make([]byte, 0, min(n, step))
	for len(b) < n {
		at, more := len(b), min(n-len(b), step)
		b = append(b, make([]byte, more)...)
		if _, err := io.ReadFull(r, b[at:]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func unmarshal(b []byte, v any) error {
	if err := wire.dec.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	return nil
}
