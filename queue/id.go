package queue

import (
	"fmt"
	"strconv"
	"strings"
)

// SiteID is a site's unique, immutable ID (not its name).
type SiteID string

// Seq numbers the jobs of one site from 1.
type Seq uint64

// Epoch is the fencing token of an attempt: the incarnation of the site's raft group in the upper 16 bits, the index
// of the log entry that granted it in the lower 48. The epochs of one task strictly rise.
type Epoch uint64

const epochIndexBits = 48

// EpochAt returns the epoch of what is granted at a log index in an incarnation.
func EpochAt(incarnation uint16, index uint64) Epoch {
	return Epoch(uint64(incarnation)<<epochIndexBits | index&(1<<epochIndexBits-1))
}

// Ref names one attempt of one task of the site's jobs. Task is the index that the user sees, 0 without an array.
type Ref struct {
	Job   Seq   `cbor:"1,keyasint"`
	Task  int   `cbor:"2,keyasint"`
	Epoch Epoch `cbor:"3,keyasint"`
}

// String returns JOB.TASK.EPOCH, unique within the site for all time.
func (r Ref) String() string { return fmt.Sprintf("%d.%d.%d", r.Job, r.Task, r.Epoch) }

// JobID names a job, or one task of it, as users write it: SEQ, SEQ.SITE, SEQ.SITE[TASK] or SEQ[TASK].
type JobID struct {
	Seq  Seq
	Site string // a site's name; empty: the site of who asks
	Task *int   // nil: the whole job
}

// ParseJobID reads the text form. The error is an [Error] of kind Invalid.
func ParseJobID(s string) (JobID, error) {
	bad := refuse(Invalid, fmt.Sprintf("%.80q is not a job ID", s))
	bad.Hint = "write 42, 42.SITE, or 42.SITE[7] for a task"
	var id JobID
	rest, task, bracket := strings.Cut(s, "[")
	if bracket {
		digits, ok := strings.CutSuffix(task, "]")
		n, err := parseNumber(digits)
		if !ok || err != nil || n > MaxIndex {
			return JobID{}, bad
		}
		index := int(n)
		id.Task = &index
	}
	seq, site, dot := strings.Cut(rest, ".")
	n, err := parseNumber(seq)
	if err != nil || n == 0 || dot && !nameOK(site) {
		return JobID{}, bad
	}
	id.Seq, id.Site = Seq(n), site
	return id, nil
}

// parseNumber takes plain digits only: no sign, no leading zero, so that each ID has one spelling.
func parseNumber(s string) (uint64, error) {
	if len(s) > 1 && s[0] == '0' || strings.HasPrefix(s, "+") {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseUint(s, 10, 63)
}

// String returns the form that [ParseJobID] reads.
func (id JobID) String() string {
	s := strconv.FormatUint(uint64(id.Seq), 10)
	if id.Site != "" {
		s += "." + id.Site
	}
	if id.Task != nil {
		s += "[" + strconv.Itoa(*id.Task) + "]"
	}
	return s
}
