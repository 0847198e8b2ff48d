package admit

import (
	"context"
	"fmt"
	"net"
	"time"

	"vcpeer/crdt"
)

// forward has the issuer redeem the token, and waits a little for the admission to arrive in this node's records, since
// until then this node takes the newcomer for a stranger.
func (s *Server) forward(ctx context.Context, issuer crdt.NodeID, a *attempt) (crdt.Proof, error) {
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	out, err := s.askIssuer(ctx, issuer, a)
	if err != nil {
		s.cfg.Log.Warn("issuer of a one-time token not reached", "issuer", issuer, "err", err)
		return crdt.Proof{}, refuse(NoIssuer).by(issuer)
	}
	if out.Refusal != nil {
		return crdt.Proof{}, out.Refusal
	}
	if err := crdt.VerifyAdmission(s.cfg.Records.View().Cluster().ID, *out.Newcomer, a.newcomer); err != nil {
		return crdt.Proof{}, fmt.Errorf("the issuer's answer: %w", err)
	}
	s.awaitAdmission(ctx, a.newcomer)
	return *out.Newcomer, nil
}

func (s *Server) askIssuer(ctx context.Context, issuer crdt.NodeID, a *attempt) (*forwarded, error) {
	c, err := s.cfg.Fabric.Open(ctx, issuer, ForwardProtocol)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	m := forward{Newcomer: a.newcomer[:], Token: a.token[:], Nonce: a.nonce, Facts: a.facts, Sig: a.sig, Remote: a.remote}
	if err := send(c, m); err != nil {
		return nil, err
	}
	var out forwarded
	if err := receive(c, &out, maxAnswer); err != nil {
		return nil, err
	}
	return &out, nil
}

func (s *Server) awaitAdmission(ctx context.Context, newcomer crdt.NodeID) {
	ctx, cancel := context.WithTimeout(ctx, catchUpTimeout)
	defer cancel()
	tick := time.NewTicker(catchUpPoll)
	defer tick.Stop()
	for s.cfg.Records.View().Standing(newcomer) != crdt.Joined {
		select {
		case <-ctx.Done(): // the newcomer will find this node shut for a while, and others open
			return
		case <-tick.C:
		}
	}
}

// serveForward redeems a token of this node's for a newcomer at another member.
func (s *Server) serveForward(ctx context.Context, from crdt.NodeID, c net.Conn) {
	defer c.Close()
	var m forward
	if err := receive(c, &m, maxSmallFrame); err != nil {
		s.cfg.Log.Warn("a member's request to redeem a token could not be read", "member", from, "err", err)
		return
	}
	a := &attempt{newcomer: crdt.NodeID(m.Newcomer), member: from, remote: m.Remote, token: crdt.TokenID(m.Token), nonce: m.Nonce, facts: m.Facts, sig: m.Sig}
	proof, err := s.redeemFor(ctx, a)
	s.report(a, err)
	out := forwarded{Newcomer: &proof}
	if err != nil {
		r, ok := refusalIn(err)
		if !ok {
			r = refuse(Internal)
		}
		out = forwarded{Refusal: r}
	}
	if err := send(c, out); err != nil {
		s.cfg.Log.Debug("answer to a member not delivered", "member", from, "err", err)
	}
}

func (s *Server) redeemFor(ctx context.Context, a *attempt) (crdt.Proof, error) {
	to, err := s.judge(a, ClusterOf(s.cfg.Records.View().Cluster().ID))
	switch {
	case err != nil:
		return crdt.Proof{}, err
	case !to.issuer.IsZero(): // no further: else two members could send it in circles
		return crdt.Proof{}, refuse(NoIssuer).by(to.issuer)
	case to.welcome:
		return s.cfg.Records.AdmissionProof(a.newcomer)
	}
	return s.redeem(ctx, a)
}
