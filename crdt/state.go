package crdt

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"net/netip"
	"time"
)

// What [State.Check] finds wrong with a batch. All but ErrCluster may be cured by other batches coming first, or never.
var (
	ErrKnown     = errors.New("already here")
	ErrGap       = errors.New("an earlier batch of the author is missing")
	ErrNotMember = errors.New("author is not a member")
	ErrFrozen    = errors.New("author signed two different batches with one sequence number")
	ErrCluster   = errors.New("of another cluster")
)

// A ForkError is the proof that an author signed two batches for one place in its log: Known is ours, Other the new
// one. Whoever holds both freezes the author at the batch before, so both are kept and passed on.
type ForkError struct {
	Known Hash
	Other *Batch
}

func (e *ForkError) Error() string {
	return fmt.Sprintf("batch %s/%d: %v", e.Other.Author.Short(), e.Other.First, ErrFrozen)
}

// Unwrap makes the error one of ErrFrozen.
func (e *ForkError) Unwrap() error { return ErrFrozen }

// State is the merge of author logs. It keeps no batch, only what follows from it: about 150 bytes for a batch and 100 for
// a fact that counts. Not for concurrent use; a [View] taken from it may be used by anybody.
type State struct {
	founding Founding
	cluster  ClusterID
	range6   netip.Prefix
	logs     map[NodeID]*authorLog
	objects  objects
	trust    trust
	covered  map[NodeID]uint64 // highest number of an author that the context of another names, in a batch that counts
	touched  map[NodeID]bool   // authors whose head may differ since the last TakeHeads
	dirty    map[Kind]bool     // kinds to build again for the next view
	view     *View
	bulk     bool // between StartBulk and EndBulk: trust is not resolved
	stale    bool // objects hold what is void by now, or lack what is not: Rebuild
	order    map[[2]Dot]bool
}

// authorLog is what is known of one author's batches. Invariant: applied <= entries' last number.
type authorLog struct {
	entries []logEntry
	applied uint64 // merged into objects up to here
	fork    uint64 // first number of the earliest proven fork; 0: none
	vouched uint64 // highest number that a member's context names
	voted   uint64 // highest number of a batch with an eviction that stands
}

// logEntry is one batch in short.
type logEntry struct {
	first, last uint64
	stamp       Stamp
	hash        Hash
	context     Context
}

func (l *authorLog) head() uint64 {
	if l == nil || len(l.entries) == 0 {
		return 0
	}
	return l.entries[len(l.entries)-1].last
}

// upTo returns the last number of the last batch that lies wholly within limit.
func (l *authorLog) upTo(limit uint64) uint64 {
	if i := l.count(limit); i > 0 {
		return l.entries[i-1].last
	}
	return 0
}

// count returns how many batches lie wholly within limit.
func (l *authorLog) count(limit uint64) int {
	if l == nil {
		return 0
	}
	if limit >= l.head() {
		return len(l.entries)
	}
	lo, hi := 0, len(l.entries)
	for lo < hi {
		if mid := (lo + hi) / 2; l.entries[mid].last <= limit {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// NewState returns the state of a cluster of which only the founding is known. Its founder is a member.
func NewState(f Founding) *State {
	s := &State{
		founding: f, cluster: f.ID(), logs: map[NodeID]*authorLog{}, objects: newObjects(), covered: map[NodeID]uint64{},
		touched: map[NodeID]bool{}, dirty: map[Kind]bool{}, order: map[[2]Dot]bool{}, trust: newTrust(f.Founder),
	}
	s.range6 = OverlayPrefix6(s.cluster)
	s.dirtyAll()
	return s
}

// Founding returns the record the cluster began with.
func (s *State) Founding() Founding { return s.founding }

// Check says whether b can be applied now, without changing anything: nil, or an error that wraps ErrCluster, ErrKnown,
// ErrGap, ErrNotMember, ErrFrozen (then it may be a *ForkError, to be given to AddFork) or ErrMalformed. It does not
// verify the signature.
func (s *State) Check(b *Batch) error {
	if b.Cluster != s.cluster {
		return fmt.Errorf("batch %s/%d: %w", b.Author.Short(), b.First, ErrCluster)
	}
	if !s.trust.everAdmitted(b.Author) {
		return fmt.Errorf("batch %s/%d: %w", b.Author.Short(), b.First, ErrNotMember)
	}
	log := s.logs[b.Author]
	if b.First <= log.head() {
		return s.checkOld(log, b)
	}
	if limit := s.extent(b.Author); b.Last() > limit {
		if log != nil && log.fork != 0 {
			return fmt.Errorf("batch %s/%d: %w", b.Author.Short(), b.First, ErrFrozen)
		}
		return fmt.Errorf("batch %s/%d: %w: evicted, its changes count up to %d", b.Author.Short(), b.First, ErrNotMember, limit)
	}
	return checkNext(log, b)
}

// checkNext checks the chain: a batch follows the one before by number, hash and stamp.
func checkNext(log *authorLog, b *Batch) error {
	var prev logEntry
	if n := len(logEntries(log)); n > 0 {
		prev = log.entries[n-1]
	}
	switch {
	case b.First != prev.last+1:
		return fmt.Errorf("batch %s/%d: %w: have up to %d", b.Author.Short(), b.First, ErrGap, prev.last)
	case b.Prev != prev.hash:
		return fmt.Errorf("batch %s/%d: %w: it follows another batch than ours", b.Author.Short(), b.First, ErrGap)
	case b.Stamp <= prev.stamp:
		return fmt.Errorf("batch %s/%d: %w: stamp does not grow", b.Author.Short(), b.First, ErrMalformed)
	}
	return nil
}

// checkOld tells a batch that we have from the second of two that an author signed for one place. The proof is a pair
// of siblings: same first number, same batch before. Batches further along the other branch prove nothing by themselves.
func (s *State) checkOld(log *authorLog, b *Batch) error {
	i := log.count(b.First - 1)
	var prev Hash
	if i > 0 {
		prev = log.entries[i-1].hash
	}
	switch e := log.entries[i]; {
	case e.hash == b.hash:
		return ErrKnown
	case log.fork != 0 && b.First >= log.fork:
		return ErrKnown
	case e.first == b.First && b.Prev == prev:
		return &ForkError{Known: e.hash, Other: b}
	}
	return fmt.Errorf("batch %s/%d: %w: it follows another batch than ours", b.Author.Short(), b.First, ErrGap)
}

func logEntries(l *authorLog) []logEntry {
	if l == nil {
		return nil
	}
	return l.entries
}

func (s *State) log(a NodeID) *authorLog {
	l := s.logs[a]
	if l == nil {
		l = &authorLog{}
		s.logs[a] = l
	}
	return l
}

// Apply adds a batch for which Check gave nil. Afterwards Stale tells whether Rebuild must come before the next View.
func (s *State) Apply(b *Batch) {
	log := s.log(b.Author)
	log.entries = append(log.entries, logEntry{b.First, b.Last(), b.Stamp, b.hash, b.Context})
	s.touched[b.Author] = true
	s.noteTrust(b)
	s.merge(b)
}

// merge applies b to the objects if it counts and all before it is applied.
func (s *State) merge(b *Batch) {
	log := s.logs[b.Author]
	if s.stale || log.applied+1 != b.First || b.Last() > s.limit(b.Author) {
		return
	}
	log.applied = b.Last()
	seen := func(d Dot) bool { l := s.logs[d.Author]; return l != nil && d.Seq <= l.applied }
	for i := range b.Changes {
		c := &b.Changes[i]
		s.objects.apply(c, Dot{b.Author, b.First + uint64(i)}, b.Stamp, seen)
		s.dirty[c.Kind] = true
	}
	s.vouch(b.Author, b.Context)
}

// AddFork takes in the proof that b.Author signed b and another batch of ours for the same place: what Check returned as
// a *ForkError. It reports whether that was new. The replica keeps b beside our batch and passes both on.
func (s *State) AddFork(b *Batch) bool {
	log := s.log(b.Author)
	if log.fork != 0 && log.fork <= b.First {
		return false
	}
	log.fork = b.First
	s.touched[b.Author] = true
	s.resolve(nil)
	return true
}

// Stale reports whether an eviction or a fork has voided what was applied, or brought back what was not. Then the
// objects must be built again with Rebuild; this is rare and costs as much as a restart.
func (s *State) Stale() bool { return s.stale }

// Rebuild builds the objects again from all batches of all logs, each author's in order.
func (s *State) Rebuild(all iter.Seq[*Batch]) {
	s.objects = newObjects()
	s.covered = map[NodeID]uint64{}
	s.stale = false
	for _, l := range s.logs {
		l.applied, l.vouched = 0, 0
	}
	for b := range all {
		s.merge(b)
	}
	s.dirtyAll()
}

// StartBulk begins the load of a store: batches are applied in any order of authors without Check, since they were
// checked before they were stored.
func (s *State) StartBulk() { s.bulk = true }

// AppendStored applies a batch from our own store. An error wrapping ErrGap or ErrMalformed means a damaged store.
func (s *State) AppendStored(b *Batch) error {
	if b.Cluster != s.cluster {
		return fmt.Errorf("batch %s/%d: %w", b.Author.Short(), b.First, ErrCluster)
	}
	if err := checkNext(s.logs[b.Author], b); err != nil {
		return err
	}
	s.Apply(b)
	return nil
}

// EndBulk ends the load; then see Stale.
func (s *State) EndBulk() {
	s.bulk = false
	s.resolve(nil)
}

// Head returns the number, hash and stamp of the last batch of author that is here, counted or not.
func (s *State) Head(author NodeID) (seq uint64, hash Hash, stamp Stamp) {
	entries := logEntries(s.logs[author])
	if len(entries) == 0 {
		return 0, Hash{}, 0
	}
	e := entries[len(entries)-1]
	return e.last, e.hash, e.stamp
}

// Frozen reports whether author is proven to have signed two batches for one place in its log.
func (s *State) Frozen(author NodeID) bool {
	l := s.logs[author]
	return l != nil && l.fork != 0
}

// MayWrite reports whether what author writes next would count.
func (s *State) MayWrite(author NodeID) bool { return s.limit(author) == math.MaxUint64 }

// context returns what author's next batch says it has seen: heads that no context it knows names already. Of an author
// that was put out it names only evictions that stand all the same: others must come to know those, and accept them
// only on a member's word.
func (s *State) context(author NodeID) Context {
	var c Context
	for a, l := range s.logs {
		seen := l.head()
		if s.limit(a) != math.MaxUint64 {
			seen = l.upTo(l.voted)
		}
		if a != author && seen > s.covered[a] {
			c = append(c, Dot{a, seen})
		}
	}
	sortContext(c)
	return c[:min(len(c), MaxContext)]
}

// View returns the typed snapshot at now. Only kinds that changed since the last call are built again, and of them only
// objects that changed are decoded: about 2 µs of processor time for each object of such a kind. Objects that hold stamps from the future change when their time comes: see [View.Next].
func (s *State) View(now time.Time) *View {
	if s.view != nil && !s.view.next.IsZero() && !now.Before(s.view.next) {
		s.dirtyAll()
	}
	if len(s.dirty) > 0 {
		s.view = s.build(now)
		clear(s.dirty)
	}
	return s.view
}

func (s *State) dirtyAll() {
	for _, k := range []Kind{kindCluster, kindMember, kindSite, kindHost, kindGuest, kindAccount, kindGroup, kindToken, kindClaim} {
		s.dirty[k] = true
	}
}
