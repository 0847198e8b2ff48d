package crdt

import (
	"encoding/hex"
	"errors"
	"fmt"
)

// ErrID says that a text is not the hexadecimal form of an ID.
var ErrID = errors.New("not an ID")

// ClusterID names a cluster: the SHA-256 of its founding record. As text it is 64 hexadecimal digits.
type ClusterID [32]byte

// SiteID names a site: 128 random bits. As text it is 32 hexadecimal digits. The zero value names no site.
type SiteID [16]byte

// AccountID names an account: 128 random bits, 32 hexadecimal digits as text.
type AccountID [16]byte

// GroupID names a group: 128 random bits, 32 hexadecimal digits as text.
type GroupID [16]byte

// GuestID names a guest of the overlay: 128 random bits, 32 hexadecimal digits as text. The zero value names no guest.
type GuestID [16]byte

// TokenID names a join token: the Ed25519 public key of which the token holds the secret half. 64 hexadecimal digits.
type TokenID [32]byte

// ParseClusterID reads the text form. The error wraps ErrID.
func ParseClusterID(s string) (id ClusterID, err error) {
	err = parseHex(id[:], s, "cluster")
	return id, err
}

// ParseSiteID reads the text form. The error wraps ErrID.
func ParseSiteID(s string) (id SiteID, err error) {
	err = parseHex(id[:], s, "site")
	return id, err
}

// ParseAccountID reads the text form. The error wraps ErrID.
func ParseAccountID(s string) (id AccountID, err error) {
	err = parseHex(id[:], s, "account")
	return id, err
}

// ParseGroupID reads the text form. The error wraps ErrID.
func ParseGroupID(s string) (id GroupID, err error) {
	err = parseHex(id[:], s, "group")
	return id, err
}

// ParseGuestID reads the text form. The error wraps ErrID.
func ParseGuestID(s string) (id GuestID, err error) {
	err = parseHex(id[:], s, "guest")
	return id, err
}

// ParseTokenID reads the text form. The error wraps ErrID.
func ParseTokenID(s string) (id TokenID, err error) {
	err = parseHex(id[:], s, "token")
	return id, err
}

// IsZero reports whether c names no cluster.
func (c ClusterID) IsZero() bool { return c == ClusterID{} }

// IsZero reports whether s names no site.
func (s SiteID) IsZero() bool { return s == SiteID{} }

// IsZero reports whether g names no guest.
func (g GuestID) IsZero() bool { return g == GuestID{} }

// IsZero reports whether t names no token.
func (t TokenID) IsZero() bool { return t == TokenID{} }

func (c ClusterID) String() string { return hexText(c[:]) }
func (s SiteID) String() string    { return hexText(s[:]) }
func (a AccountID) String() string { return hexText(a[:]) }
func (g GroupID) String() string   { return hexText(g[:]) }
func (g GuestID) String() string   { return hexText(g[:]) }
func (t TokenID) String() string   { return hexText(t[:]) }

// MarshalText gives JSON and YAML the text form.
func (c ClusterID) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// MarshalText gives JSON and YAML the text form.
func (s SiteID) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalText gives JSON and YAML the text form.
func (a AccountID) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// MarshalText gives JSON and YAML the text form.
func (g GroupID) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// MarshalText gives JSON and YAML the text form.
func (g GuestID) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// MarshalText gives JSON and YAML the text form.
func (t TokenID) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads the text form; empty is the zero value.
func (c *ClusterID) UnmarshalText(b []byte) error { return unmarshalHex(c[:], b, "cluster") }

// UnmarshalText reads the text form; empty is the zero value.
func (s *SiteID) UnmarshalText(b []byte) error { return unmarshalHex(s[:], b, "site") }

// UnmarshalText reads the text form; empty is the zero value.
func (a *AccountID) UnmarshalText(b []byte) error { return unmarshalHex(a[:], b, "account") }

// UnmarshalText reads the text form; empty is the zero value.
func (g *GroupID) UnmarshalText(b []byte) error { return unmarshalHex(g[:], b, "group") }

// UnmarshalText reads the text form; empty is the zero value.
func (g *GuestID) UnmarshalText(b []byte) error { return unmarshalHex(g[:], b, "guest") }

// UnmarshalText reads the text form; empty is the zero value.
func (t *TokenID) UnmarshalText(b []byte) error { return unmarshalHex(t[:], b, "token") }

// hexText is the text form of an ID: empty for the zero value, so that "none" shows as nothing.
func hexText(id []byte) string {
	for _, b := range id {
		if b != 0 {
			return hex.EncodeToString(id)
		}
	}
	return ""
}

func unmarshalHex(dst, text []byte, what string) error {
	if len(text) == 0 {
		clear(dst)
		return nil
	}
	return parseHex(dst, string(text), what)
}

func parseHex(dst []byte, s, what string) error {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(dst) {
		return fmt.Errorf("%q: %w (want the %d hexadecimal digits of a %s ID)", s, ErrID, 2*len(dst), what)
	}
	copy(dst, b)
	return nil
}
