package site

import (
	"context"
	"fmt"
	"time"

	"vcpeer/crdt"
	"vcpeer/queue"
)

// handle answers one question. Those for the leader wait for its loop; the stream they came on waits with them.
func (s *Service) handle(ctx context.Context, from crdt.NodeID, q question) answer {
	switch q.Op {
	case opClaim:
		return on(ctx, s, q, func(l *leader, c claim, reply func(answer)) {
			if l.s.siteOf(from) != s.cfg.Site {
				reply(no(&queue.Error{Code: queue.Denied, Text: "the node is not of this site"}))
				return
			}
			l.park(from, c, reply)
		})
	case opPull:
		return on(ctx, s, q, func(l *leader, p pull, reply func(answer)) { l.pull(from, p, reply) })
	case opRenew:
		return on(ctx, s, q, func(l *leader, r renewal, reply func(answer)) { reply(ok(l.renew(from, r))) })
	case opReport:
		return on(ctx, s, q, func(l *leader, r report, reply func(answer)) { l.report(from, r, reply) })
	case opSubmit:
		return on(ctx, s, q, func(l *leader, c queue.Submit, reply func(answer)) { l.submit(c, reply) })
	case opCancel:
		return on(ctx, s, q, func(l *leader, c cancel, reply func(answer)) { l.cancel(c, reply) })
	case opOwed:
		return on(ctx, s, q, func(l *leader, o owed, reply func(answer)) { l.waitOwed(from, o, reply) })
	case opBack:
		return on(ctx, s, q, func(l *leader, c queue.Returned, reply func(answer)) { l.do(queue.Command{Returned: &c}, reply) })
	case opWatch:
		return on(ctx, s, q, func(l *leader, w watch, reply func(answer)) { l.waitChange(w, reply) })
	case opList, opGet, opWhy:
		return s.read(ctx, q)
	case opPoke:
		s.worker.poke()
		return ok(none{})
	}
	return no(&queue.Error{Code: queue.Invalid, Text: fmt.Sprintf("question %.20q is not known here", q.Op), Hint: "the nodes run different versions"})
}

// on runs f on the leader's loop, if this node leads, and waits until it has replied.
func on[B any](ctx context.Context, s *Service, q question, f func(l *leader, body B, reply func(answer))) answer {
	var body B
	if err := unmarshal(q.Body, &body); err != nil {
		return no(&queue.Error{Code: queue.Invalid, Text: err.Error()})
	}
	got := make(chan answer, 1)
	s.post(func(l *leader) {
		if !l.serving {
			got <- s.elsewhere()
			return
		}
		f(l, body, func(a answer) { got <- a })
	})
	select {
	case a := <-got:
		return a
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
	return no(&queue.Error{Code: queue.Unavailable, Text: "the node is stopping"})
}

// elsewhere says who leads, if it is not this node.
func (s *Service) elsewhere() answer {
	a := answer{Err: &queue.Error{Code: notLeader, Text: "this node does not lead its site's queue"}}
	if leader := s.cfg.Group.Status().Leader; leader != s.cfg.Self {
		a.Leader = leader
	}
	return a
}

// siteOf returns the site of a node, empty if it is not known.
func (s *Service) siteOf(n crdt.NodeID) queue.SiteID {
	if n == s.cfg.Self {
		return s.cfg.Site
	}
	for _, d := range s.cfg.Directory.Nodes() {
		if d.ID == n {
			return d.Site
		}
	}
	return ""
}

// do proposes a command and replies with its result.
func (l *leader) do(c queue.Command, reply func(answer)) {
	l.want(c, func(r queue.Result, err *queue.Error) {
		if err == nil {
			err = r.Err
		}
		if err != nil {
			reply(no(err))
			return
		}
		reply(ok(r))
	})
}

func (l *leader) pull(from crdt.NodeID, p pull, reply func(answer)) {
	site := l.s.siteOf(from)
	if site == "" || len(p.Offers) > maxLent {
		reply(no(&queue.Error{Code: queue.Denied, Text: "the node's site is not known, or it offers too much at once"}))
		return
	}
	var offers []queue.Offer
	for _, o := range p.Offers {
		if l.s.siteOf(o.Node) == site {
			o.Site = site
			offers = append(offers, o)
		}
	}
	l.pullIn(offers, reply)
}

// renew gives full leases to the live attempts of a node.
func (l *leader) renew(from crdt.NodeID, r renewal) renewed {
	now := time.Now()
	out := renewed{Verdicts: make([]verdict, len(r.Refs)), Voters: l.s.voters()}
	l.s.cfg.Book.Read(func(m *queue.Machine) {
		for i, ref := range r.Refs {
			node, doomed, live := m.Live(ref)
			switch {
			case !live || node != from || !l.leases.Renew(ref, from, now):
				out.Verdicts[i] = leaseGone
			case doomed:
				out.Verdicts[i] = leaseDoomed
			}
		}
	})
	return out
}

// report takes the end of an attempt from the node that ran it.
func (l *leader) report(from crdt.NodeID, r report, reply func(answer)) {
	var c queue.Command
	var ref queue.Ref
	switch {
	case r.Complete != nil && r.Release == nil:
		c.Complete, ref = r.Complete, r.Complete.Ref
	case r.Release != nil && r.Complete == nil:
		c.Release, ref = r.Release, r.Release.Ref
	default:
		reply(no(&queue.Error{Code: queue.Invalid, Text: "a report is either of an end or of a release"}))
		return
	}
	var node crdt.NodeID
	var live bool
	l.s.cfg.Book.Read(func(m *queue.Machine) { node, _, live = m.Live(ref) })
	if live && node != from {
		reply(no(&queue.Error{Code: queue.Denied, Text: "the attempt belongs to another node"}))
		return
	}
	l.do(c, reply)
}

func (l *leader) submit(c queue.Submit, reply func(answer)) {
	spec := c.Spec.Normal()
	if err := queue.Admit(&spec, l.s.view()); err != nil {
		reply(no(err))
		return
	}
	l.do(queue.Command{Submit: &queue.Submit{Spec: spec}}, reply)
}

func (l *leader) cancel(c cancel, reply func(answer)) {
	var v queue.JobView
	var found bool
	l.s.cfg.Book.Read(func(m *queue.Machine) { v, found = m.Job(c.Job, nil) })
	switch {
	case !found:
		reply(no(noJob(c.Job)))
		return
	case !v.Spec.OwnedBy(c.By, c.ByID) && !c.Admin:
		reply(no(&queue.Error{Code: queue.Denied, Text: fmt.Sprintf("job %d belongs to %s", c.Job, v.Spec.User)}))
		return
	}
	l.do(queue.Command{Cancel: &queue.Cancel{Job: c.Job, Tasks: c.Tasks, By: c.By}}, func(a answer) {
		reply(a)
		l.pokeDoomed(c.Job)
	})
}

// pokeDoomed has the nodes that run cancelled tasks of a job ask at once, rather than at their next renewal.
func (l *leader) pokeDoomed(job queue.Seq) {
	nodes := map[crdt.NodeID]bool{}
	l.s.cfg.Book.Read(func(m *queue.Machine) {
		for a := range m.JobAttempts(job) {
			if a.Doomed {
				nodes[a.Node] = true
			}
		}
	})
	for n := range nodes {
		if n == l.s.cfg.Self {
			l.s.worker.poke()
			continue
		}
		l.s.work.Go(func() {
			if _, err := l.s.peers.ask(l.s.ctx, n, question{Op: opPoke}, 0, 0); err != nil {
				l.s.cfg.Log.Debug("queue: poke", "node", n.Short(), "err", err) // its next renewal tells it
			}
		})
	}
}

func noJob(seq queue.Seq) *queue.Error {
	return &queue.Error{Code: queue.NotFound, Text: fmt.Sprintf("job %d does not exist", seq), Hint: "ended jobs are forgotten after some days"}
}
