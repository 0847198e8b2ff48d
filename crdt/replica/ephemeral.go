package replica

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"vcpeer/crdt"
)

// Bounds of what is held in memory.
const (
	maxEphemeralAuthor = 64      // values of one author
	maxEphemeral       = 1 << 16 // values in all
	slotBytes          = 16      // of a digest, for each value
)

// ErrFull says that an author has too many ephemeral values, or there are too many in all.
var ErrFull = errors.New("too many ephemeral values")

// EphemeralEntry is a value that lives.
type EphemeralEntry struct {
	Author  crdt.NodeID
	Kind    string
	Key     string
	Value   []byte // shared: do not change
	Version uint64
	Expires time.Time // by this node's clock
}

// ephemeral holds the newest version of each value, dead ones too, so that an old version does not come back to life.
type ephemeral struct {
	mu      sync.Mutex
	version uint64 // last given; the number of this opening in the upper half, so that it grows over restarts
	slots   map[uint64]ephemeralSlot
	count   map[crdt.NodeID]int
	onLocal []func([]byte)
	watch   map[string]map[chan struct{}]struct{} // by kind
}

type ephemeralSlot struct {
	crdt.Ephemeral
	expires time.Time
}

func (e *ephemeral) init(boots uint64) {
	e.version = boots << 32
	e.slots, e.count, e.watch = map[uint64]ephemeralSlot{}, map[crdt.NodeID]int{}, map[string]map[chan struct{}]struct{}{}
}

// WatchEphemeral returns a channel that receives after another node's value of a kind has come, at most one signal waiting
// however many values, and a function that ends the watch. Values that expire give no signal.
func (r *Replica) WatchEphemeral(kind string) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	e := &r.eph
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.watch[kind] == nil {
		e.watch[kind] = map[chan struct{}]struct{}{}
	}
	e.watch[kind][c] = struct{}{}
	return c, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if delete(e.watch[kind], c); len(e.watch[kind]) == 0 {
			delete(e.watch, kind)
		}
	}
}

// OnLocalEphemeral has f called with every entry that this node writes. f must not block, nor call this Replica.
func (r *Replica) OnLocalEphemeral(f func(entry []byte)) {
	r.eph.mu.Lock()
	defer r.eph.mu.Unlock()
	r.eph.onLocal = append(r.eph.onLocal, f)
}

// SetEphemeral writes a value of this node, alive for ttl (1 ms to an hour) everywhere. Errors wrap crdt.ErrMalformed (a limit),
// ErrFull, or ErrNoCluster.
func (r *Replica) SetEphemeral(kind, key string, value []byte, ttl time.Duration) error {
	f, ok := r.Founding()
	if !ok {
		return ErrNoCluster
	}
	r.eph.mu.Lock()
	defer r.eph.mu.Unlock()
	e := crdt.Ephemeral{Kind: kind, Key: key, Value: value, Version: r.eph.version + 1, TTL: ttl}
	e, err := crdt.SignEphemeral(f.ID(), r.key, e)
	if err != nil {
		return err
	}
	if _, err := r.eph.put(e, r.now()); err != nil {
		return err
	}
	r.eph.version++
	for _, f := range r.eph.onLocal {
		f(e.Raw())
	}
	return nil
}

// Ephemeral returns the living values of a kind whose authors are members, by author, then key.
func (r *Replica) Ephemeral(kind string) []EphemeralEntry {
	view, now := r.View(), r.now()
	r.eph.mu.Lock()
	defer r.eph.mu.Unlock()
	var out []EphemeralEntry
	for _, s := range r.eph.slots {
		if s.Kind == kind && s.expires.After(now) && view.Standing(s.Author) == crdt.Joined {
			out = append(out, EphemeralEntry{s.Author, s.Kind, s.Key, s.Value, s.Version, s.expires})
		}
	}
	slices.SortFunc(out, func(a, b EphemeralEntry) int { return cmp.Or(a.Author.Compare(b.Author), cmp.Compare(a.Key, b.Key)) })
	return out
}

// EphemeralDigest lists the versions of the living values, 16 bytes for each, for EphemeralSince of another replica.
func (r *Replica) EphemeralDigest() []byte {
	now := r.now()
	r.eph.mu.Lock()
	defer r.eph.mu.Unlock()
	var out []byte
	for id, s := range r.eph.slots {
		if s.expires.After(now) {
			out = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(out, id), s.Version)
		}
	}
	return out
}

// EphemeralSince returns living entries that a replica with that digest lacks or has older, up to about limit bytes, the
// soonest to expire last. The error wraps crdt.ErrMalformed.
func (r *Replica) EphemeralSince(digest []byte, limit int) ([][]byte, error) {
	if len(digest)%slotBytes != 0 || len(digest) > maxEphemeral*slotBytes {
		return nil, fmt.Errorf("ephemeral digest of %d bytes: %w", len(digest), crdt.ErrMalformed)
	}
	theirs := make(map[uint64]uint64, len(digest)/slotBytes)
	for d := digest; len(d) > 0; d = d[slotBytes:] {
		theirs[binary.BigEndian.Uint64(d)] = binary.BigEndian.Uint64(d[8:])
	}
	now := r.now()
	r.eph.mu.Lock()
	defer r.eph.mu.Unlock()
	var newer []ephemeralSlot
	for id, s := range r.eph.slots {
		if s.expires.After(now) && s.Version > theirs[id] {
			newer = append(newer, s)
		}
	}
	slices.SortFunc(newer, func(a, b ephemeralSlot) int {
		return cmp.Or(b.expires.Compare(a.expires), cmp.Compare(a.Slot(), b.Slot()))
	})
	var out [][]byte
	for _, s := range newer {
		if limit -= len(s.Raw()); limit < 0 && len(out) > 0 {
			break
		}
		out = append(out, s.Raw())
	}
	return out, nil
}

// ReceiveEphemeral verifies entries and keeps those that are newer, which it returns, to be passed on. The error joins the
// causes for which others were refused (at most 8), as for Receive, or ErrFull.
func (r *Replica) ReceiveEphemeral(entries [][]byte) (fresh [][]byte, err error) {
	f, ok := r.Founding()
	if !ok {
		return nil, ErrNoCluster
	}
	var causes causes
	for _, raw := range entries {
		isNew, err := r.receiveEphemeral(f.ID(), raw)
		causes.add(err)
		if isNew {
			fresh = append(fresh, raw)
		}
	}
	return fresh, errors.Join(causes...)
}

func (r *Replica) receiveEphemeral(cluster crdt.ClusterID, raw []byte) (isNew bool, err error) {
	e, err := crdt.DecodeEphemeral(cluster, raw)
	if err != nil {
		return false, err
	}
	if r.View().Standing(e.Author) != crdt.Joined {
		return false, fmt.Errorf("ephemeral entry of %s: %w", e.Author.Short(), crdt.ErrNotMember)
	}
	if e.Author == r.self {
		return false, nil // nobody knows better than we do
	}
	r.eph.mu.Lock()
	old := r.eph.slots[e.Slot()]
	r.eph.mu.Unlock()
	if old.Version >= e.Version {
		return false, nil
	}
	if err := e.Verify(); err != nil {
		return false, err
	}
	r.eph.mu.Lock()
	defer r.eph.mu.Unlock()
	isNew, err = r.eph.put(e, r.now())
	if isNew {
		for c := range r.eph.watch[e.Kind] {
			select {
			case c <- struct{}{}:
			default: // one waits already
			}
		}
	}
	return isNew, err
}

// put keeps e if it is newer than what is there.
func (e *ephemeral) put(v crdt.Ephemeral, now time.Time) (isNew bool, err error) {
	id := v.Slot()
	old, ok := e.slots[id]
	switch {
	case ok && old.Version >= v.Version:
		return false, nil
	case !ok && (e.count[v.Author] >= maxEphemeralAuthor || len(e.slots) >= maxEphemeral):
		return false, fmt.Errorf("ephemeral entry of %s: %w", v.Author.Short(), ErrFull)
	case !ok:
		e.count[v.Author]++
	}
	e.slots[id] = ephemeralSlot{v, now.Add(v.TTL)}
	return true, nil
}
