package blob

import (
	"encoding/hex"
	"errors"
	"fmt"
)

// Empty is the hash of no content. It is always present and takes no room.
const Empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

const hashBytes = 32

// Errors that callers decide on; all are wrapped with the hash or path concerned.
var (
	ErrNotFound = errors.New("blob not found")
	ErrHash     = errors.New("not a blob hash (want 64 lower-case hex digits)")
	ErrCorrupt  = errors.New("content does not match its hash")
	ErrTooLarge = errors.New("blob is larger than the limit")
	ErrQuota    = errors.New("blob store is over its quota")
	ErrNoSpace  = errors.New("not enough free disk space")
)

// NoSpaceError says how much room is left and how much must stay free. errors.Is(err, ErrNoSpace) holds.
type NoSpaceError struct {
	Dir         string
	FreeBytes   int64
	NeededBytes int64 // FreeBytes would have to be at least this
}

// Error implements error.
func (e *NoSpaceError) Error() string {
	return fmt.Sprintf("%s: %v: %d MiB free, %d MiB needed", e.Dir, ErrNoSpace, e.FreeBytes>>20, e.NeededBytes>>20)
}

// Unwrap makes errors.Is(err, ErrNoSpace) true.
func (e *NoSpaceError) Unwrap() error { return ErrNoSpace }

// ValidHash reports whether h is the text form of a SHA-256: 64 lower-case hex digits. Such a text is safe as a file name.
func ValidHash(h string) bool {
	if len(h) != 2*hashBytes {
		return false
	}
	for i := range len(h) {
		if c := h[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func checkHash(h string) error {
	if !ValidHash(h) {
		return fmt.Errorf("blob: %.80q: %w", h, ErrHash)
	}
	return nil
}

func hashToBytes(h string) []byte {
	b, err := hex.DecodeString(h)
	if err != nil || len(b) != hashBytes {
		panic(fmt.Sprintf("blob: hash %q was not checked", h))
	}
	return b
}
