package queue

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// planText prints grants as JOB->NODE and the reserved node.
func planText(p Plan) string {
	var out []string
	for _, g := range p.Grants {
		out = append(out, fmt.Sprintf("%d->n%d", g.Job, g.Node[0]))
	}
	if !p.Reserved.IsZero() {
		out = append(out, fmt.Sprintf("keep n%d", p.Reserved[0]))
	}
	return strings.Join(out, " ")
}

// TestReservation submits small job 1, wide job 2 (4 slots) and small jobs 3 and 4 (4 tasks), lets time pass, and offers nodes.
func TestReservation(t *testing.T) {
	offer := func(n, free, all int) Offer {
		return Offer{Node: node(n), Site: "s1", Slots: free, MemBytes: 1, AllSlots: all, AllMemBytes: 1}
	}
	lent := offer(7, 3, 8)
	lent.Lent = true
	for _, tt := range []struct {
		name   string
		waited time.Duration
		offers []Offer
		want   string
	}{
		{"small ones pass at first", ReserveAfter - 10*time.Second, []Offer{offer(1, 3, 4)}, "1->n1 3->n1 4->n1"},
		{"then the node is kept, but for earlier jobs", ReserveAfter, []Offer{offer(1, 3, 4)}, "1->n1 keep n1"},
		{"until the wide job fits", ReserveAfter, []Offer{offer(1, 5, 8)}, "1->n1 2->n1"},
		{"the one with most free is kept", ReserveAfter, []Offer{offer(1, 1, 4), offer(2, 2, 4), offer(3, 3, 3)}, "1->n1 3->n3 4->n3 4->n3 keep n2"},
		{"one that is too small is not", ReserveAfter, []Offer{offer(1, 3, 3)}, "1->n1 3->n1 4->n1"},
		{"one of another site is not", ReserveAfter, []Offer{lent}, "1->n7 3->n7 4->n7"},
		{"one of unknown size is not", ReserveAfter, []Offer{offer(1, 2, 0)}, "1->n1 3->n1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStory(t)
			s.run("submit a; submit b slots=4; submit c; submit d array=1-4:1")
			s.now += int64(tt.waited)
			s.run("")
			if got := planText(Match(s.m, tt.offers, nil, 64)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestWideJobStarts has nodes that are kept full by small tasks, of which there are always more, and wants a wide job to
// start all the same, soon after it may reserve.
func TestWideJobStarts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(1, 6), 1, 4).Draw(t, "slots of nodes")
		widest := 0
		for _, n := range sizes {
			widest = max(widest, n)
		}
		const shortest, longest = 10, 30 // steps that a small task takes
		m, index := New("s1", 1), uint64(0)
		begun := time.Unix(1000, 0)
		apply := func(step int, commands ...Command) []Result {
			data, err := Entry{At: begun.Add(time.Duration(step) * time.Second).UnixNano(), Commands: commands}.Encode()
			if err != nil {
				t.Fatal(err)
			}
			index++
			results, err := m.Apply(index, data)
			if err != nil {
				t.Fatal(err)
			}
			return results
		}
		wide, small := specOf("wide"), specOf("small")
		wide.Slots = rapid.IntRange(1, widest).Draw(t, "slots of the wide job")
		small.Array = &Range{0, 100_000, 1}
		busy := make([]map[int]int, len(sizes)) // of each node: running tasks by the step they end in
		used := func(i int) (n int) {
			for _, tasks := range busy[i] {
				n += tasks
			}
			return n
		}
		for i := range busy {
			busy[i] = map[int]int{}
			for range sizes[i] {
				busy[i][rapid.IntRange(1, longest).Draw(t, "first end")]++
			}
		}
		apply(0, Command{Submit: &Submit{wide}}, Command{Submit: &Submit{small}})
		most := int(ReserveAfter/time.Second) + longest*(widest+2)
		for step := 1; step <= most; step++ {
			var offers []Offer
			for i, size := range sizes {
				delete(busy[i], step)
				if free := size - used(i); free > 0 {
					offers = append(offers, Offer{Node: node(i + 1), Site: "s1", Slots: free, AllSlots: size})
				}
			}
			for _, g := range Match(m, offers, nil, 64).Grants {
				if g.Job == 1 {
					return
				}
				apply(step, Command{Grant: &g})
				busy[int(g.Node[0])-1][step+rapid.IntRange(shortest, longest).Draw(t, "takes")]++
			}
			apply(step)
		}
		t.Fatalf("a job of %d slots did not start within %d s on nodes of %v", wide.Slots, most, sizes)
	})
}
