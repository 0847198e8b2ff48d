package queue

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"vcpeer/crdt"
)

// Node is what is known of a node when the reasons are asked for.
type Node struct {
	ID        crdt.NodeID
	Site      SiteID
	Alive     bool
	Slots     int // in all
	FreeSlots int
	Mem       int64 // in all, bytes
	FreeMem   int64
}

// View is the world around the queue, as the caller knows it.
type View struct {
	Nodes []Node
	Names map[SiteID]string // names of the known sites
}

func (v View) name(s SiteID) string {
	if n := v.Names[s]; n != "" {
		return n
	}
	return string(s)
}

// Reason says that something holds for Count tasks or nodes, and what would help.
type Reason struct {
	Count int    `cbor:"1,keyasint"`
	Text  string `cbor:"2,keyasint"`
	Hint  string `cbor:"3,keyasint,omitempty"`
}

// Why is what a job waits for, or how it ended.
type Why struct {
	State   State    `cbor:"1,keyasint"`
	Summary string   `cbor:"2,keyasint"`
	Reasons []Reason `cbor:"3,keyasint"`
}

// Admit says whether any of the nodes, alive or not, could ever run a task of s (in its normal form), and whether it
// is small enough to be kept. The error is of kind Impossible or Invalid. Without any node known all needs pass.
func Admit(s *Spec, v View) *Error {
	if err := s.Check(); err != nil {
		return err
	}
	if b, err := encode(s); err != nil || len(b) > MaxSpecBytes {
		return refuse(Invalid, fmt.Sprintf("the job is larger than %d KiB with its arguments and variables", MaxSpecBytes>>10))
	}
	if len(v.Nodes) == 0 {
		return nil
	}
	var slots int
	var mem int64
	here, both := false, false
	for _, n := range v.Nodes {
		if s.Pin != "" && n.Site != s.Pin {
			continue
		}
		here = true
		slots, mem = max(slots, n.Slots), max(mem, n.Mem)
		both = both || n.Slots >= s.Slots && n.Mem >= s.MemBytes
	}
	where := "any site"
	if s.Pin != "" {
		where = "site " + v.name(s.Pin)
	}
	switch {
	case !here:
		return &Error{Code: Impossible, Text: where + " has no nodes", Hint: "see `vcpeer sites`"}
	case slots < s.Slots:
		return refuse(Impossible, fmt.Sprintf("%d slots asked for, the largest node of %s has %d", s.Slots, where, slots))
	case mem < s.MemBytes:
		return refuse(Impossible, fmt.Sprintf("%s of memory asked for, the largest node of %s has %s", sizeText(s.MemBytes), where, sizeText(mem)))
	case !both:
		return refuse(Impossible, fmt.Sprintf("no node of %s has both %d slots and %s of memory", where, s.Slots, sizeText(s.MemBytes)))
	}
	return nil
}

// Explain says why the tasks of a job wait, or how the job ended.
func (m *Machine) Explain(s Seq, v View, now time.Time) (Why, bool) {
	j := m.jobs[s]
	if j == nil {
		return Why{}, false
	}
	heard := map[crdt.NodeID]bool{}
	for _, n := range v.Nodes {
		heard[n.ID] = n.Alive
	}
	jv := j.view(func(n crdt.NodeID) bool { return heard[n] })
	w := Why{State: jv.State, Summary: summary(jv, now)}
	switch {
	case jv.Ended != (time.Time{}):
		w.Reasons = j.whyEnded()
	case len(j.Waits) > 0:
		w.Reasons = m.whyHeld(j)
	default:
		w.Reasons = append(m.whyPending(j, v), j.whyUnknown(heard)...)
	}
	return w, true
}

func summary(v JobView, now time.Time) string {
	c := v.Counts
	var parts []string
	for _, p := range []struct {
		n    int
		what State
	}{{c.Running, Running}, {c.Unknown, Unknown}, {c.Pending, Pending}, {c.Held, Held}, {c.Done, Done}, {c.Failed, Failed}, {c.Cancelled, Cancelled}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	text := fmt.Sprintf("%s of %s", strings.Join(parts, ", "), plural(c.Total, "task"))
	switch {
	case !v.Ended.IsZero():
		text += fmt.Sprintf("; ended after %v", v.Ended.Sub(v.Submitted).Round(time.Second))
	case v.Started.IsZero():
		text += fmt.Sprintf("; submitted %v ago", max(0, now.Sub(v.Submitted)).Round(time.Second))
	}
	if v.Reason != "" {
		text += "; " + v.Reason
	}
	return text
}

func (m *Machine) whyHeld(j *job) []Reason {
	var all []Reason
	for _, s := range j.Waits {
		d := m.jobs[s]
		left := d.Pending.Len() + d.live.Len()
		all = append(all, Reason{Count: j.Pending.Len(), Text: fmt.Sprintf("held by job %d (%s), which has %s left", s, d.Spec.Name, plural(left, "task")),
			Hint: fmt.Sprintf("vcpeer why %d", s)})
	}
	return all
}

func (m *Machine) whyPending(j *job, v View) []Reason {
	n := j.Pending.Len()
	if n == 0 {
		return nil
	}
	if j.Spec.MaxTasks > 0 && j.live.Len() >= j.Spec.MaxTasks {
		return []Reason{{Count: n, Text: fmt.Sprintf("%s waiting for others of this job: at most %d at once", noun(n, "task"), j.Spec.MaxTasks)}}
	}
	if ahead := m.ahead(j); ahead > 0 {
		return append([]Reason{{Count: ahead, Text: noun(ahead, "task") + " of earlier jobs with the same needs first"}}, j.whyNodes(v)...)
	}
	return j.whyNodes(v)
}

// ahead counts the tasks of earlier jobs in j's line, up to a bound that is as good as many.
func (m *Machine) ahead(j *job) (tasks int) {
	if j.class == nil {
		return 0
	}
	looked := 0
	for s := range j.class.line.all() {
		if looked++; s == j.Seq || looked > 10_000 {
			break
		}
		tasks += m.jobs[s].grantable()
	}
	return tasks
}

// whyNodes sorts the nodes by the first thing that keeps a task of j away from them.
func (j *job) whyNodes(v View) []Reason {
	count := map[Reason]int{}
	heard := false
	for _, n := range v.Nodes {
		heard = heard || n.Alive && (j.Spec.Pin == "" || n.Site == j.Spec.Pin)
		text, hint := j.Spec.whyNot(n, v)
		count[Reason{Text: text, Hint: hint}]++
	}
	all := make([]Reason, 0, len(count)+1)
	for r, n := range count {
		r.Count, r.Text = n, noun(n, "node")+" "+r.Text
		all = append(all, r)
	}
	slices.SortFunc(all, byCount)
	if j.Spec.Pin != "" && !heard {
		all = append([]Reason{{Count: j.Pending.Len(), Text: fmt.Sprintf("pinned to site %s, of which no node is heard", v.name(j.Spec.Pin)),
			Hint: "vcpeer sites"}}, all...)
	}
	return all
}

// whyNot says what keeps a task away from n.
func (s *Spec) whyNot(n Node, v View) (text, hint string) {
	switch {
	case s.Pin != "" && n.Site != s.Pin:
		return "of other sites; the job is pinned to " + v.name(s.Pin), ""
	case !n.Alive:
		return "not heard", "vcpeer members"
	case n.Slots < s.Slots:
		return fmt.Sprintf("with fewer than %d %s in all", s.Slots, noun(s.Slots, "slot")), ""
	case n.Mem < s.MemBytes:
		return fmt.Sprintf("with less than %s of memory in all", sizeText(s.MemBytes)), ""
	case n.FreeSlots < s.Slots:
		return fmt.Sprintf("with fewer than %d free %s", s.Slots, noun(s.Slots, "slot")), ""
	case n.FreeMem < s.MemBytes:
		return fmt.Sprintf("with less than %s of free memory", sizeText(s.MemBytes)), ""
	}
	return "free to take it", "it should start within seconds"
}

func byCount(a, b Reason) int { return cmp.Or(b.Count-a.Count, strings.Compare(a.Text, b.Text)) }

func (j *job) whyUnknown(heard map[crdt.NodeID]bool) []Reason {
	count := map[crdt.NodeID]int{}
	for _, t := range j.Tasks {
		if t.Live && !heard[t.Node] {
			count[t.Node]++
		}
	}
	var all []Reason
	for n, c := range count {
		all = append(all, Reason{Count: c, Text: fmt.Sprintf("%s at node %s, which is not heard; started again elsewhere when the lease ends", noun(c, "task"), n.Short())})
	}
	slices.SortFunc(all, func(a, b Reason) int { return strings.Compare(a.Text, b.Text) })
	return all
}

// whyEnded counts the ways in which tasks failed, most frequent first.
func (j *job) whyEnded() []Reason {
	count := map[string]int{}
	for k, t := range j.Tasks {
		switch {
		case !j.Failed.Has(k):
		case t.Reason != "":
			count[t.Reason]++
		default:
			count[fmt.Sprintf("exit code %d", t.Exit)]++
		}
	}
	all := make([]Reason, 0, len(count))
	for text, n := range count {
		all = append(all, Reason{Count: n, Text: text})
	}
	slices.SortFunc(all, byCount)
	if len(all) > 0 {
		all[0].Hint = fmt.Sprintf("vcpeer logs %d", j.Seq)
	}
	return all[:min(len(all), 20)]
}

func plural(n int, what string) string { return fmt.Sprintf("%d %s", n, noun(n, what)) }

func noun(n int, what string) string {
	if n == 1 {
		return what
	}
	return what + "s"
}

func sizeText(b int64) string {
	if b >= 1<<30 && b%(1<<30) == 0 {
		return fmt.Sprintf("%d GiB", b>>30)
	}
	return fmt.Sprintf("%d MiB", b>>20)
}
