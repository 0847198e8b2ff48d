package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
)

// Errors that callers decide on; all come wrapped.
var (
	ErrSpec     = errors.New("attempt cannot be run as asked")     // the spec is wrong: running it elsewhere does not help
	ErrStarted  = errors.New("attempt was started already")        // its key was seen before; its Result came or will come
	ErrUnknown  = errors.New("no such attempt")                    // never started here, or acknowledged
	ErrNotEnded = errors.New("attempt has not ended")              // Ack before the Result
	ErrLease    = errors.New("lease is over")                      // Start or Renew too late
	ErrNoSpace  = errors.New("not enough free disk space")         // nothing new is started; running attempts go on
	ErrClosed   = errors.New("executor is stopping")               // Run has returned or its context is over
	ErrAccount  = errors.New("cannot run under the given account") // uid 0, or another uid without being root
)

// Limits of a Spec.
const (
	maxKey      = 200
	maxMeta     = 64 << 10
	maxArgs     = 4096
	maxEnv      = 1000
	maxString   = 128 << 10 // one argument or variable: the kernel's MAX_ARG_STRLEN
	maxArgBytes = 1 << 20   // all arguments and variables: half of what an 8 MiB stack allows
	maxFiles    = 10000
)

// Spec is one attempt.
type Spec struct {
	Key       string        // unique for ever: JOB.TASK.EPOCH, [A-Za-z0-9._-], not beginning with a dot
	Env       []string      // NAME=value; see Environ for what is added
	Argv      []string      // the command; with Script, the arguments after it
	Script    string        // blob hash of a script to run; "": Argv is the command
	Shell     string        // interpreter of a script that has no #! line; "": /bin/sh
	Account   *Account      // nil: the daemon's own user
	Inputs    []File        // placed in the working directory before the start
	Outputs   []string      // patterns of paths below the working directory, each element as in path.Match, ** any depth; a directory stands for all below it
	Join      bool          // standard error goes where standard output goes
	NoStdout  bool          // standard output is discarded: Result.Stdout is zero
	NoStderr  bool          // standard error is; with Join, NoStdout decides
	Slots     int           // told to the job as VCPEER_SLOTS; not enforced
	MemBytes  int64         // resident memory of all its processes; more kills it; 0: no limit
	TimeLimit time.Duration // SIGTERM after it, SIGKILL after Config.Grace more; 0: none
	Meta      []byte        // not looked at; comes back in Running and Result
	Asked     BootTime      // the lease counts from here: take NowBoot before asking for it; 0: from the call of Start
}

// Account is a user of the operating system.
type Account struct {
	Name   string
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary groups, complete
	Home   string   // "": the attempt's working directory
	Shell  string   // "": /bin/sh
}

// File is a file of the working directory and the blob that holds its content.
type File struct {
	Path string // relative, slash-separated, without . and .. elements
	Hash string
	Size int64
	Mode uint32 // permission bits; 0: 0644. Set-id and sticky bits are refused
}

// Ref names a blob.
type Ref struct {
	Hash string
	Size int64
}

// Running is an attempt that has not ended.
type Running struct {
	Key     string
	Meta    []byte
	Slots   int
	PID     int // of the first process
	Started time.Time
	Until   BootTime // the job is killed then unless renewed
	Adopted bool     // started by an earlier daemon
}

// Result is how an attempt ended. It comes again after each restart of the daemon until Ack.
type Result struct {
	Key     string
	Meta    []byte
	Exit    int    // exit code; 128+n for signal n; 126 or 127 when it could not be started
	Reason  string // empty if Exit says all; else how it ended, in words and in full: why it was killed or its exit code, which outputs are missing
	Started time.Time
	Ended   time.Time
	CPU     time.Duration // user and system time of all its processes
	MaxRSS  int64         // bytes, of its largest process
	Stdout  Ref           // zero with Spec.NoStdout
	Stderr  Ref           // zero with Spec.Join and Spec.NoStderr
	Outputs []File
	Lost    bool // how it ended is not known and it does not run any more: the node's fault, not the job's; Exit is -1
	// Killed is set when the executor ended it: lease, time, memory or Kill. Empty: it ended by itself.
	Killed Cause
}

// Cause says who ended an attempt.
type Cause string

// The causes of a kill.
const (
	CauseLease  Cause = "lease"  // not renewed in time
	CauseTime   Cause = "time"   // Spec.TimeLimit
	CauseMemory Cause = "memory" // Spec.MemBytes
	CauseProcs  Cause = "procs"  // Config.MaxProcs
	CauseKill   Cause = "kill"   // Executor.Kill
	CauseNode   Cause = "node"   // the machine goes down
)

// Blobs is what the executor needs of a blob store.
type Blobs interface {
	Put(ctx context.Context, r io.Reader) (hash string, size int64, err error) // durable when it returns
	Open(hash string) (io.ReadSeekCloser, int64, error)
}

// Validate reports what is wrong with s; the error wraps ErrSpec.
func (s *Spec) Validate() error {
	if err := s.validate(); err != nil {
		return fmt.Errorf("exec: attempt %.80q: %w: %w", s.Key, ErrSpec, err)
	}
	return nil
}

func (s *Spec) validate() error {
	switch {
	case !ValidKey(s.Key):
		return fmt.Errorf("key must be 1 to %d of [A-Za-z0-9._-], not beginning with a dot", maxKey)
	case s.Script == "" && (len(s.Argv) == 0 || s.Argv[0] == ""):
		return errors.New("no command and no script")
	case s.Script != "" && !validHash(s.Script):
		return fmt.Errorf("script %.80q is no blob hash", s.Script)
	case len(s.Meta) > maxMeta:
		return fmt.Errorf("meta of %d bytes, at most %d", len(s.Meta), maxMeta)
	case s.Slots < 0 || s.MemBytes < 0 || s.TimeLimit < 0:
		return errors.New("slots, memory and time must not be negative")
	case len(s.Inputs) > maxFiles || len(s.Outputs) > maxFiles:
		return fmt.Errorf("more than %d inputs or outputs", maxFiles)
	}
	if err := validateStrings(s.Argv, s.Env, s.Shell); err != nil {
		return err
	}
	if err := s.Account.validate(); err != nil {
		return err
	}
	return s.validateFiles()
}

func validateStrings(argv, env []string, shell string) error {
	if len(argv) > maxArgs || len(env) > maxEnv {
		return fmt.Errorf("%d arguments and %d variables, at most %d and %d", len(argv), len(env), maxArgs, maxEnv)
	}
	total := 0
	for _, list := range [][]string{argv, env, {shell}} {
		for _, v := range list {
			if total += len(v) + 1; len(v) >= maxString || strings.IndexByte(v, 0) >= 0 {
				return fmt.Errorf("%.40q…: an argument or variable is longer than %d bytes or holds a NUL", v, maxString-1)
			}
		}
	}
	if total > maxArgBytes {
		return fmt.Errorf("arguments and environment take %d bytes, at most %d", total, maxArgBytes)
	}
	for _, v := range env {
		if strings.IndexByte(v, '=') < 1 {
			return fmt.Errorf("environment entry %.40q is not NAME=value", v)
		}
	}
	return nil
}

func (a *Account) validate() error {
	switch {
	case a == nil:
		return nil
	case a.UID == 0 || a.UID == 1<<32-1 || a.GID == 1<<32-1:
		return fmt.Errorf("%w: account %q has uid %d, gid %d", ErrAccount, a.Name, a.UID, a.GID)
	case strings.ContainsAny(a.Name+a.Home+a.Shell, "\x00\n"):
		return fmt.Errorf("%w: %q", ErrAccount, a.Name)
	}
	return nil
}

func (s *Spec) validateFiles() error {
	seen := make(map[string]bool, len(s.Inputs))
	for _, f := range s.Inputs {
		switch {
		case !ValidPath(f.Path):
			return fmt.Errorf("input path %.80q: must be relative, without empty, . or .. elements", f.Path)
		case !validHash(f.Hash):
			return fmt.Errorf("input %s: %.80q is no blob hash", f.Path, f.Hash)
		case f.Mode&^0o777 != 0:
			return fmt.Errorf("input %s: mode %#o has more than permission bits", f.Path, f.Mode)
		case f.Size < 0:
			return fmt.Errorf("input %s: negative size", f.Path)
		case seen[f.Path]:
			return fmt.Errorf("input %s is given twice", f.Path)
		}
		seen[f.Path] = true
	}
	for _, p := range s.Outputs {
		if !ValidPattern(p) {
			return fmt.Errorf("output %.80q: must be a relative pattern without empty, . or .. elements", p)
		}
	}
	return nil
}

// ValidKey reports whether key may name an attempt.
func ValidKey(key string) bool {
	if key == "" || len(key) > maxKey || key[0] == '.' {
		return false
	}
	for i := range len(key) {
		c := key[i]
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
		if !ok {
			return false
		}
	}
	return true
}

// ValidPath reports whether p may name an input: relative, clean, at most 4095 bytes, no NUL, no element over 255 bytes.
func ValidPath(p string) bool {
	if p == "" || len(p) > 4095 || strings.IndexByte(p, 0) >= 0 || p[0] == '/' || path.Clean(p) != p {
		return false
	}
	for e := range strings.SplitSeq(p, "/") {
		if e == "." || e == ".." || len(e) > 255 {
			return false
		}
	}
	return true
}

// ValidPattern reports whether p may name outputs: as ValidPath, where each element is a pattern of path.Match or **.
func ValidPattern(p string) bool {
	if !ValidPath(strings.TrimSuffix(p, "/")) {
		return false
	}
	for e := range strings.SplitSeq(p, "/") {
		if _, err := path.Match(e, ""); err != nil {
			return false
		}
	}
	return true
}

func validHash(h string) bool {
	if len(h) != 64 {
		return false
	}
	return strings.Trim(h, "0123456789abcdef") == ""
}
