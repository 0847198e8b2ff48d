package crdt

import "time"

// reader reads typed fields for a view and notes stamps from the future on the way. A value that is not of the field's
// type reads as absent: what a broken or hostile author wrote must stop nobody.
type reader struct {
	s     *State
	now   time.Time
	ahead map[NodeID]Stamp
	held  int // facts from the future met so far
}

func (v *View) reader(s *State, kind Kind, now time.Time) *reader {
	r := &reader{s: s, now: now, ahead: map[NodeID]Stamp{}}
	v.ahead[kind] = r.ahead
	return r
}

// record returns what read makes of an object, from the time before if the object has not changed since. What depends on
// the time, because of a stamp from the future, is read every time. The result is shared with earlier views.
func record[T any](r *reader, kind Kind, id string, read func() T) T {
	obj := r.s.objects.kinds[kind][id]
	if v, ok := obj.record.(T); ok {
		return v
	}
	held := r.held
	v := read()
	if r.held == held {
		obj.record = v
	}
	return v
}

// facts returns the facts of a field.
func (r *reader) facts(kind Kind, id, field string) []fact {
	facts := r.s.objects.facts(fieldKey{kind, id, field})
	for _, f := range facts {
		if f.stamp.ahead(r.now) {
			r.held++
			r.ahead[f.dot.Author] = max(r.ahead[f.dot.Author], f.stamp)
		}
	}
	return facts
}

// set reports the fact that a register shows.
func (r *reader) set(kind Kind, id, field string) (fact, bool) {
	return winner(r.facts(kind, id, field), r.now)
}

func (r *reader) text(kind Kind, id, field string) string {
	f, _ := r.set(kind, id, field)
	return readText(f.value)
}

func (r *reader) number(kind Kind, id, field string) uint64 {
	f, _ := r.set(kind, id, field)
	return readNumber(f.value)
}

func (r *reader) bool(kind Kind, id, field string) bool {
	f, _ := r.set(kind, id, field)
	var v bool
	return readValue(f.value, &v) && v
}

// bytes fills dst from a register that holds exactly as many bytes; otherwise dst stays.
func (r *reader) bytes(dst []byte, kind Kind, id, field string) {
	f, _ := r.set(kind, id, field)
	readBytes(dst, f.value)
}

func readText(v string) (s string) {
	if !readValue(v, &s) {
		return ""
	}
	return s
}

func readNumber(v string) (n uint64) {
	if !readValue(v, &n) {
		return 0
	}
	return n
}

func readBytes(dst []byte, v string) bool {
	var b []byte
	if !readValue(v, &b) || len(b) != len(dst) {
		return false
	}
	copy(dst, b)
	return true
}

func readValue(v string, into any) bool {
	return v != "" && decMode().Unmarshal([]byte(v), into) == nil
}
