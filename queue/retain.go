package queue

import (
	"fmt"
	"slices"
	"time"
)

// Defaults for [Forget]: ended jobs are kept this many and this long.
const (
	KeepJobs    = 10_000
	KeepRecords = 200_000
	KeepFor     = 7 * 24 * time.Hour
)

func (m *Machine) returned(c *Returned) Result {
	j := m.jobs[c.Job]
	if j == nil {
		return failed(refuse(NotFound, fmt.Sprintf("job %d does not exist", c.Job)))
	}
	r := Result{Job: c.Job, Known: true}
	for _, i := range c.Tasks {
		k, ok := j.Spec.Tasks().Ordinal(i)
		t := j.Tasks[k]
		if !ok || t == nil || !t.Ended || t.Returned {
			continue
		}
		t.Returned = true
		j.owed--
		r.Known = false
		if c.Problem != "" {
			t.Reason = clip(t.ending() + c.Problem)
		}
	}
	m.noteOwed(j)
	return r
}

// ending is how the task ended, to stand before what else is to be said; empty if it ended well.
func (t *task) ending() string {
	switch {
	case t.Reason != "":
		return t.Reason + "; "
	case t.Exit != 0:
		return fmt.Sprintf("exit code %d; ", t.Exit)
	}
	return ""
}

// Excess returns the command that brings the ended jobs back within the defaults at a time (Unix nanoseconds), and
// whether it would drop any.
func (m *Machine) Excess(now int64) (Forget, bool) {
	c := Forget{Before: now - int64(KeepFor), Jobs: KeepJobs, Records: KeepRecords}
	drop, _ := m.excess(&c)
	return c, len(drop) > 0
}

// excess returns the ended jobs that c drops, and how many of the oldest were looked at.
func (m *Machine) excess(c *Forget) (drop []Seq, looked int) {
	jobs, records := len(m.ended), m.records
	for _, s := range m.ended {
		j := m.jobs[s]
		over := jobs > c.Jobs || records > c.Records
		far := jobs > 2*c.Jobs || records > 2*c.Records
		if j.Ended >= c.Before && !over {
			break
		}
		looked++
		if j.Ended >= c.Before && j.owed > 0 && !far {
			continue // its results are still wanted
		}
		drop = append(drop, s)
		jobs--
		records -= len(j.Tasks)
	}
	return drop, looked
}

func (m *Machine) forget(c *Forget) Result {
	drop, looked := m.excess(c)
	gone := make(map[Seq]bool, len(drop))
	for _, s := range drop {
		gone[s] = true
		j := m.jobs[s]
		m.records -= len(j.Tasks)
		delete(m.keys, userKey(j.Spec.User, j.Spec.Key))
		delete(m.jobs, s)
		j.owed = 0
		m.noteOwed(j)
	}
	kept := slices.DeleteFunc(slices.Clone(m.ended[:looked]), func(s Seq) bool { return gone[s] })
	m.ended = append(kept, m.ended[looked:]...)
	return Result{Pending: len(drop), Known: len(drop) == 0}
}
