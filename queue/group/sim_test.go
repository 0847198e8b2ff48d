package group

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"vcpeer/queue/wal"
	"vcpeer/queue/wal/waltest"
)

// sim is a whole site in one goroutine: cores, real logs on disks in memory, a network that loses, delays, reorders and
// cuts, and processes that die with what they had not synced. The seed determines all of it but raft's election timeouts,
// which it draws from the operating system.
type sim struct {
	t       *testing.T
	rng     *rand.Rand
	now     int // ticks
	members []*simMember
	flying  []flight
	cutOff  map[int]bool
	loss    float64

	acked   []string // acknowledged commands
	sent    int
	history []string       // the longest applied sequence seen
	leaders map[uint64]int // term -> member
	changes int

	unsafe bool   // acknowledges without syncing, to show that the checks see it
	broken string // the first promise that was not kept
}

type flight struct {
	at       int // tick of arrival
	from, to int
	m        []byte
}

type simMember struct {
	i       int
	disk    *waltest.FS
	dir     string // a new one after the disk was wiped
	log     *wal.Log
	core    *core
	id      uint64
	machine *ledger
	down    int // ticks until it comes back; 0: up
}

func newSim(t *testing.T, seed uint64, n int) *sim {
	s := &sim{t: t, rng: rand.New(rand.NewPCG(seed, 0)), cutOff: map[int]bool{}, leaders: map[uint64]int{}}
	for i := range n {
		m := &simMember{i: i, disk: &waltest.FS{}, dir: "log0"}
		s.members = append(s.members, m)
		s.boot(m, i == 0)
	}
	return s
}

// boot starts a member from its disk.
func (s *sim) boot(m *simMember, founder bool) {
	log, st, err := wal.Open(m.dir, wal.Options{FS: m.disk, SegmentBytes: 16 << 10, BallastBytes: -1, Plain: true})
	if err != nil {
		s.t.Fatalf("member %d: %v", m.i, err)
	}
	m.log, m.machine = log, &ledger{}
	cfg := Config{Self: nodeID(m.i), Machine: m.machine, SnapshotEntries: 60, TrailingEntries: 20}.withDefaults()
	if st.Identity == nil {
		m.id = s.rng.Uint64()>>1 | 1
		st.Identity = &wal.Identity{ID: m.id}
		s.must(log.Save(wal.Batch{Identity: st.Identity, Sync: true}))
	}
	m.id = st.Identity.ID
	if founder {
		snap, first, err := found(cfg, m.id)
		s.must(err)
		s.must(log.WriteSnapshot(snap))
		s.must(log.Save(first))
		st.Hard, st.Snapshot = *first.Hard, &snap
	}
	m.core, err = newCore(cfg, m.id, st, s.rng)
	s.must(err)
}

func (s *sim) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("tick %d: %v", s.now, err)
	}
}

// die ends a process; its disk keeps what was synced and any part of the rest.
func (s *sim) die(m *simMember, ticks int, wipe bool) {
	m.disk.Crash(s.rng)
	m.core.failWaiting(ErrStopped)
	m.core.failProposed(ErrUncertain)
	m.core, m.down = nil, ticks
	if wipe {
		m.dir += "x"
	}
}

func (s *sim) step() {
	s.now++
	s.faults()
	s.deliver()
	for _, m := range s.members {
		if m.core == nil {
			if m.down--; m.down <= 0 {
				s.boot(m, false)
			}
			continue
		}
		m.core.tick()
		if s.now%8 == m.i%8 {
			s.plan(m)
		}
		s.run(m)
	}
	s.propose()
	s.check()
}

// faults happens to the site now and then.
func (s *sim) faults() {
	switch s.rng.IntN(400) {
	case 0:
		s.cutOff = map[int]bool{s.rng.IntN(len(s.members)): true}
	case 1, 2:
		s.cutOff = map[int]bool{}
	case 3, 4:
		if m := s.members[s.rng.IntN(len(s.members))]; m.core != nil {
			s.die(m, 1+s.rng.IntN(100), false)
		}
	case 5:
		s.loss = []float64{0, 0.02, 0.2}[s.rng.IntN(3)]
	case 6:
		if s.rng.IntN(10) == 0 { // a power cut of the whole site
			for _, m := range s.members {
				if m.core != nil {
					s.die(m, 1+s.rng.IntN(20), false)
				}
			}
		}
	case 7:
		s.wipe()
	}
}

// wipe loses one disk, when all members are up and joined: more than a minority of disks must not be lost at once.
func (s *sim) wipe() {
	for _, m := range s.members {
		if m.core == nil || len(m.core.store.conf.GetVotersOutgoing()) > 0 {
			return
		}
	}
	l := s.leader()
	if l == nil || s.rng.IntN(3) > 0 {
		return
	}
	st := l.core.status()
	if len(st.Voters) < 3 {
		return
	}
	for _, v := range st.Voters {
		if !v.Active || v.Lag > 0 || !s.has(v.RaftID) {
			return
		}
	}
	s.die(s.members[s.rng.IntN(len(s.members))], 1+s.rng.IntN(50), true)
}

func (s *sim) has(id uint64) bool {
	return slices.ContainsFunc(s.members, func(m *simMember) bool { return m.core != nil && m.id == id })
}

func (s *sim) leader() *simMember {
	for _, m := range s.members {
		if m.core != nil && m.core.leading() && m.core.settled {
			return m
		}
	}
	return nil
}

// plan grows and heals with true knowledge of who is up.
func (s *sim) plan(m *simMember) {
	var site []Applicant
	for _, o := range s.members {
		a := Applicant{Node: nodeID(o.i), Alive: o.core != nil}
		if o.core != nil && !s.cutOff[o.i] {
			a.ID = o.id
		}
		site = append(site, a)
	}
	ch, err := m.core.plan(site)
	if err == nil && !ch.IsZero() {
		s.changes++
	}
}

func (s *sim) run(m *simMember) {
	for {
		w, ok := m.core.ready()
		if !ok {
			break
		}
		s.send(m, w.First)
		if s.rng.IntN(3000) == 0 { // dies between sending and syncing
			s.die(m, 1+s.rng.IntN(30), false)
			return
		}
		if w.Snapshot != nil {
			s.must(m.log.WriteSnapshot(*w.Snapshot))
		}
		w.Batch.Sync = w.Batch.Sync && !s.unsafe
		s.must(m.log.Save(w.Batch))
		s.send(m, w.Then)
		s.must(m.core.done())
	}
	snap, err := m.core.takeSnapshot()
	s.must(err)
	if snap != nil {
		s.must(m.log.WriteSnapshot(*snap))
		if marker, keep, ok := m.core.snapshotWritten(snap.Index, snap.Term); ok {
			s.must(m.log.Compact(marker, keep))
		}
	}
}

func (s *sim) send(m *simMember, ms []*pb.Message) {
	for _, msg := range ms {
		for _, to := range s.members {
			if to.id != msg.GetTo() {
				continue
			}
			msg := proto.Clone(msg).(*pb.Message)
			if msg.GetType() == pb.MsgSnap {
				snap, err := m.log.ReadSnapshot(msg.GetSnapshot().GetMetadata().GetIndex())
				s.must(err)
				msg.Snapshot.Data = snap.Data
				m.core.node.ReportSnapshot(msg.GetTo(), 1)
			}
			b, err := proto.Marshal(msg)
			s.must(err)
			copies := 1
			if s.rng.IntN(50) == 0 {
				copies = 2
			}
			for range copies {
				s.flying = append(s.flying, flight{at: s.now + 1 + s.rng.IntN(2) + s.rng.IntN(20)/19*s.rng.IntN(30), from: m.i, to: to.i, m: b})
			}
		}
	}
}

func (s *sim) deliver() {
	var later []flight
	for _, f := range s.flying {
		to := s.members[f.to]
		switch {
		case f.at > s.now:
			later = append(later, f)
		case to.core == nil, s.cutOff[f.from], s.cutOff[f.to], s.rng.Float64() < s.loss:
		default:
			m, err := decodeMessage(f.m)
			s.must(err)
			if to.core.accepts(nodeID(f.from), true, m) {
				s.must(to.core.step(m))
			}
		}
	}
	s.flying = later
}

func (s *sim) propose() {
	m := s.members[s.rng.IntN(len(s.members))]
	if m.core == nil || !m.core.leading() || s.rng.IntN(2) == 0 {
		return
	}
	for range 1 + s.rng.IntN(4) {
		s.sent++
		c := fmt.Sprint("c", s.sent)
		m.core.propose(&proposal{commands: [][]byte{[]byte(c)}, done: func(_ []any, err error) {
			if err == nil {
				s.acked = append(s.acked, c)
			} else if !errors.Is(err, ErrUncertain) && !errors.Is(err, ErrNoQuorum) && !errors.Is(err, ErrBusy) && !errors.Is(err, ErrStopped) && !errors.As(err, new(ErrNotLeader)) {
				s.t.Errorf("proposal: %v", err)
			}
		}})
	}
}

// check holds after every tick: applied sequences are prefixes of each other, a term has one leader.
func (s *sim) check() {
	for _, m := range s.members {
		if m.core == nil {
			continue
		}
		have := m.machine.commands
		n := min(len(have), len(s.history))
		// Only the end needs a look each time: the rest was compared before.
		from := max(0, n-50)
		if s.now%500 == 0 {
			from = 0
		}
		if !slices.Equal(have[from:n], s.history[from:n]) {
			s.fail("member %d applied another sequence", m.i)
			return
		}
		if len(have) > len(s.history) {
			s.history = append(s.history, have[len(s.history):]...)
		}
		if m.core.leading() {
			if other, taken := s.leaders[m.core.term]; taken && other != m.i {
				s.fail("members %d and %d both lead term %d", other, m.i, m.core.term)
			}
			s.leaders[m.core.term] = m.i
		}
	}
}

// calm is a tick without faults. Each member looks after its tick, before it answers what has come.
func (s *sim) calm(look func(m *simMember)) {
	s.now++
	s.deliver()
	for _, m := range s.members {
		if m.core == nil {
			s.boot(m, false)
		}
		m.core.tick()
		look(m)
		s.run(m)
	}
	s.check()
}

// heal ends all faults and waits until everybody who is a member agrees; then nothing acknowledged may be missing.
func (s *sim) heal() {
	s.cutOff, s.loss = map[int]bool{}, 0
	want := ""
	for range 4000 {
		s.calm(func(m *simMember) {
			if s.now%8 == 0 {
				s.plan(m)
			}
		})
		if l := s.leader(); l != nil && want == "" {
			s.sent++
			want = fmt.Sprint("last", s.sent)
			l.core.propose(&proposal{commands: [][]byte{[]byte(want)}, done: func(_ []any, err error) {
				if err != nil {
					want = ""
				}
			}})
		}
		if s.settled(want) {
			break
		}
	}
	if !s.settled(want) {
		for _, m := range s.members {
			s.t.Logf("member %d: %+v", m.i, m.core.status())
		}
		s.fail("the site does not heal")
	}
	have := map[string]bool{}
	for _, c := range s.history {
		if have[c] {
			s.fail("%s was applied twice", c)
		}
		have[c] = true
	}
	for _, c := range s.acked {
		if !have[c] {
			s.fail("acknowledged %s is lost", c)
		}
	}
}

// fail notes the first broken promise.
func (s *sim) fail(format string, args ...any) {
	if s.broken == "" {
		s.broken = fmt.Sprintf("tick %d: ", s.now) + fmt.Sprintf(format, args...)
	}
}

// live runs the site with faults, heals it, and returns the first broken promise; empty: none.
func (s *sim) live(ticks int) string {
	for range ticks {
		if s.step(); s.broken != "" {
			return s.broken
		}
	}
	s.heal()
	return s.broken
}

// A voter that acknowledges before it syncs must be caught, or the simulation proves nothing.
func TestSimulationSeesMissingSync(t *testing.T) {
	for seed := range uint64(10) {
		s := newSim(t, seed, 1)
		s.unsafe = true
		if s.live(4000) != "" {
			return
		}
	}
	t.Error("ten seeds without fsync lost nothing")
}

// settled reports whether the right number of voters has all commands.
func (s *sim) settled(want string) bool {
	l := s.leader()
	if want == "" || l == nil {
		return false
	}
	st := l.core.status()
	if st.Changing || len(st.Voters) != votersFor(len(s.members)) {
		return false
	}
	for _, v := range st.Voters {
		i := slices.IndexFunc(s.members, func(m *simMember) bool { return m.id == v.RaftID })
		if i < 0 || !slices.Contains(s.members[i].machine.commands, want) {
			return false
		}
	}
	return true
}

func TestSimulation(t *testing.T) {
	seeds, ticks := 2, 2000 // a minute of a site's life each; VCPEER_SIM_SEEDS asks for more
	if testing.Short() {
		seeds = 1
	}
	if n, err := strconv.Atoi(os.Getenv("VCPEER_SIM_SEEDS")); err == nil {
		seeds = n
	}
	for _, n := range []int{1, 2, 3, 5, 7} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			acked, changes, terms := 0, 0, 0
			for seed := range seeds {
				if t.Failed() {
					break
				}
				s := newSim(t, uint64(seed), n)
				ok := t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
					s.t = t
					if broken := s.live(ticks); broken != "" {
						t.Fatal(broken)
					}
				})
				if !ok {
					break
				}
				acked, changes, terms = acked+len(s.acked), changes+s.changes, terms+len(s.leaders)
			}
			if !t.Failed() && acked < seeds*ticks/20 {
				t.Errorf("only %d commands were acknowledged: the faults left no work to lose", acked)
			}
			t.Logf("%d seeds of %d ticks: %d commands acknowledged, %d membership changes, %d leaders", seeds, ticks, acked, changes, terms)
		})
	}
}

// TestLeaderKnowsWhoIsActive looks once in each election timeout, at every point of it: at its end raft forgets who answered.
func TestLeaderKnowsWhoIsActive(t *testing.T) {
	s := newSim(t, 1, 3)
	if s.heal(); s.broken != "" {
		t.Fatal(s.broken)
	}
	for tick := range 8 * 100 {
		s.calm(func(m *simMember) {
			if !m.core.leading() || !m.core.settled {
				return
			}
			if m.core.heir() == 0 {
				t.Fatalf("tick %d: nobody could take over", s.now)
			}
			if s.now%m.core.cfg.ElectionTicks != tick/100 {
				return
			}
			s.plan(m)
			for _, v := range m.core.status().Voters {
				if !v.Active {
					t.Fatalf("tick %d: %x is not active", s.now, v.RaftID)
				}
			}
		})
	}
}
