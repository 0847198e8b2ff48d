package site

import (
	"context"
	"errors"
	"time"

	"vcpeer/crdt"
	"vcpeer/queue"
	"vcpeer/queue/group"
)

// leader is what the leader of the site's group keeps in memory beside the replicated machine. The goroutine of
// Service.lead owns it; others reach it by Service.post. It exists on every node, and is idle (serving is false) where
// the group is not led.
type leader struct {
	s       *Service
	serving bool
	term    uint64
	leading crdt.NodeID // the newest leader known, this node or another
	leases  *queue.Leases

	claims  map[crdt.NodeID]*parked // of this site's nodes, the newest of each
	given   map[crdt.NodeID]given   // the newest claims that were answered with grants
	pulls   map[*pulled]struct{}    // of other sites
	waiting []item                  // commands for the next entry
	flying  *entry                  // the entry on its way; nil: none
	// reserved is the node that the last match kept for a job that needs much room; zero: none.
	reserved crdt.NodeID
	owed     map[*ownedWait]struct{} // nodes that wait for results to bring back
	watches  map[*watchWait]struct{}

	expiry *time.Timer
	tidied time.Time // last look for jobs to forget
}

// item is a command and who wants its result. done is called once, on the owner's goroutine, and must not block; nil: nobody.
type item struct {
	command queue.Command
	done    func(queue.Result, *queue.Error)
}

// entry is what was proposed: commands that were waiting, then grants.
type entry struct {
	term   uint64
	items  []item
	grants []flyingGrant
}

// flyingGrant is a grant whose commit is awaited, with who offered the node.
type flyingGrant struct {
	grant queue.Grant
	claim *parked // one of both
	pull  *pulled
}

// maxWaiting bounds the commands that wait for the next entry; more are refused as busy.
const maxWaiting = 16_384

// batch is how many commands and grants go into one entry at most, so that what comes late waits for a short entry.
const batch = 256

func newLeader(s *Service) *leader {
	return &leader{s: s, leases: queue.NewLeases(s.cfg.Times), claims: map[crdt.NodeID]*parked{}, given: map[crdt.NodeID]given{}, pulls: map[*pulled]struct{}{},
		owed: map[*ownedWait]struct{}{}, watches: map[*watchWait]struct{}{}}
}

// lead runs the leader's loop until ctx is over.
func (s *Service) lead(ctx context.Context) {
	l := newLeader(s)
	l.expiry = time.NewTimer(time.Hour)
	defer l.expiry.Stop()
	l.follow(s.cfg.Group.Status())
	for {
		select {
		case <-ctx.Done():
			l.resign(crdt.NodeID{})
			return
		case f := <-s.events:
			f(l)
			l.more()
		case <-s.cfg.Group.LeaderChanges():
			l.follow(s.cfg.Group.Status())
		case <-l.expiry.C:
			l.expire(time.Now())
		}
		l.pump()
		l.lookAbroad()
		l.wind(time.Now())
	}
}

// more takes the events that have gathered meanwhile, so that they share one entry.
func (l *leader) more() {
	for range batch {
		select {
		case f := <-l.s.events:
			f(l)
		default:
			return
		}
	}
}

// follow brings the loop in line with who leads.
func (l *leader) follow(st group.Status) {
	if !st.Leader.IsZero() && st.Leader != l.leading {
		l.leading = st.Leader
		l.s.peers.moved(st.Leader)
	}
	leads := st.Role == group.RoleLeader && st.Settled
	if l.serving && (!leads || st.Term != l.term) {
		l.resign(st.Leader)
	}
	if leads && !l.serving {
		l.serving, l.term = true, st.Term
		l.s.cfg.Book.Read(func(m *queue.Machine) { l.leases.Reset(m, time.Now()) })
		l.s.cfg.Log.Info("queue: leads", "term", l.term, "leases", l.leases.Len())
	}
	l.s.publishSoon()
}

// resign sends everybody who waits to the next leader.
func (l *leader) resign(next crdt.NodeID) {
	l.serving = false
	gone := answer{Err: &queue.Error{Code: notLeader, Text: "another node leads"}, Leader: next}
	for _, p := range l.claims {
		p.answer(gone)
	}
	for p := range l.pulls {
		p.answer(gone)
	}
	for w := range l.owed {
		w.answer(gone)
	}
	for w := range l.watches {
		w.answer(gone)
	}
	clear(l.claims)
	clear(l.pulls)
	clear(l.owed)
	clear(l.watches)
	for _, i := range l.waiting {
		i.fail(gone.Err)
	}
	l.waiting, l.flying = nil, nil
	l.leases = queue.NewLeases(l.s.cfg.Times)
}

func (i item) fail(err *queue.Error) {
	if i.done != nil {
		i.done(queue.Result{}, err)
	}
}

// want puts a command in the next entry.
func (l *leader) want(c queue.Command, done func(queue.Result, *queue.Error)) {
	i := item{c, done}
	if len(l.waiting) >= maxWaiting {
		i.fail(&queue.Error{Code: queue.Busy, Text: "the queue has too much to do at the moment", Hint: "try again in a second"})
		return
	}
	l.waiting = append(l.waiting, i)
}

// pump proposes the next entry, if there is something to propose and nothing on its way.
func (l *leader) pump() {
	if !l.serving || l.flying != nil {
		return
	}
	l.tidy(time.Now())
	for n := batch; ; n /= 2 {
		e, commands := l.next(n)
		if len(commands) == 0 {
			l.launch(nil)
			return
		}
		data, err := queue.Entry{At: time.Now().UnixNano(), Commands: commands}.Encode()
		if errors.Is(err, queue.ErrTooLarge) && n > 1 {
			continue
		}
		l.waiting = append([]item(nil), l.waiting[len(e.items):]...)
		if err != nil { // a single command that no entry can hold
			for _, i := range e.items {
				i.fail(&queue.Error{Code: queue.Invalid, Text: err.Error()})
			}
			continue
		}
		l.flying = e
		l.launch(e.grants)
		l.s.work.Go(func() {
			result, err := l.s.cfg.Group.Propose(l.s.ctx, data)
			l.s.post(func(l *leader) { l.landed(e, result, err) })
		})
		return
	}
}

// next puts an entry together: at most n commands that wait, then at most n grants, among them for jobs that the
// same entry submits.
func (l *leader) next(n int) (*entry, []queue.Command) {
	e := &entry{term: l.term, items: l.waiting[:min(n, len(l.waiting))]}
	commands := make([]queue.Command, 0, len(e.items))
	var fresh []queue.Fresh
	for k := range e.items {
		commands = append(commands, e.items[k].command)
		if c := e.items[k].command.Submit; c != nil {
			fresh = append(fresh, queue.Fresh{Of: k + 1, Spec: &c.Spec})
		}
	}
	for _, g := range l.match(fresh, n) {
		e.grants = append(e.grants, g)
		commands = append(commands, queue.Command{Grant: &g.grant})
	}
	return e, commands
}

// landed takes the outcome of an entry.
func (l *leader) landed(e *entry, result any, err error) {
	if l.flying != e {
		l.orphaned(e, result, err)
		return
	}
	l.flying = nil
	results, ok := result.([]queue.Result)
	if err != nil || !ok {
		l.unsure(e, err)
		return
	}
	now := time.Now()
	for k, i := range e.items {
		l.settle(i.command, results[k])
		if i.done != nil {
			i.done(results[k], nil)
		}
	}
	l.hand(e.grants, results[len(e.items):], now)
	l.answerWaits()
	l.s.publishSoon()
}

// orphaned is the outcome of an entry of a leadership that has ended. Who wanted it is told, if it is known.
func (l *leader) orphaned(e *entry, result any, err error) {
	results, ok := result.([]queue.Result)
	for k, i := range e.items {
		if i.done == nil {
			continue
		}
		if err == nil && ok {
			i.done(results[k], nil)
			continue
		}
		i.fail(&queue.Error{Code: queue.Unavailable, Text: "the site's queue lost its leader; whether it took this is not known"})
	}
}

// unsure is for an entry of which it is not known whether it is or will be in the log. Whoever asked asks again, which
// is safe; the leases become those of the attempts that are live once all that came before a read barrier is applied.
func (l *leader) unsure(e *entry, err error) {
	l.s.cfg.Log.Warn("queue: proposal failed", "err", err)
	l.orphaned(e, nil, err)
	for _, g := range e.grants {
		if g.claim != nil {
			l.dismiss(g.claim)
		}
		if g.pull != nil {
			g.pull.answer(ok(grantedList{}))
			delete(l.pulls, g.pull)
		}
	}
	term := l.term
	l.s.work.Go(func() {
		if l.s.cfg.Group.ReadIndex(l.s.ctx) != nil {
			return
		}
		l.s.post(func(l *leader) {
			if l.serving && l.term == term {
				l.s.cfg.Book.Read(func(m *queue.Machine) { l.leases.Sync(m, time.Now()) })
			}
		})
	})
}

// settle keeps the leases in line with an accepted command.
func (l *leader) settle(c queue.Command, r queue.Result) {
	switch {
	case r.Err != nil && r.Err.Code != queue.Stale && r.Err.Code != queue.NotFound:
	case c.Complete != nil:
		l.leases.Drop(c.Complete.Ref)
	case c.Lost != nil:
		l.leases.Drop(c.Lost.Ref)
		if r.Err == nil {
			l.s.cfg.Log.Info("queue: lease ended", "attempt", c.Lost.Ref.String(), "confirmed", c.Lost.Confirmed)
		}
	case c.Release != nil:
		l.leases.Drop(c.Release.Ref)
	}
}

// expire proposes what to do about the leases that have ended.
func (l *leader) expire(now time.Time) {
	if !l.serving {
		return
	}
	for _, lost := range l.leases.Expire(now) {
		l.want(queue.Command{Lost: &lost}, nil)
	}
}

// wind sets the timer to the next deadline.
func (l *leader) wind(now time.Time) {
	d := time.Hour
	if next, ok := l.leases.Next(); ok && l.serving {
		d = max(time.Millisecond, next.Sub(now))
	}
	l.expiry.Reset(d)
}

// tidyEvery is how often ended jobs are looked at for what may be forgotten.
const tidyEvery = time.Minute

func (l *leader) tidy(now time.Time) {
	if now.Sub(l.tidied) < tidyEvery {
		return
	}
	l.tidied = now
	var c queue.Forget
	var any bool
	l.s.cfg.Book.Read(func(m *queue.Machine) { c, any = m.Excess(now.UnixNano()) })
	if any {
		l.want(queue.Command{Forget: &c}, nil)
	}
}
