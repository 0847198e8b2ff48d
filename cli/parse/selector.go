package parse

import (
	"fmt"
	"regexp"
	"strconv"
)

// Selector names a job, or a task of an array, as people type it: last, 42, 42.kyoto, 42[7], 42.kyoto[7]; a task may
// also follow a dot (42.7, 42.kyoto.7), so a site whose name is all digits is not reached this way.
type Selector struct {
	Last bool // the newest job of the caller
	Seq  uint64
	Site string // empty: the site of the node that is asked
	Task *int   // nil: the whole job
}

var selectorForm = regexp.MustCompile(`^(last|[0-9]{1,19})(?:\.([a-z0-9-]*[a-z-][a-z0-9-]*))?(?:\[([0-9]{1,10})\]|\.([0-9]{1,10}))?$`)

// Select reads a selector.
func Select(s string) (Selector, error) {
	bad := fmt.Errorf("%q names no job: want an ID such as 42 or 42.kyoto, a task such as 42.kyoto[7], or last", s)
	m := selectorForm.FindStringSubmatch(s)
	if m == nil {
		return Selector{}, bad
	}
	sel := Selector{Last: m[1] == "last", Site: m[2]}
	if sel.Last && sel.Site != "" {
		return Selector{}, bad
	}
	if !sel.Last {
		seq, err := strconv.ParseUint(m[1], 10, 64)
		if err != nil || seq == 0 {
			return Selector{}, bad
		}
		sel.Seq = seq
	}
	if task := m[3] + m[4]; task != "" {
		n, err := index(task)
		if err != nil {
			return Selector{}, bad
		}
		sel.Task = &n
	}
	return sel, nil
}

// ID is the job's ID as the API takes it; empty for last, which only a list of jobs can tell.
func (s Selector) ID() string {
	switch {
	case s.Last:
		return ""
	case s.Site == "":
		return strconv.FormatUint(s.Seq, 10)
	}
	return fmt.Sprintf("%d.%s", s.Seq, s.Site)
}

// String is the inverse of Select.
func (s Selector) String() string {
	id := s.ID()
	if s.Last {
		id = "last"
	}
	if s.Task != nil {
		id += fmt.Sprintf("[%d]", *s.Task)
	}
	return id
}
