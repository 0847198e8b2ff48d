package peer

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"vcpeer/crdt"
)

// TestRecall: what is kept is there after a restart, and a file that makes no sense is an error and no more.
func TestRecall(t *testing.T) {
	r := &recall{file: filepath.Join(t.TempDir(), "last-seen.json")}
	if all, err := r.read(); err != nil || all != nil {
		t.Errorf("of nothing: %v, %v", all, err)
	}
	var want []recalled
	for i := range byte(maxRecalled + 1) {
		want = append(want, recalled{ID: crdt.NodeID{i + 1}, At: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, i}), 7475)})
	}
	want[0] = recalled{ID: crdt.NodeID{1}, Via: crdt.NodeID{2}}
	if err := r.keep(want); err != nil {
		t.Fatal(err)
	}
	if all, err := (&recall{file: r.file}).read(); err != nil || !slices.Equal(all, want[:maxRecalled]) {
		t.Errorf("got %v, %v", all, err)
	}
	if err := os.WriteFile(r.file, []byte(`[{"id":1}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, err := r.read(); err == nil {
		t.Errorf("of nonsense: %v", all)
	}
}

// TestComesBack: a member that cannot be reached is dialled after longer and longer pauses, and at once when it has connected.
func TestComesBack(t *testing.T) {
	s := &sealer{node: &node{log: slog.New(slog.DiscardHandler)}, ways: map[crdt.NodeID]*sealedWay{{1}: {}}}
	w, now := s.ways[crdt.NodeID{1}], time.Now()
	for range 5 {
		s.note(tried{crdt.NodeID{1}, os.ErrDeadlineExceeded}, now)
	}
	w.meet(false)
	if w.due(false, false, now.Add(sealedAgain)) {
		t.Error("it is dialled again and again")
	}
	w.meet(true)
	if !w.due(false, true, now) {
		t.Error("it has connected and is not dialled")
	}
	s.note(tried{crdt.NodeID{1}, os.ErrDeadlineExceeded}, now)
	w.meet(true)
	if w.due(false, true, now) {
		t.Error("a connection of before counts as one that has come")
	}
}
