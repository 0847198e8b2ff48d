package queue

import "vcpeer/crdt"

// job is a job and what became of its tasks. The fields with a key are the replicated state; the others are derived
// from them and from other jobs.
//
// Each ordinal of Spec.Tasks() is in exactly one of Pending, Done, Failed, Cancelled, or has a live attempt.
type job struct {
	Seq       Seq              `cbor:"1,keyasint"`
	Spec      Spec             `cbor:"2,keyasint"`
	Submitted int64            `cbor:"3,keyasint"`           // Unix nanoseconds, like all times here
	Started   int64            `cbor:"4,keyasint,omitempty"` // first grant
	Ended     int64            `cbor:"5,keyasint,omitempty"` // 0: some task can still change
	Pending   Set              `cbor:"6,keyasint"`
	Done      Set              `cbor:"7,keyasint"`
	Failed    Set              `cbor:"8,keyasint"`
	Cancelled Set              `cbor:"9,keyasint"`
	Waits     []Seq            `cbor:"10,keyasint,omitempty"` // held until these have ended, ascending
	Why       string           `cbor:"11,keyasint,omitempty"` // why it failed or was cancelled as a whole
	Tasks     map[uint32]*task `cbor:"12,keyasint,omitempty"` // tasks that were started at least once

	live    Set    // tasks with a live attempt
	owed    int    // ended tasks with a record whose results are not back
	class   *class // where it stands in line; nil: nothing to grant now
	counted int    // what it adds to class.tasks
}

// task is what is known of a task that was started. It lives on after the end, as long as the job is remembered.
type task struct {
	Epoch    Epoch       `cbor:"1,keyasint"` // of the newest attempt
	Node     crdt.NodeID `cbor:"2,keyasint"`
	Site     SiteID      `cbor:"3,keyasint"`
	Live     bool        `cbor:"4,keyasint,omitempty"`  // the attempt may be running
	Doomed   bool        `cbor:"5,keyasint,omitempty"`  // live, but to be stopped
	Ended    bool        `cbor:"6,keyasint,omitempty"`  // the newest attempt was completed (not lost or cancelled without a word)
	Attempts uint32      `cbor:"7,keyasint,omitempty"`  // grants
	Lost     uint32      `cbor:"8,keyasint,omitempty"`  // attempts lost with their node
	Unheard  uint32      `cbor:"9,keyasint,omitempty"`  // attempts of which nothing was ever heard
	Returned bool        `cbor:"10,keyasint,omitempty"` // results are in the submit directory, or never will be
	Granted  int64       `cbor:"11,keyasint,omitempty"`
	Exit     int         `cbor:"12,keyasint,omitempty"`
	Reason   string      `cbor:"13,keyasint,omitempty"` // empty if Exit says all; else how it ended, in full
	Start    int64       `cbor:"14,keyasint,omitempty"`
	End      int64       `cbor:"15,keyasint,omitempty"`
	CPU      int64       `cbor:"16,keyasint,omitempty"`
	MaxRSS   int64       `cbor:"17,keyasint,omitempty"`
	Stdout   *File       `cbor:"18,keyasint,omitempty"`
	Stderr   *File       `cbor:"19,keyasint,omitempty"`
	Outputs  []File      `cbor:"20,keyasint,omitempty"`
}

// maxUnheard is how many attempts of a task may vanish before their node confirmed them. They do not count as
// retries, since a lost message is the likely cause, but a task that kills its node at once must stop some time.
const maxUnheard = 20

func newJob(seq Seq, spec Spec, now int64) *job {
	return &job{Seq: seq, Spec: spec, Submitted: now, Pending: setOf(spec.Tasks().Len())}
}

func (j *job) total() int { return j.Spec.Tasks().Len() }

// endedWell reports whether every task is done; meaningful once j has ended.
func (j *job) endedWell() bool { return j.Done.Len() == j.total() }

func (j *job) finished() bool { return j.Pending.Len() == 0 && j.live.Len() == 0 }

// grantable returns how many tasks could be granted now.
func (j *job) grantable() int {
	if len(j.Waits) > 0 || j.Ended != 0 {
		return 0
	}
	n := j.Pending.Len()
	if j.Spec.MaxTasks > 0 {
		n = min(n, j.Spec.MaxTasks-j.live.Len())
	}
	return max(n, 0)
}

// results reports whether t ended with something to bring back.
func (t *task) results() bool {
	return t.Ended && (t.Stdout != nil || t.Stderr != nil || len(t.Outputs) > 0)
}

// derive computes the fields of j that follow from its own.
func (j *job) derive() {
	j.live, j.owed = Set{}, 0
	for k, t := range j.Tasks {
		if t.Live {
			j.live.Add(k)
		}
		if t.Ended && !t.Returned {
			j.owed++
		}
	}
}

// foldAt is how many records of tasks a job may have before the oldest of those that ended well are forgotten.
const foldAt = 20_000

// fold makes room for a record: at each multiple of foldAt, the records of tasks that ended well and whose results
// are back are dropped, lowest index first, down to half of foldAt. Their tasks stay done; only the details go.
func (j *job) fold() {
	n := len(j.Tasks)
	if n == 0 || n%foldAt != 0 {
		return
	}
	for k := range j.Done.All() {
		if len(j.Tasks) <= foldAt/2 {
			return
		}
		if t := j.Tasks[k]; t != nil && t.Returned {
			delete(j.Tasks, k)
		}
	}
}
