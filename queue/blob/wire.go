package blob

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/fxamacker/cbor/v2"

	"vcpeer/crdt"
)

// Protocol is the name of the transfer protocol. A stream carries requests one after the other; each is a frame
// (uint32 length, CBOR), answered by a frame, and, for content, the bare bytes from the agreed offset to the end.
const Protocol = "/vcpeer/blob/1"

// Fabric is what transfers need of the network between nodes: authenticated streams of members.
type Fabric interface {
	Open(ctx context.Context, to crdt.NodeID, proto string) (net.Conn, error)
	Handle(proto string, h func(ctx context.Context, from crdt.NodeID, c net.Conn))
}

const (
	maxFrame = 64 << 10
	maxQuery = 1024 // hashes in one query
)

// op is what a request asks for.
type op uint8

const (
	opGet   op = iota + 1 // content of Hash from Offset
	opPut                 // take Hash of Size; the answer's Offset says from where to send; a last answer follows the content
	opQuery               // which of Hashes are held
)

// code is how a request was answered.
type code uint8

const (
	codeOK       code = iota + 1 // get, put: content follows
	codeHave                     // put: held already, or now
	codeNotFound                 // get
	codeBusy                     // try later or elsewhere
	codeFull                     // put: no room, over quota, too large
	codeBad                      // malformed, or content that does not match its hash
	codeFailed                   // the other side's disk
)

type request struct {
	Op     op       `cbor:"1,keyasint"`
	Hash   []byte   `cbor:"2,keyasint,omitempty"`
	Offset int64    `cbor:"3,keyasint,omitempty"`
	Size   int64    `cbor:"4,keyasint,omitempty"`
	Hashes [][]byte `cbor:"5,keyasint,omitempty"`
}

type answer struct {
	Code   code   `cbor:"1,keyasint"`
	Size   int64  `cbor:"2,keyasint,omitempty"`
	Offset int64  `cbor:"3,keyasint,omitempty"`
	Have   []bool `cbor:"4,keyasint,omitempty"`
	Text   string `cbor:"5,keyasint,omitempty"`
}

var errWire = errors.New("malformed message")

func (r *request) check() error {
	ok := r.Offset >= 0 && r.Size >= 0
	switch r.Op {
	case opGet, opPut:
		ok = ok && len(r.Hash) == hashBytes && len(r.Hashes) == 0
	case opQuery:
		ok = ok && len(r.Hashes) > 0 && len(r.Hashes) <= maxQuery
		for _, h := range r.Hashes {
			ok = ok && len(h) == hashBytes
		}
	default:
		ok = false
	}
	if !ok {
		return fmt.Errorf("%w: request %d", errWire, r.Op)
	}
	return nil
}

func (a *answer) check() error {
	if a.Code < codeOK || a.Code > codeFailed || a.Size < 0 || a.Offset < 0 || a.Offset > a.Size || len(a.Have) > maxQuery || len(a.Text) > 1024 {
		return fmt.Errorf("%w: answer %d", errWire, a.Code)
	}
	return nil
}

// err returns what a code that refuses means.
func (a *answer) err() error {
	switch a.Code {
	case codeNotFound:
		return ErrNotFound
	case codeBusy:
		return ErrBusy
	case codeFull:
		return fmt.Errorf("%w: %s", ErrRefused, a.Text)
	case codeBad:
		return fmt.Errorf("%w: %s", ErrCorrupt, a.Text)
	}
	return fmt.Errorf("the other side failed: %s", a.Text)
}

type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

func newCodec() codec {
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // the options are constants
	}
	dec, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:  4,
		MaxArrayElements: maxQuery,
		MaxMapPairs:      16,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return codec{enc, dec}
}

// checked is a message that knows whether it is well-formed.
type checked interface{ check() error }

func (c codec) decode(b []byte, v checked) error {
	if err := c.dec.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", errWire, err)
	}
	return v.check()
}

// send writes one frame in a single Write.
func (c codec) send(w io.Writer, v any) error {
	b, err := c.enc.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	if len(b) > maxFrame {
		return fmt.Errorf("%w: %d bytes", errWire, len(b))
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...))
	return err
}

func (c codec) receive(r io.Reader, v checked) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return fmt.Errorf("%w: frame of %d bytes", errWire, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return c.decode(b, v)
}

// moving is a connection on which each read and write must make progress within a time.
type moving struct {
	net.Conn
	within time.Duration
}

// Read implements io.Reader.
func (m moving) Read(p []byte) (int, error) {
	if err := m.SetReadDeadline(time.Now().Add(m.within)); err != nil {
		return 0, err
	}
	return m.Conn.Read(p)
}

// Write implements io.Writer. It writes in pieces, so that a large p on a slow link still shows its progress.
func (m moving) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if err := m.SetWriteDeadline(time.Now().Add(m.within)); err != nil {
			return n, err
		}
		k, err := m.Conn.Write(p[:min(len(p), 64<<10)])
		n += k
		if err != nil {
			return n, err
		}
		p = p[k:]
	}
	return n, nil
}
