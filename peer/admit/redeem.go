package admit

import (
	"context"
	"errors"
	"slices"
	"time"

	"vcpeer/crdt"
)

// Records is what the member's side needs of the replicated records; *replica.Replica is one.
type Records interface {
	View() *crdt.View
	Update(ctx context.Context, write func(*crdt.Tx) error) error // serial: one write at a time, each on the result of the last
	AdmissionProof(n crdt.NodeID) (crdt.Proof, error)
}

// route is what a member does with a response whose signature is good.
type route struct {
	welcome bool        // the newcomer is a member already: its answer was lost
	issuer  crdt.NodeID // not zero: this node alone can redeem the token
	refusal *Refusal
}

// decide judges a token for a newcomer by the records of the member self, at time now. The zero route: self redeems it.
func decide(v *crdt.View, self, newcomer crdt.NodeID, id crdt.TokenID, now time.Time) route {
	t, ok := v.Token(id)
	switch standing := v.Standing(newcomer); {
	case standing == crdt.Evicted:
		return route{refusal: refuse(EvictedNode)}
	case !ok:
		return route{refusal: refuse(UnknownToken)}
	case standing == crdt.Joined:
		return route{welcome: true}
	}
	switch {
	case t.Revoked, v.Standing(t.Issuer) == crdt.Evicted: // whoever put the issuer out does not want its guests
		return route{refusal: refuse(Revoked)}
	case !t.Reusable && len(t.UsedBy) > 0 && !slices.Contains(t.UsedBy, newcomer):
		r := refuse(Used).by(t.UsedBy[0])
		if m, ok := v.Member(t.UsedBy[0]); ok {
			r.at(m.Joined)
		}
		return route{refusal: r}
	case !now.Before(t.Expires):
		return route{refusal: refuse(Expired).at(t.Expires)}
	case !t.Reusable && t.Issuer != self:
		return route{issuer: t.Issuer}
	}
	return route{}
}

// redeem writes the admission, having decided again on what the records say at that moment, and the site that the newcomer
// is to be in, unless there is one of that name.
func redeem(ctx context.Context, records Records, newcomer crdt.NodeID, id crdt.TokenID, facts Facts, now time.Time) error {
	return records.Update(ctx, func(tx *crdt.Tx) error {
		to := decide(tx.View(), tx.Self(), newcomer, id, now)
		switch {
		case to.refusal != nil:
			return to.refusal
		case to.welcome:
			return nil
		case !to.issuer.IsZero():
			return errors.New("a token that another node has to redeem") // the caller routed it wrongly
		}
		if err := tx.UseToken(id, newcomer); err != nil {
			return err
		}
		if err := tx.AdmitMember(newcomer, id); err != nil {
			return err
		}
		return makeSite(tx, newcomer, id, facts)
	})
}

// makeSite makes the site that a newcomer names, by the facts, else the token, else its own name. A name that no site can
// have is left to the newcomer to stumble over.
func makeSite(tx *crdt.Tx, newcomer crdt.NodeID, id crdt.TokenID, facts Facts) error {
	name := facts.Site
	if t, ok := tx.View().Token(id); ok && name == "" {
		name = t.Site
	}
	if name == "" {
		name = facts.Name
	}
	if crdt.CheckLabel("site", name) != nil {
		return nil
	}
	if _, ok := tx.View().SiteInUse(name); ok {
		return nil
	}
	_, err := tx.CreateSiteFor(name, newcomer)
	return err
}
