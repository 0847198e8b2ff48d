package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"vcpeer/crdt"
)

// Protocols of streams.
const (
	Protocol = "/vcpeer/relay/1"   // a member asks a relay
	Incoming = "/vcpeer/relayed/1" // a relay brings a circuit
)

// A stream of Protocol begins with one byte, what is asked for:
//
//	hold     a place. The relay answers with a status; then the member sends a byte now and then and gets it back with the
//	         address that it is seen from (16 bytes, IPv4 mapped) and the port (2), and the place ends with the stream.
//	connect  a circuit to the member whose ID (32 bytes) follows. The relay answers with a status, after which the stream is
//	         the circuit.
//
// A stream of Incoming begins with the ID of the member at the other end; the answer is a status.
const (
	askHold    = 'H'
	askConnect = 'C'
)

// status is the answer to a request.
type status byte

const (
	statusOK status = iota
	statusUnreachable
	statusFull
	statusRefused
	statusBadRequest
)

// Why there is no circuit or place.
var (
	ErrUnreachable = errors.New("the relay has no connection with that member either")
	ErrFull        = errors.New("the relay carries all it may")
	ErrRefused     = errors.New("refused")
	ErrMalformed   = errors.New("malformed relay message")
)

func (s status) err() error {
	switch s {
	case statusOK:
		return nil
	case statusUnreachable:
		return ErrUnreachable
	case statusFull:
		return ErrFull
	case statusRefused:
		return ErrRefused
	}
	return fmt.Errorf("%w: status %d", ErrMalformed, s)
}

func statusOf(err error) status {
	switch {
	case err == nil:
		return statusOK
	case errors.Is(err, ErrFull):
		return statusFull
	case errors.Is(err, ErrRefused):
		return statusRefused
	case errors.Is(err, ErrMalformed):
		return statusBadRequest
	}
	return statusUnreachable
}

// readRequest reads what a member asks for; to is set for a circuit only.
func readRequest(r io.Reader) (kind byte, to crdt.NodeID, err error) {
	var b [1]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, to, err
	}
	switch b[0] {
	case askHold:
		return b[0], to, nil
	case askConnect:
		to, err = readID(r)
		return b[0], to, err
	}
	return 0, to, fmt.Errorf("%w: request %#x", ErrMalformed, b[0])
}

func readID(r io.Reader) (id crdt.NodeID, err error) {
	if _, err := io.ReadFull(r, id[:]); err != nil {
		return id, err
	}
	if id.IsZero() {
		return id, fmt.Errorf("%w: no node", ErrMalformed)
	}
	return id, nil
}

func readStatus(r io.Reader) error {
	var b [1]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	return status(b[0]).err()
}

// Connect asks the relay at the other end of rw for a circuit to a member. On success rw is the circuit. The caller has set
// a deadline.
func Connect(rw io.ReadWriter, to crdt.NodeID) error {
	if _, err := rw.Write(append([]byte{askConnect}, to[:]...)); err != nil {
		return err
	}
	return readStatus(rw)
}

// Accept reads who is at the other end of a circuit that a relay brings, and answers what allowed says of it. On success
// rw is the circuit. The caller has set a deadline.
func Accept(rw io.ReadWriter, allowed func(crdt.NodeID) error) (from crdt.NodeID, err error) {
	from, err = readID(rw)
	if err != nil {
		return from, err
	}
	err = allowed(from)
	_, werr := rw.Write([]byte{byte(statusOf(err))})
	return from, errors.Join(err, werr)
}

// echoBytes is the length of what answers a holder's byte.
const echoBytes = 1 + 16 + 2

// echo is that answer; an address that is not valid is all zeros.
func echo(b byte, seen netip.AddrPort) []byte {
	out := make([]byte, 1, echoBytes)
	out[0] = b
	var addr [16]byte
	if seen.IsValid() {
		addr = seen.Addr().As16()
	}
	return binary.BigEndian.AppendUint16(append(out, addr[:]...), seen.Port())
}

func readEcho(r io.Reader) (b byte, seen netip.AddrPort, err error) {
	var in [echoBytes]byte
	if _, err := io.ReadFull(r, in[:]); err != nil {
		return 0, seen, err
	}
	if port := binary.BigEndian.Uint16(in[17:]); port != 0 {
		seen = netip.AddrPortFrom(netip.AddrFrom16([16]byte(in[1:17])).Unmap(), port)
	}
	return in[0], seen, nil
}
