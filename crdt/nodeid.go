package crdt

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/mr-tron/base58"
)

// NodeID is a node's identity: its Ed25519 public key. As text it is the libp2p peer ID of that key, so that what
// a user reads here is what any libp2p tool shows. The zero value names no node.
type NodeID [ed25519.PublicKeySize]byte

// peerIDPrefix is what a libp2p peer ID puts before an Ed25519 key: an identity multihash (0x00, length 0x24) of
// the protobuf PublicKey{Type: Ed25519, Data: key} (https://github.com/libp2p/specs/blob/master/peer-ids).
var peerIDPrefix = [...]byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}

// ErrNodeID says that a text is not the peer ID of an Ed25519 key.
var ErrNodeID = errors.New("not a node ID (want a libp2p peer ID such as 12D3KooW…)")

// NodeIDOf returns the identity that a private key proves.
func NodeIDOf(key ed25519.PrivateKey) NodeID {
	return NodeID(key.Public().(ed25519.PublicKey))
}

// ParseNodeID reads the text form. The error wraps ErrNodeID.
func ParseNodeID(s string) (NodeID, error) {
	b, err := base58.Decode(s)
	if err != nil || len(b) != len(peerIDPrefix)+ed25519.PublicKeySize {
		return NodeID{}, fmt.Errorf("%q: %w", s, ErrNodeID)
	}
	if [len(peerIDPrefix)]byte(b) != peerIDPrefix {
		return NodeID{}, fmt.Errorf("%q: %w", s, ErrNodeID)
	}
	return NodeID(b[len(peerIDPrefix):]), nil
}

// Bytes returns the binary libp2p peer ID (a copy).
func (n NodeID) Bytes() []byte { return append(peerIDPrefix[:], n[:]...) }

// String returns the libp2p peer ID, 52 characters; empty for the zero value.
func (n NodeID) String() string {
	if n.IsZero() {
		return ""
	}
	return base58.Encode(n.Bytes())
}

// Short returns the last 8 characters of the text form: enough to tell nodes apart in a table, not to name one.
func (n NodeID) Short() string {
	s := n.String()
	return s[max(0, len(s)-8):]
}

// IsZero reports whether n names no node.
func (n NodeID) IsZero() bool { return n == NodeID{} }

// PublicKey returns the key that verifies what the node signs. It shares no memory with n.
func (n NodeID) PublicKey() ed25519.PublicKey { return append(ed25519.PublicKey(nil), n[:]...) }

// MarshalText gives JSON and YAML the text form.
func (n NodeID) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText reads the text form; an empty text is the zero value.
func (n *NodeID) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*n = NodeID{}
		return nil
	}
	id, err := ParseNodeID(string(text))
	if err != nil {
		return err
	}
	*n = id
	return nil
}

// Compare orders IDs by their bytes.
func (n NodeID) Compare(m NodeID) int { return bytes.Compare(n[:], m[:]) }
