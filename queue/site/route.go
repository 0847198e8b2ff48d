package site

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"vcpeer/crdt"
	"vcpeer/queue"
)

// askSite asks the leader of a site, wherever it is, again and again until somebody answers or ctx is over. The answer
// may be an error of its own, a *queue.Error. All questions may be repeated.
func (s *Service) askSite(ctx context.Context, site queue.SiteID, o op, body, into any, parked time.Duration) error {
	q, err := ask(o, body)
	if err != nil {
		return fmt.Errorf("queue/site: encode: %w", err)
	}
	pause := s.cfg.RetryAfter
	for {
		a, err := s.askLeader(ctx, site, q, parked)
		switch {
		case err == nil && (a.Err == nil || a.Err.Code != notLeader):
			return a.unpack(into)
		case ctx.Err() != nil:
			return s.unreached(ctx, site, err)
		}
		select {
		case <-ctx.Done():
			return s.unreached(ctx, site, err)
		case <-time.After(pause):
		}
		pause = min(2*pause, 16*s.cfg.RetryAfter)
	}
}

// siteName returns a site's name, or its ID if the name is not known.
func (s *Service) siteName(site queue.SiteID) string {
	if name := s.cfg.Directory.SiteName(site); name != "" {
		return name
	}
	return string(site)
}

func (s *Service) unreached(ctx context.Context, site queue.SiteID, err error) error {
	text := fmt.Sprintf("site %s does not answer", s.siteName(site))
	if err != nil && !errors.Is(err, context.Cause(ctx)) {
		text += ": " + err.Error()
	}
	return &queue.Error{Code: queue.Unavailable, Text: text, Hint: "see `vcpeer sites`"}
}

// askSiteOnce asks one node that most likely leads, without a second try.
func (s *Service) askSiteOnce(ctx context.Context, site queue.SiteID, node crdt.NodeID, o op, body, into any) error {
	q, err := ask(o, body)
	if err != nil {
		return err
	}
	a, err := s.askNode(ctx, node, q, 0, 0)
	if err != nil {
		return err
	}
	s.learnLeader(site, node, a)
	return a.unpack(into)
}

// askLeader asks the node that led last, and follows where the answers point, a few steps; then the other nodes that are
// alive. The error is that of the last node that could not be reached; with errMoved and errLost the question may have
// taken its time, so what it says of the time is old: whoever asked begins anew.
func (s *Service) askLeader(ctx context.Context, site queue.SiteID, q question, parked time.Duration) (answer, error) {
	tried := map[crdt.NodeID]bool{}
	var last error
	a := answer{Err: &queue.Error{Code: notLeader, Text: "no node of the site is known"}}
	next := s.leaderHint(site)
	for range 8 {
		var during turn
		if site == s.cfg.Site {
			during = s.peers.current()
			if leader := s.cfg.Group.Status().Leader; !leader.IsZero() && !tried[leader] {
				next = leader
			}
		}
		if next.IsZero() || tried[next] {
			if next = s.anyNode(site, tried); next.IsZero() {
				return a, last
			}
		}
		tried[next] = true
		got, err := s.askNode(ctx, next, q, parked, during)
		if err != nil {
			s.forgetLeader(site, next)
			if last = err; ctx.Err() != nil || errors.Is(err, errMoved) || errors.Is(err, errLost) {
				return a, err
			}
			next = crdt.NodeID{}
			continue
		}
		s.learnLeader(site, next, got)
		if got.Err == nil || got.Err.Code != notLeader {
			return got, nil
		}
		a, last, next = got, nil, got.Leader
	}
	return a, last
}

func (s *Service) askNode(ctx context.Context, n crdt.NodeID, q question, parked time.Duration, during turn) (answer, error) {
	if n != s.cfg.Self {
		return s.peers.ask(ctx, n, q, parked, during)
	}
	ctx, cancel := context.WithTimeout(ctx, parked+askTimeout)
	defer cancel()
	a := s.handle(ctx, n, q)
	return a, ctx.Err()
}

func (s *Service) leaderHint(site queue.SiteID) crdt.NodeID {
	if site == s.cfg.Site {
		if leader := s.cfg.Group.Status().Leader; !leader.IsZero() {
			return leader
		}
	}
	s.mu.Lock()
	hint := s.leaders[site]
	s.mu.Unlock()
	if !hint.IsZero() {
		return hint
	}
	for _, l := range s.cfg.Directory.Loads() {
		if l.Site == site && l.Leads && !s.peers.isLost(l.Node) {
			return l.Node
		}
	}
	return crdt.NodeID{}
}

func (s *Service) learnLeader(site queue.SiteID, asked crdt.NodeID, a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.Err != nil && a.Err.Code == notLeader {
		s.leaders[site] = a.Leader
		return
	}
	s.leaders[site] = asked
}

func (s *Service) forgetLeader(site queue.SiteID, n crdt.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaders[site] == n {
		delete(s.leaders, site)
	}
}

// anyNode returns a node of a site that is heard and was not tried, the nearest first.
func (s *Service) anyNode(site queue.SiteID, tried map[crdt.NodeID]bool) crdt.NodeID {
	type near struct {
		id  crdt.NodeID
		rtt time.Duration
	}
	var all []near
	for _, n := range s.cfg.Directory.Nodes() {
		if n.Site != site || !n.Alive || tried[n.ID] {
			continue
		}
		rtt, ok := s.cfg.Directory.RTT(n.ID)
		if !ok {
			rtt = time.Hour
		}
		all = append(all, near{n.ID, rtt})
	}
	if len(all) == 0 {
		return crdt.NodeID{}
	}
	return slices.MinFunc(all, func(a, b near) int {
		if a.rtt != b.rtt {
			return int(a.rtt - b.rtt)
		}
		return slices.Compare(a.id[:], b.id[:])
	}).id
}
