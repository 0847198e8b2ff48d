package group

import (
	"fmt"

	"vcpeer/queue/wal"
)

// takeSnapshot returns a snapshot of the applied state when one is due, for the owner to write and then report by
// snapshotWritten. nil: none is due, or one is being written.
func (c *core) takeSnapshot() (*wal.Snapshot, error) {
	since := c.applied - c.store.snap.Index
	due := since >= c.cfg.SnapshotEntries || c.snapBytes >= c.cfg.SnapshotBytes || c.store.snap.Index < c.store.joined
	if c.snapping || since == 0 || !due {
		return nil, nil
	}
	term, err := c.store.Term(c.applied)
	if err != nil {
		return nil, fmt.Errorf("group: term of applied entry %d: %w", c.applied, err)
	}
	s, err := c.image(c.applied, term)
	if err != nil {
		return nil, err
	}
	c.snapping, c.snapBytes = true, 0
	return &s, nil
}

// image makes a snapshot of the machine and the membership.
func (c *core) image(index, term uint64) (wal.Snapshot, error) {
	machine, err := c.cfg.Machine.Snapshot()
	if err != nil {
		return wal.Snapshot{}, fmt.Errorf("group: snapshot at %d: %w", index, err)
	}
	data, err := image{conf: c.store.conf, roster: c.roster, machine: machine}.encode()
	if err != nil {
		return wal.Snapshot{}, err
	}
	return wal.Snapshot{Index: index, Term: term, Data: data}, nil
}

// snapshotWritten says that a snapshot from takeSnapshot is durable. With ok the owner must compact the log with the
// marker, down to keep; the core has forgotten those entries. Not ok: a leader's snapshot was faster.
func (c *core) snapshotWritten(index, term uint64) (m wal.Marker, keep uint64, ok bool) {
	c.snapping = false
	if index <= c.store.snap.Index {
		return wal.Marker{}, 0, false
	}
	m = wal.Marker{Index: index, Term: term}
	keep = index - min(index, c.cfg.TrailingEntries)
	// Trailing entries are a courtesy to slow followers, to be had for half the memory of a snapshot interval.
	keep = max(keep, c.store.indexBehind(index, c.cfg.SnapshotBytes/2))
	c.store.compact(m, keep)
	return m, keep, true
}

// snapshotFailed says that a snapshot could not be written; the next one is tried after as many entries again.
func (c *core) snapshotFailed() { c.snapping = false }
