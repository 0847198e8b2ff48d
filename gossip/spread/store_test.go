package spread

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"vcpeer/crdt"
)

// memory is a Store in memory that keeps the order of each author as the real one does: a batch that does not follow the
// author's last one is not kept. A batch is author (32 bytes), sequence number (8), payload.
type memory struct {
	self crdt.NodeID

	mu       sync.Mutex
	logs     map[crdt.NodeID][][]byte
	eph      map[string]entryOf // by author and key
	onLocal  func([]byte)
	onEph    func([]byte)
	got      map[string]int       // how often each batch was given to Receive
	arrived  map[string]time.Time // when each became known here, ephemeral entries too
	refusing bool                 // refuse everything, as what strangers sign
}

// entryOf is an ephemeral entry: author (32 bytes), version (8), key and value.
type entryOf struct {
	version uint64
	b       []byte
}

func newMemory(self crdt.NodeID) *memory {
	return &memory{
		self: self, logs: map[crdt.NodeID][][]byte{}, eph: map[string]entryOf{},
		got: map[string]int{}, arrived: map[string]time.Time{},
	}
}

// write makes a batch of this node.
func (m *memory) write(payload []byte) []byte {
	m.mu.Lock()
	seq := uint64(len(m.logs[m.self]))
	b := append(binary.BigEndian.AppendUint64(m.self.Bytes()[6:], seq), payload...)
	m.logs[m.self] = append(m.logs[m.self], b)
	m.arrived[string(b)] = time.Now()
	f := m.onLocal
	m.mu.Unlock()
	if f != nil {
		f(b)
	}
	return b
}

func (m *memory) has(b []byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.arrived[string(b)]
	return ok
}

func (m *memory) Digest() [16]byte {
	sum := sha256.Sum256(m.Heads())
	return [16]byte(sum[:16])
}

func (m *memory) Heads() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []byte
	for _, a := range sortedIDs(m.logs) {
		out = binary.BigEndian.AppendUint64(append(out, a[:]...), uint64(len(m.logs[a])))
	}
	return out
}

func sortedIDs[V any](m map[crdt.NodeID]V) []crdt.NodeID {
	return slices.SortedFunc(maps.Keys(m), func(a, b crdt.NodeID) int { return bytes.Compare(a[:], b[:]) })
}

func (m *memory) Since(heads []byte, limit int) (batches [][]byte, more bool, err error) {
	theirs := map[crdt.NodeID]uint64{}
	for ; len(heads) >= 40; heads = heads[40:] {
		theirs[crdt.NodeID(heads[:32])] = binary.BigEndian.Uint64(heads[32:])
	}
	if len(heads) != 0 {
		return nil, false, errors.New("bad heads")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	size := 0
	for _, a := range sortedIDs(m.logs) {
		log := m.logs[a]
		for i := min(theirs[a], uint64(len(log))); i < uint64(len(log)); i++ {
			if size += len(log[i]); size > limit && len(batches) > 0 {
				return batches, true, nil
			}
			batches = append(batches, log[i])
		}
	}
	return batches, false, nil
}

func (m *memory) Receive(_ context.Context, batches [][]byte) (fresh [][]byte, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range batches {
		m.got[string(b)]++
		if len(b) < 40 {
			err = crdt.ErrMalformed
			continue
		}
		if m.refusing {
			err = crdt.ErrNotMember
			continue
		}
		a, seq := crdt.NodeID(b[:32]), binary.BigEndian.Uint64(b[32:])
		if seq != uint64(len(m.logs[a])) {
			continue
		}
		m.logs[a] = append(m.logs[a], b)
		m.arrived[string(b)] = time.Now()
		fresh = append(fresh, b)
	}
	return fresh, err
}

func (m *memory) OnLocal(f func([]byte))          { m.onLocal = f }
func (m *memory) OnLocalEphemeral(f func([]byte)) { m.onEph = f }

// set writes an ephemeral entry of this node.
func (m *memory) set(version uint64, value string) []byte {
	b := append(binary.BigEndian.AppendUint64(m.self.Bytes()[6:], version), value...)
	fresh, err := m.ReceiveEphemeral([][]byte{b})
	if err != nil || len(fresh) != 1 {
		panic(fmt.Sprintf("own ephemeral entry refused: %v", err))
	}
	m.onEph(b)
	return b
}

// heardAt returns when an ephemeral entry became known here.
func (m *memory) heardAt(b []byte) (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.arrived[string(b)]
	return at, ok
}

func (m *memory) value(of crdt.NodeID) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.eph[string(of[:])]; ok {
		return string(e.b[40:])
	}
	return ""
}

func (m *memory) EphemeralDigest() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []byte
	for _, k := range slices.Sorted(maps.Keys(m.eph)) {
		out = binary.BigEndian.AppendUint64(append(out, k...), m.eph[k].version)
	}
	return out
}

func (m *memory) EphemeralSince(digest []byte, limit int) (out [][]byte, err error) {
	theirs := map[string]uint64{}
	for ; len(digest) >= 40; digest = digest[40:] {
		theirs[string(digest[:32])] = binary.BigEndian.Uint64(digest[32:])
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, e := range m.eph {
		if v, ok := theirs[k]; (!ok || v < e.version) && limit > 0 {
			out, limit = append(out, e.b), limit-len(e.b)
		}
	}
	return out, nil
}

func (m *memory) ReceiveEphemeral(entries [][]byte) (fresh [][]byte, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range entries {
		if len(b) < 40 {
			err = crdt.ErrMalformed
			continue
		}
		k, v := string(b[:32]), binary.BigEndian.Uint64(b[32:])
		if old, ok := m.eph[k]; ok && old.version >= v {
			continue
		}
		m.eph[k] = entryOf{v, b}
		m.arrived[string(b)] = time.Now()
		fresh = append(fresh, b)
	}
	return fresh, err
}
