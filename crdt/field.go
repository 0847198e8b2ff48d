package crdt

import (
	"cmp"
	"slices"
	"time"
)

// fact is one change that still counts: no later change has replaced it.
type fact struct {
	dot   Dot
	stamp Stamp
	op    Op
	value string // CBOR
}

// compare orders facts that do not know of each other: by stamp, then author, then sequence number. Total, since an
// author has one change for each number (one with two is frozen).
func (f fact) compare(g fact) int { return cmp.Or(cmp.Compare(f.stamp, g.stamp), f.dot.Compare(g.dot)) }

// object is the merged state of one object: field -> facts in the order of their dots.
type object struct {
	fields map[string][]fact
	record any // what a view last read from the fields; nil after a change
}

// fieldKey names one field of one object.
type fieldKey struct {
	kind  Kind
	id    string
	field string
}

// objects is the merged state of all objects. A change that replaces a dot which has not come yet leaves a note in
// early; the note goes when the dot comes, so nothing is remembered of what was removed.
type objects struct {
	kinds map[Kind]map[string]*object
	early map[Dot][]fieldKey
}

func newObjects() objects {
	return objects{kinds: map[Kind]map[string]*object{}, early: map[Dot][]fieldKey{}}
}

// facts returns the facts of one field; the caller must not change them.
func (o *objects) facts(k fieldKey) []fact {
	if obj := o.kinds[k.kind][k.id]; obj != nil {
		return obj.fields[k.field]
	}
	return nil
}

// apply merges one change. seen tells whether a dot has been applied or voided already: of such a dot no note is needed.
func (o *objects) apply(c *Change, dot Dot, stamp Stamp, seen func(Dot) bool) {
	key := fieldKey{c.Kind, c.ID, c.Field}
	dead := c.Op == OpDrop || c.Op != OpGrow && slices.Contains(o.early[dot], key)
	delete(o.early, dot)
	if c.Op > opLast {
		return // of a later version: its batch is kept and passed on
	}
	obj := o.object(c.Kind, c.ID)
	obj.record = nil
	facts := obj.fields[c.Field]
	for _, over := range c.Over {
		i := slices.IndexFunc(facts, func(f fact) bool { return f.dot == over })
		switch {
		case i >= 0 && facts[i].op != OpGrow:
			facts = slices.Delete(slices.Clone(facts), i, i+1)
		case i < 0 && over != dot && !seen(over):
			o.early[over] = append(o.early[over], key)
		}
	}
	if !dead {
		facts = insert(facts, fact{dot, stamp, c.Op, string(c.Value)})
	}
	if len(facts) == 0 {
		if delete(obj.fields, c.Field); len(obj.fields) == 0 {
			delete(o.kinds[c.Kind], c.ID)
		}
		return
	}
	obj.fields[c.Field] = facts
}

func (o *objects) object(kind Kind, id string) *object {
	byID := o.kinds[kind]
	if byID == nil {
		byID = map[string]*object{}
		o.kinds[kind] = byID
	}
	obj := byID[id]
	if obj == nil {
		obj = &object{fields: map[string][]fact{}}
		byID[id] = obj
	}
	return obj
}

// insert returns facts with f in its place, in new memory.
func insert(facts []fact, f fact) []fact {
	i, _ := slices.BinarySearchFunc(facts, f, func(a, b fact) int { return a.dot.Compare(b.dot) })
	out := make([]fact, 0, len(facts)+1)
	return append(append(append(out, facts[:i]...), f), facts[i:]...)
}

// winner returns the fact that a register shows: the greatest, but one stamped in the future only if there is no other.
func winner(facts []fact, now time.Time) (fact, bool) {
	var best fact
	found := false
	for _, f := range facts {
		if f.op != OpSet {
			continue
		}
		if !found || better(f, best, now) {
			best, found = f, true
		}
	}
	return best, found
}

func better(f, g fact, now time.Time) bool {
	if a, b := f.stamp.ahead(now), g.stamp.ahead(now); a != b {
		return b
	}
	return f.compare(g) > 0
}

// elements returns what a set holds, sorted. With removeWins an element that is removed concurrently with an add is out.
func elements(facts []fact, removeWins bool) []string {
	in, out := map[string]bool{}, map[string]bool{}
	for _, f := range facts {
		switch f.op {
		case OpAdd, OpGrow:
			in[f.value] = true
		case OpRemove:
			out[f.value] = removeWins
		}
	}
	var list []string
	for e := range in {
		if !out[e] {
			list = append(list, e)
		}
	}
	slices.Sort(list)
	return list
}
