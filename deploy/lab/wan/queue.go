package wan

import (
	"container/heap"
	"time"
)

// flight is a frame under way to a port.
type flight struct {
	due   time.Duration
	seq   uint64 // equal due times leave in the order in which they came
	to    int
	frame []byte
}

// flights is a heap of what is under way, by due time.
type flights struct {
	h   flightHeap
	seq uint64
}

func (f *flights) push(due time.Duration, to int, frame []byte) {
	f.seq++
	heap.Push(&f.h, flight{due, f.seq, to, frame})
}

// pop takes the next frame that is due, if one is.
func (f *flights) pop(now time.Duration) (flight, bool) {
	if len(f.h) == 0 || f.h[0].due > now {
		return flight{}, false
	}
	return heap.Pop(&f.h).(flight), true
}

// next returns when the next frame is due.
func (f *flights) next() (due time.Duration, ok bool) {
	if len(f.h) == 0 {
		return 0, false
	}
	return f.h[0].due, true
}

type flightHeap []flight

func (h flightHeap) Len() int { return len(h) }
func (h flightHeap) Less(i, j int) bool {
	return h[i].due < h[j].due || h[i].due == h[j].due && h[i].seq < h[j].seq
}
func (h flightHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *flightHeap) Push(x any)   { *h = append(*h, x.(flight)) }
func (h *flightHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = flight{}
	*h = old[:len(old)-1]
	return x
}
