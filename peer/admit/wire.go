package admit

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"vcpeer/crdt"
)

// version is the newest form of the handshake that this program speaks; it is also the only one.
const version = 1

const (
	nonceBytes    = 32
	maxSmallFrame = 4 << 10   // of everything but the last answer
	maxAnswer     = 512 << 10 // of the last answer: it holds two proofs
	maxFact       = 255       // bytes of a name
	maxPeers      = 16        // in a welcome
	maxAddrs      = 16        // of each
	maxAddr       = 256       // bytes
	signDomain    = "vcpeer join 1\x00"
)

// ErrMalformed says that a message of the handshake is not what it should be.
var ErrMalformed = errors.New("malformed message")

// Facts is what a newcomer says of itself. Nothing of it is checked beyond its form.
type Facts struct {
	Name string `cbor:"1,keyasint,omitempty"` // host name
	Site string `cbor:"2,keyasint,omitempty"` // site asked for; empty: the token's
}

// Peer is a member and where to reach it.
type Peer struct {
	ID    crdt.NodeID
	Addrs []string // multiaddrs
}

type hello struct {
	Versions []uint16 `cbor:"1,keyasint"`
	Cluster  []byte   `cbor:"2,keyasint"`
	Token    []byte   `cbor:"3,keyasint"`
}

type challenge struct {
	Version uint16 `cbor:"1,keyasint"`
	Nonce   []byte `cbor:"2,keyasint"`
}

type response struct {
	Facts Facts  `cbor:"1,keyasint"`
	Sig   []byte `cbor:"2,keyasint"`
}

type welcome struct {
	Member   crdt.Proof `cbor:"1,keyasint"` // that the answering member is one
	Newcomer crdt.Proof `cbor:"2,keyasint"` // that the newcomer is one now
	By       []byte     `cbor:"3,keyasint"` // who admitted it
	Peers    []wirePeer `cbor:"4,keyasint"`
	Site     string     `cbor:"5,keyasint,omitempty"`
}

type wirePeer struct {
	ID    []byte   `cbor:"1,keyasint"`
	Addrs []string `cbor:"2,keyasint"`
}

// answer is what a member says: exactly one of the three.
type answer struct {
	Challenge *challenge `cbor:"1,keyasint,omitempty"`
	Refusal   *Refusal   `cbor:"2,keyasint,omitempty"`
	Welcome   *welcome   `cbor:"3,keyasint,omitempty"`
}

// forward is a newcomer's response, passed on to the token's issuer.
type forward struct {
	Newcomer []byte `cbor:"1,keyasint"`
	Token    []byte `cbor:"2,keyasint"`
	Nonce    []byte `cbor:"3,keyasint"`
	Facts    Facts  `cbor:"4,keyasint"`
	Sig      []byte `cbor:"5,keyasint"`
	Remote   string `cbor:"6,keyasint,omitempty"` // where it came from, for the log
}

// forwarded is the issuer's answer: the newcomer's proof, or a refusal.
type forwarded struct {
	Refusal  *Refusal    `cbor:"1,keyasint,omitempty"`
	Newcomer *crdt.Proof `cbor:"2,keyasint,omitempty"`
}

// signed is the text that a response's signature is over.
func signed(cluster Cluster, member, newcomer crdt.NodeID, nonce []byte, facts Facts) []byte {
	b := append([]byte(signDomain), cluster[:]...)
	b = append(append(append(b, member[:]...), newcomer[:]...), nonce...)
	return append(b, encode(facts)...)
}

func verify(token crdt.TokenID, sig []byte, cluster Cluster, member, newcomer crdt.NodeID, nonce []byte, facts Facts) bool {
	return len(sig) == ed25519.SignatureSize && ed25519.Verify(token[:], signed(cluster, member, newcomer, nonce, facts), sig)
}

var (
	encMode = must(cbor.CoreDetEncOptions().EncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxNestedLevels: 8, MaxArrayElements: 4096, MaxMapPairs: 64,
	}.DecMode())
)

// must is for options that are constants: they cannot fail.
func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("admit: CBOR options: %v", err))
	}
	return v
}

// encode encodes a value of our own types, which cannot fail.
func encode(v any) []byte { return must(encMode.Marshal(v)) }

// checker is a message that can tell whether its parts have the lengths they must have.
type checker interface{ check() bool }

// decode reads a message that may come from anybody. Errors wrap ErrMalformed.
func decode(b []byte, m checker) error {
	if err := decMode.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	if !m.check() {
		return fmt.Errorf("%w: %T has parts of a wrong length or kind", ErrMalformed, m)
	}
	return nil
}

func (m *hello) check() bool {
	return len(m.Versions) <= 64 && len(m.Cluster) == prefixBytes && len(m.Token) == ed25519.PublicKeySize
}

func (m *response) check() bool {
	return m.Facts.check() && len(m.Sig) == ed25519.SignatureSize
}

func (f Facts) check() bool { return plain(f.Name) && plain(f.Site) }

func (m *forward) check() bool {
	return len(m.Newcomer) == len(crdt.NodeID{}) && len(m.Token) == len(crdt.TokenID{}) && len(m.Nonce) == nonceBytes &&
		m.Facts.check() && len(m.Sig) == ed25519.SignatureSize && plain(m.Remote)
}

func (m *forwarded) check() bool {
	return (m.Refusal == nil) != (m.Newcomer == nil) && (m.Refusal == nil || m.Refusal.check())
}

func (m *answer) check() bool {
	switch {
	case m.Challenge != nil && m.Refusal == nil && m.Welcome == nil:
		return len(m.Challenge.Nonce) == nonceBytes
	case m.Refusal != nil && m.Challenge == nil && m.Welcome == nil:
		return m.Refusal.check()
	case m.Welcome != nil && m.Challenge == nil && m.Refusal == nil:
		return m.Welcome.check()
	}
	return false
}

func (w *welcome) check() bool {
	if len(w.By) != len(crdt.NodeID{}) || len(w.Peers) > maxPeers || !plain(w.Site) {
		return false
	}
	for _, p := range w.Peers {
		if len(p.ID) != len(crdt.NodeID{}) || len(p.Addrs) > maxAddrs {
			return false
		}
		for _, a := range p.Addrs {
			if len(a) > maxAddr || !plain(a) {
				return false
			}
		}
	}
	return true
}

// plain reports whether s may be shown to a user: short, and without what moves a terminal's cursor.
func plain(s string) bool {
	if len(s) > maxFact+1 || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// writeMessage sends a frame: its length as uint32, big endian, then the CBOR.
func writeMessage(w io.Writer, m any) error {
	body := encode(m)
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

// readMessage reads a frame of at most limit bytes into m.
func readMessage(r io.Reader, m checker, limit int) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > uint32(limit) {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, n, limit)
	}
	body, err := io.ReadAll(io.LimitReader(r, int64(n))) // grows with what comes, not with what was announced
	if err != nil {
		return err
	}
	if len(body) < int(n) {
		return io.ErrUnexpectedEOF
	}
	return decode(body, m)
}
