package sealed

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// A datagram is a header, and sealed by AES-256-GCM a frame with what is to be known of it:
//
//	 0 type: data or control
//	 1 key: 4 bytes, drawn from the secret for each direction and epoch; it says which key opens the rest
//	 5 counter: 8 bytes, big endian
//	13 sealed: the frame's key 4, how 1, start 1, headers 1, frame
//	   tag 16
//
// The nonce is the type, zeros and the counter, so that all of the header is authenticated: another key does not open the
// rest, nor another nonce. Types are below 0x40, which tells them from QUIC (RFC 9443).
const (
	typeData    = 0x10
	typeControl = 0x11
)

// Bytes of the parts of a datagram.
const (
	headerBytes = 13
	metaBytes   = 7
	tagBytes    = 16
	nonceBytes  = 12
)

// Overhead is what a link adds to each frame, bytes, without the IP and UDP headers.
const Overhead = headerBytes + metaBytes + tagBytes

// etherBytes is the length of an Ethernet header.
const etherBytes = 14

// MTU returns the largest IP packet inside for a path to an address that takes IP packets of pathMTU bytes.
func MTU(pathMTU int, remote netip.Addr) int {
	if remote.Unmap().Is4() {
		return pathMTU - 20 - 8 - Overhead - etherBytes
	}
	return pathMTU - 40 - 8 - Overhead - etherBytes
}

// header is the part of a datagram that is not sealed.
type header struct {
	kind    byte
	key     uint32
	counter uint64
}

var (
	errShort = errors.New("sealed: datagram cut short")
	errType  = errors.New("sealed: datagram of another type or version")
)

// put writes h to the first headerBytes of b.
func (h header) put(b []byte) {
	b[0] = h.kind
	binary.BigEndian.PutUint32(b[1:], h.key)
	binary.BigEndian.PutUint64(b[5:], h.counter)
}

// parseHeader reads a header; the datagram has room for all that its type needs.
func parseHeader(b []byte) (h header, err error) {
	if len(b) < headerBytes+tagBytes {
		return h, errShort
	}
	h = header{b[0], binary.BigEndian.Uint32(b[1:]), binary.BigEndian.Uint64(b[5:])}
	switch h.kind {
	case typeData:
		if len(b) < Overhead+etherBytes {
			return h, errShort
		}
	case typeControl:
		if len(b) < headerBytes+controlBytes+tagBytes {
			return h, errShort
		}
	default:
		return h, errType
	}
	return h, nil
}

// nonce writes the nonce of a datagram.
func (h header) nonce(b *[nonceBytes]byte) {
	b[0], b[1], b[2], b[3] = h.kind, 0, 0, 0
	binary.BigEndian.PutUint64(b[4:], h.counter)
}

// meta is what is sealed with a frame.
type meta struct {
	key     uint32 // of package label
	how     byte
	start   byte // where the transport header begins, if the checksum is open
	headers byte // bytes of all headers, for what was a large packet; else where the open checksum is, from start
}

// Bits of how. A large packet (TSO, USO) travels in segments with headers of their own, which the other end may join again.
const (
	howOpen      = 1 << 0 // the transport's checksum holds that of the pseudo header only: nobody can change it on the way
	howJoins     = 1 << 1 // the frame is the next segment of the packet that the datagram before belongs to
	howSegment   = 1 << 2 // a segment of a large packet; implies howOpen
	howUDP       = 1 << 3 // of UDP, else of TCP
	howKnown     = howOpen | howJoins | howSegment | howUDP
	howSamePiece = howOpen | howSegment | howUDP // what segments of one packet have in common
)

func (m meta) put(b []byte) {
	binary.BigEndian.PutUint32(b, m.key)
	b[4], b[5], b[6] = m.how, m.start, m.headers
}

// parseMeta reads what was sealed: b has at least metaBytes. Whoever sealed it is known, and may still be wrong: where it
// points outside the frame or to what is not there, it is not ok.
func parseMeta(b []byte) (m meta, frame []byte, ok bool) {
	m = meta{binary.BigEndian.Uint32(b), b[4], b[5], b[6]}
	frame = b[metaBytes:]
	switch {
	case len(frame) < etherBytes || m.how&^howKnown != 0:
		return m, frame, false
	case m.how&howSegment != 0:
		_, err := m.shape().check(frame)
		return m, frame, err == nil && m.how&howOpen != 0
	case m.how&howOpen != 0:
		return m, frame, m.how == howOpen && m.start >= etherBytes && int(m.start)+int(m.headers)+2 <= len(frame)
	}
	return m, frame, m.how == 0
}

// shape is how the headers of a segment lie.
func (m meta) shape() shape {
	return shape{udp: m.how&howUDP != 0, start: int(m.start), headers: int(m.headers)}
}

// control is the payload of a control datagram, which keeps a hole in a NAT open, shows that a key is in use, and says
// which keys have come.
//
//	0 version  1 flags  2 the highest epoch of the other's keys that something came with
type control struct {
	answer bool // is wanted
	epoch  uint32
}

const (
	controlBytes   = 6
	controlVersion = 1
	flagAnswer     = 1
)

func (c control) put(b []byte) {
	b[0], b[1] = controlVersion, 0
	if c.answer {
		b[1] = flagAnswer
	}
	binary.BigEndian.PutUint32(b[2:], c.epoch)
}

func parseControl(b []byte) (c control, ok bool) {
	if len(b) < controlBytes || b[0] != controlVersion {
		return c, false
	}
	return control{b[1]&flagAnswer != 0, binary.BigEndian.Uint32(b[2:])}, true
}
