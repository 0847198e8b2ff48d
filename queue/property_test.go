package queue

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// world drives a machine with any commands, valid or not, and keeps a dumb account of what must be true.
type world struct {
	m      *Machine
	log    [][]byte
	newest map[[2]uint64]Epoch // of a task: epochs only rise
	live   map[[2]uint64]bool
	ended  map[[2]uint64]bool
	now    int64
}

func TestAnyCommands(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{m: New("s1", 1), newest: map[[2]uint64]Epoch{}, live: map[[2]uint64]bool{}, ended: map[[2]uint64]bool{}, now: 100}
		t.Repeat(map[string]func(*rapid.T){
			"":      func(t *rapid.T) { check(t, w.m) },
			"entry": w.entry,
			"match": w.match,
		})
		w.replay(t)
	})
}

func (w *world) entry(t *rapid.T) {
	w.now = max(0, w.now+rapid.Int64Range(-5, 100).Draw(t, "time")*rapid.SampledFrom([]int64{1, 1e9}).Draw(t, "unit"))
	e := Entry{At: w.now}
	for range rapid.IntRange(1, 4).Draw(t, "commands") {
		e.Commands = append(e.Commands, w.command(t))
	}
	w.apply(t, e)
}

// match grants whatever Match proposes and wants every grant to be accepted.
func (w *world) match(t *rapid.T) {
	e := Entry{At: w.now}
	var fresh []Fresh
	if rapid.Bool().Draw(t, "fresh") {
		e.Commands = append(e.Commands, Command{Submit: &Submit{Spec: drawSpec(t)}})
		fresh = append(fresh, Fresh{1, &e.Commands[0].Submit.Spec})
	}
	var offers []Offer
	for i := range rapid.IntRange(0, 3).Draw(t, "offers") {
		o := Offer{Node: node(i + 1), Site: rapid.SampledFrom([]SiteID{"s1", "s2"}).Draw(t, "site"), AllMemBytes: 3 << 20,
			Slots: rapid.IntRange(0, 4).Draw(t, "slots"), MemBytes: rapid.Int64Range(0, 3).Draw(t, "mem") << 20, Lent: rapid.Bool().Draw(t, "lent")}
		o.AllSlots = o.Slots + rapid.IntRange(0, 2).Draw(t, "used")
		offers = append(offers, o)
	}
	used := map[string]int{}
	first := len(e.Commands)
	plan := Match(w.m, offers, fresh, rapid.IntRange(0, 6).Draw(t, "limit"))
	w.reservation(t, plan, offers)
	for _, g := range plan.Grants {
		e.Commands = append(e.Commands, Command{Grant: &g})
		used[g.Node.String()]++
	}
	for i, r := range w.apply(t, e)[first:] {
		if r.Err != nil {
			t.Fatalf("grant %+v: %v", e.Commands[first+i].Grant, r.Err)
		}
	}
	for _, o := range offers {
		if used[o.Node.String()] > o.Slots {
			t.Fatalf("%d tasks on %d slots", used[o.Node.String()], o.Slots)
		}
	}
}

// reservation wants a reserved node to be given to earlier jobs only than the first one that needs the whole of a node,
// which is looked for among all jobs here.
func (w *world) reservation(t *rapid.T, plan Plan, offers []Offer) {
	var first Seq
	for _, s := range w.m.sortedJobs() {
		j := w.m.jobs[s]
		n := need{j.Spec.Slots, j.Spec.MemBytes, j.Spec.Pin}
		fits := func(o Offer) bool { return o.fits(n) }
		could := func(o Offer) bool { return o.couldFit(n) }
		if j.grantable() > 0 && w.m.now-j.Submitted >= int64(ReserveAfter) && !slices.ContainsFunc(offers, fits) && slices.ContainsFunc(offers, could) {
			first = s
			break
		}
	}
	if (first == 0) != plan.Reserved.IsZero() {
		t.Fatalf("job %d should have a reservation; reserved is %v", first, plan.Reserved)
	}
	for _, g := range plan.Grants {
		if first != 0 && g.Node == plan.Reserved && (g.Of != 0 || g.Job > first) {
			t.Fatalf("%+v takes the node that is kept for job %d", g, first)
		}
	}
}

func drawSpec(t *rapid.T) Spec {
	s := specOf(rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"}).Draw(t, "key"))
	s.User = rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "user")
	s.Slots = rapid.IntRange(0, 3).Draw(t, "slots")
	s.MemBytes = rapid.Int64Range(0, 3).Draw(t, "mem") << 19
	s.Pin = rapid.SampledFrom([]SiteID{"", "", "s1", "s2"}).Draw(t, "pin")
	s.MaxTasks = rapid.IntRange(0, 2).Draw(t, "max")
	s.Retries = rapid.IntRange(0, 1).Draw(t, "retries")
	if rapid.Bool().Draw(t, "is array") {
		first := rapid.IntRange(0, 3).Draw(t, "first")
		s.Array = &Range{first, first + rapid.IntRange(0, 6).Draw(t, "more"), rapid.IntRange(1, 3).Draw(t, "step")}
	}
	for _, n := range rapid.SliceOfN(rapid.IntRange(1, 8), 0, 2).Draw(t, "after") {
		s.After = append(s.After, Seq(n))
	}
	s.AfterAny = rapid.Bool().Draw(t, "any")
	return s
}

func (w *world) command(t *rapid.T) Command {
	ref := Ref{Job: Seq(rapid.IntRange(1, int(w.m.Last())+1).Draw(t, "job")), Task: rapid.IntRange(0, 5).Draw(t, "task")}
	ref.Epoch = w.newest[[2]uint64{uint64(ref.Job), uint64(ref.Task)}]
	if rapid.IntRange(0, 5).Draw(t, "wrong epoch") == 0 {
		ref.Epoch += Epoch(rapid.IntRange(-2, 2).Draw(t, "epoch"))
	}
	switch rapid.IntRange(0, 10).Draw(t, "kind") {
	case 0, 1:
		return Command{Submit: &Submit{drawSpec(t)}}
	case 2, 3, 4:
		return Command{Grant: &Grant{Job: ref.Job, Task: ref.Task, Node: node(1), Site: rapid.SampledFrom([]SiteID{"s1", "s2"}).Draw(t, "site")}}
	case 5, 6:
		return Command{Complete: &Complete{Ref: ref, Exit: rapid.IntRange(0, 1).Draw(t, "exit"), Stderr: &File{Hash: "x"}}}
	case 7:
		return Command{Lost: &Lost{ref, rapid.Bool().Draw(t, "confirmed")}}
	case 8:
		return Command{Release: &Release{Ref: ref, Failed: rapid.Bool().Draw(t, "failed")}}
	case 9:
		c := &Cancel{Job: ref.Job}
		if rapid.Bool().Draw(t, "some") {
			c.Tasks = &Range{ref.Task, ref.Task + rapid.IntRange(0, 4).Draw(t, "more"), rapid.IntRange(1, 3).Draw(t, "step")}
		}
		return Command{Cancel: c}
	}
	if rapid.Bool().Draw(t, "returned") {
		return Command{Returned: &Returned{Job: ref.Job, Tasks: []int{ref.Task}}}
	}
	return Command{Forget: &Forget{Before: rapid.Int64Range(0, w.now+1).Draw(t, "before"), Jobs: rapid.IntRange(0, 9).Draw(t, "jobs"), Records: rapid.IntRange(0, 9).Draw(t, "records")}}
}

func (w *world) apply(t *rapid.T, e Entry) []Result {
	data, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	w.log = append(w.log, data)
	results, err := w.m.Apply(uint64(len(w.log)), data)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.Err == nil && !r.Known {
			w.account(t, e.Commands[i], r)
		}
	}
	w.compare(t)
	return results
}

// account follows what was accepted.
func (w *world) account(t *rapid.T, c Command, r Result) {
	switch {
	case c.Grant != nil:
		k := [2]uint64{uint64(r.Job), uint64(c.Grant.Task)}
		if w.live[k] || w.ended[k] || r.Epoch <= w.newest[k] {
			t.Fatalf("grant of %v at epoch %d: live %v, ended %v, epoch before %d", k, r.Epoch, w.live[k], w.ended[k], w.newest[k])
		}
		w.live[k], w.newest[k] = true, r.Epoch
	case c.Complete != nil:
		w.close(t, c.Complete.Ref)
		w.ended[[2]uint64{uint64(c.Complete.Job), uint64(c.Complete.Task)}] = true
	case c.Lost != nil:
		w.close(t, c.Lost.Ref)
	case c.Release != nil:
		w.close(t, c.Release.Ref)
	}
}

func (w *world) close(t *rapid.T, r Ref) {
	k := [2]uint64{uint64(r.Job), uint64(r.Task)}
	if !w.live[k] || w.newest[k] != r.Epoch {
		t.Fatalf("%v was accepted; live %v, newest epoch %d", r, w.live[k], w.newest[k])
	}
	delete(w.live, k)
}

// compare wants the machine's live attempts to be those of the account, and ended jobs to have none.
func (w *world) compare(t *rapid.T) {
	n := 0
	for a := range w.m.Attempts() {
		n++
		if k := [2]uint64{uint64(a.Job), uint64(a.Task)}; !w.live[k] || w.newest[k] != a.Epoch {
			t.Fatalf("attempt %v is live, and not in the account", a)
		}
	}
	if n != len(w.live) {
		t.Fatalf("%d live attempts, the account has %v", n, w.live)
	}
	for _, v := range w.m.Jobs("", false, 0, nil) {
		c := v.Counts
		if sum := c.Held + c.Pending + c.Running + c.Unknown + c.Done + c.Failed + c.Cancelled; sum != c.Total {
			t.Fatalf("job %d: %+v does not add up", v.Seq, c)
		}
	}
}

// replay wants equal state from the log alone, and from a snapshot in the middle and the rest of the log.
func (w *world) replay(t *rapid.T) {
	want := hash(t, w.m)
	again := New("s1", 1)
	cut := 0
	if len(w.log) > 0 {
		cut = rapid.IntRange(0, len(w.log)).Draw(t, "cut")
	}
	restored := New("s1", 1)
	for i := 0; i <= len(w.log); i++ {
		if i == cut {
			b, err := again.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			if err := restored.Restore(b); err != nil {
				t.Fatal(err)
			}
		}
		if i == len(w.log) {
			break
		}
		for _, m := range []*Machine{again, restored} {
			if m == restored && i < cut {
				continue
			}
			if _, err := m.Apply(uint64(i+1), w.log[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := hash(t, again); got != want {
		t.Fatalf("replayed: hash %s, want %s", got, want)
	}
	if got := hash(t, restored); got != want {
		t.Fatalf("restored after %d entries and replayed: hash %s, want %s", cut, got, want)
	}
}

func hash(t fataler, m *Machine) string {
	h, err := m.Hash()
	if err != nil {
		t.Fatalf("hash: %v", err)
	}
	return fmt.Sprintf("%x", h[:4])
}
