package probe

import (
	"encoding/binary"
	"errors"

	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
)

// wireVersion is the first byte of a message; others are not read.
const wireVersion = 1

// Bytes of a message: without padding, and at most.
const (
	messageBytes = 36
	maxBytes     = 9202 // a jumbo frame less its Ethernet header
)

type kind uint8

const (
	request kind = 1
	reply   kind = 2
)

const (
	flagNear    = 1 << 0 // from and to are slots
	flagOneShot = 1 << 1 // stands for itself: is in no sequence, and says nothing about loss
	flagSealed  = 1 << 2 // goes by a sealed link
	flagsAll    = flagNear | flagOneShot | flagSealed
)

// maxHold is the longest that one may say it held a request.
const maxHold = 10_000_000

// message is the payload of a probe, big endian:
//
//	 0 version  1 kind  2 flags  3 number of transit gateways
//	 4 from, 6 to: labels or slots
//	 8 bytes with padding, which is zeros and only in requests
//	10 transit gateways of the way of the request, 3 labels
//	16 session of the one that asks, 20 its sequence number
//	24 reply: microseconds from request to reply; request: session of the other that the next two are about
//	28 highest sequence number got from the other on this way back, 32 which of the 32 up to it, that one in bit 0
//
// Sessions are drawn at random by every process, so that what was sent before a restart does not count after it. A reply
// holds the session and number that were asked with; when it was asked, the one that asked remembers.
type message struct {
	kind    kind
	oneShot bool
	from    ID
	way     way // to whom the request goes, and how; in a reply its id is the one that asked, and via is still the request's
	size    int
	session uint32
	seq     uint32
	aux     uint32
	ack     ack
}

// ack says what arrived. No bits: nothing did.
type ack struct{ high, bits uint32 }

// put writes m into b, of m.size bytes.
func (m *message) put(b []byte) {
	clear(b[messageBytes:m.size])
	var flags byte
	if m.from.near {
		flags |= flagNear
	}
	if m.oneShot {
		flags |= flagOneShot
	}
	if m.way.kind == path.Sealed {
		flags |= flagSealed
	}
	b[0], b[1], b[2], b[3] = wireVersion, byte(m.kind), flags, m.way.n
	binary.BigEndian.PutUint16(b[4:], m.from.num)
	binary.BigEndian.PutUint16(b[6:], m.way.id.num)
	binary.BigEndian.PutUint16(b[8:], uint16(m.size))
	for i, l := range m.way.via {
		binary.BigEndian.PutUint16(b[10+2*i:], uint16(l))
	}
	for i, v := range [...]uint32{m.session, m.seq, m.aux, m.ack.high, m.ack.bits} {
		binary.BigEndian.PutUint32(b[16+4*i:], v)
	}
}

var (
	errShort   = errors.New("probe: message cut short")
	errVersion = errors.New("probe: message of another version")
	errField   = errors.New("probe: message with a value that cannot be")
)

// parse reads a message. Bytes after it are left: a short frame may have been filled up on its way.
func parse(b []byte) (m message, err error) {
	if len(b) < messageBytes {
		return m, errShort
	}
	if b[0] != wireVersion {
		return m, errVersion
	}
	flags, near := b[2], b[2]&flagNear != 0
	m.kind, m.oneShot = kind(b[1]), flags&flagOneShot != 0
	m.from = ID{near, binary.BigEndian.Uint16(b[4:])}
	m.way = way{id: ID{near, binary.BigEndian.Uint16(b[6:])}, n: b[3]}
	if flags&flagSealed != 0 {
		m.way.kind = path.Sealed
	}
	m.size = int(binary.BigEndian.Uint16(b[8:]))
	for i := range m.way.via {
		m.way.via[i] = label.Label(binary.BigEndian.Uint16(b[10+2*i:]))
	}
	for i, v := range [...]*uint32{&m.session, &m.seq, &m.aux, &m.ack.high, &m.ack.bits} {
		*v = binary.BigEndian.Uint32(b[16+4*i:])
	}
	if m.size > len(b) {
		return message{}, errShort
	}
	if flags&^flagsAll != 0 || !m.sound() {
		return message{}, errField
	}
	return m, nil
}

// sound says whether m is a message that could have been sent.
func (m *message) sound() bool {
	if !m.from.Valid() || m.from == m.way.id || !m.way.valid() || !m.from.near && m.way.over(label.Label(m.from.num)) {
		return false
	}
	if m.size < messageBytes || m.size > maxBytes || m.session == 0 {
		return false
	}
	none := m.ack == ack{}
	if m.oneShot && !none || m.ack.bits&1 == 0 && !none {
		return false
	}
	switch m.kind {
	case request:
		return (m.aux == 0) == none
	case reply:
		return m.size == messageBytes && m.aux <= maxHold
	}
	return false
}
