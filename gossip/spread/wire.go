package spread

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"
)

// kind says what a message is for.
type kind uint8

const (
	kindPush  kind = iota + 1 // fresh batches, one message; the answer is a kindTurn with the digest
	kindTurn                  // one turn of a session
	kindBusy                  // the answer of a peer that serves enough others
	kindError                 // the store of the sender failed; the session is over
)

// message is what streams carry: a length (4 bytes, big-endian) and this in CBOR. Unknown keys are ignored, so that a
// later version can say more.
type message struct {
	Kind    kind     `cbor:"1,keyasint"`
	Digest  [16]byte `cbor:"2,keyasint"`           // of the sender, after all it has received
	Ask     bool     `cbor:"9,keyasint,omitempty"` // the sender wants what Heads lacks
	Heads   []byte   `cbor:"3,keyasint,omitempty"` // of the sender
	Batches [][]byte `cbor:"4,keyasint,omitempty"`
	More    bool     `cbor:"5,keyasint,omitempty"` // the sender has more than these for the heads it knows

	EphemeralSum [16]byte `cbor:"6,keyasint"`            // hash of the sender's ephemeral digest
	Ephemeral    [][]byte `cbor:"7,keyasint,omitempty"`  // entries
	AskEphemeral bool     `cbor:"10,keyasint,omitempty"` // the sender wants what EphemeralHas lacks
	EphemeralHas []byte   `cbor:"8,keyasint,omitempty"`  // the sender's ephemeral digest
}

const (
	maxBatches          = 1 << 16
	announcementVersion = 1
	announcementBytes   = 1 + 16
)

var (
	errFrame        = errors.New("spread: message is longer than the limit")
	errAnnouncement = errors.New("spread: not an announcement")
	errBusy         = errors.New("spread: the peer is busy")
	errPeer         = errors.New("spread: the peer's store failed")
)

// codec holds CBOR's modes: deterministic out, strict and bounded in.
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

func newCodec() codec {
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // the options are constant
	}
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxArrayElements: maxBatches, MaxMapPairs: 64, MaxNestedLevels: 4,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return codec{enc, dec}
}

func (c codec) encode(m message) ([]byte, error) {
	body, err := c.enc.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("spread: encode: %w", err)
	}
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body))), body...), nil
}

func (c codec) decode(body []byte) (message, error) {
	var m message
	if err := c.dec.Unmarshal(body, &m); err != nil {
		return message{}, fmt.Errorf("spread: decode: %w", err)
	}
	if m.Kind < kindPush || m.Kind > kindError {
		return message{}, fmt.Errorf("spread: decode: message of kind %d", m.Kind)
	}
	return m, nil
}

// readFrame reads one message of at most limit bytes. Memory grows with what has come, not with what was announced.
func (c codec) readFrame(r io.Reader, limit int) (m message, size int, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return message{}, 0, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if uint64(n) > uint64(limit) {
		return message{}, len(head), fmt.Errorf("%w: %d bytes", errFrame, n)
	}
	body, err := io.ReadAll(io.LimitReader(r, int64(n)))
	size = len(head) + len(body)
	if err != nil {
		return message{}, size, err
	}
	if len(body) < int(n) {
		return message{}, size, io.ErrUnexpectedEOF
	}
	m, err = c.decode(body)
	return m, size, err
}

// encodeAnnouncement returns the datagram that tells a digest.
func encodeAnnouncement(digest [16]byte) []byte {
	return append([]byte{announcementVersion}, digest[:]...)
}

// decodeAnnouncement reads it back; later versions may add to its end.
func decodeAnnouncement(b []byte) (digest [16]byte, err error) {
	if len(b) < announcementBytes || b[0] != announcementVersion {
		return digest, errAnnouncement
	}
	copy(digest[:], b[1:announcementBytes])
	return digest, nil
}
