// Package parse reads what people type about jobs: ranges, sizes, times, selectors and the directives of a script.
// Every function is pure and its errors say what was wanted, for the command line and the Grid Engine front end alike.
package parse

import (
	"fmt"
	"strconv"
	"strings"

	"vcpeer/peer/api"
)

// MaxIndex is the highest index of a task.
const MaxIndex = 1 << 30

// Range reads FIRST[-LAST[:STEP]]; FIRST alone is one task.
func Range(s string) (api.Range, error) {
	bad := fmt.Errorf("array %q: want FIRST-LAST or FIRST-LAST:STEP, for instance 1-100 or 1-9:2", s)
	span, stepText, hasStep := strings.Cut(s, ":")
	firstText, lastText, hasLast := strings.Cut(span, "-")
	if !hasLast {
		lastText = firstText
	}
	first, err1 := index(firstText)
	last, err2 := index(lastText)
	step, err3 := 1, error(nil)
	if hasStep {
		step, err3 = index(stepText)
	}
	if err1 != nil || err2 != nil || err3 != nil || (hasStep && !hasLast) {
		return api.Range{}, bad
	}
	if last < first {
		return api.Range{}, fmt.Errorf("array %q: the last index is below the first", s)
	}
	if step < 1 {
		return api.Range{}, fmt.Errorf("array %q: the step must be at least 1", s)
	}
	return api.Range{First: first, Last: last, Step: step}, nil
}

// index reads a number of at most MaxIndex; signs and spaces are refused.
func index(s string) (int, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.Atoi(s)
	if err != nil || n > MaxIndex {
		return 0, strconv.ErrRange
	}
	return n, nil
}

// Len is how many tasks r has; 0 for a range that no parser made.
func Len(r api.Range) int {
	if r.Step < 1 || r.Last < r.First {
		return 0
	}
	return (r.Last-r.First)/r.Step + 1
}

// FormatRange is the inverse of Range, with the step only when it is not 1.
func FormatRange(r api.Range) string {
	if r.Step == 1 {
		return fmt.Sprintf("%d-%d", r.First, r.Last)
	}
	return fmt.Sprintf("%d-%d:%d", r.First, r.Last, r.Step)
}
