package blob

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// flushers is how many flushes of one commit are under way at once: file systems with a journal merge them.
const flushers = 8

// staged is content written to a temporary file, not yet durable, not yet visible.
type staged struct {
	ref  Ref
	file *os.File
	path string
}

func (s *Store) newStaged(expect int64) (*staged, error) {
	if err := s.room(expect); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(s.tmpDir(), "put-")
	if err != nil {
		return nil, err
	}
	return &staged{file: f, path: f.Name()}, nil
}

// discard removes what is left of the temporary file; after a commit that is nothing.
func (st *staged) discard() {
	if st.file == nil {
		return
	}
	st.file.Close() // its content was flushed by the commit, or is not wanted
	st.file = nil
	os.Remove(st.path) // already renamed, or removed at the next Open at the latest
}

// committer is a group commit without a goroutine of its own: the first caller commits for all that come while it
// does, and wakes them. Callers are bounded by what they hold open: one file each.
type committer struct {
	mu      sync.Mutex
	waiting []*commitWait
	busy    bool
}

type commitWait struct {
	batch []*staged
	err   error
	done  chan struct{}
}

func (c *committer) do(s *Store, batch []*staged) error {
	if len(batch) == 0 {
		return nil
	}
	w := &commitWait{batch: batch, done: make(chan struct{})}
	c.mu.Lock()
	c.waiting = append(c.waiting, w)
	if c.busy {
		c.mu.Unlock()
		<-w.done
		return w.err
	}
	c.busy = true
	for len(c.waiting) > 0 {
		round := c.waiting
		c.waiting = nil
		c.mu.Unlock()
		s.commitRound(round)
		c.mu.Lock()
	}
	c.busy = false
	c.mu.Unlock()
	return w.err
}

// commitRound makes every batch durable and visible: contents, then names, then the directories of the names. A batch
// fails alone; a directory that cannot be flushed fails all who put a name there.
func (s *Store) commitRound(round []*commitWait) {
	parallel(round, func(w *commitWait) error {
		for _, st := range w.batch {
			if err := flushContent(st.file); err != nil {
				return err
			}
		}
		return nil
	})
	shards := map[string]error{}
	for _, w := range round {
		for _, st := range w.batch {
			if w.err == nil {
				w.err = s.publish(st.path, st.ref)
				shards[s.shard(st.ref.Hash)] = nil
			}
		}
	}
	s.flushShards(shards)
	for _, w := range round {
		for _, st := range w.batch {
			w.err = errors.Join(w.err, shards[s.shard(st.ref.Hash)])
		}
		close(w.done)
	}
}

func parallel(round []*commitWait, f func(*commitWait) error) {
	var g errgroup.Group
	g.SetLimit(flushers)
	for _, w := range round {
		g.Go(func() error {
			w.err = f(w)
			return nil
		})
	}
	g.Wait() // errors are in the waits
}

func (s *Store) flushShards(shards map[string]error) {
	var g errgroup.Group
	var mu sync.Mutex
	g.SetLimit(flushers)
	dirs := make([]string, 0, len(shards))
	for dir := range shards {
		dirs = append(dirs, dir)
	}
	for _, dir := range dirs {
		g.Go(func() error {
			err := syncDir(dir)
			mu.Lock()
			defer mu.Unlock()
			shards[dir] = err
			return nil
		})
	}
	g.Wait() // errors are in shards
}

// publish gives the content at path its name.
func (s *Store) publish(path string, ref Ref) error {
	s.names.Lock()
	defer s.names.Unlock()
	_, err := os.Lstat(s.path(ref.Hash))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fresh := err != nil
	if err := os.Rename(path, s.path(ref.Hash)); err != nil {
		return err
	}
	if fresh {
		s.used.Add(ref.Size)
	}
	return nil
}

// flushContent makes the file's content durable and takes its write permission.
func flushContent(f *os.File) error {
	if err := f.Chmod(0o444); err != nil {
		return err
	}
	if err := unix.Fsync(int(f.Fd())); err != nil {
		return fmt.Errorf("flush %s: %w", f.Name(), err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
