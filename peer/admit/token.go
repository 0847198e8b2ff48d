package admit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"vcpeer/crdt"
)

const (
	tokenPrefix   = "vc1-" // names the form; another form gets another number
	prefixBytes   = 16
	secretBytes   = 16
	checksumBytes = 4
	tokenBytes    = prefixBytes + secretBytes + checksumBytes

	checksumDomain = "vcpeer token checksum 1\x00"
	keyDomain      = "vcpeer token key 1\x00"
)

// Errors of ParseToken.
var (
	ErrNotToken = errors.New("not a join token")
	ErrMistyped = errors.New("mistyped join token")
)

// tokenText has no padding, and no 0, 1, 8 or 9 to be taken for letters.
var tokenText = base32.StdEncoding.WithPadding(base32.NoPadding)

// Cluster names a cluster in a token: the first 16 bytes of its ID, which are as hard to forge as the whole.
type Cluster [prefixBytes]byte

// ClusterOf is the name that tokens of a cluster hold.
func ClusterOf(id crdt.ClusterID) Cluster { return Cluster(id[:prefixBytes]) }

// Short is the form for messages: 8 hexadecimal digits, with which crdt.ClusterID's text form begins.
func (c Cluster) Short() string { return hex.EncodeToString(c[:4]) }

// Token is a join token. It is a secret: String does not show it, Text does.
type Token struct {
	Cluster Cluster
	secret  [secretBytes]byte
}

// NewToken draws a token for a cluster from rand.
func NewToken(cluster crdt.ClusterID, rand io.Reader) (Token, error) {
	t := Token{Cluster: ClusterOf(cluster)}
	if _, err := io.ReadFull(rand, t.secret[:]); err != nil {
		return Token{}, fmt.Errorf("admit: draw a token: %w", err)
	}
	return t, nil
}

// ParseToken reads the text form, in small or capital letters, with white space anywhere. Errors wrap ErrNotToken, or
// ErrMistyped where it looks like a token that is not as it was printed; they do not quote the text.
func ParseToken(s string) (Token, error) {
	s = strings.ToLower(strings.Join(strings.Fields(s), ""))
	body, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok {
		return Token{}, fmt.Errorf("%w: want %s…, as vcpeer token prints it", ErrNotToken, tokenPrefix)
	}
	if want := tokenText.EncodedLen(tokenBytes); len(body) != want {
		return Token{}, fmt.Errorf("%w: %d characters after %s, want %d", ErrMistyped, len(body), tokenPrefix, want)
	}
	raw, err := tokenText.DecodeString(strings.ToUpper(body))
	if err != nil || tokenText.EncodeToString(raw) != strings.ToUpper(body) {
		return Token{}, fmt.Errorf("%w: has a character that no token has", ErrMistyped)
	}
	t := Token{Cluster: Cluster(raw[:prefixBytes]), secret: [secretBytes]byte(raw[prefixBytes:])}
	if !bytes.Equal(raw[prefixBytes+secretBytes:], t.checksum()) {
		return Token{}, fmt.Errorf("%w: some character is wrong (the checksum does not fit)", ErrMistyped)
	}
	return t, nil
}

func (t Token) checksum() []byte {
	sum := sha256.Sum256(t.material(checksumDomain))
	return sum[:checksumBytes]
}

func (t Token) material(domain string) []byte {
	return append(append([]byte(domain), t.Cluster[:]...), t.secret[:]...)
}

// Text is the token as the user types it: "vc1-" and 58 letters and digits. Whoever has it can join.
func (t Token) Text() string {
	raw := append(append(append([]byte{}, t.Cluster[:]...), t.secret[:]...), t.checksum()...)
	return tokenPrefix + strings.ToLower(tokenText.EncodeToString(raw))
}

// String tells which token it is without showing its secret.
func (t Token) String() string { return "token " + t.ID().String()[:8] }

// Key is the key that the secret stands for.
func (t Token) Key() ed25519.PrivateKey {
	seed := sha256.Sum256(t.material(keyDomain))
	return ed25519.NewKeyFromSeed(seed[:])
}

// Public is the half of Key that the records hold (crdt.Tx.AddToken).
func (t Token) Public() ed25519.PublicKey { return t.Key().Public().(ed25519.PublicKey) }

// ID is the token's name in the records.
func (t Token) ID() crdt.TokenID { return crdt.TokenID(t.Public()) }
