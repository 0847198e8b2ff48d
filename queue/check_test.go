package queue

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"testing"
)

// fataler is what check needs of *testing.T and *rapid.T.
type fataler interface {
	Fatalf(format string, args ...any)
	Helper()
}

var _ fataler = (*testing.T)(nil)

// check stops the test if an invariant does not hold: each task in exactly one state, the derived parts equal to what
// a restored snapshot derives, and the snapshot the same after that.
func check(t fataler, m *Machine) {
	t.Helper()
	for s, j := range m.jobs {
		if s != j.Seq || s > m.last {
			t.Fatalf("job %d under number %d, last is %d", j.Seq, s, m.last)
		}
		if err := j.checkRestored(); err != nil {
			t.Fatalf("job %d: %v: %s", s, err, describe(j))
		}
		if j.Ended != 0 && (j.class != nil || j.grantable() != 0) {
			t.Fatalf("job %d has ended and stands in line: %s", s, describe(j))
		}
	}
	before, err := m.Snapshot()
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	other := New(m.site, m.incarnation)
	if err := other.Restore(before); err != nil {
		t.Fatalf("restore: %v", err)
	}
	after, err := other.Snapshot()
	if err != nil || !bytes.Equal(before, after) {
		t.Fatalf("snapshot differs after restore (%v)", err)
	}
	if a, b := derived(m), derived(other); a != b {
		t.Fatalf("derived state\n  kept     %s\n  restored %s", a, b)
	}
}

func describe(j *job) string {
	return fmt.Sprintf("pending %v done %v failed %v cancelled %v live %d", j.Pending, j.Done, j.Failed, j.Cancelled, j.live.Len())
}

// derived prints all derived state of m.
func derived(m *Machine) string {
	classes := map[need]string{}
	for k, c := range m.classes {
		classes[k] = fmt.Sprint(slices.Collect(c.line.all()), c.tasks, c.line.len())
	}
	jobs := map[Seq]string{}
	for s, j := range m.jobs {
		jobs[s] = fmt.Sprint(j.live, j.owed, j.counted, j.class != nil)
	}
	ended := m.ended
	if len(ended) == 0 {
		ended = nil
	}
	return fmt.Sprint(m.keys, m.queued, m.open, m.waiters, classes, ended, m.records, m.live, m.owing, jobs)
}

func TestDerivedSeesDifferences(t *testing.T) {
	s := newStory(t)
	s.run("submit a; submit b")
	before := derived(s.m)
	s.m.jobs[1].class.tasks++
	if reflect.DeepEqual(before, derived(s.m)) {
		t.Error("a wrong count goes unnoticed")
	}
}
