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

// wireRanged is the body where the range is not the default; versions before it know only the default and refuse it.
type wireRanged struct {
	_       struct{} `cbor:",toarray"`
	Name    string
	Founder []byte
	Millis  int64
	Nonce   []byte
	Range   []byte // the first two bytes of its addresses
}

type wireSigned struct {
	_    struct{} `cbor:",toarray"`
	Body []byte
	Sig  []byte
}

// NewFounding makes and signs a founding record. The name is checked by [CheckLabel]; rand gives the nonce.
func NewFounding(name string, key ed25519.PrivateKey, now time.Time, rand io.Reader) (Founding, error) {
	return NewFoundingIn(DefaultRange(), name, key, now, rand)
}

// NewFoundingIn is NewFounding with a range for the overlay's addresses, which is checked by [CheckRange] and fixed for good.
func NewFoundingIn(overlay netip.Prefix, name string, key ed25519.PrivateKey, now time.Time, rand io.Reader) (Founding, error) {
	if err := CheckLabel("cluster name", name); err != nil {
		return Founding{}, err
	}
	if err := CheckRange(overlay); err != nil {
		return Founding{}, err
	}
	var nonce [16]byte
	if _, err := io.ReadFull(rand, nonce[:]); err != nil {
		return Founding{}, fmt.Errorf("founding: draw a nonce: %w", err)
	}
	founder := NodeIDOf(key)
	w := wireFounding{Name: name, Founder: founder[:], Millis: now.UnixMilli(), Nonce: nonce[:]}
	body := marshal(w)
	if overlay != DefaultRange() {
		body = marshal(wireRanged{Name: w.Name, Founder: w.Founder, Millis: w.Millis, Nonce: w.Nonce, Range: overlay.Addr().AsSlice()[:2]})
	}
	sig := ed25519.Sign(key, append([]byte(foundingDomain), body...))
	return DecodeFounding(marshal(wireSigned{Body: body, Sig: sig}))
}

// DecodeFounding reads a founding record and verifies its signature. Errors wrap ErrMalformed or ErrSignature.
func DecodeFounding(raw []byte) (Founding, error) {
	var w wireSigned
	if len(raw) > maxFounding {
		return Founding{}, fmt.Errorf("founding record of %d bytes: %w", len(raw), ErrMalformed)
	}
	if err := unmarshal(raw, &w, "founding record"); err != nil {
		return Founding{}, err
	}
	f, overlay, err := decodeBody(w.Body)
	if err != nil {
		return Founding{}, err
	}
	out := Founding{Name: f.Name, Time: time.UnixMilli(f.Millis), Range: overlay, raw: raw}
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

// decodeBody reads a body of either form.
func decodeBody(body []byte) (f wireFounding, overlay netip.Prefix, err error) {
	if err = unmarshal(body, &f, "founding record"); err == nil {
		return f, DefaultRange(), nil
	}
	var r wireRanged
	if unmarshal(body, &r, "") != nil {
		return f, overlay, err
	}
	var a [4]byte
	if err := fixed(a[:2], r.Range, "founding record: overlay range"); err != nil {
		return f, overlay, err
	}
	overlay = netip.PrefixFrom(netip.AddrFrom4(a), 16)
	if err := CheckRange(overlay); err != nil {
		return f, overlay, fmt.Errorf("founding record: %w: %w", ErrMalformed, err)
	}
	return wireFounding{Name: r.Name, Founder: r.Founder, Millis: r.Millis, Nonce: r.Nonce}, overlay, nil
}

// Raw returns the record as it travels. The caller must not change it.
func (f Founding) Raw() []byte { return f.raw }

// ID is the cluster's ID.
func (f Founding) ID() ClusterID { return sha256.Sum256(f.raw) }
