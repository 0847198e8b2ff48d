package crdt

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

// Limits of an ephemeral entry.
const (
	MaxEphemeralValue = 4 << 10
	MaxEphemeralTTL   = time.Hour
	MaxEphemeralBytes = MaxEphemeralValue + 4*MaxName + 256

	ephemeralDomain = "vcpeer ephemeral 1\x00"
)

// Ephemeral is a value that only its author writes, of which the newest version counts, and which dies with its time to
// live: a link's delay, a site's free slots. It is signed, so anybody may pass it on.
type Ephemeral struct {
	Author  NodeID
	Kind    string
	Key     string
	Value   []byte
	Version uint64 // grows with every writing, also over restarts of the author
	TTL     time.Duration

	raw []byte
}

type wireEphemeral struct {
	_       struct{} `cbor:",toarray"`
	Cluster []byte
	Author  []byte
	Kind    string
	Key     string
	Value   []byte
	Version uint64
	Millis  uint64
}

// SignEphemeral encodes and signs e for a cluster. Errors wrap ErrMalformed.
func SignEphemeral(cluster ClusterID, key ed25519.PrivateKey, e Ephemeral) (Ephemeral, error) {
	e.Author = NodeIDOf(key)
	body := marshal(wireEphemeral{
		Cluster: cluster[:], Author: e.Author[:], Kind: e.Kind, Key: e.Key, Value: e.Value, Version: e.Version,
		Millis: uint64(max(0, e.TTL.Milliseconds())),
	})
	sig := ed25519.Sign(key, append([]byte(ephemeralDomain), body...))
	return DecodeEphemeral(cluster, marshal(wireSigned{Body: body, Sig: sig}))
}

// DecodeEphemeral reads an entry of a cluster and checks everything but the signature (see [Ephemeral.Verify]). Errors wrap
// ErrMalformed or ErrCluster.
func DecodeEphemeral(cluster ClusterID, raw []byte) (Ephemeral, error) {
	var w wireSigned
	var b wireEphemeral
	if len(raw) > MaxEphemeralBytes {
		return Ephemeral{}, fmt.Errorf("ephemeral entry of %d bytes, at most %d: %w", len(raw), MaxEphemeralBytes, ErrMalformed)
	}
	if err := unmarshal(raw, &w, "ephemeral entry"); err != nil {
		return Ephemeral{}, err
	}
	if err := unmarshal(w.Body, &b, "ephemeral entry"); err != nil {
		return Ephemeral{}, err
	}
	e := Ephemeral{Kind: b.Kind, Key: b.Key, Value: b.Value, Version: b.Version, raw: raw}
	switch {
	case string(b.Cluster) != string(cluster[:]):
		return Ephemeral{}, fmt.Errorf("ephemeral entry: %w", ErrCluster)
	case e.Kind == "" || len(e.Kind) > MaxName || len(e.Key) > 2*MaxName || len(e.Value) > MaxEphemeralValue:
		return Ephemeral{}, fmt.Errorf("ephemeral entry: kind %d, key %d, value %d bytes: %w", len(e.Kind), len(e.Key), len(e.Value), ErrMalformed)
	case b.Millis == 0 || b.Millis > uint64(MaxEphemeralTTL.Milliseconds()):
		return Ephemeral{}, fmt.Errorf("ephemeral entry: time to live of %d ms: %w", b.Millis, ErrMalformed)
	}
	e.TTL = time.Duration(b.Millis) * time.Millisecond
	return e, fixed(e.Author[:], b.Author, "ephemeral entry: author")
}

// EphemeralKind returns the kind of an encoded entry without checking anything else; empty if the bytes are none.
func EphemeralKind(raw []byte) string {
	var w wireSigned
	var b wireEphemeral
	if len(raw) > MaxEphemeralBytes || unmarshal(raw, &w, "ephemeral entry") != nil || unmarshal(w.Body, &b, "ephemeral entry") != nil {
		return ""
	}
	return b.Kind
}

// Verify checks the author's signature. The error wraps ErrSignature.
func (e Ephemeral) Verify() error {
	var w wireSigned
	if err := unmarshal(e.raw, &w, "ephemeral entry"); err != nil {
		return err
	}
	if !ed25519.Verify(e.Author[:], append([]byte(ephemeralDomain), w.Body...), w.Sig) {
		return fmt.Errorf("ephemeral entry of %s: %w", e.Author.Short(), ErrSignature)
	}
	return nil
}

// Raw returns the entry as it travels. The caller must not change it.
func (e Ephemeral) Raw() []byte { return e.raw }

// Slot names what the entry is a version of, in 8 bytes: author, kind and key.
func (e Ephemeral) Slot() uint64 {
	sum := sha256.Sum256([]byte(string(e.Author[:]) + e.Kind + "\x00" + e.Key))
	return binary.BigEndian.Uint64(sum[:])
}
