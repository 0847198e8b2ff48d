package site

import (
	"errors"
	"sync"

	"vcpeer/queue"
)

// Book is the queue's machine behind a lock: the group's goroutine applies, everybody reads. It is what the group is
// opened with.
type Book struct {
	mu      sync.RWMutex
	machine *queue.Machine
	broken  error
	failed  chan struct{} // closed when broken is set
}

// NewBook returns the book of an empty machine.
func NewBook(m *queue.Machine) *Book { return &Book{machine: m, failed: make(chan struct{})} }

// Apply executes a committed entry. The result is []queue.Result, or an error: then the entry was of an unknown form, the book
// takes nothing any more, and the service ends with that error ([Book.Failed]).
func (b *Book) Apply(position uint64, command []byte) any {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken != nil {
		return b.broken
	}
	results, err := b.machine.Apply(position, command)
	if err != nil {
		b.broken = err
		close(b.failed)
		return err
	}
	return results
}

// Snapshot returns the whole state. A broken book has none to give.
func (b *Book) Snapshot() ([]byte, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.broken != nil {
		return nil, b.broken
	}
	return b.machine.Snapshot()
}

// Restore replaces the state.
func (b *Book) Restore(snapshot []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(b.broken, b.machine.Restore(snapshot))
}

// Failed is closed when an entry could not be understood; Err says which then.
func (b *Book) Failed() <-chan struct{} { return b.failed }

// Err returns why the book is broken, nil if it is not.
func (b *Book) Err() error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.broken
}

// Read calls f with the machine, which f must neither change nor keep.
func (b *Book) Read(f func(m *queue.Machine)) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	f(b.machine)
}
