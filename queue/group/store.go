package group

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"vcpeer/queue/wal"
)

// store is what raft reads of the log: the entries since some way behind the last snapshot, in memory. It holds what is
// durable and nothing else. The snapshot's data stays on disk; the transport reads it there when a follower needs it.
type store struct {
	hard wal.HardState
	conf *pb.ConfState // as of the last applied entry
	snap wal.Marker    // of the newest durable snapshot; zero: none
	// base is the entry before entries[0]: its term is known, its data is not.
	base    wal.Marker
	entries []*pb.Entry // contiguous: entries[i].Index == base.Index+1+i
	// joined is the index of the last applied change that added a member. raft refuses a snapshot whose configuration
	// lacks the receiver, so an older one is of no use to it.
	joined uint64
}

var _ raft.Storage = (*store)(nil)

// newStore builds the store from what the log held.
func newStore(st wal.State, conf *pb.ConfState) *store {
	s := &store{hard: st.Hard, conf: conf}
	if st.Snapshot != nil {
		s.snap = wal.Marker{Index: st.Snapshot.Index, Term: st.Snapshot.Term}
	}
	s.base = s.snap
	if n := len(st.Entries); n == 0 || st.Entries[n-1].Index <= s.snap.Index {
		return s
	}
	entries := st.Entries
	if entries[0].Index <= s.snap.Index {
		// The first leftover lends its term as base, so that the others can be sent to a slow follower.
		s.base = wal.Marker{Index: entries[0].Index, Term: entries[0].Term}
		entries = entries[1:]
	}
	s.append(entries)
	return s
}

func (s *store) lastIndex() uint64 { return s.base.Index + uint64(len(s.entries)) }

// append puts entries in their place; those it overwrites stay untouched in older slices.
func (s *store) append(entries []wal.Entry) {
	for _, e := range entries {
		s.put(&pb.Entry{Index: new(e.Index), Term: new(e.Term), Type: pb.EntryType(e.Type).Enum(), Data: e.Data})
	}
}

func (s *store) put(e *pb.Entry) {
	i := e.GetIndex() - s.base.Index - 1
	if e.GetIndex() <= s.base.Index || i > uint64(len(s.entries)) {
		panic(fmt.Sprintf("group: entry %d does not join entries %d to %d", e.GetIndex(), s.base.Index+1, s.lastIndex()))
	}
	if i < uint64(len(s.entries)) {
		s.entries = slices.Clip(s.entries[:i])
	}
	s.entries = append(s.entries, e)
}

// reset empties the store behind a snapshot that came from a leader.
func (s *store) reset(m wal.Marker) {
	s.snap = wal.Marker{Index: m.Index, Term: m.Term}
	s.base, s.entries = s.snap, nil
}

// compact notes a new snapshot and forgets entries up to keep.
func (s *store) compact(m wal.Marker, keep uint64) {
	s.snap = wal.Marker{Index: m.Index, Term: m.Term}
	if keep <= s.base.Index {
		return
	}
	n := keep - s.base.Index
	last := s.entries[n-1]
	s.base = wal.Marker{Index: last.GetIndex(), Term: last.GetTerm()}
	// A copy, so that the dropped entries' memory goes.
	s.entries = slices.Clone(s.entries[n:])
}

// indexBehind returns the lowest index such that the entries after it, up to and with to, hold at most limit bytes.
func (s *store) indexBehind(to, limit uint64) uint64 {
	for i, bytes := to, uint64(0); i > s.base.Index; i-- {
		bytes += uint64(len(s.entries[i-s.base.Index-1].GetData()))
		if bytes > limit {
			return i
		}
	}
	return s.base.Index
}

// InitialState returns the state that raft starts from.
func (s *store) InitialState() (*pb.HardState, *pb.ConfState, error) {
	return &pb.HardState{Term: new(s.hard.Term), Vote: new(s.hard.Vote), Commit: new(s.hard.Commit)}, pb.EnsureConfState(s.conf), nil
}

// Entries returns entries lo to hi-1, as many as fit in maxSize bytes, at least one.
func (s *store) Entries(lo, hi, maxSize uint64) ([]*pb.Entry, error) {
	if lo <= s.base.Index {
		return nil, raft.ErrCompacted
	}
	if hi > s.lastIndex()+1 {
		return nil, raft.ErrUnavailable
	}
	es := s.entries[lo-s.base.Index-1 : hi-s.base.Index-1]
	size := uint64(0)
	for i, e := range es {
		// The overhead of an encoded entry is below 32 bytes.
		size += uint64(len(e.GetData())) + 32
		if i > 0 && size > maxSize {
			es = es[:i]
			break
		}
	}
	return slices.Clip(es), nil
}

// Term returns the term of an entry from base on.
func (s *store) Term(i uint64) (uint64, error) {
	switch {
	case i == s.base.Index:
		return s.base.Term, nil
	case i == s.snap.Index:
		return s.snap.Term, nil
	case i < s.base.Index:
		return 0, raft.ErrCompacted
	case i > s.lastIndex():
		return 0, raft.ErrUnavailable
	}
	return s.entries[i-s.base.Index-1].GetTerm(), nil
}

// LastIndex returns the index of the last entry.
func (s *store) LastIndex() (uint64, error) { return s.lastIndex(), nil }

// FirstIndex returns the index of the first entry that Entries can return.
func (s *store) FirstIndex() (uint64, error) { return s.base.Index + 1, nil }

// Snapshot returns the newest snapshot without its data, once there is one that has all members in it.
func (s *store) Snapshot() (*pb.Snapshot, error) {
	if s.snap.Index == 0 || s.snap.Index < s.joined {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	// raft looks at the configuration only on the receiving side, where it comes from the data.
	return &pb.Snapshot{Metadata: &pb.SnapshotMetadata{
		Index: new(s.snap.Index), Term: new(s.snap.Term), ConfState: pb.EnsureConfState(nil),
	}}, nil
}
