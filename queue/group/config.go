package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"vcpeer/crdt"
	"vcpeer/queue/wal"
)

// StateMachine is what the log drives. All calls come from one goroutine, and equal calls must have equal effects on every
// member: no clock, no randomness, no map order.
type StateMachine interface {
	// Apply executes a committed command. position strictly grows and never names another command: it is the raft
	// index times MaxCommands plus the place in the entry. After a restart commands since the last snapshot come again.
	Apply(position uint64, command []byte) (result any)
	// Snapshot returns the whole state. The caller owns the bytes.
	Snapshot() ([]byte, error)
	// Restore replaces the state; it must not keep the bytes.
	Restore(snapshot []byte) error
}

// Fabric opens and accepts authenticated streams between admitted nodes.
type Fabric interface {
	Open(ctx context.Context, to crdt.NodeID, proto string) (net.Conn, error)
	Handle(proto string, h func(ctx context.Context, from crdt.NodeID, c net.Conn))
}

// Candidate is a node of this site as membership sees it.
type Candidate struct {
	ID    crdt.NodeID
	Alive bool
	Gone  bool // left or was evicted: replaced at once, not after ReplaceAfter
}

// Config of one member. Dir, Self, Site, Fabric, Machine and Peers are needed, the rest has defaults.
type Config struct {
	Dir     string // for the log alone
	Self    crdt.NodeID
	Site    string // the site's ID: the group's name
	Fabric  Fabric
	Machine StateMachine
	// Peers returns the nodes of this site, with or without Self. A Self that is Gone asks to be replaced.
	Peers func() []Candidate
	Log   *slog.Logger // nil: discard

	Tick           time.Duration // default 50 ms
	ElectionTicks  int           // default 8: a follower waits 8 to 16 ticks for a sign of its leader
	HeartbeatTicks int           // default 2

	// ReplaceAfter is how long a voter may be silent before it is replaced, if there is a node to replace it.
	// Default 30 s.
	ReplaceAfter time.Duration
	// StableFor is how long a learner must keep up before it is promoted. Default 1 s.
	StableFor time.Duration

	SnapshotEntries uint64 // a snapshot after so many entries; default 10,000
	SnapshotBytes   uint64 // or after so many bytes of entries; default 16 MiB
	TrailingEntries uint64 // entries kept behind a snapshot for slow followers; default 5,000

	WAL wal.Options
}

// Limits of one proposal and of one entry.
const (
	MaxCommands = 256
	MaxBytes    = 1 << 20
)

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	setDefault(&c.Tick, 50*time.Millisecond)
	setDefault(&c.ElectionTicks, 8)
	setDefault(&c.HeartbeatTicks, 2)
	setDefault(&c.ReplaceAfter, 30*time.Second)
	setDefault(&c.StableFor, time.Second)
	setDefault(&c.SnapshotEntries, 10_000)
	setDefault(&c.SnapshotBytes, 16<<20)
	setDefault(&c.TrailingEntries, 5_000)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Validate says what is missing or out of range.
func (c Config) Validate() error {
	c = c.withDefaults()
	switch {
	case c.Dir == "", c.Site == "", c.Self.IsZero():
		return errors.New("group: Dir, Site and Self are needed")
	case c.Fabric == nil, c.Machine == nil, c.Peers == nil:
		return errors.New("group: Fabric, Machine and Peers are needed")
	case len(c.Site) > maxSiteBytes:
		return fmt.Errorf("group: site ID of %d bytes, at most %d", len(c.Site), maxSiteBytes)
	case c.Tick < time.Millisecond, c.HeartbeatTicks < 1, c.ElectionTicks < 2*c.HeartbeatTicks:
		return errors.New("group: Tick must be at least 1 ms, ElectionTicks at least twice HeartbeatTicks")
	}
	return nil
}
