package queue

import "fmt"

// This file holds the commands about attempts: each checks the epoch first, so that what is late or repeated changes
// nothing.

func (m *Machine) grant(epoch Epoch, c *Grant, before []Result) Result {
	s := c.Job
	if c.Of != 0 {
		if c.Of < 1 || c.Of > len(before) || before[c.Of-1].Err != nil {
			return failed(refuse(NotFound, "the job it is for was not made"))
		}
		s = before[c.Of-1].Job
	}
	j, k, err := m.task(s, c.Task)
	if err != nil {
		return failed(err)
	}
	t := j.Tasks[k]
	switch {
	case j.grantable() == 0 || !j.Pending.Has(k):
		return failed(refuse(Refused, fmt.Sprintf("task %d of job %d does not wait for a node", c.Task, s)))
	case c.Node.IsZero() || j.Spec.Pin != "" && j.Spec.Pin != c.Site:
		return failed(refuse(Refused, fmt.Sprintf("job %d may not run at that node", s)))
	case t != nil && t.Epoch >= epoch:
		return failed(refuse(Stale, fmt.Sprintf("task %d of job %d has a newer epoch", c.Task, s)))
	}
	if t == nil {
		t = &task{}
		j.fold()
		if j.Tasks == nil {
			j.Tasks = map[uint32]*task{}
		}
		j.Tasks[k] = t
	}
	j.Pending.Remove(k)
	t.Epoch, t.Node, t.Site, t.Live, t.Granted = epoch, c.Node, c.Site, true, m.now
	t.Attempts++
	j.live.Add(k)
	if j.Started == 0 {
		j.Started = max(m.now, 1)
	}
	m.settle(j)
	return Result{Job: s, Epoch: epoch}
}

// attempt finds the live attempt r, or says why there is none.
func (m *Machine) attempt(r Ref) (*job, uint32, *task, *Error) {
	j, k, err := m.task(r.Job, r.Task)
	if err != nil {
		return nil, 0, nil, err
	}
	t := j.Tasks[k]
	if t == nil || !t.Live || t.Epoch != r.Epoch {
		return j, k, t, refuse(Stale, fmt.Sprintf("attempt %v is not the live one of its task", r))
	}
	return j, k, t, nil
}

// retire ends the live attempt t; the caller says what becomes of the task and settles.
func (j *job) retire(k uint32, t *task) {
	t.Live = false
	j.live.Remove(k)
}

func (m *Machine) complete(c *Complete) Result {
	j, k, t, err := m.attempt(c.Ref)
	if err != nil {
		if t != nil && t.Ended && t.Epoch == c.Epoch {
			return Result{Job: c.Job, Epoch: c.Epoch, Known: true}
		}
		return failed(err)
	}
	j.retire(k, t)
	t.Ended = true
	t.Exit, t.Reason = c.Exit, clip(c.Reason)
	t.Start, t.End, t.CPU, t.MaxRSS = c.Started, c.Ended, c.CPU, c.MaxRSS
	t.Stdout, t.Stderr, t.Outputs = c.Stdout, c.Stderr, c.Outputs
	t.Returned = !t.results()
	if !t.Returned {
		j.owed++
	}
	well := c.Exit == 0 && c.Reason == ""
	switch {
	case well:
		j.Done.Add(k)
	case t.Doomed:
		j.Cancelled.Add(k)
	default:
		j.Failed.Add(k)
	}
	t.Doomed = false
	m.settle(j)
	return Result{Job: c.Job, Epoch: c.Epoch}
}

func (m *Machine) lost(c *Lost) Result {
	j, k, t, err := m.attempt(c.Ref)
	if err != nil {
		return failed(err)
	}
	spent := false
	if c.Confirmed {
		t.Lost++
		spent = int(t.Lost) > j.Spec.Retries
	} else {
		t.Unheard++
		spent = t.Unheard > maxUnheard
	}
	m.again(j, k, t, spent, "node-lost")
	return Result{Job: c.Job, Epoch: c.Epoch}
}

func (m *Machine) release(c *Release) Result {
	j, k, t, err := m.attempt(c.Ref)
	if err != nil {
		return failed(err)
	}
	spent := false
	if c.Failed {
		t.Lost++
		spent = int(t.Lost) > j.Spec.Retries
	}
	m.again(j, k, t, spent, clip(c.Reason))
	return Result{Job: c.Job, Epoch: c.Epoch}
}

// again puts a task back in line after an attempt that came to nothing, or ends it.
func (m *Machine) again(j *job, k uint32, t *task, spent bool, reason string) {
	j.retire(k, t)
	t.Reason = reason
	switch {
	case t.Doomed:
		t.Doomed, t.End = false, m.now
		j.Cancelled.Add(k)
	case spent:
		t.End = m.now
		j.Failed.Add(k)
	default:
		j.Pending.Add(k)
	}
	m.settle(j)
}

func (m *Machine) cancel(c *Cancel) Result {
	j := m.jobs[c.Job]
	if j == nil {
		return failed(refuse(NotFound, fmt.Sprintf("job %d does not exist", c.Job)))
	}
	if c.Tasks != nil && c.Tasks.check() != nil {
		return failed(c.Tasks.check())
	}
	r := Result{Job: c.Job}
	if c.Tasks == nil {
		r.Pending, r.Running = m.cancelAll(j)
		if r.Pending > 0 {
			j.Why = clip(cancelledBy(c.By))
		}
	} else {
		var err *Error
		if r.Pending, r.Running, err = j.cancelSome(*c.Tasks, c.By); err != nil {
			return failed(err)
		}
	}
	r.Known = r.Pending+r.Running == 0
	if j.Pending.Len() == 0 {
		for _, s := range j.Waits {
			m.unwait(s, j.Seq)
		}
		j.Waits = nil
	}
	m.settle(j)
	return r
}

func cancelledBy(who string) string {
	if who == "" {
		return "cancelled"
	}
	return "cancelled by " + who
}

func (m *Machine) cancelAll(j *job) (pending, running int) {
	pending = j.Pending.Len()
	j.Cancelled.Merge(j.Pending.TakeAll())
	for _, t := range j.Tasks {
		if t.Live && !t.Doomed {
			t.Doomed = true
			running++
		}
	}
	return pending, running
}

// maxCancelSteps bounds a cancel of tasks that do not lie side by side in the array.
const maxCancelSteps = 100_000

func (j *job) cancelSome(r Range, by string) (pending, running int, err *Error) {
	mine := j.Spec.Tasks()
	first := max(r.First, mine.First)
	if r.Step == 1 {
		first += (mine.Step - (first-mine.First)%mine.Step) % mine.Step // the first index of mine in r
		r.First, r.Step = first, mine.Step
	}
	last := min(r.Last, mine.Last)
	lo, ok := mine.Ordinal(r.First)
	if ok && r.Step == mine.Step && r.First <= last {
		pending, running = j.cancelOrdinals(lo, lo+uint32((last-r.First)/mine.Step), by)
		return pending, running, nil
	}
	if (last-r.First)/r.Step > maxCancelSteps {
		return 0, 0, refuse(Invalid, fmt.Sprintf("more than %d tasks that do not lie side by side", maxCancelSteps))
	}
	for i := r.First; i <= last; i += r.Step {
		if k, ok := mine.Ordinal(i); ok {
			p, n := j.cancelOrdinals(k, k, by)
			pending, running = pending+p, running+n
		}
	}
	return pending, running, nil
}

// cancelOrdinals cancels the tasks from lo to hi.
func (j *job) cancelOrdinals(lo, hi uint32, by string) (pending, running int) {
	gone := j.Pending.TakeRange(lo, hi)
	j.Cancelled.Merge(gone)
	each := func(k uint32, t *task) {
		switch {
		case t.Live && !t.Doomed:
			t.Doomed = true
			running++
		case gone.Has(k):
			t.Reason = clip(cancelledBy(by))
		}
	}
	if lo == hi {
		if t := j.Tasks[lo]; t != nil {
			each(lo, t)
		}
		return gone.Len(), running
	}
	for k, t := range j.Tasks {
		if lo <= k && k <= hi {
			each(k, t)
		}
	}
	return gone.Len(), running
}

// maxReason bounds the reasons that come from outside, in bytes.
const maxReason = 1024

func clip(s string) string {
	if len(s) <= maxReason {
		return s
	}
	end := maxReason
	for end > 0 && s[end]&0xC0 == 0x80 { // not within a character
		end--
	}
	return s[:end]
}
