package site

import (
	"cmp"
	"slices"
	"time"

	"vcpeer/crdt"
	"vcpeer/queue"
)

// errand is one question to another site's leader, with the claims lent to it.
type errand struct {
	site   queue.SiteID
	claims map[crdt.NodeID]*parked
	sent   time.Time
}

// maxLent is how many nodes are offered to one site at once.
const maxLent = 64

// lookAbroad lends the claims that found no work here to the nearest site that has some.
func (l *leader) lookAbroad() {
	if !l.serving || l.flying != nil || len(l.waiting) > 0 {
		return
	}
	free := l.free()
	if len(free) == 0 {
		return
	}
	for _, t := range l.s.backlogs(time.Now()) {
		if len(free) == 0 {
			return
		}
		n := min(len(free), maxLent)
		l.lend(t, free[:n])
		free = free[n:]
	}
}

// target is a leader of another site that has published work for us.
type target struct {
	site queue.SiteID
	node crdt.NodeID
	rtt  time.Duration
}

// backlogs returns whom to ask for work now, nearest first.
func (s *Service) backlogs(now time.Time) []target {
	var all []target
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, load := range s.cfg.Directory.Loads() {
		if !load.Leads || load.Site == s.cfg.Site || load.Backlog.Free+load.Backlog.Pinned[s.cfg.Site] == 0 {
			continue
		}
		if s.peers.isLost(load.Node) || s.asking[load.Site] || now.Before(s.askAgain[load.Site]) {
			continue
		}
		rtt, ok := s.cfg.Directory.RTT(load.Node)
		if !ok {
			rtt = time.Hour
		}
		all = append(all, target{load.Site, load.Node, rtt})
	}
	slices.SortFunc(all, func(a, b target) int { return cmp.Or(cmp.Compare(a.rtt, b.rtt), cmp.Compare(a.site, b.site)) })
	return slices.CompactFunc(all, func(a, b target) bool { return a.site == b.site })
}

// lend asks t for work for the nodes of claims. They are lent for askTimeout at most: then they are free again, and what
// the other site may have granted to them meanwhile, unheard, ends with its short first lease.
func (l *leader) lend(t target, claims []*parked) {
	e := &errand{site: t.site, claims: map[crdt.NodeID]*parked{}, sent: time.Now()}
	var q pull
	for _, p := range claims {
		p.lent = e
		e.claims[p.node] = p
		q.Offers = append(q.Offers, queue.Offer{Node: p.node, Site: l.s.cfg.Site, Slots: p.claim.Slots, MemBytes: p.claim.MemBytes})
	}
	s := l.s
	s.mu.Lock()
	s.asking[t.site] = true
	s.mu.Unlock()
	s.work.Go(func() {
		var got grantedList
		err := s.askSiteOnce(s.ctx, t.site, t.node, opPull, q, &got)
		s.mu.Lock()
		delete(s.asking, t.site)
		if err != nil || len(got.Grants) == 0 {
			s.askAgain[t.site] = time.Now().Add(s.cfg.PullEvery)
			time.AfterFunc(s.cfg.PullEvery, func() { s.post(func(*leader) {}) }) // look again
		}
		s.mu.Unlock()
		if err != nil {
			s.cfg.Log.Debug("queue: asked another site for work", "site", t.site, "err", err)
		}
		s.post(func(l *leader) { l.home(e, got.Grants) })
	})
}

// home hands what another site granted to the claims that were lent to it.
func (l *leader) home(e *errand, grants []granted) {
	byNode := map[crdt.NodeID][]granted{}
	for _, g := range grants {
		if p := e.claims[g.Node]; p != nil && g.Owner == e.site {
			g.Held += e.sent.Sub(p.arrived)
			byNode[g.Node] = append(byNode[g.Node], g)
		}
	}
	for n, p := range e.claims {
		if l.claims[n] != p || p.lent != e {
			continue // the leadership changed meanwhile; the grants end with their first leases
		}
		p.lent = nil
		switch {
		case len(byNode[n]) > 0:
			l.release(p, byNode[n])
		case p.next != nil || l.waitedEnough(p):
			l.dismiss(p)
		}
	}
}
