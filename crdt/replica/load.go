package replica

import (
	"fmt"

	"vcpeer/crdt"
)

// load builds the state from the disk and publishes it.
func (r *Replica) load(f crdt.Founding) error {
	s := crdt.NewState(f)
	s.StartBulk()
	damaged, err := r.readBatches(s)
	if err != nil {
		return err
	}
	if err := r.readForks(s); err != nil {
		return err
	}
	s.EndBulk()
	if len(damaged) > 0 {
		if err := r.disk.drop(damaged); err != nil {
			return err
		}
	}
	r.mu.Lock()
	r.state = s
	r.mu.Unlock()
	r.pub.mu.Lock()
	r.pub.founding = f
	r.pub.heads, r.pub.digest = map[crdt.NodeID]crdt.Head{}, [16]byte{}
	r.pub.mu.Unlock()
	return r.publish(nil)
}

// readBatches fills s. From an author's first batch that does not read or follow, the rest of that author is damaged: of another node
// it is dropped and comes again from peers; of this node it is an error.
func (r *Replica) readBatches(s *crdt.State) (damaged [][]byte, err error) {
	bad := map[crdt.NodeID]bool{}
	prefix := []byte{batchPrefix}
	scan := r.disk.each(prefix, prefix, func(key, value []byte) bool {
		author := authorOf(key)
		if !bad[author] {
			cause := appendStored(s, value)
			if cause == nil {
				return true
			}
			bad[author] = true
			if author == r.self {
				err = fmt.Errorf("%w: own log: %w", ErrDamaged, cause)
				return false
			}
			r.log.Warn("dropping damaged records, they will be fetched again", "author", author.String(), "cause", cause)
		}
		damaged = append(damaged, append([]byte(nil), key...))
		return true
	})
	if scan != nil {
		return nil, scan
	}
	return damaged, err
}

func appendStored(s *crdt.State, raw []byte) error {
	b, err := crdt.DecodeBatch(raw)
	if err != nil {
		return err
	}
	return s.AppendStored(b)
}

func (r *Replica) readForks(s *crdt.State) error {
	prefix := []byte{forkPrefix}
	return r.disk.each(prefix, prefix, func(_, value []byte) bool {
		if b, err := crdt.DecodeBatch(value); err == nil {
			s.AddFork(b)
		} else {
			r.log.Warn("skipping a damaged proof of a fork, it will be fetched again", "cause", err)
		}
		return true
	})
}

// rebuild builds the objects again if an eviction or a fork has voided some of them.
func (r *Replica) rebuild() error {
	if !r.state.Stale() {
		return nil
	}
	var failed error
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.Rebuild(func(yield func(*crdt.Batch) bool) {
		prefix := []byte{batchPrefix}
		scan := r.disk.each(prefix, prefix, func(_, value []byte) bool {
			b, err := crdt.DecodeBatch(value)
			if err != nil {
				failed = fmt.Errorf("%w: %w", ErrDamaged, err)
				return false
			}
			return yield(b)
		})
		if failed == nil {
			failed = scan
		}
	})
	return failed
}

func authorOf(key []byte) (n crdt.NodeID) {
	copy(n[:], key[1:])
	return n
}
