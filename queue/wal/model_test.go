package wal_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"vcpeer/queue/wal"
	"vcpeer/queue/wal/waltest"
)

// Against a model: whatever is saved, compacted, refused by a full disk, broken by an error of any call on the disk or
// by a power cut after any of them, the log opens, what was acknowledged is there, and nothing else than what was saved.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{T: t, fs: &waltest.FS{Background: "d/zeros.tmp"}, may: []image{{}}}
		m.opt = wal.Options{
			FS: m.fs, Plain: m.chance(2), BallastBytes: int64(m.draw(2))*1000 - 1,
			SegmentBytes: int64(400 << m.draw(4)), // every few steps a roll-over, or nearly none
		}
		m.fs.CopyOnWrite = m.chance(2)
		m.open()
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			m.step()
		}
		// In the end nothing is in the way.
		m.fs.SetCapacity(0)
		m.full = false
		m.powerCut()
	})
}

// model is a log and what it must hold.
type model struct {
	*rapid.T
	fs     *waltest.FS
	opt    wal.Options
	log    *wal.Log
	may    []image // what the log may hold after a crash, oldest first; a living log holds the last
	cached bool    // whatever of it is not durable is in the page cache still
	full   bool    // the disk is
	broken bool    // a fault is armed
	term   uint64
}

// image is what a log holds.
type image struct {
	named   bool // has its identity
	hard    wal.HardState
	snap    wal.Marker
	base    uint64      // the index that the last leader's snapshot reset the log to
	entries []wal.Entry // from base+1 on
	trimmed uint64      // those up to it may be gone
}

func (im image) last() uint64 { return im.base + uint64(len(im.entries)) }

// with returns the image after a batch.
func (im image) with(b wal.Batch) image {
	im.named = im.named || b.Identity != nil
	if b.Hard != nil {
		im.hard = *b.Hard
	}
	if b.Marker != nil {
		im.snap = wal.Marker{Index: b.Marker.Index, Term: b.Marker.Term}
		if b.Marker.Reset {
			im.base, im.entries, im.trimmed = b.Marker.Index, nil, b.Marker.Index
		}
	}
	if len(b.Entries) > 0 {
		kept := im.entries[:b.Entries[0].Index-im.base-1]
		im.entries = append(slices.Clip(kept), b.Entries...)
	}
	return im
}

// without returns the image when the entries up to keep have been given up.
func (im image) without(keep uint64) image {
	im.trimmed = max(im.trimmed, keep)
	return im
}

// matches reports whether Open's state is this image.
func (im image) matches(st wal.State) bool {
	if (st.Identity != nil) != im.named || st.Hard != im.hard || (st.Snapshot != nil) != (im.snap.Index > 0) {
		return false
	}
	if s := st.Snapshot; s != nil && (s.Index != im.snap.Index || s.Term != im.snap.Term || string(s.Data) != stateAt(s.Index)) {
		return false
	}
	if len(st.Entries) == 0 {
		return im.last() <= im.trimmed
	}
	first := st.Entries[0].Index
	return first > im.base && first <= im.trimmed+1 && reflect.DeepEqual(st.Entries, im.entries[first-im.base-1:])
}

func (im image) String() string {
	return fmt.Sprintf("\n named=%v %+v snapshot %d/%d base %d trimmed %d entries %s",
		im.named, im.hard, im.snap.Index, im.snap.Term, im.base, im.trimmed, runs(im.entries))
}

// runs prints entries as first-last/term.
func runs(es []wal.Entry) string {
	var b strings.Builder
	for i := 0; i < len(es); {
		j := i
		for j+1 < len(es) && es[j+1].Term == es[i].Term {
			j++
		}
		fmt.Fprintf(&b, "%d-%d/%d ", es[i].Index, es[j].Index, es[i].Term)
		i = j + 1
	}
	return b.String()
}

func stateAt(index uint64) string { return fmt.Sprintf("state at %d", index) }

func (m *model) draw(n int) int        { return rapid.IntRange(0, n-1).Draw(m.T, fmt.Sprint("of ", n)) }
func (m *model) chance(oneIn int) bool { return m.draw(oneIn) == oneIn-1 }

// now is what the living log holds.
func (m *model) now() image { return m.may[len(m.may)-1] }

func (m *model) step() {
	if m.chance(8) {
		m.full = !m.full
		m.fs.SetCapacity(0)
		if m.full {
			m.fs.SetCapacity(m.fs.Used() + int64(m.draw(400)))
		}
	}
	if m.chance(4) {
		m.breakSomething()
	}
	if !m.now().named {
		m.save(wal.Batch{Identity: &wal.Identity{ID: 1}, Sync: true})
	} else {
		m.act(rapid.SampledFrom([]string{"append", "append", "append", "vote", "compact", "mark", "trim", "reset", "maintain", "close", "kill", "cut"}).Draw(m.T, "step"))
	}
	m.log.AwaitPreparation()
	if m.mend() {
		_ = m.log.Close() // without power
		m.powerCut()
	}
}

func (m *model) act(step string) {
	switch step {
	case "append":
		m.append()
	case "vote":
		m.vote()
	case "compact":
		m.compact()
	case "mark":
		m.mark()
	case "trim":
		m.trim()
	case "reset":
		m.leadersSnapshot()
	case "maintain":
		m.log.Maintain()
	case "close":
		m.close()
	case "kill":
		m.kill()
	case "cut":
		m.powerCut()
	}
}

// breakSomething lets a call on the disk fail soon: one, or all from it on.
func (m *model) breakSomething() {
	m.broken, m.cached = true, false
	n := m.draw(12)
	switch m.draw(3) {
	case 0:
		m.fs.CutPower(n)
	case 1:
		m.fs.FailOnce(n, syscall.EIO)
	case 2:
		m.fs.FailOnce(n, syscall.ENOSPC)
	}
}

// mend ends what breakSomething has begun and reports whether the power is gone.
func (m *model) mend() (off bool) {
	m.broken = false
	m.fs.FailOnce(0, nil)
	if m.fs.Off() {
		return true
	}
	m.fs.CutPower(-1)
	return false
}

func (m *model) append() {
	im := m.now()
	m.term++
	from := im.last() + 1 - min(uint64(m.draw(3)), im.last()-max(im.snap.Index, im.base))
	m.save(wal.Batch{Entries: m.entries(from), Sync: !m.chance(3)})
}

// entries makes a few entries, rarely many.
func (m *model) entries(from uint64) []wal.Entry {
	n := uint64(m.draw(6))
	if m.chance(6) {
		n *= 10
	}
	return entries(from, from+n, m.term)
}

func (m *model) vote() {
	m.term++
	b := wal.Batch{Hard: &wal.HardState{Term: m.term, Vote: uint64(m.draw(3)), Commit: m.now().last()}, Sync: m.chance(2)}
	if m.chance(2) {
		b.Entries = m.entries(m.now().last() + 1)
	}
	m.save(b)
}

func (m *model) save(b wal.Batch) (saved bool) {
	err := m.log.Save(b)
	if err != nil && errors.Is(err, wal.ErrFailed) == errors.Is(err, wal.ErrNoSpace) {
		m.Fatalf("save: %v, want ErrNoSpace or ErrFailed", err)
	}
	return m.judge(m.now().with(b), b.Sync, err)
}

// judge notes what a call has done that should have made the log hold next, and opens the log anew if it died of it.
func (m *model) judge(next image, synced bool, err error) (saved bool) {
	switch {
	case err == nil && synced:
		m.may = []image{next}
		return true
	case err == nil:
		m.may = append(m.may, next)
		return true
	case errors.Is(err, wal.ErrNoSpace) && !errors.Is(err, wal.ErrFailed):
		if !m.full && !m.broken {
			m.Fatalf("save with space: %v", err)
		}
		return false
	case !m.broken:
		m.Fatalf("save: %v", err)
	}
	if errors.Is(err, wal.ErrFailed) && m.log.Save(wal.Batch{}) == nil {
		m.Fatal("a failed log goes on as if nothing was")
	}
	m.may = append(m.may, next)
	m.again()
	return false
}

// again ends a process that an error has stopped, and opens the log anew. With luck the power stays on.
func (m *model) again() {
	_ = m.log.Close() // it may have failed
	if m.mend() || m.chance(2) {
		m.crash()
	}
	m.open()
}

func (m *model) crash() {
	m.cached = false
	m.fs.Crash(rand.New(rand.NewPCG(rapid.Uint64().Draw(m.T, "crash"), 0)))
}

func (m *model) compact() {
	if marker, ok := m.snapshot(); ok {
		keep := marker.Index - min(marker.Index, uint64(m.draw(8)))
		next := m.now().with(wal.Batch{Marker: &marker}).without(keep)
		m.judge(next, true, m.log.Compact(marker, keep))
	}
}

// mark is the first half of compact, without a sync.
func (m *model) mark() {
	if marker, ok := m.snapshot(); ok {
		m.save(wal.Batch{Marker: &marker})
	}
}

// trim is the second half.
func (m *model) trim() {
	im := m.now()
	keep := im.snap.Index - min(im.snap.Index, uint64(m.draw(8)))
	m.judge(im.without(keep), true, m.log.Trim(keep))
}

// snapshot writes a snapshot of something that no snapshot has yet.
func (m *model) snapshot() (wal.Marker, bool) {
	im := m.now()
	lowest := max(im.snap.Index, im.base)
	if im.last() == lowest {
		return wal.Marker{}, false
	}
	at := im.last() - uint64(m.draw(int(min(im.last()-lowest, 20))))
	term := im.entries[at-im.base-1].Term
	ok := m.writeSnapshot(wal.Snapshot{Index: at, Term: term, Data: []byte(stateAt(at))})
	return wal.Marker{Index: at, Term: term}, ok
}

func (m *model) writeSnapshot(s wal.Snapshot) bool {
	err := m.log.WriteSnapshot(s)
	m.log.AwaitPreparation()
	switch {
	case errors.Is(err, wal.ErrNoSpace) && (m.full || m.broken):
		return false
	case err != nil && !m.broken:
		m.Fatal(err)
	case err != nil:
		m.again()
		return false
	}
	return true
}

func (m *model) leadersSnapshot() {
	if m.chance(2) {
		return
	}
	m.term++
	at := m.now().last() + 1 + uint64(m.draw(20))
	if !m.writeSnapshot(wal.Snapshot{Index: at, Term: m.term, Data: []byte(stateAt(at))}) {
		return
	}
	b := wal.Batch{Marker: &wal.Marker{Index: at, Term: m.term, Reset: true}, Sync: true}
	if m.chance(2) {
		b.Entries = m.entries(at + 1)
	}
	if m.save(b) {
		m.judge(m.now(), true, m.log.Trim(at))
	}
}

func (m *model) close() {
	err := m.log.Close()
	switch {
	case err == nil && !m.fs.Off():
		m.may = m.may[len(m.may)-1:]
	case err != nil && !m.broken:
		m.Fatal(err)
	}
	if m.mend() {
		m.crash()
	}
	m.open()
}

// kill ends the process; the page cache lives.
func (m *model) kill() {
	if m.mend() {
		m.crash()
	} else {
		m.fs.Kill()
		m.cached = true
	}
	m.open()
}

func (m *model) powerCut() {
	m.crash()
	m.mend()
	m.open()
}

// open opens the log, at last without a fault, and takes what it holds as what it must hold from now on.
func (m *model) open() {
	for tries := 0; ; tries++ {
		if tries < 3 && m.chance(4) {
			m.breakSomething()
		}
		l, st, err := wal.Open("d", m.opt)
		broken := m.broken
		if err == nil {
			l.AwaitPreparation()
			m.log = l
			m.found(st)
			if !m.mend() {
				return
			}
			_ = l.Close() // without power
			m.crash()
			continue
		}
		if errors.Is(err, wal.ErrCorrupt) || !broken && !(m.full && errors.Is(err, wal.ErrNoSpace) && !m.begun()) {
			m.Fatal(err)
		}
		if !broken {
			m.full = false
			m.fs.SetCapacity(0)
		}
		if m.mend() || m.chance(2) {
			m.crash()
		}
	}
}

// begun reports whether there is a segment: without one a log cannot be opened on a full disk.
func (m *model) begun() bool {
	names, err := m.fs.List("d")
	if err != nil {
		m.Fatal(err)
	}
	return slices.ContainsFunc(names, func(n string) bool { return len(n) == len("0000000000000001.wal") })
}

func (m *model) found(st wal.State) {
	if m.cached {
		m.may = m.may[len(m.may)-1:]
	}
	m.cached = false
	for _, im := range slices.Backward(m.may) {
		if im.matches(st) {
			m.may = []image{im}
			return
		}
	}
	snap := wal.Snapshot{}
	if st.Snapshot != nil {
		snap = *st.Snapshot
	}
	m.Fatalf("log holds named=%v %+v snapshot %d/%d %q entries %s\nwhich is none of %v",
		st.Identity != nil, st.Hard, snap.Index, snap.Term, snap.Data, runs(st.Entries), m.may)
}
