package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"vcpeer/crdt"
)

// ExportLabel is what the secret of a [Session] is derived for (RFC 8446 section 7.5).
const ExportLabel = "EXPERIMENTAL vcpeer sealed link 1"

// SecretBytes is the length of such a secret.
const SecretBytes = 32

// chain gives the keys of one direction of a session, one for each epoch. A key says nothing of those before it: what a
// chain was is gone when it has moved on.
type chain struct {
	epoch  uint32
	secret []byte
}

// newChain is for what from sends to to.
func newChain(secret []byte, from, to crdt.NodeID) chain {
	return chain{secret: expand(secret, "direction "+string(from[:])+string(to[:]), sha256.Size)}
}

// epochKey is the key of one epoch. Not for concurrent use.
type epochKey struct {
	epoch uint32
	id    uint32 // as it stands in headers
	aead  cipher.AEAD
}

// next returns the key of the epoch and moves on.
func (c *chain) next() epochKey {
	k := epochKey{epoch: c.epoch, id: binary.BigEndian.Uint32(expand(c.secret, "id", 4))}
	block, err := aes.NewCipher(expand(c.secret, "key", 32))
	if err == nil {
		k.aead, err = cipher.NewGCM(block)
	}
	if err != nil {
		panic(fmt.Sprintf("sealed: AES-256-GCM: %v", err)) // the lengths are ours
	}
	old := c.secret
	c.secret = expand(old, "next", sha256.Size)
	clear(old)
	c.epoch++
	return k
}

func expand(secret []byte, what string, n int) []byte {
	out, err := hkdf.Expand(sha256.New, secret, "vcpeer sealed 1 "+what, n)
	if err != nil {
		panic(fmt.Sprintf("sealed: HKDF: %v", err)) // the lengths are ours
	}
	return out
}
