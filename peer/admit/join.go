package admit

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"vcpeer/crdt"
	"vcpeer/peer/fabric"
)

const (
	retryFirst = 500 * time.Millisecond // pause after a round of all seeds in vain
	retryMost  = 10 * time.Second
	seedTime   = 40 * time.Second // for one seed, all in all

	unknownTries = 3
)

// Dialer is what a newcomer needs of the fabric; *fabric.Fabric is one.
type Dialer interface {
	Self() crdt.NodeID
	ProbeID(ctx context.Context, hostport string) (crdt.NodeID, error)
	ConnectStranger(ctx context.Context, id crdt.NodeID, hostport string) (release func(), err error)
	Open(ctx context.Context, to crdt.NodeID, proto string) (net.Conn, error)
	Disconnect(id crdt.NodeID)
}

// Welcome is what a newcomer has when it is let in. All of it but Peers and Site is verified.
type Welcome struct {
	Cluster crdt.ClusterID
	Proof   crdt.Proof  // that this node is a member; holds the founding record and the admissions
	Via     crdt.NodeID // the member that was asked, connected still
	Seed    string      // its address as the user gave it
	By      crdt.NodeID // who admitted this node; Via, or the token's issuer
	Peers   []Peer      // a few members
	Site    string      // the site to be in, by the facts or else the token; may be empty
}

// ErrNotInCluster says that a seed answered like a member of the token's cluster and could not prove to be one.
var ErrNotInCluster = errors.New("the seed cannot prove that it belongs to the token's cluster")

// Join asks the seeds ("host[:port]"), in turn and again and again, to let this node in, until one does, ctx ends, or
// all of them refuse for good: then the error is a *[Refusal], or wraps [fabric.ErrShutOut] or [ErrNotInCluster].
// progress is told of every step and wait in words for the user; it may be nil, and must not block.
//
// On success the connection stays. The caller has some seconds to take over the founding record, so that its fabric
// knows the seed for a member.
func Join(ctx context.Context, d Dialer, token Token, seeds []string, facts Facts, progress func(step string)) (*Welcome, error) {
	if len(seeds) == 0 {
		return nil, errors.New("admit: no seed to ask")
	}
	if !facts.check() || len(facts.Name) > maxFact || len(facts.Site) > maxFact {
		return nil, errors.New("admit: host or site name too long, or not printable")
	}
	j := &joiner{d: d, token: token, facts: facts, progress: progress}
	if progress == nil {
		j.progress = func(string) {}
	}
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = retryFirst, retryMost
	for try := 1; ; try++ {
		w, failed := j.round(ctx, seeds)
		if w != nil {
			return w, nil
		}
		if allFinal(failed, try) {
			return nil, failed[0]
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("admit: gave up joining: %w (%s)", context.Cause(ctx), summary(failed))
		}
		wait := pause.NextBackOff()
		j.progress(fmt.Sprintf("waiting for %s; next try in %s (%d so far)", summary(failed), wait.Round(100*time.Millisecond), try))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

type joiner struct {
	d        Dialer
	token    Token
	facts    Facts
	progress func(string)
}

// failure is why a seed did not let this node in.
type failure struct {
	seed string
	err  error
}

func (f *failure) Error() string { return "admit: " + f.seed + ": " + f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// round asks the seeds until one lets this node in; nil: none did, for those reasons.
func (j *joiner) round(ctx context.Context, seeds []string) (*Welcome, []*failure) {
	var failed []*failure
	for _, seed := range seeds {
		w, err := j.ask(ctx, seed)
		if err == nil {
			return w, nil
		}
		failed = append(failed, &failure{seed, err})
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// allFinal reports whether asking again is of no use with any of the seeds; a single one may lie. A token that is unknown
// at first may have been made a moment ago at another site, so that gets some tries.
func allFinal(failed []*failure, try int) bool {
	for _, f := range failed {
		if r, ok := refusalIn(f); ok && r.Code == UnknownToken && try < unknownTries || !isFinal(f) {
			return false
		}
	}
	return true
}

// isFinal reports whether asking the same seed again is of no use.
func isFinal(err error) bool {
	if r, ok := refusalIn(err); ok {
		return r.Final()
	}
	var pe *fabric.ProbeError
	return errors.Is(err, fabric.ErrShutOut) || errors.Is(err, ErrNotInCluster) || errors.As(err, &pe) && pe.Reason == fabric.BadAddress
}

// summary is what a progress line says of a round in vain: for each seed the reason, without technical details where the
// reason is understood.
func summary(failed []*failure) string {
	var parts []string
	for _, f := range failed {
		text := f.err.Error()
		if pe, ok := errors.AsType[*fabric.ProbeError](f.err); ok {
			text = string(pe.Reason)
		}
		parts = append(parts, f.seed+": "+text)
	}
	return strings.Join(parts, "; ")
}

// ask goes through the whole handshake with one seed.
func (j *joiner) ask(ctx context.Context, seed string) (*Welcome, error) {
	ctx, cancel := context.WithTimeout(ctx, seedTime)
	defer cancel()
	j.progress("asking " + seed + " who it is")
	id, err := j.d.ProbeID(ctx, seed)
	if err != nil {
		return nil, err
	}
	if id == j.d.Self() {
		return nil, errors.New("that is this node itself")
	}
	j.progress("connecting to " + seed + " (" + id.String() + ")")
	release, err := j.d.ConnectStranger(ctx, id, seed)
	if err != nil {
		return nil, err
	}
	defer release()
	j.progress("asking " + seed + " to let this node join")
	w, err := j.handshake(ctx, id)
	if err != nil {
		j.d.Disconnect(id) // frees the seed's place for strangers
		return nil, err
	}
	w.Seed = seed
	j.progress("joined cluster " + ClusterOf(w.Cluster).Short() + " through " + seed)
	return w, nil
}

// handshake is the newcomer's side of the protocol with the member id.
func (j *joiner) handshake(ctx context.Context, id crdt.NodeID) (*Welcome, error) {
	c, err := j.d.Open(ctx, id, fabric.JoinProtocol)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	key := j.token.Key()
	h := hello{Versions: []uint16{version}, Cluster: j.token.Cluster[:], Token: key.Public().(ed25519.PublicKey)}
	if err := send(c, h); err != nil {
		return nil, err
	}
	var a answer
	if err := receive(c, &a, maxSmallFrame); err != nil {
		return nil, err
	}
	if a.Refusal != nil {
		return nil, a.Refusal
	}
	if a.Challenge == nil || a.Challenge.Version != version {
		return nil, fmt.Errorf("%w: no challenge", ErrMalformed)
	}
	text := signed(j.token.Cluster, id, j.d.Self(), a.Challenge.Nonce, j.facts)
	if err := send(c, response{Facts: j.facts, Sig: ed25519.Sign(key, text)}); err != nil {
		return nil, err
	}
	return j.conclude(c, id)
}

// conclude reads the last answer, which may take the seed a while (it may have to ask the issuer), and verifies it.
func (j *joiner) conclude(c net.Conn, id crdt.NodeID) (*Welcome, error) {
	if err := c.SetDeadline(time.Now().Add(forwardTimeout + catchUpTimeout + frameTimeout)); err != nil {
		return nil, err
	}
	var a answer
	if err := readMessage(c, &a, maxAnswer); err != nil {
		return nil, err
	}
	switch {
	case a.Refusal != nil:
		return nil, a.Refusal
	case a.Welcome == nil:
		return nil, fmt.Errorf("%w: no welcome", ErrMalformed)
	}
	return believe(a.Welcome, j.token.Cluster, id, j.d.Self())
}

// believe verifies that the member belongs to the cluster that the token names, and that self now does.
func believe(w *welcome, want Cluster, member, self crdt.NodeID) (*Welcome, error) {
	f, err := crdt.DecodeFounding(w.Member.Founding)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotInCluster, err)
	}
	if ClusterOf(f.ID()) != want {
		return nil, fmt.Errorf("%w: its founding record is that of %s", ErrNotInCluster, ClusterOf(f.ID()).Short())
	}
	if err := crdt.VerifyAdmission(f.ID(), w.Member, member); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotInCluster, err)
	}
	if err := crdt.VerifyAdmission(f.ID(), w.Newcomer, self); err != nil {
		return nil, fmt.Errorf("%w: it says that this node is admitted, but: %w", ErrNotInCluster, err)
	}
	out := &Welcome{Cluster: f.ID(), Proof: w.Newcomer, Via: member, By: crdt.NodeID(w.By), Site: w.Site}
	for _, p := range w.Peers {
		out.Peers = append(out.Peers, Peer{ID: crdt.NodeID(p.ID), Addrs: p.Addrs})
	}
	return out, nil
}
