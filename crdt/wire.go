package crdt

import (
	"errors"
	"fmt"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// ErrMalformed says that bytes are not what they should be: a batch, a record, heads.
var ErrMalformed = errors.New("malformed")

// encMode encodes by RFC 8949 section 4.2.1 (core deterministic), so equal values give equal bytes.
var encMode = sync.OnceValue(func() cbor.EncMode {
	m, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(fmt.Sprintf("crdt: CBOR encoder options: %v", err)) // constant options: cannot fail
	}
	return m
})

// decMode refuses what no encoder of ours makes: duplicate keys, indefinite lengths, tags, deep nesting, long arrays.
var decMode = sync.OnceValue(func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		MaxNestedLevels:  8,
		MaxArrayElements: 1 << 17,
		MaxMapPairs:      1 << 10,
	}.DecMode()
	if err != nil {
		panic(fmt.Sprintf("crdt: CBOR decoder options: %v", err)) // constant options: cannot fail
	}
	return m
})

// marshal encodes a value of our own types, which cannot fail.
func marshal(v any) []byte {
	b, err := encMode().Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("crdt: encode %T: %v", v, err))
	}
	return b
}

// unmarshal decodes what may come from anybody. The error wraps ErrMalformed and names what.
func unmarshal(b []byte, v any, what string) error {
	if err := decMode().Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w: %v", what, ErrMalformed, err)
	}
	return nil
}

// fixed copies src into dst if it has exactly its length.
func fixed(dst, src []byte, what string) error {
	if len(src) != len(dst) {
		return fmt.Errorf("%s of %d bytes, want %d: %w", what, len(src), len(dst), ErrMalformed)
	}
	copy(dst, src)
	return nil
}
