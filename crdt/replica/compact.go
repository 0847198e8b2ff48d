package replica

import (
	"log/slog"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// levelZeroTables is how many tables stay as they were written from memory, before they are merged with the others.
const levelZeroTables = 2

// compactEvery is the least time between two looks at whether there is something to merge.
const compactEvery = time.Second

// compaction merges the tables of a store when writes have made more. Badger's own compactors look forty times a second
// for something to do, which was a fifth of all that woke an idle node.
type compaction struct {
	wrote chan struct{} // holds one
	quit  chan struct{}
	ended chan struct{}
}

func startCompaction(db *badger.DB, log *slog.Logger) compaction {
	c := compaction{make(chan struct{}, 1), make(chan struct{}), make(chan struct{})}
	c.look() // each start leaves a table
	go func() {
		defer close(c.ended)
		for c.wait() {
			if !mergeDue(db.Levels()) {
				continue
			}
			if err := db.Flatten(1); err != nil {
				log.Warn("the tables of the records were not merged", "err", err)
			}
		}
	}()
	return c
}

// wait returns after a write, at the end with false.
func (c compaction) wait() bool {
	select {
	case <-c.quit:
		return false
	case <-c.wrote:
	}
	select {
	case <-c.quit:
		return false
	case <-time.After(compactEvery): // the table of what was written comes a moment later
		return true
	}
}

// look has it looked at whether tables are to be merged, soon.
func (c compaction) look() {
	select {
	case c.wrote <- struct{}{}:
	default:
	}
}

// stop waits for what is being merged; the store can be closed then.
func (c compaction) stop() {
	close(c.quit)
	<-c.ended
}

func mergeDue(levels []badger.LevelInfo) bool {
	return slices.ContainsFunc(levels, func(l badger.LevelInfo) bool {
		return l.Level == 0 && l.NumTables > levelZeroTables || l.Level > 0 && l.Score > 1
	})
}
