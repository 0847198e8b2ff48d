package sealed

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// pieces is what split makes of a frame, as they travel.
func pieces(t interface{ Fatal(...any) }, frame []byte, s shape, size int) (out [][]byte) {
	l, err := split(frame, s, size)
	if err != nil {
		t.Fatal(err)
	}
	for !l.done() {
		b := make([]byte, l.bytes())
		l.put(b)
		out = append(out, b)
	}
	return out
}

// TestSplit compares the segments of a large packet with those that are built one by one.
func TestSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		f := randomFrame(r, rapid.IntRange(1, 9000).Draw(t, "bytes"))
		size := rapid.IntRange(len(f.payload)/maxSegmentsOfOne+1, 9000).Draw(t, "size")
		frame, s := f.bytes(true)
		want := f.cut(size)
		got := pieces(t, frame, s, size)
		if len(got) != len(want) {
			t.Fatalf("%d segments, want %d", len(got), len(want))
		}
		for i := range got {
			finish(got[i][s.start:], s.checkAt())
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("segment %d of %+v\n got %x\nwant %x", i, s, got[i], want[i])
			}
		}
	})
}

// TestJoin takes away some segments; what is joined of the others, cut again, is the others.
func TestJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2))
		f := randomFrame(r, rapid.IntRange(1, 20000).Draw(t, "bytes"))
		size := rapid.IntRange(len(f.payload)/60+1, 9000).Draw(t, "size")
		frame, s := f.bytes(true)
		want := f.cut(size)
		m := meta{how: howSegment | howOpen, start: byte(s.start), headers: byte(s.headers)}
		if s.udp {
			m.how |= howUDP
		}
		j, key := newJoiner(), &epochKey{}
		var wanted, got [][]byte
		writes := 0
		take := func() {
			parts, v := j.take()
			whole := bytes.Join(parts, nil)
			writes++
			if len(parts) == 1 {
				finish(whole[v.start:], int(v.check))
				got = append(got, whole)
				return
			}
			if v.kind != kindOf(f) || int(v.size) != size || int(v.headers) != s.headers || int(v.start) != s.start {
				t.Fatalf("virtio header %+v for %+v", v, s)
			}
			g := read(whole, s)
			if again, _ := g.bytes(true); !bytes.Equal(again, whole) {
				t.Fatalf("a joined packet is not as a kernel makes it\n got %x\nwant %x", whole, again)
			}
			got = append(got, g.cut(size)...)
		}
		runs, lost := 0, true
		for i, b := range pieces(t, frame, s, size) {
			if rapid.IntRange(0, 9).Draw(t, "lose") == 0 {
				lost = true
				continue
			}
			if lost {
				runs++
			}
			lost = false
			wanted = append(wanted, want[i])
			if i > 0 {
				m.how |= howJoins
			}
			if !j.add(key, uint64(i), m, b) {
				if !j.empty() {
					take()
				}
				j.begin(nil, key, uint64(i), m, b)
			}
		}
		if !j.empty() {
			take()
		}
		if writes != runs {
			t.Fatalf("%d runs of segments were joined to %d packets", runs, writes)
		}
		if len(got) != len(wanted) {
			t.Fatalf("%d segments, want %d", len(got), len(wanted))
		}
		for i := range got {
			if !bytes.Equal(got[i], wanted[i]) {
				t.Fatalf("segment %d\n got %x\nwant %x", i, got[i], wanted[i])
			}
		}
	})
}

func TestWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w window
		seen, high := map[uint64]bool{}, uint64(0)
		at := rapid.Uint64Range(0, 1<<40).Draw(t, "from")
		for range rapid.IntRange(1, 200).Draw(t, "datagrams") {
			step := rapid.OneOf(rapid.Int64Range(-20, 20), rapid.Int64Range(-3*windowSize, 3*windowSize)).Draw(t, "step")
			if step < 0 && uint64(-step) > at {
				step = 0
			}
			at += uint64(step)
			old := len(seen) > 0 && at < high && high-at >= windowSize
			if got, want := w.fresh(at), !seen[at] && !old; got != want {
				t.Fatalf("%d after %d: fresh %v, want %v", at, high, got, want)
			}
			if !w.fresh(at) {
				continue
			}
			if got, want := w.see(at), len(seen) == 0 || at > high; got != want {
				t.Fatalf("%d after %d: newest %v", at, high, got)
			}
			seen[at] = true
			high = max(high, at)
		}
	})
}

func TestSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes")
		if got, want := fold(sum(b, 0)), uint16(slowSum(b)); got != want {
			t.Fatalf("%x: %#x, want %#x", b, got, want)
		}
	})
}
