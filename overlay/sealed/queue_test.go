package sealed

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// line is a scheduler whose frames leave at a given speed.
type line struct {
	s     scheduler
	now   time.Duration
	busy  time.Duration // until then
	rate  float64       // bytes a second
	got   map[*queue]int
	worst map[*queue]time.Duration
	lost  int
}

func newLine(mbits float64) *line {
	l := &line{rate: mbits * 1e6 / 8, got: map[*queue]int{}, worst: map[*queue]time.Duration{}}
	l.s.dropped = func(*packet) { l.lost++ }
	return l
}

func newQueue() *queue {
	p := &peer{}
	p.queue.owner = p
	return &p.queue
}

func (l *line) send(q *queue, bytes int) {
	l.s.put(q, &packet{at: l.now, frame: make([]byte, bytes), memory: make([]byte, classes[classOf(bytes)])}, false)
}

// pass lets time go by, and frames leave.
func (l *line) pass(d time.Duration) {
	for end := l.now + d; ; {
		at := max(l.busy, l.now)
		if at > end {
			l.now = end
			return
		}
		l.now = at
		q, batch := l.s.take(l.now, nil)
		if q == nil {
			l.now = end
			return
		}
		for _, p := range batch {
			l.got[q] += len(p.frame)
			l.worst[q] = max(l.worst[q], l.now-p.at)
			l.busy = l.now + time.Duration(float64(len(p.frame))/l.rate*1e9)
			l.now = l.busy
		}
	}
}

// TestFairness: two peers that want all get half each, and one that wants little gets that, soon.
func TestFairness(t *testing.T) {
	l := newLine(100)
	a, b, c := newQueue(), newQueue(), newQueue()
	for range 2000 { // 2 s
		for range 12 {
			l.send(a, 1400)
		}
		l.send(b, 60000)
		l.send(c, 100)
		l.pass(time.Millisecond)
	}
	if r := float64(l.got[a]) / float64(l.got[b]); r < .9 || r > 1.1 {
		t.Errorf("%d bytes of one, %d of the other", l.got[a], l.got[b])
	}
	if want := 2000 * 100 * 98 / 100; l.got[c] < want || l.worst[c] > 25*time.Millisecond { // two turns of 64 KiB, and one
		t.Errorf("%d bytes of the small one, %v late at worst, want %d", l.got[c], l.worst[c], want)
	}
}

// TestLate: what a steady sender sends too fast is dropped until it has less than 25 ms to wait, if it is one that slows
// down when it loses something.
func TestLate(t *testing.T) {
	l := newLine(100)
	q := newQueue()
	window, flight := 20.0, 0 // frames, as TCP
	var late time.Duration
	for i := range 20000 {
		before, lost := l.got[q], l.lost
		l.pass(time.Millisecond)
		flight -= (l.got[q]-before)/1400 + l.lost - lost
		window += float64(l.got[q]-before) / 1400 / window
		if l.lost > lost {
			window = max(window*.7, 2)
		}
		for ; float64(flight) < window; flight++ {
			l.send(q, 1400)
		}
		if q.head != nil && i > 10000 {
			late = max(late, l.now-q.head.at)
		}
	}
	if late > 25*time.Millisecond {
		t.Errorf("frames are %v late", late)
	}
	if got := float64(l.got[q]) / 20 / l.rate; got < .9 {
		t.Errorf("the line is used to %.0f %%", got*100)
	}
}

// TestBounds: whatever comes, the queues keep to their sizes, and nothing is lost without being counted.
func TestBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLine(1000)
		var all []*queue
		for range rapid.IntRange(1, 8).Draw(t, "peers") {
			all = append(all, newQueue())
		}
		sent := 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			q := rapid.SampledFrom(all).Draw(t, "to")
			for range rapid.IntRange(1, 80).Draw(t, "frames") {
				l.send(q, rapid.SampledFrom([]int{60, 1400, 9000, 60000}).Draw(t, "bytes"))
				sent++
			}
			if rapid.IntRange(0, 3).Draw(t, "pass") == 0 {
				l.pass(time.Duration(rapid.IntRange(0, 5000).Draw(t, "us")) * time.Microsecond)
			}
			if rapid.IntRange(0, 20).Draw(t, "forget") == 0 {
				l.s.forget(q)
			}
			total, waiting := 0, 0
			for _, q := range all {
				n := 0
				for p := q.head; p != nil; p = p.next {
					n += len(p.memory)
					waiting++
				}
				if n != q.bytes || n > peerQueueBytes || (q.head != nil) && !q.waiting {
					t.Fatalf("a queue has %d bytes and says %d", n, q.bytes)
				}
				total += n
			}
			if total != l.s.bytes || total > totalQueueBytes {
				t.Fatalf("%d bytes wait, and %d are said to", total, l.s.bytes)
			}
		}
	})
}
