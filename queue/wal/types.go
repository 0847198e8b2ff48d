package wal

import (
	"errors"
	"log/slog"
)

var (
	// ErrNoSpace says that the disk is full: nothing of the batch was kept, and the log is usable.
	ErrNoSpace = errors.New("no space left for the log")
	// ErrFailed says that a write or fsync failed: the log is dead until it is opened anew.
	ErrFailed = errors.New("log failed, its state on disk is unknown")
	// ErrCorrupt says that something once durable is damaged. Nothing was changed on disk.
	ErrCorrupt = errors.New("log is damaged")
	// ErrLocked says that another process has the log open.
	ErrLocked = errors.New("log is in use by another process")
	// ErrNoSnapshot says that the wanted snapshot is not, or no longer, there.
	ErrNoSnapshot = errors.New("no such snapshot")
)

// Identity names the member that this log belongs to. It is written once.
type Identity struct {
	ID    uint64 // the raft ID
	Owner string // what the caller checks at the next Open, such as the group's name
}

// HardState is raft's hard state (Ongaro and Ousterhout 2014, figure 2, with the commit index).
type HardState struct{ Term, Vote, Commit uint64 }

// MaxDataBytes is the most that one entry can hold.
const MaxDataBytes = maxBodyBytes - entryHeaderBytes

// Entry is one entry of the raft log. The log does not look into Type and Data.
type Entry struct {
	Index, Term uint64
	Type        byte
	Data        []byte
}

// Marker says that the snapshot file of this index and term stands for all entries up to Index. With Reset it also
// voids all entries before the marker: the snapshot came from a leader and replaces the log.
type Marker struct {
	Index, Term uint64
	Reset       bool
}

// Snapshot is a state of the application at an index. Data is opaque here.
type Snapshot struct {
	Index, Term uint64
	Data        []byte
}

// Batch is what one Save writes, all or nothing. An entry voids those with the same or a higher index before it.
// Within a batch the marker comes before the entries. Sync false leaves durability to a later batch: right for a
// commit index alone, which raft finds again by itself.
type Batch struct {
	Identity *Identity
	Hard     *HardState
	Marker   *Marker
	Entries  []Entry
	Sync     bool
}

// State is what Open found. Entries are contiguous; those at or below the snapshot's index are leftovers that spare
// a slow follower the snapshot.
type State struct {
	Identity *Identity // nil: a new log
	Hard     HardState
	Snapshot *Snapshot // nil: none yet
	Entries  []Entry
	// DroppedBytes is the length of the torn tail that was cut off: unacknowledged, so worth a log line only.
	DroppedBytes int64
}

// Options of a log. The zero value is for production.
type Options struct {
	FS FS // nil: OS()
	// SegmentBytes is the size at which a segment is closed and the next begun. Default 16 MiB.
	SegmentBytes int64
	// BallastBytes is disk space held back for the time when the disk is full. Default 32 MiB, negative: none.
	BallastBytes int64
	// Plain leaves out the preparation of the next segment in the background. Prepared segments are filled with
	// zeros ahead of time: a sync then has no size or extent to journal, which saves about a quarter of its time.
	Plain bool
	Log   *slog.Logger // nil: discard
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = OS()
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = 16 << 20
	}
	if o.BallastBytes == 0 {
		o.BallastBytes = 32 << 20
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}
