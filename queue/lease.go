package queue

import (
	"cmp"
	"container/heap"
	"errors"
	"iter"
	"slices"
	"time"

	"vcpeer/crdt"
)

// Times are the lengths of leases, the same on owner and worker.
type Times struct {
	TTL   time.Duration // what a renewal gives
	First time.Duration // what a grant gives, until the worker confirms by its first renewal
	Grace time.Duration // what the owner waits beyond, besides a tenth; see the package comment
}

// DefaultTimes suit a wide area network.
var DefaultTimes = Times{TTL: time.Minute, First: 15 * time.Second, Grace: 5 * time.Second}

// Validate checks that the argument of the package comment holds for election timeouts up to electionTimeout.
func (t Times) Validate(electionTimeout time.Duration) error {
	switch {
	case t.First <= 0 || t.TTL < t.First:
		return errors.New("queue: lease times: want 0 < First ≤ TTL")
	case t.Grace <= 2*electionTimeout+t.TTL/200:
		return errors.New("queue: lease times: the grace must exceed two election timeouts and 0.5 % of the TTL")
	}
	return nil
}

// owner returns what the owner waits for a lease of a length.
func (t Times) owner(length time.Duration) time.Duration { return length + length/10 + t.Grace }

// Leases is the leader's table of deadlines, one for each live attempt. It is not replicated: a new leader calls
// Reset. Times are those of the leader's monotonic clock. Not for concurrent use.
type Leases struct {
	times Times
	table map[Ref]*lease
	queue leaseQueue
}

type lease struct {
	ref       Ref
	node      crdt.NodeID
	deadline  time.Time
	confirmed bool
	over      bool // Expire has named it: no renewal any more
	at        int  // place in the queue
}

// NewLeases returns an empty table.
func NewLeases(t Times) *Leases { return &Leases{times: t, table: map[Ref]*lease{}} }

// Reset gives every live attempt a full lease, whatever there was before: for a new leader.
func (l *Leases) Reset(m *Machine, now time.Time) {
	l.table, l.queue = map[Ref]*lease{}, nil
	l.Sync(m, now)
}

// Sync makes the table's attempts those that are live in m, and leaves the deadlines of the known ones alone: for a
// leader that did not learn what became of a proposal.
func (l *Leases) Sync(m *Machine, now time.Time) {
	live := map[Ref]bool{}
	for a := range m.Attempts() {
		live[a.Ref] = true
		if l.table[a.Ref] == nil {
			l.put(a.Ref, a.Node, now.Add(l.times.owner(l.times.TTL)), true)
		}
	}
	for r := range l.table {
		if !live[r] {
			l.Drop(r)
		}
	}
}

// Grant enters an attempt that was committed now, with the short first lease.
func (l *Leases) Grant(r Ref, node crdt.NodeID, now time.Time) {
	l.put(r, node, now.Add(l.times.owner(l.times.First)), false)
}

func (l *Leases) put(r Ref, node crdt.NodeID, deadline time.Time, confirmed bool) {
	e := &lease{ref: r, node: node, deadline: deadline, confirmed: confirmed}
	l.table[r] = e
	heap.Push(&l.queue, e)
}

// Renew gives the attempt a full lease from now and reports whether it has one: false means that the node must stop it.
func (l *Leases) Renew(r Ref, node crdt.NodeID, now time.Time) bool {
	e := l.table[r]
	if e == nil || e.over || e.node != node {
		return false
	}
	e.confirmed = true
	e.deadline = now.Add(l.times.owner(l.times.TTL))
	heap.Fix(&l.queue, e.at)
	return true
}

// Drop takes out an attempt that is no longer live.
func (l *Leases) Drop(r Ref) {
	if e := l.table[r]; e != nil {
		heap.Remove(&l.queue, e.at)
		delete(l.table, r)
	}
}

// Expire returns what to propose for the attempts whose deadline has passed, oldest deadline first. They cannot be
// renewed any more, and are named again after a grace if they are still there then.
func (l *Leases) Expire(now time.Time) []Lost {
	var lost []Lost
	for len(l.queue) > 0 && !l.queue[0].deadline.After(now) {
		e := l.queue[0]
		lost = append(lost, Lost{Ref: e.ref, Confirmed: e.confirmed})
		e.over = true
		e.deadline = now.Add(max(l.times.Grace, time.Millisecond))
		heap.Fix(&l.queue, 0)
	}
	return lost
}

// Next returns the earliest deadline; ok is false if there is none.
func (l *Leases) Next() (deadline time.Time, ok bool) {
	if len(l.queue) == 0 {
		return time.Time{}, false
	}
	return l.queue[0].deadline, true
}

// Len returns how many leases there are.
func (l *Leases) Len() int { return len(l.table) }

// Confirmed reports whether the node of an attempt has said that it runs it, to this leader or before it led.
func (l *Leases) Confirmed(r Ref) bool {
	e := l.table[r]
	return e != nil && e.confirmed
}

// leaseQueue is a heap by deadline; equal ones by reference, so that equal runs give equal effects.
type leaseQueue []*lease

func (q leaseQueue) Len() int { return len(q) }
func (q leaseQueue) Less(i, j int) bool {
	if c := q[i].deadline.Compare(q[j].deadline); c != 0 {
		return c < 0
	}
	return compareRefs(q[i].ref, q[j].ref) < 0
}
func (q leaseQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}
func (q *leaseQueue) Push(x any) {
	e := x.(*lease)
	e.at = len(*q)
	*q = append(*q, e)
}
func (q *leaseQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

func compareRefs(a, b Ref) int {
	return cmp.Or(cmp.Compare(a.Job, b.Job), cmp.Compare(a.Task, b.Task), cmp.Compare(a.Epoch, b.Epoch))
}

// Attempt is a live attempt of a task.
type Attempt struct {
	Ref
	Node   crdt.NodeID
	Site   SiteID
	Doomed bool // to be stopped
}

// Attempts yields the live attempts in the order of jobs and tasks. m must not change meanwhile.
func (m *Machine) Attempts() iter.Seq[Attempt] {
	return func(yield func(Attempt) bool) {
		jobs := make([]Seq, 0, len(m.live))
		for s := range m.live {
			jobs = append(jobs, s)
		}
		slices.Sort(jobs)
		for _, s := range jobs {
			for _, a := range m.jobs[s].attempts() {
				if !yield(a) {
					return
				}
			}
		}
	}
}

func (j *job) attempts() []Attempt {
	var all []Attempt
	for k, t := range j.Tasks {
		if t.Live {
			all = append(all, Attempt{Ref{j.Seq, j.Spec.Tasks().Index(k), t.Epoch}, t.Node, t.Site, t.Doomed})
		}
	}
	slices.SortFunc(all, func(a, b Attempt) int { return compareRefs(a.Ref, b.Ref) })
	return all
}

// GrantedUntil returns when, on the worker's clock, the first lease of a granted attempt ends. The worker asked at
// asked; the owner, and every leader on the way, says for how long it held the request before the grant was
// committed. The commit was thus at asked+held or later, and the worker needs no second exchange before it starts:
// held counts less by a tenth, for clocks that run at different rates. If that moment has passed the attempt must
// not start.
func GrantedUntil(asked, held, first time.Duration) time.Duration {
	return asked + max(0, held-held/10) + first
}

// JobAttempts yields the live attempts of one job, by task. m must not change meanwhile.
func (m *Machine) JobAttempts(s Seq) iter.Seq[Attempt] {
	if j := m.jobs[s]; j != nil {
		return slices.Values(j.attempts())
	}
	return slices.Values([]Attempt(nil))
}
