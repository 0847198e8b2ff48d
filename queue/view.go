package queue

import (
	"iter"
	"slices"
	"time"

	"vcpeer/crdt"
)

// State of a job or a task.
type State string

// The states. A job's state is the first of running, pending, held, failed, cancelled, done that any of its tasks has.
const (
	Held      State = "held"    // waits for other jobs
	Pending   State = "pending" // waits for a node
	Running   State = "running"
	Unknown   State = "unknown" // leased to a node that is not heard
	Done      State = "done"    // ended with exit code 0
	Failed    State = "failed"
	Cancelled State = "cancelled"
)

// Counts is how many tasks are in each state.
type Counts struct {
	Total, Held, Pending, Running, Unknown, Done, Failed, Cancelled int
}

// JobView is a job as it is seen at a moment; it shares no memory with the machine, except Spec's slices and maps,
// which never change.
type JobView struct {
	Seq       Seq
	Spec      Spec
	State     State
	Counts    Counts
	Submitted time.Time
	Started   time.Time // zero: not yet
	Ended     time.Time // zero: not yet
	Nodes     []crdt.NodeID
	Reason    string // why it failed or was cancelled as a whole
	Owed      int    // ended tasks whose results are not back yet
}

// TaskView is a task that was started at least once.
type TaskView struct {
	Index    int
	State    State
	Node     crdt.NodeID
	Site     SiteID
	Attempt  int // grants so far
	Epoch    Epoch
	Exit     int
	Reason   string
	Started  time.Time // the worker's word when it has ended, else when it was granted
	Ended    time.Time
	CPU      time.Duration
	MaxRSS   int64
	Stdout   *File
	Stderr   *File
	Outputs  []File
	Returned bool // nothing is left to bring back
}

// Alive says whether a node is heard. nil means all are.
type Alive func(crdt.NodeID) bool

func (a Alive) ask(n crdt.NodeID) bool { return a == nil || a(n) }

// viewNodes is how many nodes a job view names.
const viewNodes = 8

// Job returns a job as it is now.
func (m *Machine) Job(s Seq, alive Alive) (JobView, bool) {
	j := m.jobs[s]
	if j == nil {
		return JobView{}, false
	}
	return j.view(alive), true
}

// HasEnded reports whether nothing of a job is left to do: it has ended and its results are back, or it does not exist.
func (m *Machine) HasEnded(s Seq) bool {
	j := m.jobs[s]
	return j == nil || j.Ended != 0 && j.owed == 0
}

// Spec returns what a job asks for, in its normal form. It shares memory with m: it must not be changed. nil: no such job.
func (m *Machine) Spec(s Seq) *Spec {
	j := m.jobs[s]
	if j == nil {
		return nil
	}
	return &j.Spec
}

// Jobs returns the jobs of a user (all users if empty) in order, at most limit (0: all) of the newest.
func (m *Machine) Jobs(user string, open bool, limit int, alive Alive) []JobView {
	var all []JobView
	seqs := m.sortedJobs()
	slices.Reverse(seqs)
	for _, s := range seqs {
		j := m.jobs[s]
		if user != "" && j.Spec.User != user || open && j.Ended != 0 {
			continue
		}
		all = append(all, j.view(alive))
		if len(all) == limit {
			break
		}
	}
	slices.Reverse(all)
	return all
}

func (j *job) view(alive Alive) JobView {
	v := JobView{Seq: j.Seq, Spec: j.Spec, Submitted: at(j.Submitted), Started: at(j.Started), Ended: at(j.Ended),
		Reason: j.Why, Owed: j.owed}
	v.Counts = Counts{Total: j.total(), Done: j.Done.Len(), Failed: j.Failed.Len(), Cancelled: j.Cancelled.Len()}
	if len(j.Waits) > 0 {
		v.Counts.Held = j.Pending.Len()
	} else {
		v.Counts.Pending = j.Pending.Len()
	}
	nodes := map[crdt.NodeID]bool{}
	for k := range j.live.All() {
		n := j.Tasks[k].Node
		nodes[n] = true
		if alive.ask(n) {
			v.Counts.Running++
		} else {
			v.Counts.Unknown++
		}
	}
	looked := 0
	for _, t := range j.Tasks { // enough to choose from, whatever the size of the job
		if looked++; looked > 32*viewNodes || len(nodes) >= 4*viewNodes {
			break
		}
		nodes[t.Node] = true
	}
	for n := range nodes {
		v.Nodes = append(v.Nodes, n)
	}
	slices.SortFunc(v.Nodes, func(a, b crdt.NodeID) int { return slices.Compare(a[:], b[:]) })
	v.Nodes = v.Nodes[:min(len(v.Nodes), viewNodes)]
	v.State = v.Counts.state()
	return v
}

func (c Counts) state() State {
	switch {
	case c.Running > 0:
		return Running
	case c.Unknown > 0:
		return Unknown
	case c.Pending > 0:
		return Pending
	case c.Held > 0:
		return Held
	case c.Failed > 0:
		return Failed
	case c.Cancelled > 0:
		return Cancelled
	default:
		return Done
	}
}

func at(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// Tasks returns the tasks of a job that were started, by index, from index from on, at most limit (0: all).
func (m *Machine) Tasks(s Seq, from, limit int, alive Alive) []TaskView {
	j := m.jobs[s]
	if j == nil {
		return nil
	}
	var ks []uint32
	for k := range j.Tasks {
		if j.Spec.Tasks().Index(k) >= from {
			ks = append(ks, k)
		}
	}
	slices.Sort(ks)
	if limit > 0 && len(ks) > limit {
		ks = ks[:limit]
	}
	all := make([]TaskView, len(ks))
	for i, k := range ks {
		all[i] = j.taskView(k, alive)
	}
	return all
}

// Task returns one task that was started.
func (m *Machine) Task(s Seq, index int, alive Alive) (TaskView, bool) {
	j, k, err := m.task(s, index)
	if err != nil || j.Tasks[k] == nil {
		return TaskView{}, false
	}
	return j.taskView(k, alive), true
}

func (j *job) taskView(k uint32, alive Alive) TaskView {
	t := j.Tasks[k]
	v := TaskView{Index: j.Spec.Tasks().Index(k), Node: t.Node, Site: t.Site, Attempt: int(t.Attempts), Epoch: t.Epoch,
		Reason: t.Reason, Started: at(t.Granted), Returned: t.Returned}
	switch {
	case t.Live && alive.ask(t.Node):
		v.State = Running
	case t.Live:
		v.State = Unknown
	case j.Done.Has(k):
		v.State = Done
	case j.Failed.Has(k):
		v.State = Failed
	case j.Cancelled.Has(k):
		v.State = Cancelled
	default:
		v.State = Pending
	}
	if t.Ended {
		v.Exit, v.CPU, v.MaxRSS = t.Exit, time.Duration(t.CPU), t.MaxRSS
		v.Stdout, v.Stderr, v.Outputs = t.Stdout, t.Stderr, slices.Clone(t.Outputs)
		if t.Start != 0 {
			v.Started = at(t.Start)
		}
	}
	v.Ended = at(t.End)
	return v
}

// Owed returns, in order, jobs submitted at a node that have ended tasks whose results are not back yet.
func (m *Machine) Owed(node crdt.NodeID) []Seq {
	owed := make([]Seq, 0, len(m.owing[node]))
	for s := range m.owing[node] {
		owed = append(owed, s)
	}
	slices.Sort(owed)
	return owed
}

// OwedTasks returns the ended tasks of a job whose results are not back yet, by index, at most limit.
func (m *Machine) OwedTasks(s Seq, limit int) []TaskView {
	j := m.jobs[s]
	if j == nil || j.owed == 0 {
		return nil
	}
	var ks []uint32
	for k, t := range j.Tasks {
		if t.Ended && !t.Returned {
			ks = append(ks, k)
		}
	}
	slices.Sort(ks)
	var all []TaskView
	for _, k := range ks[:min(len(ks), limit)] {
		all = append(all, j.taskView(k, nil))
	}
	return all
}

// Blobs yields the hash of every blob that some job still needs: scripts and inputs of open jobs, results not yet
// returned and those that are shown. A hash may come more than once. m must not change meanwhile.
func (m *Machine) Blobs() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, j := range m.jobs {
			if !j.blobs(yield) {
				return
			}
		}
	}
}

func (j *job) blobs(yield func(string) bool) bool {
	each := func(files ...File) bool {
		for _, f := range files {
			if !yield(f.Hash) {
				return false
			}
		}
		return true
	}
	if j.Ended == 0 {
		if j.Spec.Script != nil && !yield(j.Spec.Script.Hash) || !each(j.Spec.Inputs...) {
			return false
		}
	}
	for _, t := range j.Tasks {
		for _, f := range []*File{t.Stdout, t.Stderr} {
			if f != nil && !yield(f.Hash) {
				return false
			}
		}
		if !t.Returned && !each(t.Outputs...) {
			return false
		}
	}
	return true
}
