package queue

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"vcpeer/crdt"
)

// The simulation: one owner (machine, leases, offers, with leaders that come and go) and workers whose clocks run up
// to 5 % wrong, over a network that loses, delays and repeats. Everything follows from the seed. True time is known
// to the simulation alone; it sees whether two attempts of one task ever ran at the same moment.

type sim struct {
	t       *testing.T
	deaf    bool   // a fault on purpose: nothing stops an attempt whose lease is over
	overlap string // two live attempts of one task were seen
	rng     *rand.Rand
	now     time.Duration // true time
	events  eventQueue
	order   int
	times   Times
	m       *Machine
	index   uint64
	drift   float64 // of the owner's clock
	leases  *Leases
	stale   *Leases // of a deposed leader that has not noticed yet
	staleTo time.Duration
	down    bool // between two leaders
	parked  map[crdt.NodeID]*claim
	workers []*simWorker
	running map[[2]uint64]Ref // true state of the world: what runs now
	starts  int
	over    int // completions accepted first
}

type claim struct {
	w       *simWorker
	offer   Offer
	asked   time.Duration // worker's clock
	arrived time.Time     // owner's clock
}

type simWorker struct {
	id      crdt.NodeID
	drift   float64
	slots   int
	life    int              // rises when the daemon restarts
	claimed time.Duration    // true time of the last claim; 0: none
	runs    map[Ref]*simRun  // in their shims: survive the daemon
	results map[Ref]Complete // on disk until acknowledged
}

type simRun struct {
	until time.Duration // worker's clock
	ends  time.Duration // true time
}

type event struct {
	at    time.Duration
	order int
	do    func()
}

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

func (s *sim) after(d time.Duration, do func()) {
	s.order++
	heap.Push(&s.events, event{s.now + d, s.order, do})
}

// send delivers a message, perhaps late, twice, or never.
func (s *sim) send(do func()) {
	for range 1 + s.rng.IntN(10)/9 {
		if s.rng.IntN(8) == 0 {
			continue
		}
		delay := time.Duration(s.rng.IntN(40)) * time.Millisecond
		if s.rng.IntN(12) == 0 {
			delay = time.Duration(s.rng.IntN(40)) * time.Second
		}
		s.after(delay, do)
	}
}

func (s *sim) ownerNow() time.Time              { return time.Unix(0, int64(float64(s.now)*s.drift)) }
func (s *sim) clock(w *simWorker) time.Duration { return time.Duration(float64(s.now) * w.drift) }

// true returns how long a span of a worker's clock lasts in truth.
func (w *simWorker) truth(d time.Duration) time.Duration {
	return time.Duration(float64(d)/w.drift) + 1
}

func (s *sim) drawDrift() float64 { return 0.95 + 0.1*s.rng.Float64() }

func TestSimulation(t *testing.T) {
	seeds := 25
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		s := simulate(t, uint64(seed), false)
		v, _ := s.m.Job(1, nil)
		switch {
		case s.overlap != "":
			t.Fatalf("seed %d: %s", seed, s.overlap)
		case v.Counts.Done != simTasks:
			t.Fatalf("seed %d: after %v of simulated time: %+v, %d starts", seed, s.now, v.Counts, s.starts)
		case s.over != simTasks:
			t.Fatalf("seed %d: %d completions were accepted for %d tasks", seed, s.over, simTasks)
		case s.starts < simTasks:
			t.Fatalf("seed %d: %d starts for %d tasks", seed, s.starts, simTasks)
		}
		check(t, s.m)
	}
}

// TestSimulationSees wants the simulation to notice a broken rule.
func TestSimulationSees(t *testing.T) {
	for seed := range 60 {
		if simulate(t, uint64(seed), true).overlap != "" {
			return
		}
	}
	t.Error("attempts that outlive their leases go unnoticed")
}

func TestTimes(t *testing.T) {
	if (Times{TTL: time.Minute, First: time.Second, Grace: time.Second}).Validate(time.Second) == nil {
		t.Error("a grace of one election timeout is accepted")
	}
	if err := DefaultTimes.Validate(time.Second); err != nil {
		t.Error(err)
	}
}

const simTasks = 60

// simulate runs one array of tasks until all are done, or two attempts of one task overlap, or six hours are over.
func simulate(t *testing.T, seed uint64, deaf bool) *sim {
	s := &sim{t: t, deaf: deaf, rng: rand.New(rand.NewPCG(seed, 1)), times: DefaultTimes, m: New("s1", 0),
		parked: map[crdt.NodeID]*claim{}, running: map[[2]uint64]Ref{}}
	s.drift = s.drawDrift()
	s.leases = NewLeases(s.times)
	for i := range 4 {
		w := &simWorker{id: node(i + 1), drift: s.drawDrift(), slots: 3, runs: map[Ref]*simRun{}, results: map[Ref]Complete{}}
		s.workers = append(s.workers, w)
		s.worker(w, w.life)
	}
	spec := specOf("array")
	spec.Array, spec.Retries = &Range{1, simTasks, 1}, MaxRetries
	s.propose(Command{Submit: &Submit{spec}})
	s.tick()
	s.after(time.Second, s.trouble)
	for s.now < 6*time.Hour && s.overlap == "" {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.do()
		if v, _ := s.m.Job(1, nil); v.Counts.Done == simTasks {
			break
		}
	}
	return s
}

// trouble brings something bad every few seconds for ten minutes.
func (s *sim) trouble() {
	if s.now > 10*time.Minute {
		return
	}
	w := s.workers[s.rng.IntN(len(s.workers))]
	switch s.rng.IntN(4) {
	case 0: // the node loses power
		for r := range w.runs {
			s.stop(w, r)
		}
		s.restart(w)
	case 1: // only its daemon dies
		s.restart(w)
	case 2:
		s.newLeader()
	}
	s.after(time.Duration(s.rng.IntN(30000))*time.Millisecond, s.trouble)
}

func (s *sim) restart(w *simWorker) {
	w.life++
	life := w.life
	w.claimed = 0
	s.after(time.Duration(s.rng.IntN(90))*time.Second, func() { s.worker(w, life) })
}

// newLeader elects another: the old one goes on renewing for up to two election timeouts of 1 s, from its own table.
func (s *sim) newLeader() {
	if s.down {
		return
	}
	s.stale, s.staleTo = s.leases, s.now+time.Duration(s.rng.IntN(2000))*time.Millisecond
	s.parked = map[crdt.NodeID]*claim{}
	s.leases = NewLeases(s.times)
	s.leases.Reset(s.m, s.ownerNow())
	s.down = true
	s.after(time.Duration(s.rng.IntN(500))*time.Millisecond, func() { s.down = false })
}

func (s *sim) propose(cs ...Command) []Result {
	s.index++
	data, err := (Entry{At: int64(s.now), Commands: cs}).Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	results, err := s.m.Apply(s.index, data)
	if err != nil {
		s.t.Fatal(err)
	}
	for i, r := range results {
		if r.Err != nil || r.Known {
			continue
		}
		switch c := cs[i]; {
		case c.Grant != nil:
			s.leases.Grant(Ref{r.Job, c.Grant.Task, r.Epoch}, c.Grant.Node, s.ownerNow())
		case c.Complete != nil:
			s.over++
			s.leases.Drop(c.Complete.Ref)
		case c.Lost != nil:
			s.leases.Drop(c.Lost.Ref)
		}
	}
	return results
}

// tick is the owner's timer: expiry once a second.
func (s *sim) tick() {
	if !s.down {
		for _, l := range s.leases.Expire(s.ownerNow()) {
			s.propose(Command{Lost: &l})
		}
		s.dispatch()
	}
	s.after(time.Second, s.tick)
}

func (s *sim) dispatch() {
	var offers []Offer
	for _, w := range s.workers {
		if c := s.parked[w.id]; c != nil {
			offers = append(offers, c.offer)
		}
	}
	for _, g := range Match(s.m, offers, nil, 64).Grants {
		r := s.propose(Command{Grant: &g})[0]
		if r.Err != nil {
			s.t.Fatalf("grant: %v", r.Err)
		}
		c := s.parked[g.Node]
		delete(s.parked, g.Node)
		if c == nil {
			continue // a second task of the same offer: its answer is lost
		}
		ref := Ref{r.Job, g.Task, r.Epoch}
		held := s.ownerNow().Sub(c.arrived)
		s.send(func() { s.granted(c, ref, held) })
	}
}

// worker is one round of a worker's loop; a daemon of an earlier life does nothing.
func (s *sim) worker(w *simWorker, life int) {
	if w.life != life {
		return
	}
	if len(w.runs) < w.slots && (w.claimed == 0 || s.now-w.claimed > 30*time.Second) {
		w.claimed = s.now
		c := &claim{w: w, offer: Offer{Node: w.id, Site: "s1", Slots: w.slots - len(w.runs)}, asked: s.clock(w)}
		s.send(func() {
			if !s.down {
				c.arrived = s.ownerNow()
				s.parked[w.id] = c
				s.dispatch()
			}
		})
	}
	asked := s.clock(w)
	for _, r := range sortedRefs(w.runs) {
		s.send(func() { s.renew(w, life, r, asked) })
	}
	for _, r := range sortedRefs(w.results) {
		c := w.results[r]
		s.send(func() { s.completed(w, c) })
	}
	s.after(s.times.TTL/4, func() { s.worker(w, life) })
}

func sortedRefs[V any](m map[Ref]V) []Ref {
	var all []Ref
	for r := range m {
		all = append(all, r)
	}
	for i := range all {
		for j := i; j > 0 && compareRefs(all[j], all[j-1]) < 0; j-- {
			all[j], all[j-1] = all[j-1], all[j]
		}
	}
	return all
}

// granted starts a task if its first lease, counted from before the claim was sent, is not over. A repeated answer
// finds the attempt's directory and does nothing.
func (s *sim) granted(c *claim, r Ref, held time.Duration) {
	w := c.w
	until := GrantedUntil(c.asked, held, s.times.First)
	if s.clock(w) >= until || w.runs[r] != nil || len(w.runs) == w.slots {
		return
	}
	if _, done := w.results[r]; done || w.claimed == 0 { // nobody waits for this answer any more
		return
	}
	w.claimed = 0
	k := [2]uint64{uint64(r.Job), uint64(r.Task)}
	if other, ok := s.running[k]; ok {
		s.overlap = fmt.Sprintf("at %v: %v starts while %v runs", s.now, r, other)
	}
	s.running[k] = r
	s.starts++
	run := &simRun{until: until, ends: s.now + time.Duration(s.rng.IntN(200))*time.Second}
	w.runs[r] = run
	s.watch(w, r, run)
	s.after(run.ends-s.now, func() {
		if w.runs[r] == run {
			s.stop(w, r)
			w.results[r] = Complete{Ref: r}
		}
	})
	asked, life := s.clock(w), w.life
	s.send(func() { s.renew(w, life, r, asked) })
}

// watch is the shim: it kills the attempt when its lease is over.
func (s *sim) watch(w *simWorker, r Ref, run *simRun) {
	s.after(w.truth(run.until-s.clock(w)), func() {
		switch {
		case w.runs[r] != run || s.deaf:
		case s.clock(w) >= run.until:
			s.stop(w, r)
		default:
			s.watch(w, r, run)
		}
	})
}

func (s *sim) stop(w *simWorker, r Ref) {
	delete(w.runs, r)
	delete(s.running, [2]uint64{uint64(r.Job), uint64(r.Task)})
}

// renew arrives at the owner, or at a leader that does not know yet that it is none.
func (s *sim) renew(w *simWorker, life int, r Ref, asked time.Duration) {
	table := s.leases
	if s.stale != nil && s.now < s.staleTo && s.rng.IntN(2) == 0 {
		table = s.stale
	} else if s.down {
		return
	}
	ok := table.Renew(r, w.id, s.ownerNow())
	s.send(func() {
		run := w.runs[r]
		switch {
		case w.life != life || run == nil:
		case !ok:
			s.stop(w, r)
		default:
			run.until = max(run.until, asked+s.times.TTL)
		}
	})
}

func (s *sim) completed(w *simWorker, c Complete) {
	if s.down {
		return
	}
	s.propose(Command{Complete: &c})
	s.dispatch()
	s.send(func() { delete(w.results, c.Ref) }) // accepted or stale: both are an answer
}
