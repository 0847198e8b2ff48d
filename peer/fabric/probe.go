package fabric

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	mss "github.com/multiformats/go-multistream"
	"github.com/quic-go/quic-go"

	"vcpeer/crdt"
)

const (
	probeTimeout = 8 * time.Second        // for one transport and address
	probeStagger = 250 * time.Millisecond // between the starts of two attempts, as in RFC 8305
)

// ProbeReason is why a seed could not be asked who it is.
type ProbeReason string

// The reasons, in words for the user.
const (
	BadAddress ProbeReason = "not an address"
	NoSuchName ProbeReason = "the name cannot be resolved"
	Refused    ProbeReason = "nothing listens on that port (TCP refused, no answer on UDP)"
	NoAnswer   ProbeReason = "nothing answers there on UDP or TCP (down, or a firewall is in between)"
	NotANode   ProbeReason = "what answers there is not a vcpeer node"
)

// ProbeError is the error of [Fabric.ProbeID].
type ProbeError struct {
	Addr   string
	Reason ProbeReason
	Err    error // the cause in detail
}

func (e *ProbeError) Error() string { return fmt.Sprintf("%s: %s: %v", e.Addr, e.Reason, e.Err) }
func (e *ProbeError) Unwrap() error { return e.Err }

// ProbeID learns by a handshake which node listens at "host[:port]": by QUIC, and a moment later by TCP, whichever
// answers first. The answer is proven (the node has that key) but says nothing about the cluster it is in. The handshake
// is made with a key for the occasion and closed at once. Errors are a *[ProbeError], or the context's.
func (f *Fabric) ProbeID(ctx context.Context, hostport string) (crdt.NodeID, error) {
	ips, port, err := f.lookUp(ctx, hostport)
	if err != nil {
		return crdt.NodeID{}, err
	}
	ident, err := throwAway()
	if err != nil {
		return crdt.NodeID{}, err
	}
	id, err := f.race(ctx, ident, ips, port)
	switch {
	case err == nil:
		return id, nil
	case ctx.Err() != nil:
		return crdt.NodeID{}, context.Cause(ctx)
	}
	return crdt.NodeID{}, &ProbeError{Addr: hostport, Reason: reasonOf(err), Err: err}
}

// probe asks one address over one transport.
type probe func(ctx context.Context, ident *libp2ptls.Identity, at netip.AddrPort) (crdt.NodeID, error)

// race starts one attempt after the other, the next as soon as the one before has failed or kept us waiting, and takes
// the first answer. Its error joins those of all attempts.
func (f *Fabric) race(ctx context.Context, ident *libp2ptls.Identity, ips []netip.Addr, port int) (crdt.NodeID, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout+probeStagger*time.Duration(2*len(ips)))
	defer cancel()
	type result struct {
		id  crdt.NodeID
		err error
	}
	var attempts []func() result
	for _, by := range f.probes() {
		for _, ip := range ips {
			attempts = append(attempts, func() result {
				ctx, cancel := context.WithTimeout(ctx, probeTimeout)
				defer cancel()
				id, err := by(ctx, ident, netip.AddrPortFrom(ip, uint16(port)))
				return result{id, err}
			})
		}
	}
	results := make(chan result, len(attempts)) // so that the losers of the race can end
	next := time.NewTimer(0)
	defer next.Stop()
	var errs []error
	for started := 0; len(errs) < len(attempts); {
		select {
		case <-next.C:
			if started < len(attempts) {
				attempt := attempts[started]
				go func() { results <- attempt() }()
				started++
				next.Reset(probeStagger)
			}
		case r := <-results:
			if r.err == nil {
				return r.id, nil
			}
			errs = append(errs, r.err)
			if started < len(attempts) {
				next.Reset(0)
			}
			if f.hopeless(errs) && started == len(attempts) {
				// TCP says that nothing listens; UDP, which cannot say so, gets only a moment more.
				time.AfterFunc(4*probeStagger, cancel)
			}
		}
	}
	return crdt.NodeID{}, errors.Join(errs...)
}

// hopeless reports whether the machine answered, and answered that it has nothing on the TCP port.
func (f *Fabric) hopeless(errs []error) bool {
	for _, err := range errs {
		if errors.Is(err, syscall.ECONNREFUSED) {
			return true
		}
	}
	return false
}

func (f *Fabric) probes() []probe {
	if f.cfg.NoQUIC {
		return []probe{probeTCP}
	}
	return []probe{probeQUIC, probeTCP}
}

// reasonOf tells from the errors of all attempts what is the matter: what is known surely goes before silence.
func reasonOf(err error) ProbeReason {
	var network net.Error
	switch {
	case errors.Is(err, errNotANode):
		return NotANode
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.As(err, &network), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return NoAnswer
	}
	return NotANode
}

var errNotANode = errors.New("no libp2p handshake")

func probeQUIC(ctx context.Context, ident *libp2ptls.Identity, at netip.AddrPort) (crdt.NodeID, error) {
	conf, keys := ident.ConfigForPeer("")
	c, err := quic.DialAddr(ctx, at.String(), conf, &quic.Config{Versions: []quic.Version{quic.Version1}, MaxIncomingStreams: -1, MaxIncomingUniStreams: -1})
	if c != nil {
		defer c.CloseWithError(0, "")
	}
	if err == nil { // only a whole handshake proves the key
		if id, ok := keyFrom(keys); ok {
			return id, nil
		}
	}
	if err == nil || isTLSFailure(err) {
		err = errors.Join(errNotANode, err)
	}
	return crdt.NodeID{}, fmt.Errorf("quic %s: %w", at, err)
}

func isTLSFailure(err error) bool {
	var te *quic.TransportError
	var ve *quic.VersionNegotiationError
	return errors.As(err, &te) || errors.As(err, &ve)
}

func probeTCP(ctx context.Context, ident *libp2ptls.Identity, at netip.AddrPort) (crdt.NodeID, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", at.String())
	if err != nil {
		return crdt.NodeID{}, err // says "dial tcp ADDRESS" itself
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	conf, keys := ident.ConfigForPeer("")
	if err = mss.SelectProtoOrFail(libp2ptls.ID, c); err == nil {
		err = tls.Client(c, conf).HandshakeContext(ctx)
	}
	if err == nil {
		if id, ok := keyFrom(keys); ok {
			return id, nil
		}
	}
	if ctx.Err() != nil {
		return crdt.NodeID{}, fmt.Errorf("tcp %s: connected, but then silent: %w", at, errors.Join(errNotANode, ctx.Err()))
	}
	return crdt.NodeID{}, fmt.Errorf("tcp %s: %w", at, errors.Join(errNotANode, err))
}

// keyFrom takes the peer's key out of a finished handshake's channel; false for one that no node has.
func keyFrom(keys <-chan crypto.PubKey) (crdt.NodeID, bool) {
	select {
	case k := <-keys:
		if k == nil {
			return crdt.NodeID{}, false
		}
		p, err := peer.IDFromPublicKey(k)
		if err != nil {
			return crdt.NodeID{}, false
		}
		return nodeIDOf(p)
	default:
		return crdt.NodeID{}, false
	}
}

// throwAway makes a TLS identity that nobody knows.
func throwAway() (*libp2ptls.Identity, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	k, _, err := libp2pKey(key)
	if err != nil {
		return nil, err
	}
	return libp2ptls.NewIdentity(k)
}
