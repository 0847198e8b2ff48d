package queue

import (
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestSetAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 40).Draw(t, "n")
		s, model := setOf(n), map[uint32]bool{}
		for k := range n {
			model[uint32(k)] = true
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			k := rapid.Uint32Range(0, 50).Draw(t, "k")
			if rapid.Bool().Draw(t, "add") {
				if s.Add(k) == model[k] {
					t.Fatalf("Add(%d) is wrong about what was there", k)
				}
				model[k] = true
			} else {
				if s.Remove(k) != model[k] {
					t.Fatalf("Remove(%d) is wrong about what was there", k)
				}
				delete(model, k)
			}
			checkSet(t, s, model)
		}
		lo := rapid.Uint32Range(0, 50).Draw(t, "lo")
		hi := rapid.Uint32Range(lo, 50).Draw(t, "hi")
		in, inModel := s.TakeRange(lo, hi), map[uint32]bool{}
		for k := lo; k <= hi; k++ {
			if model[k] {
				inModel[k] = true
				delete(model, k)
			}
		}
		checkSet(t, in, inModel)
		checkSet(t, s, model)
		s.Merge(in)
		for k := range inModel {
			model[k] = true
		}
		checkSet(t, s, model)
		b, err := encode(s)
		if err != nil {
			t.Fatal(err)
		}
		var back Set
		if err := decode(b, &back); err != nil {
			t.Fatal(err)
		}
		checkSet(t, back, model)
	})
}

func checkSet(t *rapid.T, s Set, model map[uint32]bool) {
	want := []uint32{}
	for k := range uint32(64) {
		if s.Has(k) != model[k] {
			t.Fatalf("Has(%d) = %v in %v", k, s.Has(k), s)
		}
		if model[k] {
			want = append(want, k)
		}
	}
	if got := slices.AppendSeq([]uint32{}, s.All()); !reflect.DeepEqual(got, want) || s.Len() != len(want) {
		t.Fatalf("got %v (%d), want %v", got, s.Len(), want)
	}
	for i := 1; i < len(s.spans); i++ {
		if s.spans[i].lo <= s.spans[i-1].hi+1 {
			t.Fatalf("spans are not apart: %v", s.spans)
		}
	}
}

func TestLineAgainstSlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l line
		var model []Seq
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			from := rapid.Uint64Range(1, 3000).Draw(t, "from")
			count := rapid.Uint64Range(1, 1200).Draw(t, "count")
			add := rapid.Bool().Draw(t, "add")
			for s := Seq(from); s < Seq(from+count); s++ {
				at, found := slices.BinarySearch(model, s)
				switch {
				case add:
					l.add(s)
					if !found {
						model = slices.Insert(model, at, s)
					}
				default:
					l.remove(s)
					if found {
						model = slices.Delete(model, at, at+1)
					}
				}
			}
			if got := slices.Collect(l.all()); !slices.Equal(got, model) || l.len() != len(model) {
				t.Fatalf("line of %d differs from model of %d", l.len(), len(model))
			}
			for _, b := range l.blocks {
				if len(b) == 0 || len(b) > lineBlock+1 {
					t.Fatalf("a block of %d", len(b))
				}
			}
		}
	})
}
