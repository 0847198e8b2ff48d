package crdt

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io"
	"net/netip"
	"time"
)

const foundingDomain = "vcpeer founding 1\x00"

// maxFounding bounds an encoded founding record.
const maxFounding = 1 << 10

// Founding is the record a cluster begins with. Its hash is the cluster's ID, so whoever knows the ID can check it, and
// by way of it every later admission (see [VerifyAdmission]).
type Founding struct {
	Name    string       // of the cluster; the view may show a later one
	Founder NodeID       // the first member
	Time    time.Time    // when, by the founder's clock; milliseconds
	Nonce   [16]byte     // makes two foundings differ
	Range   netip.Prefix // of the overlay's addresses

	raw []byte
}

type wireFounding struct {
	_       struct{} `cbor:",toarray"`
	Name    string
	Founder []byte
	Millis  int64
	Nonce   []byte
}

type wireSigned struct {
	_    struct{} `cbor:",toarray"`
	Body []byte
	Sig  []byte
}

// NewFounding makes and signs a founding record. The name is checked by [CheckLabel]; rand gives the nonce.
func NewFounding(name string, key ed25519.PrivateKey, now time.Time, rand io.Reader) (Founding, error) {
	if err := CheckLabel("cluster name", name); err != nil {
		return Founding{}, err
	}
	var nonce [16]byte
	if _, err := io.ReadFull(rand, nonce[:]); err != nil {
		return Founding{}, fmt.Errorf("founding: draw a nonce: %w", err)
	}
	founder := NodeIDOf(key)
	body := marshal(wireFounding{Name: name, Founder: founder[:], Millis: now.UnixMilli(), Nonce: nonce[:]})
	sig := ed25519.Sign(key, append([]byte(foundingDomain), body...))
	return DecodeFounding(marshal(wireSigned{Body: body, Sig: sig}))
}

// DecodeFounding reads a founding record and verifies its signature. Errors wrap ErrMalformed or ErrSignature.
func DecodeFounding(raw []byte) (Founding, error) {
	var w wireSigned
	var f wireFounding
	if len(raw) > maxFounding {
		return Founding{}, fmt.Errorf("founding record of %d bytes: %w", len(raw), ErrMalformed)
	}
	if err := unmarshal(raw, &w, "founding record"); err != nil {
		return Founding{}, err
	}
	if err := unmarshal(w.Body, &f, "founding record"); err != nil {
		return Founding{}, err
	}
	out := Founding{Name: f.Name, Time: time.UnixMilli(f.Millis), Range: DefaultRange(), raw: raw}
	if err := CheckLabel("cluster name", f.Name); err != nil {
		return Founding{}, fmt.Errorf("founding record: %w: %w", ErrMalformed, err)
	}
	if err := fixed(out.Founder[:], f.Founder, "founding record: founder"); err != nil {
		return Founding{}, err
	}
	if err := fixed(out.Nonce[:], f.Nonce, "founding record: nonce"); err != nil {
		return Founding{}, err
	}
	if !ed25519.Verify(out.Founder[:], append([]byte(foundingDomain), w.Body...), w.Sig) {
		return Founding{}, fmt.Errorf("founding record: %w", ErrSignature)
	}
	return out, nil
}

// Raw returns the record as it travels. The caller must not change it.
func (f Founding) Raw() []byte { return f.raw }

// ID is the cluster's ID.
func (f Founding) ID() ClusterID { return sha256.Sum256(f.raw) }
