package queue

import (
	"cmp"
	"container/heap"
	"iter"
	"time"

	"vcpeer/crdt"
)

// Offer is what a node has free. The caller keeps apart what it has offered already.
type Offer struct {
	Node     crdt.NodeID `cbor:"1,keyasint"`
	Site     SiteID      `cbor:"2,keyasint"`
	Slots    int         `cbor:"3,keyasint"`
	MemBytes int64       `cbor:"4,keyasint"`
	Lent     bool        `cbor:"5,keyasint,omitempty"` // of a node of another site: taken only if no other fits

	// What the node has in all, used or not; 0: not known, and then nothing is reserved there.
	AllSlots    int   `cbor:"6,keyasint,omitempty"`
	AllMemBytes int64 `cbor:"7,keyasint,omitempty"`
}

// couldFit reports whether o's node would have room for n if it were empty.
func (o *Offer) couldFit(n need) bool {
	return !o.Lent && o.AllSlots >= n.slots && o.AllMemBytes >= n.mem && (n.pin == "" || n.pin == o.Site)
}

func (o *Offer) fits(n need) bool {
	return o.Slots >= n.slots && o.MemBytes >= n.mem && (n.pin == "" || n.pin == o.Site)
}

// before reports whether o is taken rather than p where both fit.
func (o *Offer) before(p *Offer) bool {
	if o.Lent != p.Lent {
		return p.Lent
	}
	return o.Slots < p.Slots
}

// ReserveAfter is how long a job waits before a node is kept free for it.
const ReserveAfter = time.Minute

// Plan is what [Match] proposes.
type Plan struct {
	Grants []Grant
	// Reserved is the node that is kept free for a job that waits for more room than any node has; zero: none. Nobody else
	// should be given its slots.
	Reserved crdt.NodeID
}

// Match says what to grant to whom, at most limit grants: jobs in submit order, tasks in index order, and what does
// not fit is passed over. fresh are jobs whose Submit commands stand at the given places (from 1) of the same entry,
// in order; they come after all others. Among the offers that fit, the one with the least left over is taken, the
// first of equals. Neither m nor offers change.
//
// So that a wide job does not wait for ever while small ones take every slot that comes free, the first job that fits
// nowhere, would fit a node if that were empty, and was submitted [ReserveAfter] ago (by the time of the log) reserves
// one: of those nodes the one with most free. Later jobs get nothing there, so what is free on it only grows, as
// attempts end, until the job fits.
//
// It costs O(kinds of needs × offers + grants × (log kinds + offers)), whatever the backlog.
func Match(m *Machine, offers []Offer, fresh []Fresh, limit int) Plan {
	p := planner{offers: append([]Offer(nil), offers...), limit: limit, kept: -1}
	p.reserve(m)
	p.line(m)
	for _, f := range fresh {
		p.fresh(m, f)
	}
	plan := Plan{Grants: p.grants}
	if p.kept >= 0 {
		plan.Reserved = p.offers[p.kept].Node
	}
	return plan
}

// Fresh is a job that is not there yet: the Submit at place Of of the entry.
type Fresh struct {
	Of   int
	Spec *Spec
}

type planner struct {
	offers []Offer
	grants []Grant
	limit  int

	kept    int // the offer that is reserved; -1: none
	keptFor Seq // for this job: later ones leave it alone
}

// reserve finds the job that needs a reservation, and the offer for it.
func (p *planner) reserve(m *Machine) {
	for k, c := range m.classes {
		seq, _ := c.line.first() // a class is never empty
		if m.now-m.jobs[seq].Submitted < int64(ReserveAfter) || p.kept >= 0 && seq > p.keptFor || p.place(k, 0) >= 0 {
			continue
		}
		if at := p.roomiest(k); at >= 0 {
			p.kept, p.keptFor = at, seq
		}
	}
}

// roomiest returns the offer with most free among those that n could fit one day, the first of equals; -1: none.
func (p *planner) roomiest(n need) int {
	best := -1
	for i := range p.offers {
		o := &p.offers[i]
		if o.couldFit(n) && (best < 0 || cmp.Or(o.Slots-p.offers[best].Slots, cmp.Compare(o.MemBytes, p.offers[best].MemBytes)) > 0) {
			best = i
		}
	}
	return best
}

// head is the first job not yet looked at in the line of a class.
type head struct {
	seq  Seq
	need need
	next func() (Seq, bool)
	stop func()
}

// heads is a heap by job number.
type heads []*head

func (h heads) Len() int           { return len(h) }
func (h heads) Less(i, j int) bool { return h[i].seq < h[j].seq }
func (h heads) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *heads) Push(x any)        { *h = append(*h, x.(*head)) }
func (h *heads) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// line walks the lines of all needs at once, in the order of job numbers, and leaves a line when nothing offered
// fits its need any more.
func (p *planner) line(m *Machine) {
	var hs heads
	defer func() {
		for _, h := range hs {
			h.stop()
		}
	}()
	for k, c := range m.classes {
		if p.place(k, 0) < 0 {
			continue
		}
		next, stop := iter.Pull(c.line.all())
		seq, _ := next() // a class is never empty
		hs = append(hs, &head{seq, k, next, stop})
	}
	heap.Init(&hs)
	for len(hs) > 0 && len(p.grants) < p.limit {
		h := hs[0]
		more := p.job(m.jobs[h.seq], h.need)
		seq, ok := h.next()
		if !more || !ok {
			h.stop()
			heap.Pop(&hs)
			continue
		}
		h.seq = seq
		heap.Fix(&hs, 0)
	}
}

// job grants what it can of j and reports whether its need may fit some offer still.
func (p *planner) job(j *job, n need) bool {
	left := j.grantable()
	for k := range j.Pending.All() {
		if left == 0 || len(p.grants) == p.limit {
			break
		}
		at := p.place(n, j.Seq)
		if at < 0 {
			return false
		}
		p.give(at, n, Grant{Job: j.Seq, Task: j.Spec.Tasks().Index(k)})
		left--
	}
	return true
}

func (p *planner) fresh(m *Machine, f Fresh) {
	spec := f.Spec.Normal()
	if len(spec.After) > 0 || spec.Check() != nil {
		return
	}
	if _, known := m.Known(spec.User, spec.Key); known {
		return
	}
	n := need{spec.Slots, spec.MemBytes, spec.Pin}
	tasks := spec.Tasks()
	left := tasks.Len()
	if spec.MaxTasks > 0 {
		left = min(left, spec.MaxTasks)
	}
	for k := range uint32(left) {
		at := p.place(n, maxSeq)
		if at < 0 || len(p.grants) == p.limit {
			return
		}
		p.give(at, n, Grant{Of: f.Of, Task: tasks.Index(k)})
	}
}

// maxSeq is later than all jobs.
const maxSeq = ^Seq(0)

// place returns the offer that the need n of a job fits best, -1 if none. What is reserved is none to later jobs.
func (p *planner) place(n need, of Seq) int {
	best := -1
	for i := range p.offers {
		if i == p.kept && of > p.keptFor {
			continue
		}
		if p.offers[i].fits(n) && (best < 0 || p.offers[i].before(&p.offers[best])) {
			best = i
		}
	}
	return best
}

func (p *planner) give(at int, n need, g Grant) {
	o := &p.offers[at]
	g.Node, g.Site = o.Node, o.Site
	o.Slots -= n.slots
	o.MemBytes -= n.mem
	p.grants = append(p.grants, g)
}

// Backlog counts the tasks that could be granted now: Free anywhere, Pinned only at the given sites. MinSlots and
// MinMem are the least that any of the Free asks for (both from the same or from different jobs).
type Backlog struct {
	Free     int
	Pinned   map[SiteID]int
	MinSlots int
	MinMem   int64
}

// Backlog summarises what waits. It costs O(kinds of needs).
func (m *Machine) Backlog() Backlog {
	b := Backlog{Pinned: map[SiteID]int{}}
	for k, c := range m.classes {
		if k.pin != "" {
			b.Pinned[k.pin] += c.tasks
			continue
		}
		if b.Free == 0 || k.slots < b.MinSlots {
			b.MinSlots = k.slots
		}
		if b.Free == 0 || k.mem < b.MinMem {
			b.MinMem = k.mem
		}
		b.Free += c.tasks
	}
	return b
}
