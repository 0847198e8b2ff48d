package crdt

// sees reports whether the batch of dot b had dot a in its past: a is by the same author and earlier, or within what b's
// batch, or one in its past, names in its context. A walk over the batches between, at worst all; final answers are kept.
func (s *State) sees(b, a Dot) bool {
	if a.Author == b.Author {
		return a.Seq < b.Seq
	}
	key := [2]Dot{b, a}
	if known, ok := s.order[key]; ok {
		return known
	}
	found, whole := s.walkPast(b, a)
	if found || whole { // a past that is not all here yet may still turn out to hold a
		s.order[key] = found
	}
	return found
}

// walkPast searches a in the past of b. whole: all of that past is here.
func (s *State) walkPast(b, a Dot) (found, whole bool) {
	done := map[NodeID]uint64{} // batches up to this number have been looked at
	todo := []Dot{b}
	whole = true
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if d.Author == a.Author && d.Seq >= a.Seq {
			return true, true
		}
		entries := logEntries(s.logs[d.Author])
		whole = whole && d.Seq <= s.logs[d.Author].head()
		for i := s.logs[d.Author].count(done[d.Author]); i < len(entries) && entries[i].first <= d.Seq; i++ {
			for _, c := range entries[i].context {
				if c.Seq > done[c.Author] {
					todo = append(todo, c)
				}
			}
		}
		done[d.Author] = max(done[d.Author], d.Seq)
	}
	return false, whole
}
