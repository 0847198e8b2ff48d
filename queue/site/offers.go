package site

import (
	"cmp"
	"slices"
	"time"

	"vcpeer/crdt"
	"vcpeer/queue"
)

// parked is a node's claim that waits at its leader.
type parked struct {
	node    crdt.NodeID
	claim   claim
	arrived time.Time
	wait    time.Duration
	reply   func(answer)
	lent    *errand // offered to another site at the moment; nil: not
	flying  bool    // an entry with grants for it is on its way
	next    *parked // came while it was lent or flying
	timer   *time.Timer
}

func (p *parked) answer(a answer) {
	if p.timer != nil {
		p.timer.Stop()
	}
	p.reply(a)
	if p.next != nil {
		p.next.answer(answer{Body: emptyGrants()})
	}
}

func emptyGrants() []byte { return ok(grantedList{}).Body }

// park takes a claim. reply is called once.
func (l *leader) park(from crdt.NodeID, c claim, reply func(answer)) {
	p := &parked{node: from, claim: c, arrived: time.Now(), reply: reply}
	old := l.claims[from]
	switch {
	case old == nil:
	case c.Life == old.claim.Life && c.ID <= old.claim.ID:
		p.answer(ok(grantedList{})) // late: a newer one is here
		return
	case old.flying || old.lent != nil:
		// What the old one brings is not known yet, and this one does not count it.
		if old.next != nil {
			old.next.reply(ok(grantedList{}))
		}
		old.next = p
		return
	default:
		old.answer(ok(grantedList{}))
	}
	if g := l.given[from]; g.life == c.Life && c.Known < g.id {
		delete(l.claims, from)
		p.answer(ok(grantedList{})) // sent before the grants of an earlier claim arrived: its slots are not free
		return
	}
	l.claims[from] = p
	p.wait = min(max(0, time.Duration(c.WaitMS)*time.Millisecond), l.s.cfg.ClaimWait)
	p.timer = time.AfterFunc(p.wait, func() { l.s.post(func(l *leader) { l.timeUp(p) }) })
}

// timeUp answers a claim that has waited long enough with nothing, so that a claimant that is gone does not stay.
func (l *leader) timeUp(p *parked) {
	if l.claims[p.node] == p && !p.flying && p.lent == nil {
		l.dismiss(p)
	}
}

// dismiss answers a claim with nothing.
func (l *leader) dismiss(p *parked) { l.release(p, nil) }

// release answers a claim with what was granted, and lets the one that came meanwhile take its place.
func (l *leader) release(p *parked, grants []granted) {
	if l.claims[p.node] != p {
		return
	}
	next := p.next
	p.next, p.flying, p.lent = nil, false, nil
	delete(l.claims, p.node)
	if len(grants) > 0 {
		l.given[p.node] = given{p.claim.Life, p.claim.ID}
	}
	p.answer(ok(grantedList{grants}))
	if next != nil {
		l.park(p.node, next.claim, next.reply)
	}
}

// given remembers the newest claim of a node that was answered with grants.
type given struct{ life, id uint64 }

// pulled is an offer of another site's nodes, for which its leader waits here.
type pulled struct {
	offers  []queue.Offer
	arrived time.Time
	reply   func(answer)
	flying  bool
}

func (p *pulled) answer(a answer) { p.reply(a) }

// pullIn takes the offer of another site. It is answered at once: by nothing, or by the next entry.
func (l *leader) pullIn(offers []queue.Offer, reply func(answer)) {
	l.pulls[&pulled{offers: offers, arrived: time.Now(), reply: reply}] = struct{}{}
}

// match plans grants for the parked claims and the pulls.
func (l *leader) match(fresh []queue.Fresh, limit int) []flyingGrant {
	var offers []queue.Offer
	byNode := map[crdt.NodeID]flyingGrant{}
	for n, p := range l.claims {
		if p.lent == nil && !p.flying {
			offers = append(offers, queue.Offer{Node: n, Site: l.s.cfg.Site, Slots: p.claim.Slots, MemBytes: p.claim.MemBytes,
				AllSlots: p.claim.AllSlots, AllMemBytes: p.claim.AllMemBytes})
			byNode[n] = flyingGrant{claim: p}
		}
	}
	for p := range l.pulls {
		for _, o := range p.offers {
			if _, twice := byNode[o.Node]; !twice && !p.flying {
				o.Lent = true
				offers = append(offers, o)
				byNode[o.Node] = flyingGrant{pull: p}
			}
		}
	}
	slices.SortFunc(offers, func(a, b queue.Offer) int { return slices.Compare(a.Node[:], b.Node[:]) })
	var plan queue.Plan
	if len(offers) > 0 {
		l.s.cfg.Book.Read(func(m *queue.Machine) { plan = queue.Match(m, offers, fresh, limit) })
	}
	grants := plan.Grants
	l.reserved = plan.Reserved
	all := make([]flyingGrant, len(grants))
	for k, g := range grants {
		all[k] = byNode[g.Node]
		all[k].grant = g
	}
	return all
}

// launch marks who takes part in an entry that is on its way; the pulls that do not get nothing.
func (l *leader) launch(grants []flyingGrant) {
	for _, f := range grants {
		if f.claim != nil {
			f.claim.flying = true
		} else {
			f.pull.flying = true
		}
	}
	for p := range l.pulls {
		if !p.flying {
			delete(l.pulls, p)
			p.answer(ok(grantedList{}))
		}
	}
}

// hand gives committed grants to those who offered the nodes, and starts their leases.
func (l *leader) hand(grants []flyingGrant, results []queue.Result, now time.Time) {
	toClaims, toPulls := map[*parked][]granted{}, map[*pulled][]granted{}
	voters := l.s.voters()
	for k, f := range grants {
		var g granted
		ok := results[k].Err == nil
		if ok {
			g = l.granted(f.grant, results[k], voters)
			l.leases.Grant(g.Ref, g.Node, now)
		}
		if f.claim != nil {
			toClaims[f.claim] = append(toClaims[f.claim], since(g, ok, f.claim.arrived, now)...)
		} else {
			toPulls[f.pull] = append(toPulls[f.pull], since(g, ok, f.pull.arrived, now)...)
		}
	}
	for p, gs := range toClaims {
		p.flying = false
		if len(gs) > 0 || p.next != nil || l.waitedEnough(p) {
			l.release(p, gs)
		}
	}
	for p, gs := range toPulls {
		delete(l.pulls, p)
		p.answer(ok(grantedList{gs}))
	}
}

// since notes for how long the request that a grant answers was held. Nothing was granted if ok is false.
func since(g granted, ok bool, arrived, now time.Time) []granted {
	if !ok {
		return nil
	}
	g.Held = now.Sub(arrived)
	return []granted{g}
}

// waitedEnough reports whether a claim's time is up; its timer does nothing while the claim is lent or flying.
func (l *leader) waitedEnough(p *parked) bool { return time.Since(p.arrived) >= p.wait }

func (l *leader) granted(g queue.Grant, r queue.Result, voters []crdt.NodeID) granted {
	out := granted{Ref: queue.Ref{Job: r.Job, Task: g.Task, Epoch: r.Epoch}, Owner: l.s.cfg.Site, Node: g.Node, Voters: voters}
	l.s.cfg.Book.Read(func(m *queue.Machine) {
		if spec := m.Spec(r.Job); spec != nil {
			out.Spec = *spec
		}
		if t, ok := m.Task(r.Job, g.Task, nil); ok {
			out.Attempt = uint32(t.Attempt)
		}
	})
	return out
}

// free returns the claims that could be lent to another site, largest first. A node that is kept for a job of ours is not.
func (l *leader) free() []*parked {
	var all []*parked
	for _, p := range l.claims {
		if p.lent == nil && !p.flying && p.next == nil && p.claim.Slots > 0 && p.node != l.reserved {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *parked) int {
		return cmp.Or(b.claim.Slots-a.claim.Slots, slices.Compare(a.node[:], b.node[:]))
	})
	return all
}
