package queue

import (
	"cmp"
	"errors"
	"iter"
	"slices"
	"sort"
)

// Set is a set of task ordinals, kept as ranges: a whole array costs as much as one task. The zero value is empty.
// Taking the smallest is O(1); other changes cost O(log n) and a memory move over the ranges.
type Set struct {
	spans []span // ascending, disjoint, never adjacent
	n     int    // == sum of their lengths
}

type span struct{ lo, hi uint32 } // both inclusive

// setOf returns {0, ..., n-1}.
func setOf(n int) Set {
	if n <= 0 {
		return Set{}
	}
	return Set{spans: []span{{0, uint32(n - 1)}}, n: n}
}

// Len returns how many ordinals s holds.
func (s *Set) Len() int { return s.n }

// find returns the first span that ends at or after k.
func (s *Set) find(k uint32) int {
	if len(s.spans) > 0 && s.spans[0].hi >= k {
		return 0
	}
	return sort.Search(len(s.spans), func(i int) bool { return s.spans[i].hi >= k })
}

// Has reports whether s holds k.
func (s *Set) Has(k uint32) bool {
	i := s.find(k)
	return i < len(s.spans) && s.spans[i].lo <= k
}

// Add puts k into s and reports whether it was not there.
func (s *Set) Add(k uint32) bool {
	i := s.find(k)
	if i < len(s.spans) && s.spans[i].lo <= k {
		return false
	}
	s.n++
	joinsNext := i < len(s.spans) && s.spans[i].lo == k+1
	joinsPrev := i > 0 && s.spans[i-1].hi+1 == k
	switch {
	case joinsNext && joinsPrev:
		s.spans[i-1].hi = s.spans[i].hi
		s.spans = slices.Delete(s.spans, i, i+1)
	case joinsNext:
		s.spans[i].lo = k
	case joinsPrev:
		s.spans[i-1].hi = k
	default:
		s.spans = slices.Insert(s.spans, i, span{k, k})
	}
	return true
}

// Remove takes k out of s and reports whether it was there.
func (s *Set) Remove(k uint32) bool {
	i := s.find(k)
	if i >= len(s.spans) || s.spans[i].lo > k {
		return false
	}
	s.n--
	p := &s.spans[i]
	switch {
	case p.lo == p.hi && i == 0:
		s.spans = s.spans[1:]
	case p.lo == p.hi:
		s.spans = slices.Delete(s.spans, i, i+1)
	case p.lo == k:
		p.lo++
	case p.hi == k:
		p.hi--
	default:
		tail := span{k + 1, p.hi}
		p.hi = k - 1
		s.spans = slices.Insert(s.spans, i+1, tail)
	}
	return true
}

// TakeAll empties s into a new set, which is returned.
func (s *Set) TakeAll() Set {
	all := *s
	*s = Set{}
	return all
}

// Merge adds all of o, which shares no memory with s afterwards. It costs O(ranges).
func (s *Set) Merge(o Set) {
	all := append(slices.Clone(s.spans), o.spans...)
	slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.lo, b.lo) })
	*s = Set{}
	for _, p := range all {
		last := len(s.spans) - 1
		if last >= 0 && p.lo <= s.spans[last].hi+1 {
			s.spans[last].hi = max(s.spans[last].hi, p.hi)
			continue
		}
		s.spans = append(s.spans, p)
	}
	for _, p := range s.spans {
		s.n += int(p.hi-p.lo) + 1
	}
}

// TakeRange moves what s holds of lo to hi (both inclusive) into a new set, which is returned. It costs O(ranges).
func (s *Set) TakeRange(lo, hi uint32) Set {
	var in, out Set
	for _, p := range s.spans {
		for _, c := range []struct {
			to   *Set
			part span
			ok   bool
		}{
			{&out, span{p.lo, min(p.hi, lo-1)}, p.lo < lo},
			{&in, span{max(p.lo, lo), min(p.hi, hi)}, p.lo <= hi && p.hi >= lo},
			{&out, span{max(p.lo, hi+1), p.hi}, p.hi > hi},
		} {
			if c.ok {
				c.to.spans = append(c.to.spans, c.part)
				c.to.n += int(c.part.hi-c.part.lo) + 1
			}
		}
	}
	*s = out
	return in
}

// All yields the ordinals in ascending order. s must not change meanwhile.
func (s *Set) All() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for _, p := range s.spans {
			for k := p.lo; ; k++ {
				if !yield(k) {
					return
				}
				if k == p.hi {
					break
				}
			}
		}
	}
}

// MarshalCBOR writes the bounds of the ranges in order.
func (s Set) MarshalCBOR() ([]byte, error) {
	flat := make([]uint32, 0, 2*len(s.spans))
	for _, p := range s.spans {
		flat = append(flat, p.lo, p.hi)
	}
	return encode(flat)
}

// UnmarshalCBOR is the inverse of MarshalCBOR; anything but its output is an error.
func (s *Set) UnmarshalCBOR(b []byte) error {
	var flat []uint32
	if err := decode(b, &flat); err != nil {
		return err
	}
	if len(flat)%2 != 0 {
		return errSet
	}
	*s = Set{}
	for i := 0; i < len(flat); i += 2 {
		lo, hi := flat[i], flat[i+1]
		if hi < lo || hi >= MaxTasks || i > 0 && lo <= flat[i-1]+1 {
			return errSet
		}
		s.spans = append(s.spans, span{lo, hi})
		s.n += int(hi-lo) + 1
	}
	return nil
}

var errSet = errors.New("queue: bounds of a set are not ascending ranges")
