package queue

import (
	"fmt"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"vcpeer/crdt"
)

// Limits of one job. What is over them is refused at submit.
const (
	MaxName      = 128
	MaxArgs      = 4096
	MaxEnv       = 1000
	MaxFiles     = 1000
	MaxAfter     = 1000
	MaxText      = 64 << 10  // bytes of one path, argument or variable
	MaxSpecBytes = 256 << 10 // bytes of a whole job, encoded
	MaxTasks     = 1 << 24   // tasks of one array
	MaxIndex     = 1 << 30   // highest index of a task
	MaxSlots     = 1 << 16
	MaxRetries   = 100
	MaxTime      = 10 * 365 * 24 * time.Hour
	memUnit      = 1 << 20 // memory requests are rounded up to it, so that few kinds of needs exist
)

// Spec is what a user asks for. Scripts and files are content-addressed: a hash is the hex SHA-256 of the content.
type Spec struct {
	Key      string            `cbor:"1,keyasint"`            // drawn by the client; the same key of the same user is the same job
	User     string            `cbor:"2,keyasint"`            // name of the owner, as people know him
	Name     string            `cbor:"3,keyasint"`            // [A-Za-z0-9._-]{1,128}
	Argv     []string          `cbor:"4,keyasint,omitempty"`  // the command; with Script, the arguments after it
	Script   *File             `cbor:"5,keyasint,omitempty"`  // nil: Argv is a command
	Shell    string            `cbor:"6,keyasint,omitempty"`  // interpreter of a script without #!
	Env      map[string]string `cbor:"7,keyasint,omitempty"`  //
	Slots    int               `cbor:"8,keyasint"`            // CPUs a task, at least 1
	MemBytes int64             `cbor:"9,keyasint,omitempty"`  // a task; 0: no request
	Time     time.Duration     `cbor:"10,keyasint,omitempty"` // wall-clock limit of a task; 0: none
	Pin      SiteID            `cbor:"11,keyasint,omitempty"` // run only at this site; empty: anywhere
	Array    *Range            `cbor:"12,keyasint,omitempty"` // nil: one task with index 0
	MaxTasks int               `cbor:"13,keyasint,omitempty"` // at most this many tasks at once; 0: no limit
	Inputs   []File            `cbor:"14,keyasint,omitempty"` //
	Outputs  []string          `cbor:"15,keyasint,omitempty"` // glob patterns relative to the task's directory
	After    []Seq             `cbor:"16,keyasint,omitempty"` // jobs of the same site that must have ended well first
	AfterAny bool              `cbor:"17,keyasint,omitempty"` // … or ended in any way
	Dir      string            `cbor:"18,keyasint"`           // absolute directory on Node where results go
	Stdout   string            `cbor:"19,keyasint,omitempty"` // path for standard output; empty: NAME.oSEQ[.TASK] in Dir
	Stderr   string            `cbor:"20,keyasint,omitempty"` //
	Join     bool              `cbor:"21,keyasint,omitempty"` // standard error goes into standard output
	Retries  int               `cbor:"22,keyasint,omitempty"` // how often a task lost with its node is started again
	Node     crdt.NodeID       `cbor:"23,keyasint"`           // where it was submitted and results return to
	Account  string            `cbor:"24,keyasint,omitempty"` // ID of the owner\'s account, which outlives his name; empty: the user that runs vcpeer
}

// Kept as the path of a standard stream means that it is kept for whoever reads the job's output, and not brought back as
// a file: for an attached job, whose output was seen while it ran.
const Kept = "-"

// File is content with a name. Path is relative to the task's directory, slash-separated.
type File struct {
	Path string `cbor:"1,keyasint,omitempty"`
	Hash string `cbor:"2,keyasint"`
	Size int64  `cbor:"3,keyasint"`
	Mode uint32 `cbor:"4,keyasint,omitempty"` // permission bits
}

// Range is the indices of an array's tasks: First, First+Step, ... up to Last.
type Range struct {
	First int `cbor:"1,keyasint"`
	Last  int `cbor:"2,keyasint"`
	Step  int `cbor:"3,keyasint"`
}

// Len returns how many indices r has.
func (r Range) Len() int { return (r.Last-r.First)/r.Step + 1 }

// Index returns the k-th index, from 0.
func (r Range) Index(k uint32) int { return r.First + int(k)*r.Step }

// Ordinal is the inverse of Index; ok is false if i is not an index of r.
func (r Range) Ordinal(i int) (k uint32, ok bool) {
	if i < r.First || i > r.Last || (i-r.First)%r.Step != 0 {
		return 0, false
	}
	return uint32((i - r.First) / r.Step), true
}

func (r Range) check() *Error {
	if r.First < 0 || r.Last < r.First || r.Last > MaxIndex || r.Step < 1 || r.Step > MaxIndex {
		return refuse(Invalid, fmt.Sprintf("array %d-%d:%d: want FIRST-LAST:STEP with 0 ≤ FIRST ≤ LAST ≤ %d and STEP ≥ 1", r.First, r.Last, r.Step, MaxIndex))
	}
	if r.Len() > MaxTasks {
		return refuse(Invalid, fmt.Sprintf("array of %d tasks: the limit is %d", r.Len(), MaxTasks))
	}
	return nil
}

// OwnedBy says whether the job is that of a user with an account. A name may go to somebody else in time, an account never
// does; the name counts only where jobs have no account.
func (s *Spec) OwnedBy(user, account string) bool {
	if s.Account != "" || account != "" {
		return s.Account == account
	}
	return s.User == user
}

// Tasks returns the indices of the job's tasks, 0-0 without an array.
func (s *Spec) Tasks() Range {
	if s.Array != nil {
		return *s.Array
	}
	return Range{Step: 1}
}

// Normal fills in defaults (one slot, step 1) and rounds memory up to whole MiB.
func (s Spec) Normal() Spec {
	s.Slots = max(s.Slots, 1)
	if s.MemBytes > 0 && s.MemBytes <= 1<<62 {
		s.MemBytes = (s.MemBytes + memUnit - 1) / memUnit * memUnit
	}
	if s.Array != nil && s.Array.Step == 0 {
		r := *s.Array
		r.Step = 1
		s.Array = &r
	}
	return s
}

// Check says whether s, in its normal form, is well formed and within the limits, whatever the cluster has.
func (s *Spec) Check() *Error {
	for _, c := range []func() *Error{s.checkNames, s.checkNeeds, s.checkTexts, s.checkFiles} {
		if err := c(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Spec) checkNames() *Error {
	switch {
	case s.Key == "" || len(s.Key) > MaxName || !utf8.ValidString(s.Key):
		return refuse(Invalid, "the client's key is missing or too long")
	case s.User == "" || len(s.User) > MaxName || !utf8.ValidString(s.User):
		return refuse(Invalid, "the user's name is missing or too long")
	case !nameOK(s.Name):
		return refuse(Invalid, fmt.Sprintf("job name %.140q: want 1 to %d of A-Z a-z 0-9 . _ -", s.Name, MaxName))
	case s.Node.IsZero():
		return refuse(Invalid, "the submitting node is missing")
	}
	return nil
}

func (s *Spec) checkNeeds() *Error {
	switch {
	case s.Slots < 1 || s.Slots > MaxSlots:
		return refuse(Invalid, fmt.Sprintf("%d slots: want 1 to %d", s.Slots, MaxSlots))
	case s.MemBytes < 0 || s.MemBytes > 1<<60:
		return refuse(Invalid, fmt.Sprintf("memory of %d bytes is out of range", s.MemBytes))
	case s.Time < 0 || s.Time > MaxTime:
		return refuse(Invalid, fmt.Sprintf("time limit %v is out of range", s.Time))
	case s.MaxTasks < 0 || s.MaxTasks > MaxTasks:
		return refuse(Invalid, fmt.Sprintf("at most %d tasks at once is out of range", s.MaxTasks))
	case s.Retries < 0 || s.Retries > MaxRetries:
		return refuse(Invalid, fmt.Sprintf("%d retries: want 0 to %d", s.Retries, MaxRetries))
	case len(s.After) > MaxAfter:
		return refuse(Invalid, fmt.Sprintf("after %d jobs: the limit is %d", len(s.After), MaxAfter))
	case s.Array != nil:
		return s.Array.check()
	}
	return nil
}

func (s *Spec) checkTexts() *Error {
	switch {
	case s.Script == nil && len(s.Argv) == 0:
		return refuse(Invalid, "there is neither a script nor a command")
	case len(s.Argv) > MaxArgs:
		return refuse(Invalid, fmt.Sprintf("%d arguments: the limit is %d", len(s.Argv), MaxArgs))
	case len(s.Env) > MaxEnv:
		return refuse(Invalid, fmt.Sprintf("%d environment variables: the limit is %d", len(s.Env), MaxEnv))
	case !path.IsAbs(s.Dir):
		return refuse(Invalid, fmt.Sprintf("submit directory %.200q is not absolute", s.Dir))
	}
	for k, v := range s.Env {
		if k == "" || strings.Contains(k, "=") || !textOK(k) || !textOK(v) {
			return refuse(Invalid, fmt.Sprintf("environment variable %.80q: not a name and a text of at most %d bytes", k, MaxText))
		}
	}
	texts := append([]string{s.Shell, s.Dir, s.Stdout, s.Stderr, string(s.Pin)}, s.Argv...)
	for _, t := range texts {
		if !textOK(t) {
			return refuse(Invalid, fmt.Sprintf("%.80q: not a text of at most %d bytes", t, MaxText))
		}
	}
	return nil
}

func (s *Spec) checkFiles() *Error {
	if len(s.Inputs) > MaxFiles || len(s.Outputs) > MaxFiles {
		return refuse(Invalid, fmt.Sprintf("more than %d inputs or outputs", MaxFiles))
	}
	for _, f := range s.Inputs {
		if err := f.check(); err != nil {
			return err
		}
	}
	for _, g := range s.Outputs {
		if _, err := path.Match(g, "x"); err != nil || !localPath(g) {
			return refuse(Invalid, fmt.Sprintf("output pattern %.200q: want a pattern below the job's directory", g))
		}
	}
	if s.Script != nil && !hashOK(s.Script.Hash) {
		return refuse(Invalid, "the script's hash is not a hex SHA-256")
	}
	return nil
}

func (f File) check() *Error {
	if !localPath(f.Path) || !hashOK(f.Hash) || f.Size < 0 {
		return refuse(Invalid, fmt.Sprintf("file %.200q: want a path below the job's directory and a hex SHA-256", f.Path))
	}
	return nil
}

// localPath reports whether p is slash-separated, relative, clean and does not leave the directory it is relative to.
func localPath(p string) bool {
	return p != "" && p != "." && textOK(p) && !path.IsAbs(p) && path.Clean(p) == p && p != ".." && !strings.HasPrefix(p, "../")
}

func nameOK(s string) bool {
	if s == "" || len(s) > MaxName {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func hashOK(s string) bool {
	if len(s) != 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// textOK reports whether s can be an argument, a variable or a path of a process: UTF-8 without NUL, not too long.
func textOK(s string) bool {
	return len(s) <= MaxText && utf8.ValidString(s) && !strings.Contains(s, "\x00")
}
