package queue

import (
	"crypto/sha256"
	"fmt"
	"slices"
)

// image is the form of a snapshot.
type image struct {
	Version     uint   `cbor:"1,keyasint"`
	Site        SiteID `cbor:"2,keyasint"`
	Incarnation uint16 `cbor:"3,keyasint"`
	Last        Seq    `cbor:"4,keyasint"`
	Now         int64  `cbor:"5,keyasint"`
	Jobs        []*job `cbor:"6,keyasint"` // ascending
}

// Snapshot returns the whole state; equal states give equal bytes.
func (m *Machine) Snapshot() ([]byte, error) {
	i := image{Version: Version, Site: m.site, Incarnation: m.incarnation, Last: m.last, Now: m.now, Jobs: []*job{}}
	for _, s := range m.sortedJobs() {
		i.Jobs = append(i.Jobs, m.jobs[s])
	}
	return encode(i)
}

// Hash returns the SHA-256 of the snapshot, to compare replicas at equal indices.
func (m *Machine) Hash() ([sha256.Size]byte, error) {
	b, err := m.Snapshot()
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return sha256.Sum256(b), nil
}

// Restore replaces the state by that of a snapshot. The error wraps [ErrUnknown] if the form is not known or the
// content contradicts itself; m is then as before. The incarnation becomes the higher of both, and the site must be m's.
func (m *Machine) Restore(b []byte) error {
	var i image
	if err := decode(b, &i); err != nil {
		return fmt.Errorf("queue: snapshot: %w: %w", ErrUnknown, err)
	}
	if i.Version != Version {
		return fmt.Errorf("queue: snapshot: %w: version %d, this code reads %d", ErrUnknown, i.Version, Version)
	}
	if i.Site != m.site {
		return fmt.Errorf("queue: snapshot: %w: it is of site %q, not %q", ErrUnknown, i.Site, m.site)
	}
	fresh := &Machine{site: i.Site, incarnation: max(i.Incarnation, m.incarnation), last: i.Last, now: i.Now,
		jobs: make(map[Seq]*job, len(i.Jobs))}
	for _, j := range i.Jobs {
		if j == nil || j.Seq == 0 || j.Seq > i.Last || fresh.jobs[j.Seq] != nil {
			return fmt.Errorf("queue: snapshot: %w: job numbers are wrong", ErrUnknown)
		}
		if err := j.checkRestored(); err != nil {
			return fmt.Errorf("queue: snapshot: %w: job %d: %w", ErrUnknown, j.Seq, err)
		}
		fresh.jobs[j.Seq] = j
	}
	for _, j := range i.Jobs {
		for _, w := range j.Waits {
			if d := fresh.jobs[w]; d == nil || d.Ended != 0 {
				return fmt.Errorf("queue: snapshot: %w: job %d waits for job %d, which is not open", ErrUnknown, j.Seq, w)
			}
		}
	}
	fresh.derive()
	*m = *fresh
	return nil
}

// checkRestored checks what the rest of the code takes for granted of a job.
func (j *job) checkRestored() error {
	if err := j.Spec.Check(); err != nil {
		return err
	}
	n := j.total()
	sum := j.Pending.Len() + j.Done.Len() + j.Failed.Len() + j.Cancelled.Len()
	var seen Set
	for _, s := range []*Set{&j.Pending, &j.Done, &j.Failed, &j.Cancelled} {
		if len(s.spans) > 0 && int(s.spans[len(s.spans)-1].hi) >= n {
			return errRestored
		}
		seen.spans = append(seen.spans, s.spans...)
	}
	slices.SortFunc(seen.spans, func(a, b span) int { return int(a.lo) - int(b.lo) })
	for i := 1; i < len(seen.spans); i++ {
		if seen.spans[i].lo <= seen.spans[i-1].hi {
			return errRestored
		}
	}
	for k, t := range j.Tasks {
		if t == nil || int64(k) >= int64(n) {
			return errRestored
		}
		if !t.Live {
			continue
		}
		i, _ := slices.BinarySearchFunc(seen.spans, k, func(p span, k uint32) int { return int(p.hi) - int(k) })
		if i < len(seen.spans) && seen.spans[i].lo <= k {
			return errRestored
		}
		sum++
	}
	if sum != n || !slices.IsSorted(j.Waits) || (j.Ended != 0) != (j.Pending.Len() == 0 && sum == n && !j.anyLive()) {
		return errRestored
	}
	if j.Ended != 0 && len(j.Waits) > 0 {
		return errRestored
	}
	return nil
}

func (j *job) anyLive() bool {
	for _, t := range j.Tasks {
		if t.Live {
			return true
		}
	}
	return false
}

var errRestored = fmt.Errorf("its tasks are not each in one state")
