package queue

import (
	"fmt"
	"slices"

	"vcpeer/crdt"
)

// Caps of one site's queue. They are part of the replicated state machine: changing them needs a new [Version].
const (
	MaxUserJobs = 10_000    // jobs of one user that have not ended
	MaxJobs     = 1_000_000 // jobs that have not ended
)

// Machine is the replicated state. Equal entries at equal indices give equal machines. Not for concurrent use.
type Machine struct {
	site        SiteID
	incarnation uint16
	last        Seq   // newest job number
	now         int64 // newest time of an entry, never falls; Unix nanoseconds
	jobs        map[Seq]*job

	// Derived from jobs.
	keys    map[string]Seq // user and client key
	queued  map[string]int // jobs of a user that have not ended
	open    int            // == sum of queued
	waiters map[Seq][]Seq  // who waits for a job, ascending
	classes map[need]*class
	ended   []Seq // ended jobs, by time of the end, then number
	records int   // tasks with a record in ended jobs
	live    map[Seq]struct{}
	owing   map[crdt.NodeID]map[Seq]struct{} // by submitting node: jobs with results that are not back
}

// need is what a task asks of a node. Jobs of equal need stand in one line.
type need struct {
	slots int
	mem   int64
	pin   SiteID
}

// class is the line of jobs of one need that have something to grant.
type class struct {
	need
	line  line
	tasks int // sum of their grantable tasks
}

// New returns an empty machine. The incarnation rises when a site's group is founded anew from what is left of it.
func New(site SiteID, incarnation uint16) *Machine {
	m := &Machine{site: site, incarnation: incarnation, jobs: map[Seq]*job{}}
	m.derive()
	return m
}

// Site returns the site that the machine belongs to.
func (m *Machine) Site() SiteID { return m.site }

// Last returns the newest job number given out.
func (m *Machine) Last() Seq { return m.last }

// Apply applies the entry that is committed at index and returns one result for each of its commands. On an error,
// which wraps [ErrUnknown] or [ErrTooLarge], the state is as before and the replica must stop.
func (m *Machine) Apply(index uint64, data []byte) ([]Result, error) {
	e, err := DecodeEntry(data)
	if err != nil {
		return nil, fmt.Errorf("queue: log entry %d: %w", index, err)
	}
	m.now = max(m.now, e.At)
	results := make([]Result, len(e.Commands))
	for i := range e.Commands {
		results[i] = m.apply(index, &e.Commands[i], results[:i])
	}
	return results, nil
}

// apply runs one command; before are the results of the earlier ones of the entry.
func (m *Machine) apply(index uint64, c *Command, before []Result) Result {
	switch {
	case c.Submit != nil:
		return m.submit(c.Submit)
	case c.Grant != nil:
		return m.grant(EpochAt(m.incarnation, index), c.Grant, before)
	case c.Complete != nil:
		return m.complete(c.Complete)
	case c.Lost != nil:
		return m.lost(c.Lost)
	case c.Release != nil:
		return m.release(c.Release)
	case c.Cancel != nil:
		return m.cancel(c.Cancel)
	case c.Returned != nil:
		return m.returned(c.Returned)
	default:
		return m.forget(c.Forget)
	}
}

func failed(err *Error) Result { return Result{Err: err} }

func userKey(user, key string) string { return user + "\x00" + key }

// Known returns the job that a user submitted with a client key.
func (m *Machine) Known(user, key string) (Seq, bool) {
	s, ok := m.keys[userKey(user, key)]
	return s, ok
}

func (m *Machine) submit(c *Submit) Result {
	spec := c.Spec.Normal()
	if err := spec.Check(); err != nil {
		return failed(err)
	}
	if s, ok := m.Known(spec.User, spec.Key); ok {
		return Result{Job: s, Known: true}
	}
	if err := m.room(spec.User); err != nil {
		return failed(err)
	}
	spec.After = slices.Clone(spec.After)
	slices.Sort(spec.After)
	spec.After = slices.Compact(spec.After)
	for _, s := range spec.After {
		if m.jobs[s] == nil {
			return failed(refuse(NotFound, fmt.Sprintf("job %d, which it shall run after, does not exist", s)))
		}
	}
	m.last++
	j := newJob(m.last, spec, m.now)
	m.jobs[j.Seq] = j
	m.keys[userKey(spec.User, spec.Key)] = j.Seq
	m.queued[spec.User]++
	m.open++
	m.hold(j)
	m.settle(j)
	return Result{Job: j.Seq}
}

func (m *Machine) room(user string) *Error {
	if n := m.queued[user]; n >= MaxUserJobs {
		return &Error{Code: Busy, Text: fmt.Sprintf("user %s has %d jobs that have not ended; the limit is %d", user, n, MaxUserJobs),
			Hint: "submit an array instead of single jobs, or try again when some have ended"}
	}
	if m.open >= MaxJobs {
		return &Error{Code: Busy, Text: fmt.Sprintf("the site's queue holds %d jobs, its limit", m.open), Hint: "try again later"}
	}
	return nil
}

// hold makes j wait for the jobs it comes after, or fails it if one of them has ended badly.
func (m *Machine) hold(j *job) {
	for _, s := range j.Spec.After {
		d := m.jobs[s]
		switch {
		case d.Ended == 0:
			j.Waits = append(j.Waits, s)
			m.waiters[s] = append(m.waiters[s], j.Seq) // ascending: j is the newest
		case !j.Spec.AfterAny && !d.endedWell():
			m.failHeld(j, d)
			return
		}
	}
}

func (m *Machine) failHeld(j, cause *job) {
	for _, s := range j.Waits {
		m.unwait(s, j.Seq)
	}
	j.Waits = nil
	j.Why = fmt.Sprintf("job %d, which it runs after, did not end well", cause.Seq)
	j.Failed.Merge(j.Pending.TakeAll())
}

func (m *Machine) unwait(s, waiter Seq) {
	w := m.waiters[s]
	if i, ok := slices.BinarySearch(w, waiter); ok {
		w = slices.Delete(w, i, i+1)
	}
	if len(w) == 0 {
		delete(m.waiters, s)
		return
	}
	m.waiters[s] = w
}

// settle brings everything that follows from j's state up to date, and goes on to the jobs that waited for it.
func (m *Machine) settle(j *job) {
	todo := []*job{j}
	for len(todo) > 0 {
		j, todo = todo[0], todo[1:]
		if j.finished() && j.Ended == 0 {
			m.end(j)
			todo = append(todo, m.freeWaiters(j)...)
		}
		m.standInLine(j)
		if j.live.Len() > 0 {
			m.live[j.Seq] = struct{}{}
		} else {
			delete(m.live, j.Seq)
		}
		m.noteOwed(j)
	}
}

// noteOwed keeps the list of what is to be brought back to a node.
func (m *Machine) noteOwed(j *job) {
	if n := j.Spec.Node; j.owed > 0 {
		if m.owing[n] == nil {
			m.owing[n] = map[Seq]struct{}{}
		}
		m.owing[n][j.Seq] = struct{}{}
	} else if m.owing[n] != nil {
		delete(m.owing[n], j.Seq)
		if len(m.owing[n]) == 0 {
			delete(m.owing, n)
		}
	}
}

func (m *Machine) end(j *job) {
	j.Ended = max(m.now, 1)
	m.records += len(j.Tasks)
	m.open--
	if m.queued[j.Spec.User]--; m.queued[j.Spec.User] == 0 {
		delete(m.queued, j.Spec.User)
	}
	i, _ := slices.BinarySearchFunc(m.ended, j.Seq, m.byEnd)
	m.ended = slices.Insert(m.ended, i, j.Seq)
}

// byEnd orders ended jobs. Ends only rise, so inserting is almost always appending.
func (m *Machine) byEnd(a, b Seq) int {
	if x, y := m.jobs[a].Ended, m.jobs[b].Ended; x != y {
		if x < y {
			return -1
		}
		return 1
	}
	return int(int64(a) - int64(b))
}

// freeWaiters lets go, or fails, those who waited for j, which has ended. It returns them.
func (m *Machine) freeWaiters(j *job) []*job {
	var freed []*job
	for _, s := range slices.Clone(m.waiters[j.Seq]) {
		w := m.jobs[s]
		freed = append(freed, w)
		if !w.Spec.AfterAny && !j.endedWell() {
			m.failHeld(w, j)
			continue
		}
		w.Waits = slices.DeleteFunc(w.Waits, func(s Seq) bool { return s == j.Seq })
		m.unwait(j.Seq, s)
	}
	return freed
}

// standInLine puts j into the line of its need, or takes it out.
func (m *Machine) standInLine(j *job) {
	n := j.grantable()
	if j.class != nil {
		j.class.tasks -= j.counted
		if n == 0 {
			j.class.line.remove(j.Seq)
			if j.class.line.len() == 0 {
				delete(m.classes, j.class.need)
			}
			j.class, j.counted = nil, 0
			return
		}
	}
	if n == 0 {
		return
	}
	if j.class == nil {
		k := need{j.Spec.Slots, j.Spec.MemBytes, j.Spec.Pin}
		if m.classes[k] == nil {
			m.classes[k] = &class{need: k}
		}
		j.class = m.classes[k]
		j.class.line.add(j.Seq)
	}
	j.counted = n
	j.class.tasks += n
}

// derive computes all that follows from jobs.
func (m *Machine) derive() {
	m.keys, m.queued, m.waiters = map[string]Seq{}, map[string]int{}, map[Seq][]Seq{}
	m.classes, m.live = map[need]*class{}, map[Seq]struct{}{}
	m.owing = map[crdt.NodeID]map[Seq]struct{}{}
	m.open, m.records, m.ended = 0, 0, nil
	for _, s := range m.sortedJobs() {
		j := m.jobs[s]
		j.derive()
		m.noteOwed(j)
		m.keys[userKey(j.Spec.User, j.Spec.Key)] = s
		for _, w := range j.Waits {
			m.waiters[w] = append(m.waiters[w], s)
		}
		if j.Ended != 0 {
			m.ended = append(m.ended, s)
			m.records += len(j.Tasks)
			continue
		}
		m.queued[j.Spec.User]++
		m.open++
		m.standInLine(j)
		if j.live.Len() > 0 {
			m.live[s] = struct{}{}
		}
	}
	slices.SortFunc(m.ended, m.byEnd)
}

func (m *Machine) sortedJobs() []Seq {
	all := make([]Seq, 0, len(m.jobs))
	for s := range m.jobs {
		all = append(all, s)
	}
	slices.Sort(all)
	return all
}

// task finds a job's task; the ordinal is its place in the array.
func (m *Machine) task(s Seq, index int) (*job, uint32, *Error) {
	j := m.jobs[s]
	if j == nil {
		return nil, 0, refuse(NotFound, fmt.Sprintf("job %d does not exist", s))
	}
	k, ok := j.Spec.Tasks().Ordinal(index)
	if !ok {
		return nil, 0, refuse(NotFound, fmt.Sprintf("job %d has no task %d", s, index))
	}
	return j, k, nil
}

// Live reports whether r is the live attempt of its task; doomed, that it is to be stopped.
func (m *Machine) Live(r Ref) (node crdt.NodeID, doomed, ok bool) {
	j, k, err := m.task(r.Job, r.Task)
	if err != nil {
		return node, false, false
	}
	t := j.Tasks[k]
	if t == nil || !t.Live || t.Epoch != r.Epoch {
		return node, false, false
	}
	return t.Node, t.Doomed, true
}
