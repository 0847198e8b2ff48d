package queue

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"vcpeer/crdt"
)

func node(n int) crdt.NodeID { return crdt.NodeID{byte(n), 0xAA} }

func specOf(key string) Spec {
	return Spec{Key: key, User: "ann", Name: "job-" + key, Argv: []string{"true"}, Slots: 1, Dir: "/home/ann", Node: node(9)}
}

// story runs commands written as text against a machine, one entry a line, and prints what each did.
//
//	submit KEY [slots=N] [mem=BYTES] [array=A-B:S] [max=N] [after=N,N] [any] [retries=N] [pin=SITE] [user=U]
//	grant JOB[TASK] NODE [SITE]    grant +N[TASK] NODE: of the N-th command of the entry
//	complete|lost|gone|release|fail JOB[TASK] [EPOCH] [exit=N]     the epoch of the newest attempt unless given
//	cancel JOB[TASK]
type story struct {
	t     *testing.T
	m     *Machine
	index uint64
	now   int64
}

func newStory(t *testing.T) *story {
	return &story{t: t, m: New("s1", 0), now: 1e9}
}

func (s *story) run(entries string) string {
	s.t.Helper()
	var out []string
	for _, line := range strings.Split(entries, ";") {
		var e Entry
		s.index++
		s.now += int64(time.Second)
		e.At = s.now
		for _, c := range strings.Split(line, ",") {
			if c = strings.TrimSpace(c); c != "" {
				e.Commands = append(e.Commands, s.parse(strings.Fields(c)))
			}
		}
		out = append(out, s.apply(e))
	}
	return strings.Join(out, "; ")
}

func (s *story) apply(e Entry) string {
	s.t.Helper()
	data, err := e.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	results, err := s.m.Apply(s.index, data)
	if err != nil {
		s.t.Fatal(err)
	}
	check(s.t, s.m)
	var out []string
	for _, r := range results {
		switch {
		case r.Err != nil:
			out = append(out, string(r.Err.Code))
		case r.Known:
			out = append(out, fmt.Sprintf("known %d", r.Job))
		case r.Pending+r.Running > 0:
			out = append(out, fmt.Sprintf("%d+%d", r.Pending, r.Running))
		case r.Epoch != 0:
			out = append(out, fmt.Sprintf("%d@%d", r.Job, r.Epoch))
		default:
			out = append(out, fmt.Sprintf("%d", r.Job))
		}
	}
	return strings.Join(out, ", ")
}

func (s *story) parse(words []string) Command {
	s.t.Helper()
	opts := map[string]string{}
	var args []string
	for _, w := range words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			opts[k] = v
		} else {
			args = append(args, w)
		}
	}
	number := func(text string) int {
		n, err := strconv.Atoi(text)
		if err != nil && text != "" {
			s.t.Fatalf("%q: %v", text, err)
		}
		return n
	}
	if words[0] == "submit" {
		return Command{Submit: &Submit{Spec: s.spec(args[0], opts, number)}}
	}
	job, task, _ := strings.Cut(strings.TrimSuffix(args[0], "]"), "[")
	if words[0] == "grant" {
		g := &Grant{Task: number(task), Node: node(number(strings.TrimPrefix(args[1], "n"))), Site: "s1"}
		if of, ok := strings.CutPrefix(job, "+"); ok {
			g.Of = number(of)
		} else {
			g.Job = Seq(number(job))
		}
		if len(args) > 2 {
			g.Site = SiteID(args[2])
		}
		return Command{Grant: g}
	}
	ref := Ref{Job: Seq(number(job)), Task: number(task)}
	if v, ok := s.m.Task(ref.Job, ref.Task, nil); ok {
		ref.Epoch = v.Epoch
	}
	if len(args) > 1 {
		ref.Epoch = Epoch(number(args[1]))
	}
	switch words[0] {
	case "complete":
		return Command{Complete: &Complete{Ref: ref, Exit: number(opts["exit"]), Stdout: &File{Hash: strings.Repeat("0", 64), Size: 1}}}
	case "lost":
		return Command{Lost: &Lost{Ref: ref, Confirmed: true}}
	case "gone":
		return Command{Lost: &Lost{Ref: ref}}
	case "release":
		return Command{Release: &Release{Ref: ref, Reason: "drained"}}
	case "fail":
		return Command{Release: &Release{Ref: ref, Reason: "no account", Failed: true}}
	case "returned":
		return Command{Returned: &Returned{Job: ref.Job, Tasks: []int{ref.Task}}}
	case "cancel":
		c := &Cancel{Job: ref.Job, By: "ann"}
		if task != "" {
			c.Tasks = &Range{ref.Task, ref.Task, 1}
		}
		return Command{Cancel: c}
	}
	s.t.Fatalf("no command %q", words[0])
	return Command{}
}

func (s *story) spec(key string, opts map[string]string, number func(string) int) Spec {
	spec := specOf(key)
	spec.Slots, spec.MemBytes, spec.MaxTasks = number(opts["slots"]), int64(number(opts["mem"])), number(opts["max"])
	spec.Retries, spec.Pin = number(opts["retries"]), SiteID(opts["pin"])
	spec.AfterAny = opts["any"] != ""
	if u := opts["user"]; u != "" {
		spec.User = u
	}
	if a := opts["after"]; a != "" {
		for _, n := range strings.Split(a, "/") {
			spec.After = append(spec.After, Seq(number(n)))
		}
	}
	if a := opts["array"]; a != "" {
		r := Range{Step: 1}
		if _, err := fmt.Sscanf(a, "%d-%d:%d", &r.First, &r.Last, &r.Step); err != nil {
			s.t.Fatal(err)
		}
		spec.Array = &r
	}
	return spec
}

// states prints each job as STATE and its counts: p(ending) h(eld) r(unning) d(one) f(ailed) c(ancelled).
func (s *story) states() string {
	var out []string
	for _, v := range s.m.Jobs("", false, 0, nil) {
		text := fmt.Sprintf("%d %s", v.Seq, v.State)
		for _, c := range []struct {
			n    int
			what string
		}{{v.Counts.Pending, "p"}, {v.Counts.Held, "h"}, {v.Counts.Running, "r"}, {v.Counts.Done, "d"}, {v.Counts.Failed, "f"}, {v.Counts.Cancelled, "c"}} {
			if c.n > 0 {
				text += fmt.Sprintf(" %s%d", c.what, c.n)
			}
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

// TestReasonOfUndelivered wants how a task ended to come before why its results are not back.
func TestReasonOfUndelivered(t *testing.T) {
	for _, tt := range []struct {
		exit         int
		reason, want string
	}{
		{0, "", "no directory"},
		{3, "", "exit code 3; no directory"},
		{137, "killed by SIGKILL", "killed by SIGKILL; no directory"},
	} {
		s := newStory(t)
		s.run("submit a; grant 1 n1")
		v, _ := s.m.Task(1, 0, nil)
		s.apply(Entry{At: s.now, Commands: []Command{
			{Complete: &Complete{Ref: Ref{Job: 1, Epoch: v.Epoch}, Exit: tt.exit, Reason: tt.reason, Stdout: &File{Hash: "x", Size: 1}}},
			{Returned: &Returned{Job: 1, Tasks: []int{0}, Problem: "no directory"}},
		}})
		if v, _ := s.m.Task(1, 0, nil); v.Reason != tt.want {
			t.Errorf("exit %d, reason %q: %q, want %q", tt.exit, tt.reason, v.Reason, tt.want)
		}
	}
}

func TestStories(t *testing.T) {
	for _, tt := range []struct{ name, commands, results, states string }{
		{"one task", "submit a; grant 1 n1; complete 1", "1; 1@2; 1@2", "1 done d1"},
		{"a repeated key is the same job", "submit a; submit a; submit a user=bob", "1; known 1; 2", "1 pending p1; 2 pending p1"},
		{"dispatch in the entry of the submit", "submit a, grant +1 n1", "1, 1@1", "1 running r1"},
		{"a refused submit grants nothing", "submit a slots=0, grant +1 n1, submit b slots=99999999", "1, 1@1, invalid", "1 running r1"},
		{"no second live attempt", "submit a; grant 1 n1; grant 1 n2", "1; 1@2; refused", "1 running r1"},
		{"a repeated completion is accepted", "submit a; grant 1 n1; complete 1; complete 1", "1; 1@2; 1@2; known 1", "1 done d1"},
		{"an old epoch is refused", "submit a retries=1; grant 1 n1; lost 1; grant 1 n2; complete 1 2; complete 1 4", "1; 1@2; 1@2; 1@4; stale; 1@4", "1 done d1"},
		{"lost is retried, then failed", "submit a retries=1; grant 1 n1; lost 1; grant 1 n1; lost 1; grant 1 n1", "1; 1@2; 1@2; 1@4; 1@4; refused", "1 failed f1"},
		{"never heard does not count", "submit a; grant 1 n1; gone 1; grant 1 n1; gone 1; grant 1 n2", "1; 1@2; 1@2; 1@4; 1@4; 1@6", "1 running r1"},
		{"released does not count, failed to start does", "submit a; grant 1 n1; release 1; grant 1 n1; fail 1", "1; 1@2; 1@2; 1@4; 1@4", "1 failed f1"},
		{"grant, release and grant in one entry", "submit a; grant 1 n1, release 1 2, grant 1 n1; grant 1 n1", "1; 1@2, 1@2, stale; 1@3", "1 running r1"},
		{"array", "submit a array=1-9:4; grant 1[1] n1, grant 1[5] n2, grant 1[6] n2; complete 1[5], complete 1[1] exit=3; grant 1[9] n1; complete 1[9]",
			"1; 1@2, 1@2, not-found; 1@2, 1@2; 1@4; 1@4", "1 failed d2 f1"},
		{"at most so many at once", "submit a array=1-3:1 max=1; grant 1[1] n1, grant 1[2] n1; complete 1[1]; grant 1[2] n1", "1; 1@2, refused; 1@2; 1@4", "1 running p1 r1 d1"},
		{"after", "submit a; submit b after=1; grant 2 n1; grant 1 n1, complete 1 3; complete 1 4; grant 2 n1", "1; 2; refused; 1@4, stale; 1@4; 2@6", "1 done d1; 2 running r1"},
		{"after a failure", "submit a; submit b after=1; submit c after=2; submit d after=1/3 any=1; grant 1 n1; complete 1 exit=1; grant 4 n1; submit e after=2",
			"1; 2; 3; 4; 1@5; 1@5; 4@7; 5", "1 failed f1; 2 failed f1; 3 failed f1; 4 running r1; 5 failed f1"},
		{"after nobody", "submit a after=7", "not-found", ""},
		{"cancel what waits", "submit a array=1-5:1; grant 1[1] n1; cancel 1[2]; cancel 1; complete 1[1] exit=143", "1; 1@2; 1+0; 3+1; 1@2", "1 cancelled c5"},
		{"cancel comes too late", "submit a; grant 1 n1; cancel 1; cancel 1; complete 1; cancel 1; cancel 2", "1; 1@2; 0+1; known 1; 1@2; known 1; not-found", "1 done d1"},
		{"cancelled and lost", "submit a retries=5; grant 1 n1; cancel 1; lost 1", "1; 1@2; 0+1; 1@2", "1 cancelled c1"},
		{"cancel frees those that wait", "submit a; submit b after=1; submit c after=1 any=1; cancel 1; grant 3 n1", "1; 2; 3; 1+0; 3@5", "1 cancelled c1; 2 failed f1; 3 running r1"},
		{"cancel of a held job", "submit a; submit b after=1; cancel 2; grant 1 n1; complete 1", "1; 2; 1+0; 1@4; 1@4", "1 done d1; 2 cancelled c1"},
		{"pinned", "submit a pin=s2; grant 1 n1; grant 1 n2 s2", "1; refused; 1@3", "1 running r1"},
		{"returned once", "submit a; returned 1; grant 1 n1; complete 1; returned 1; returned 1", "1; known 1; 1@3; 1@3; 1; known 1", "1 done d1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStory(t)
			if got := s.run(tt.commands); got != tt.results {
				t.Errorf("%s\n got %q\nwant %q", tt.commands, got, tt.results)
			}
			if got := s.states(); got != tt.states {
				t.Errorf("%s\n got %q\nwant %q", tt.commands, got, tt.states)
			}
		})
	}
}

func TestUserCap(t *testing.T) {
	m := New("s1", 0)
	submit := func(user, key string) Result {
		spec := specOf(key)
		spec.User = user
		return m.submit(&Submit{Spec: spec})
	}
	for i := range MaxUserJobs {
		if r := submit("ann", strconv.Itoa(i)); r.Err != nil {
			t.Fatalf("job %d: %v", i, r.Err)
		}
	}
	if r := submit("ann", "more"); r.Err == nil || r.Err.Code != Busy {
		t.Errorf("one more: %+v, want busy", r)
	}
	if r := submit("bob", "other"); r.Err != nil {
		t.Errorf("another user: %v", r.Err)
	}
	m.cancel(&Cancel{Job: 1})
	if r := submit("ann", "more"); r.Err != nil {
		t.Errorf("after one has ended: %v", r.Err)
	}
}

func TestForget(t *testing.T) {
	s := newStory(t)
	s.run("submit a, submit b, submit c, submit d; grant 1 n1, grant 2 n1, grant 3 n1")
	s.run("complete 3; complete 1, complete 2; returned 1, returned 2")
	forget := func(c Forget) string {
		s.index++
		s.apply(Entry{Commands: []Command{{Forget: &c}}})
		return s.states()
	}
	if got, want := forget(Forget{Jobs: 3, Records: 3}), "1 done d1; 2 done d1; 3 done d1; 4 pending p1"; got != want {
		t.Errorf("nothing over: got %q, want %q", got, want)
	}
	if got, want := forget(Forget{Jobs: 2, Records: 9}), "2 done d1; 3 done d1; 4 pending p1"; got != want {
		t.Errorf("3 ended first, but its results are not back: got %q, want %q", got, want)
	}
	if got, want := forget(Forget{Jobs: 0, Records: 9}), "4 pending p1"; got != want {
		t.Errorf("far over: got %q, want %q", got, want)
	}
	s.run("cancel 4")
	if got := forget(Forget{Before: s.now + 1, Jobs: 9, Records: 9}); got != "" {
		t.Errorf("old: got %q, want nothing", got)
	}
	if got, want := s.run("submit a"), "5"; got != want {
		t.Errorf("a forgotten key is free again: got %q, want %q", got, want)
	}
}

func TestExplain(t *testing.T) {
	s := newStory(t)
	s.run("submit a slots=2; submit b after=1; submit c pin=s2; submit d array=1-5:1 max=1; submit e mem=4294967296; grant 4[1] n3 s2")
	view := View{Names: map[SiteID]string{"s1": "kyoto", "s2": "osaka"}, Nodes: []Node{
		{ID: node(1), Site: "s1", Alive: true, Slots: 4, FreeSlots: 1, Mem: 8 << 30, FreeMem: 1 << 30},
		{ID: node(2), Site: "s1", Alive: true, Slots: 1, FreeSlots: 1, Mem: 1 << 30, FreeMem: 1 << 30},
		{ID: node(3), Site: "s2", Slots: 8, FreeSlots: 8, Mem: 8 << 30, FreeMem: 8 << 30},
	}}
	for _, tt := range []struct {
		job  Seq
		want string
	}{
		{1, "1 pending of 1 task; submitted 6s ago | 1 node not heard | 1 node with fewer than 2 free slots | 1 node with fewer than 2 slots in all"},
		{2, "1 held of 1 task; submitted 5s ago | 1 held by job 1 (job-a), which has 1 task left"},
		{3, "1 pending of 1 task; submitted 4s ago | 1 pinned to site osaka, of which no node is heard | 2 nodes of other sites; the job is pinned to osaka | 1 node not heard"},
		{4, "1 unknown, 4 pending of 5 tasks | 4 tasks waiting for others of this job: at most 1 at once | 1 task at node " + node(3).Short() + ", which is not heard; started again elsewhere when the lease ends"},
		{5, "1 pending of 1 task; submitted 2s ago | 1 node not heard | 1 node with less than 4 GiB of free memory | 1 node with less than 4 GiB of memory in all"},
	} {
		w, _ := s.m.Explain(tt.job, view, time.Unix(0, s.now+int64(time.Second)))
		got := w.Summary
		for _, r := range w.Reasons {
			got += fmt.Sprintf(" | %d %s", r.Count, r.Text)
		}
		if got != tt.want {
			t.Errorf("job %d:\n got %s\nwant %s", tt.job, got, tt.want)
		}
	}
}

func TestAdmit(t *testing.T) {
	view := View{Nodes: []Node{{ID: node(1), Site: "s1", Slots: 4, Mem: 1 << 30}, {ID: node(2), Site: "s2", Slots: 2, Mem: 8 << 30}}}
	for _, tt := range []struct {
		name string
		edit func(*Spec)
		want Code
	}{
		{"fits", func(s *Spec) { s.Slots = 4 }, ""},
		{"slots", func(s *Spec) { s.Slots = 5 }, Impossible},
		{"memory", func(s *Spec) { s.MemBytes = 9 << 30 }, Impossible},
		{"both", func(s *Spec) { s.Slots, s.MemBytes = 4, 2<<30 }, Impossible},
		{"slots there", func(s *Spec) { s.Slots, s.Pin = 4, "s2" }, Impossible},
		{"unknown site", func(s *Spec) { s.Pin = "s3" }, Impossible},
		{"name", func(s *Spec) { s.Name = "a b" }, Invalid},
		{"no command", func(s *Spec) { s.Argv = nil }, Invalid},
		{"input above", func(s *Spec) { s.Inputs = []File{{Path: "../x", Hash: strings.Repeat("0", 64)}} }, Invalid},
		{"input with a wrong hash", func(s *Spec) { s.Inputs = []File{{Path: "x", Hash: "abc"}} }, Invalid},
		{"output pattern", func(s *Spec) { s.Outputs = []string{"[a"} }, Invalid},
		{"array", func(s *Spec) { s.Array = &Range{5, 1, 1} }, Invalid},
		{"too large", func(s *Spec) {
			s.Argv = []string{"x", strings.Repeat("x", 64<<10), strings.Repeat("y", 64<<10), strings.Repeat("z", 64<<10), strings.Repeat("u", 64<<10)}
		}, Invalid},
	} {
		spec := specOf("k")
		tt.edit(&spec)
		spec = spec.Normal()
		var got Code
		if err := Admit(&spec, view); err != nil {
			got = err.Code
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
