package admit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"vcpeer/crdt"
	"vcpeer/peer/fabric"
)

// ForwardProtocol takes a newcomer's response to the issuer of its token; members only.
const ForwardProtocol = "/vcpeer/admit/1"

const (
	frameTimeout   = 10 * time.Second // for one message of the peer
	forwardTimeout = 10 * time.Second // for the issuer to answer
	catchUpTimeout = 3 * time.Second  // for an admission by the issuer to reach this node's records
	catchUpPoll    = 50 * time.Millisecond
)

// Host is what a member needs of the fabric; *fabric.Fabric is one.
type Host interface {
	Self() crdt.NodeID
	Handle(proto string, h fabric.Handler)
	HandleStrangers(proto string, h fabric.Handler)
	Open(ctx context.Context, to crdt.NodeID, proto string) (net.Conn, error)
}

// Config is what a Server needs. Fabric and Records are required.
type Config struct {
	Fabric  Host
	Records Records
	Peers   func() []Peer    // members to name in a welcome, best first; the first 16 are; may be nil
	Events  func(Event)      // told of every answer given; may be nil; must not block
	Log     *slog.Logger     // nil: nothing is logged
	Now     func() time.Time // nil: time.Now
}

// Event is an answer that a member gave.
type Event struct {
	Time   time.Time
	Node   crdt.NodeID // who asked
	Remote string      // from where
	Facts  Facts       // as the newcomer says; empty when it did not get that far
	Token  crdt.TokenID
	Err    error // nil: it was let in; else a *Refusal, or what broke the handshake off
}

// Server is the member's side. It has no state of its own but rates, and needs no end.
type Server struct {
	cfg   Config
	rates *rates
}

// Serve begins to admit newcomers, and to redeem tokens for other members.
func Serve(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Server{cfg: cfg, rates: newRates()}
	cfg.Fabric.HandleStrangers(fabric.JoinProtocol, s.serveJoin)
	cfg.Fabric.Handle(ForwardProtocol, s.serveForward)
	return s
}

// attempt is one newcomer's way through the handshake.
type attempt struct {
	newcomer crdt.NodeID
	member   crdt.NodeID // the one that it talks to, to which it signed
	remote   string
	token    crdt.TokenID
	nonce    []byte
	facts    Facts
	sig      []byte
}

// serveJoin answers one stranger.
func (s *Server) serveJoin(ctx context.Context, from crdt.NodeID, c net.Conn) {
	defer c.Close()
	a := &attempt{newcomer: from, member: s.cfg.Fabric.Self(), remote: c.RemoteAddr().String()}
	w, err := s.handshake(ctx, a, c)
	s.report(a, err)
	out := answer{Welcome: w}
	if err != nil {
		r, ok := refusalIn(err)
		if !ok {
			r = refuse(Internal)
			if errors.Is(err, ErrMalformed) {
				r = refuse(Garbled)
			}
		}
		out = answer{Refusal: r}
	}
	if err := send(c, out); err != nil {
		s.cfg.Log.Debug("answer to a newcomer not delivered", "node", from, "err", err)
	}
}

// handshake leads one newcomer through to its welcome. An error that is a *Refusal is meant for the newcomer.
func (s *Server) handshake(ctx context.Context, a *attempt, c net.Conn) (*welcome, error) {
	if !s.rates.allow(c.RemoteAddr(), s.cfg.Now()) {
		return nil, refuse(Busy)
	}
	var h hello
	if err := receive(c, &h, maxSmallFrame); err != nil {
		return nil, fmt.Errorf("hello: %w", err)
	}
	a.token = crdt.TokenID(h.Token)
	cluster := ClusterOf(s.cfg.Records.View().Cluster().ID)
	switch {
	case Cluster(h.Cluster) != cluster:
		return nil, &Refusal{Code: WrongCluster, Cluster: cluster[:]}
	case !slices.Contains(h.Versions, version):
		return nil, refuse(BadVersion)
	}
	a.nonce = make([]byte, nonceBytes)
	_, _ = rand.Read(a.nonce) // never fails (crypto/rand)
	if err := send(c, answer{Challenge: &challenge{Version: version, Nonce: a.nonce}}); err != nil {
		return nil, err
	}
	var r response
	if err := receive(c, &r, maxSmallFrame); err != nil {
		return nil, fmt.Errorf("response: %w", err)
	}
	a.facts, a.sig = r.Facts, r.Sig
	return s.admit(ctx, a, cluster)
}

// admit judges a response, redeems the token here or at its issuer, and makes the welcome.
func (s *Server) admit(ctx context.Context, a *attempt, cluster Cluster) (*welcome, error) {
	to, err := s.judge(a, cluster)
	if err != nil {
		return nil, err
	}
	var proof crdt.Proof
	switch {
	case !to.issuer.IsZero():
		proof, err = s.forward(ctx, to.issuer, a)
	case to.welcome:
		proof, err = s.cfg.Records.AdmissionProof(a.newcomer)
	default:
		proof, err = s.redeem(ctx, a)
	}
	if err != nil {
		return nil, err
	}
	return s.welcome(a, proof)
}

// judge verifies the signature before anything is told of the token.
func (s *Server) judge(a *attempt, cluster Cluster) (route, error) {
	if !verify(a.token, a.sig, cluster, a.member, a.newcomer, a.nonce, a.facts) {
		return route{}, refuse(BadProof)
	}
	to := decide(s.cfg.Records.View(), s.cfg.Fabric.Self(), a.newcomer, a.token, s.cfg.Now())
	if to.refusal != nil {
		return route{}, to.refusal
	}
	return to, nil
}

// redeem writes the admission here and returns the newcomer's proof.
func (s *Server) redeem(ctx context.Context, a *attempt) (crdt.Proof, error) {
	if err := redeem(ctx, s.cfg.Records, a.newcomer, a.token, a.facts, s.cfg.Now()); err != nil {
		return crdt.Proof{}, err
	}
	return s.cfg.Records.AdmissionProof(a.newcomer)
}

func (s *Server) welcome(a *attempt, newcomer crdt.Proof) (*welcome, error) {
	member, err := s.cfg.Records.AdmissionProof(a.member)
	if err != nil {
		return nil, err
	}
	v := s.cfg.Records.View()
	w := &welcome{Member: member, Newcomer: newcomer, By: a.member[:], Site: a.facts.Site}
	if m, ok := v.Member(a.newcomer); ok {
		w.By = m.AdmittedBy[:]
	}
	if t, ok := v.Token(a.token); ok && w.Site == "" {
		w.Site = t.Site
	}
	if s.cfg.Peers != nil {
		w.Peers = wirePeers(s.cfg.Peers())
	}
	return w, nil
}

func wirePeers(peers []Peer) []wirePeer {
	var out []wirePeer
	for _, p := range peers[:min(len(peers), maxPeers)] {
		wp := wirePeer{ID: p.ID[:]}
		for _, a := range p.Addrs {
			if len(a) <= maxAddr && plain(a) && len(wp.Addrs) < maxAddrs {
				wp.Addrs = append(wp.Addrs, a)
			}
		}
		out = append(out, wp)
	}
	return out
}

// report makes the answer known on the member's side.
func (s *Server) report(a *attempt, err error) {
	log := s.cfg.Log.With("node", a.newcomer, "remote", a.remote, "name", a.facts.Name, "site", a.facts.Site, "token", shortToken(a.token))
	_, refused := refusalIn(err)
	switch {
	case err == nil:
		log.Info("node admitted")
	case refused:
		log.Warn("node not admitted", "reason", err)
	default:
		log.Warn("joining broke off", "err", err)
	}
	if s.cfg.Events != nil {
		s.cfg.Events(Event{Time: s.cfg.Now(), Node: a.newcomer, Remote: a.remote, Facts: a.facts, Token: a.token, Err: err})
	}
}

// shortToken tells tokens apart in a log; empty when the newcomer named none.
func shortToken(id crdt.TokenID) string { return id.String()[:min(8, len(id.String()))] }

// send writes one message within its time.
func send(c net.Conn, m any) error {
	if err := c.SetDeadline(time.Now().Add(frameTimeout)); err != nil {
		return err
	}
	return writeMessage(c, m)
}

// receive reads one message within its time.
func receive(c net.Conn, m checker, limit int) error {
	if err := c.SetDeadline(time.Now().Add(frameTimeout)); err != nil {
		return err
	}
	return readMessage(c, m, limit)
}
