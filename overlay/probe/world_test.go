package probe

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"vcpeer/overlay/flow"
	"vcpeer/overlay/label"
)

// world is cores joined by a network that delays and loses, under a clock of its own.
type world struct {
	t     testing.TB
	rng   *rand.Rand
	start time.Time
	now   time.Time
	cores map[ID]*Core
	order []ID
	wake  map[ID]time.Time
	fly   []flight // by arrival
	sent  int
	bytes int
	seen  []string // "1.25s g1: down g2"
	// carry says how long a frame of so many bytes as IP packet takes on the leg; false: it is lost.
	carry func(from, to ID, bytes int) (time.Duration, bool)
	lost  func(frame []byte) bool // some are lost that carry knows nothing of
}

type flight struct {
	at       time.Time
	from, to ID
	payload  []byte
}

func newWorld(t testing.TB, seed uint64) *world {
	start := time.Unix(1e9, 0)
	return &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), start: start, now: start,
		cores: map[ID]*Core{}, wake: map[ID]time.Time{},
		carry: func(_, _ ID, _ int) (time.Duration, bool) { return 10 * time.Millisecond, true },
	}
}

// noise is what a datapath in user space adds one way: 0.15 to 0.5 ms, now and then 5 to 50.
func (w *world) noise() time.Duration {
	d := time.Duration(150+w.rng.IntN(350)) * time.Microsecond
	if w.rng.IntN(25) == 0 {
		d += time.Duration(5+w.rng.IntN(45)) * time.Millisecond
	}
	return d
}

func addrOf(id ID) netip.Addr {
	return netip.AddrFrom4([4]byte{192, 0, byte(id.num >> 8), byte(id.num)})
}

func (w *world) add(id ID) *Core {
	c := New(Default(), rand.New(rand.NewPCG(w.rng.Uint64(), 2)), w.now)
	if _, again := w.cores[id]; !again {
		w.order = append(w.order, id)
	}
	w.cores[id], w.wake[id] = c, w.now
	return c
}

func self(id ID) Self {
	if l, ok := id.Label(); ok {
		return Self{Label: l, Slot: 1000}
	}
	s, _ := id.Slot()
	return Self{Slot: s}
}

// know makes the core of id probe the others.
func (w *world) know(id ID, class Class, mtu int, others ...ID) {
	var targets []Target
	for _, o := range others {
		targets = append(targets, Target{ID: o, Addr: addrOf(o), Class: class, MTU: mtu})
	}
	w.cores[id].Set(w.now, self(id), targets)
	w.wake[id] = w.now
}

// pair is two gateways that probe each other.
func pair(t testing.TB, seed uint64, class Class, mtu int) (*world, ID, ID) {
	w, a, b := newWorld(t, seed), Gateway(1), Gateway(2)
	w.add(a)
	w.add(b)
	w.know(a, class, mtu, b)
	w.know(b, class, mtu, a)
	return w, a, b
}

// perform sends frames where their addresses say, over the transit gateways that they name.
func (w *world) perform(id ID, out Out) {
	for _, e := range out.Events {
		w.seen = append(w.seen, fmt.Sprintf("%.2fs %v: %v", w.now.Sub(w.start).Seconds(), id, e))
	}
	for _, f := range out.Frames {
		w.sent++
		w.bytes += len(f) + tunnelBytes
		to, hops := route(f, id)
		at, ok := w.now, w.cores[to] != nil
		prev := id
		for _, hop := range append(hops, to) {
			d, passes := w.carry(prev, hop, len(f)-etherBytes)
			at, ok = at.Add(d), ok && passes
			prev = hop
		}
		if ok && (w.lost == nil || !w.lost(f)) {
			w.fly = append(w.fly, flight{at, id, to, slices.Clone(f[etherBytes:])})
		}
	}
	slices.SortStableFunc(w.fly, func(a, b flight) int { return a.at.Compare(b.at) })
	w.wake[id] = w.cores[id].Next(w.now)
}

// route reads addresses as the flows do.
func route(f []byte, from ID) (to ID, hops []ID) {
	num := func(i int) uint16 { return uint16(f[i])<<8 | uint16(f[i+1]) }
	gate := func(i int) ID { return Gateway(label.Label(num(i))) }
	switch b := f[1]; {
	case b == 0x7f:
		return Node(flow.Slot(num(4))), nil
	case b == 0x7a || b == 0x7b || b == 0x76:
		return gate(4), nil
	case b == 0x77:
		return gate(4), []ID{gate(10)}
	case b == 0x78:
		return gate(4), []ID{gate(10), gate(2)}
	default:
		return gate(4), []ID{gate(10), gate(8), gate(2)}
	}
}

// run lets d pass.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for {
		id := slices.MinFunc(w.order, func(a, b ID) int { return cmp.Or(w.wake[a].Compare(w.wake[b]), a.Compare(b)) })
		next := w.wake[id]
		if len(w.fly) > 0 && !w.fly[0].at.After(next) {
			f := w.fly[0]
			if f.at.After(end) {
				break
			}
			w.fly = w.fly[1:]
			w.now = f.at
			w.check(w.cores[f.to])
			w.perform(f.to, w.cores[f.to].Receive(w.now, w.now, f.payload))
			continue
		}
		if next.After(end) {
			break
		}
		w.now = later(w.now, next)
		out, _ := w.cores[id].Tick(w.now)
		w.perform(id, out)
	}
	w.now = end
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// check looks at the invariants.
func (w *world) check(c *Core) { checkCore(w.t, c) }

func checkCore(t interface {
	Helper()
	Fatalf(string, ...any)
}, c *Core) {
	t.Helper()
	if len(c.tracks) != len(c.ways) || len(c.tracks) != len(c.due) {
		t.Fatalf("%d tracks, %d ways, %d due", len(c.tracks), len(c.ways), len(c.due))
	}
	if len(c.heard) > heardMax+2*len(c.tracks) || len(c.pings) > pingsMax {
		t.Fatalf("%d askers, %d pings", len(c.heard), len(c.pings))
	}
	for i, k := range c.tracks {
		s := &k.mtu
		switch {
		case int32(k.next-k.judged) < 0, k.count > ring, k.answered&^k.arrived != 0, k.arrived&^ones(uint32(k.count)) != 0:
			t.Fatalf("track %v: next %d judged %d count %d answered %b arrived %b", k.way, k.next, k.judged, k.count, k.answered, k.arrived)
		case len(k.rtt.win.kept) > windowMax:
			t.Fatalf("track %v: window of %d", k.way, len(k.rtt.win.kept))
		case s.mtu > s.largest, s.sent > copies, s.size != 0 && !s.verify && (s.size <= s.good || s.size >= s.bad):
			t.Fatalf("track %v: %+v", k.way, *s)
		case c.due[i] > k.due(&c.config):
			t.Fatalf("track %v: due at %v, said to be at %v", k.way, k.due(&c.config), c.due[i])
		}
	}
}

// link is what a knows of its link to b.
func (w *world) link(a, b ID) Link {
	w.t.Helper()
	for _, l := range w.cores[a].Report(w.now).Links {
		if l.ID == b {
			return l
		}
	}
	w.t.Fatalf("%v has no link to %v", a, b)
	return Link{}
}

// events are those of a that have the word.
func (w *world) events(a ID, word string) (out []string) {
	for _, s := range w.seen {
		if strings.Contains(s, " "+a.String()+": "+word) {
			out = append(out, s)
		}
	}
	return out
}

// symmetric is a link of so much RTT with noise, for all legs.
func (w *world) symmetric(rtt time.Duration) {
	w.carry = func(_, _ ID, _ int) (time.Duration, bool) { return rtt/2 + w.noise(), true }
}
