package api

import "time"

// Submit asks for a job. Paths are those of the submitting machine; the client has put the content of Script and
// Inputs into the node's blob store first (PutBlob) and gives hashes here.
type Submit struct {
	Key      string            `json:"key"`  // drawn by the client; a repeated Submit with the same key returns the same job
	Name     string            `json:"name"` // [A-Za-z0-9._-]{1,128}
	Argv     []string          `json:"argv"` // the command; with Script, the arguments after it
	Script   *File             `json:"script,omitempty"`
	Shell    string            `json:"shell,omitempty"` // interpreter for a script without #!; empty: /bin/sh
	Env      map[string]string `json:"env,omitempty"`
	Slots    int               `json:"slots"`          // CPUs a task; 0 means 1
	MemBytes int64             `json:"memBytes"`       // 0: no request
	Time     time.Duration     `json:"timeNanos"`      // wall-clock limit; 0: none
	Site     string            `json:"site,omitempty"` // run only there (a name); empty: anywhere
	Array    *Range            `json:"array,omitempty"`
	MaxTasks int               `json:"maxTasks,omitempty"` // at most this many tasks of the array at once; 0: no limit
	Inputs   []File            `json:"inputs,omitempty"`
	Outputs  []string          `json:"outputs,omitempty"`    // glob patterns relative to the job's directory
	After    []string          `json:"after,omitempty"`      // job IDs that must have ended well first
	AfterAny bool              `json:"afterAny,omitempty"`   // dependants start however those ended (Grid Engine's -hold_jid)
	Dir      string            `json:"dir"`                  // submit directory, absolute; results come back here
	Stdout   string            `json:"stdout,omitempty"`     // path for standard output; empty: NAME.oSEQ[.TASK] in Dir; may hold $JOB_ID, $TASK_ID, $JOB_NAME
	Stderr   string            `json:"stderr,omitempty"`     // likewise, NAME.eSEQ[.TASK]
	Join     bool              `json:"joinOutput,omitempty"` // standard error into standard output
	Retries  int               `json:"retries"`              // how often a task lost with its node is started again; client default 2
	Dialect  string            `json:"dialect,omitempty"`    // which variables the job expects besides vcpeer's own: "" none, DialectGridEngine
}

// DialectGridEngine marks a job of a Grid Engine front end. Env then already holds all that is known at submission
// (JOB_NAME, NSLOTS, QUEUE, SGE_TASK_FIRST, …); who starts an attempt adds what only he knows, over Env:
// JOB_ID (the sequence number alone), SGE_TASK_ID (the index, or "undefined" when the job is no array),
// HOSTNAME (the node's name), RESTARTED ("1" from the second attempt on, else "0") and TMPDIR with TMP.
const DialectGridEngine = "sge"

// OutputKept as Submit.Stdout or Stderr: the output is kept for Logs and not brought back as a file.
const OutputKept = "-"

// File is content-addressed: Hash is the hex SHA-256 of the content, held in the blob store.
type File struct {
	Path string `json:"path"` // as the job sees it, relative to its directory, slash-separated
	Hash string `json:"hash"`
	Size int64  `json:"size"`
	Mode uint32 `json:"mode"` // permission bits
}

// Range is the tasks of an array: First, First+Step, ... up to Last.
type Range struct {
	First int `json:"first"`
	Last  int `json:"last"`
	Step  int `json:"step"`
}

// Submitted is the answer: the job is on the disks of a majority of its site's voters.
type Submitted struct {
	ID    string `json:"id"` // SEQ.SITE
	Seq   uint64 `json:"seq"`
	Site  string `json:"site"`
	Tasks int    `json:"tasks"`
}

// States of a job or task.
const (
	StateHeld      = "held"    // waits for other jobs
	StatePending   = "pending" // waits for a slot
	StateRunning   = "running"
	StateUnknown   = "unknown" // leased to a node that is not heard
	StateDone      = "done"    // ended with exit code 0
	StateFailed    = "failed"  // ended otherwise
	StateCancelled = "cancelled"
)

// Job is one line of `vcpeer jobs`.
type Job struct {
	ID        string    `json:"id"`
	Seq       uint64    `json:"seq"`
	Site      string    `json:"site"`
	Name      string    `json:"name"`
	User      string    `json:"user"`
	State     string    `json:"state"` // the worst news first: running, pending, held, failed, cancelled, done
	Slots     int       `json:"slots"`
	Array     *Range    `json:"array,omitempty"`
	Tasks     Counts    `json:"tasks"`
	Submitted time.Time `json:"submitted"`
	Started   time.Time `json:"started,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
	Nodes     []string  `json:"nodes,omitempty"` // where tasks run or ran, at most 8
}

// Counts is how many tasks are in each state.
type Counts struct {
	Total     int `json:"total"`
	Held      int `json:"held,omitempty"`
	Pending   int `json:"pending,omitempty"`
	Running   int `json:"running,omitempty"`
	Unknown   int `json:"unknown,omitempty"`
	Done      int `json:"done,omitempty"`
	Failed    int `json:"failed,omitempty"`
	Cancelled int `json:"cancelled,omitempty"`
}

// Ended reports whether no task can still change.
func (c Counts) Ended() bool { return c.Done+c.Failed+c.Cancelled >= c.Total }

// JobDetail is `vcpeer job ID`.
type JobDetail struct {
	Job
	Submit   Submit   `json:"submit"`
	TaskList []Task   `json:"taskList"`          // tasks that have started; pending ones only in Counts
	Reasons  []Reason `json:"reasons,omitempty"` // why pending tasks wait
}

// Task is one task of a job. Index is 0 for a job that is not an array.
type Task struct {
	Index    int           `json:"index"`
	State    string        `json:"state"`
	Node     string        `json:"node,omitempty"`
	Site     string        `json:"site,omitempty"`
	Attempt  int           `json:"attempt"`
	Epoch    uint64        `json:"epoch"`
	Exit     int           `json:"exit"`             // exit code; 128+n for signal n
	Reason   string        `json:"reason,omitempty"` // why it failed, was lost or was cancelled, in words
	Started  time.Time     `json:"started,omitzero"`
	Ended    time.Time     `json:"ended,omitzero"`
	CPU      time.Duration `json:"cpuNanos"`
	MaxRSS   int64         `json:"maxRSSBytes"`
	Outputs  []File        `json:"outputs,omitempty"`
	Returned bool          `json:"returned"` // results are back in the submit directory
}

// Reason says why tasks wait: Count tasks or nodes for which Text holds, and what would help.
type Reason struct {
	Count int    `json:"count"`
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"`
}

// Why is `vcpeer why ID`: what a job waits for, or how it ended.
type Why struct {
	ID      string   `json:"id"`
	State   string   `json:"state"`
	Summary string   `json:"summary"`
	Reasons []Reason `json:"reasons"`
}

// LogChunk is a piece of a task's output.
type LogChunk struct {
	Task   int    `json:"task"`
	Stream string `json:"stream"` // "stdout" or "stderr"
	Data   []byte `json:"data"`
}

// Cancelled is the answer to a cancel: which tasks were waiting (gone now) and which are being stopped.
type Cancelled struct {
	ID      string `json:"id"`
	Pending int    `json:"pending"`
	Running int    `json:"running"`
}
