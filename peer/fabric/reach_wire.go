package fabric

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/fxamacker/cbor/v2"
)

// reachProtocol is how a member finds out from another how it is seen from there, and whether it can be dialled.
//
// The asker says a nonce and the port it listens on; the observer answers with the address of the connection. Then the
// asker sends packets with the nonce (kindAsk) to the observer's UDP port, by IPv4 and IPv6, which come back with the
// address they were seen from (kindSeen). To each such address, and only to those, since the nonce proves that they are
// the asker's, the observer sends a packet from a socket of the occasion (kindBack), and it tries to open a TCP connection
// to the XX
const reachProtocol = "/vcpeer/reach/1"

// Kinds of packets on the fabric's UDP port, after the byte firstFabric.
const (
	kindAsk  = 'a' // nonce, zeros up to reachPacketBytes
	kindSeen = 's' // nonce, address and port as seen
	kindBack = 'b' // nonce

	kindMapped = 'm' // nonce; as kindBack, to the port that the asker's router passes on
)

const (
	nonceBytes       = 16
	reachPacketBytes = 2 + nonceBytes + 1 + 16 + 2
	maxReachMessage  = 2048
)

type nonce [nonceBytes]byte

var errReachMessage = errors.New("malformed message about reachability")

// reachAsk opens a question.
type reachAsk struct {
	Nonce []byte `cbor:"1,keyasint"`
	Port  uint16 `cbor:"2,keyasint"` // TCP, listened on

	// What the asker's router says to pass on to it.
	Mapped    []byte `cbor:"3,keyasint,omitempty"` // its IPv4 address outside; absent: nothing
	MappedUDP uint16 `cbor:"4,keyasint,omitempty"`
	MappedTCP uint16 `cbor:"5,keyasint,omitempty"`
}

// reachSeen is the observer's first answer.
type reachSeen struct {
	Addr []byte `cbor:"1,keyasint,omitempty"` // netip.AddrPort of the connection, binary; absent: it has none
	Busy bool   `cbor:"2,keyasint,omitempty"` // no dialling back now
	Also uint16 `cbor:"3,keyasint,omitempty"` // a second UDP port that answers as well; 0: none
}

// reachResult is the last.
type reachResult struct {
	TCP4   bool `cbor:"1,keyasint,omitempty"` // a connection to the asker's port could be opened
	TCP6   bool `cbor:"2,keyasint,omitempty"`
	Tried4 bool `cbor:"3,keyasint,omitempty"` // it was tried
	Tried6 bool `cbor:"4,keyasint,omitempty"`

	TriedMapped bool `cbor:"5,keyasint,omitempty"` // the asker comes from the address that its router says
	TCPMapped   bool `cbor:"6,keyasint,omitempty"`
}

var reachDecoder = func() cbor.DecMode {
	m, err := cbor.DecOptions{MaxNestedLevels: 4, MaxArrayElements: 16, MaxMapPairs: 16, DupMapKey: cbor.DupMapKeyEnforcedAPF}.DecMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return m
}()

// writeMessage writes v with its length before it.
func writeMessage(w io.Writer, v any) error {
	b, err := cbor.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

// readMessage reads what writeMessage wrote into v.
func readMessage(r io.Reader, v any) error {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint16(head[:])
	if n == 0 || n > maxReachMessage {
		return fmt.Errorf("%w: %d bytes", errReachMessage, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	if err := reachDecoder.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", errReachMessage, err)
	}
	return nil
}

func (a reachAsk) nonce() (n nonce, err error) {
	if len(a.Nonce) != len(n) {
		return n, fmt.Errorf("%w: nonce of %d bytes", errReachMessage, len(a.Nonce))
	}
	return nonce(a.Nonce), nil
}

// mapped returns what the asker's router passes on; not valid: nothing by that protocol.
func (a reachAsk) mapped() (udp, tcp netip.AddrPort, err error) {
	if len(a.Mapped) == 0 {
		return udp, tcp, nil
	}
	addr, ok := netip.AddrFromSlice(a.Mapped)
	if !ok || !addr.Is4() {
		return udp, tcp, fmt.Errorf("%w: mapped address of %d bytes", errReachMessage, len(a.Mapped))
	}
	if a.MappedUDP != 0 {
		udp = netip.AddrPortFrom(addr, a.MappedUDP)
	}
	if a.MappedTCP != 0 {
		tcp = netip.AddrPortFrom(addr, a.MappedTCP)
	}
	return udp, tcp, nil
}

// askPacket and its like make packets; parseReachPacket reads them.
func askPacket(n nonce) []byte { return reachPacket(kindAsk, n, netip.AddrPort{}) }

func backPacket(n nonce) []byte { return reachPacket(kindBack, n, netip.AddrPort{})[:2+nonceBytes] }

func mappedPacket(n nonce) []byte { return reachPacket(kindMapped, n, netip.AddrPort{})[:2+nonceBytes] }

// reachPacket is reachPacketBytes long.
func reachPacket(kind byte, n nonce, at netip.AddrPort) []byte {
	b := append(make([]byte, 0, reachPacketBytes), firstFabric, kind)
	b = append(b, n[:]...)
	addr := at.Addr().AsSlice()
	b = append(append(b, byte(len(addr))), addr...)
	b = binary.BigEndian.AppendUint16(b, at.Port())
	return append(b, bytes.Repeat([]byte{0}, reachPacketBytes-len(b))...)
}

// parseReachPacket takes a packet apart; at is set for kindSeen only.
func parseReachPacket(b []byte) (kind byte, n nonce, at netip.AddrPort, ok bool) {
	if len(b) < 2+nonceBytes || b[0] != firstFabric {
		return 0, n, at, false
	}
	kind, n = b[1], nonce(b[2:2+nonceBytes])
	rest := b[2+nonceBytes:]
	switch kind {
	case kindBack, kindMapped:
		return kind, n, at, len(rest) == 0
	case kindAsk:
		return kind, n, at, len(b) == reachPacketBytes
	case kindSeen:
		if len(b) != reachPacketBytes || rest[0] != 4 && rest[0] != 16 {
			return 0, n, at, false
		}
		size := int(rest[0])
		addr, _ := netip.AddrFromSlice(rest[1 : 1+size])
		at = netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(rest[1+size:]))
		return kind, n, at, at.Addr().IsValid() && at.Port() != 0
	}
	return 0, n, at, false
}
