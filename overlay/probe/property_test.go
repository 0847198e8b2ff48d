package probe

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"vcpeer/overlay/label"
)

// Whatever comes, state stays within bounds, nothing panics, and only what is well formed, for this node, and from one
// that may ask is answered: once, by one frame that is not larger.
func TestAnyFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1e9, 0)
		c := New(Default(), rand.New(rand.NewPCG(1, 1)), now)
		me := Self{Label: 1, Slot: 100}
		c.Set(now, me, []Target{{ID: Gateway(2), Class: Fast, MTU: 1458, Paths: [][]label.Label{{3}}}, {ID: Node(101), Class: Near}})
		var seen [][]byte
		for range rapid.IntRange(1, 200).Draw(t, "frames") {
			now = now.Add(time.Duration(rapid.IntRange(0, 400).Draw(t, "ms")) * time.Millisecond)
			if rapid.Bool().Draw(t, "tick") {
				out, next := c.Tick(now)
				if next.Before(now) || len(out.Frames) > batch+pingsMax+1 {
					t.Fatalf("next %v at %v, %d frames", next, now, len(out.Frames))
				}
				for _, f := range out.Frames {
					seen = append(seen, slices.Clone(f[etherBytes:]))
				}
			}
			b := anyPayload(t, c, seen)
			m, err := parse(b)
			may := err == nil && m.kind == request && m.way.id == me.id(m.way.id.near) && (m.from == Gateway(2) || m.from.near)
			out := c.Receive(now, now.Add(-time.Millisecond), b)
			if len(out.Frames) > 1 || len(out.Frames) == 1 && !may {
				t.Fatalf("%+v was answered by %d frames", m, len(out.Frames))
			}
			if len(out.Frames) == 1 {
				r, err := parse(out.Frames[0][etherBytes:])
				if err != nil || r.kind != reply || r.session != m.session || r.seq != m.seq || len(out.Frames[0]) > etherBytes+len(b) {
					t.Fatalf("%+v was answered by %+v, %v", m, r, err)
				}
				if out := c.Receive(now, now, b); len(out.Frames) != 0 && !m.oneShot {
					t.Fatalf("%+v was answered again", m)
				}
			}
			seen = append(seen, b)
			checkCore(t, c)
		}
	})
}

// anyPayload is noise, what was seen before with a few bytes changed, or a sound message.
func anyPayload(t *rapid.T, c *Core, seen [][]byte) []byte {
	switch k := rapid.IntRange(0, 3).Draw(t, "kind"); {
	case k == 0:
		return rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(t, "noise")
	case k == 1 && len(seen) > 0:
		b := slices.Clone(seen[rapid.IntRange(0, len(seen)-1).Draw(t, "which")])
		for range rapid.IntRange(0, 2).Draw(t, "changes") {
			if len(b) == 0 {
				break
			}
			b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "to")
		}
		return b
	}
	m := message{
		kind: request, from: rapid.SampledFrom([]ID{Gateway(2), Gateway(3), Node(101), Node(102)}).Draw(t, "from"), size: messageBytes,
		session: rapid.SampledFrom([]uint32{c.session, 7, 8}).Draw(t, "session"), seq: rapid.Uint32Range(95, 140).Draw(t, "seq"),
		oneShot: rapid.Bool().Draw(t, "one"),
	}
	m.way.id = Self{Label: 1, Slot: 100}.id(m.from.near)
	if !m.from.near && rapid.Bool().Draw(t, "via") {
		m.way.n, m.way.via[0] = 1, label.Label(rapid.IntRange(4, 6).Draw(t, "over"))
	}
	if rapid.Bool().Draw(t, "reply") {
		m.kind = reply
	}
	if !m.oneShot {
		m.ack = ack{rapid.Uint32Range(95, 140).Draw(t, "high"), rapid.Uint32().Draw(t, "bits") | 1}
		if m.aux = c.session; m.kind == reply {
			m.aux = 5
		}
	}
	b := make([]byte, m.size)
	m.put(b)
	return b
}

// Answers count once, only in the session in which it was asked, and never for what was not.
func TestReplays(t *testing.T) {
	now := time.Unix(1e9, 0)
	c := New(Default(), rand.New(rand.NewPCG(1, 1)), now)
	c.Set(now, Self{Label: 1}, []Target{{ID: Gateway(2), Class: Fast}})
	now = now.Add(200 * time.Millisecond)
	out, _ := c.Tick(now)
	q, err := parse(out.Frames[0][etherBytes:])
	if err != nil {
		t.Fatal(err)
	}
	answer := func(change func(*message)) uint64 {
		m := message{kind: reply, from: Gateway(2), way: way{id: Gateway(1)}, size: messageBytes, session: q.session, seq: q.seq}
		change(&m)
		b := make([]byte, messageBytes)
		m.put(b)
		c.Receive(now.Add(10*time.Millisecond), now.Add(10*time.Millisecond), b)
		return c.Report(now).Links[0].Samples
	}
	for _, tt := range []struct {
		name   string
		change func(*message)
		want   uint64
	}{
		{"of another session", func(m *message) { m.session++ }, 0},
		{"to what was not asked", func(m *message) { m.seq++ }, 0},
		{"to what was asked before all", func(m *message) { m.seq-- }, 0},
		{"from another", func(m *message) { m.from = Gateway(3) }, 0},
		{"for another", func(m *message) { m.way.id = Gateway(3) }, 0},
		{"by another way", func(m *message) { m.way.n, m.way.via[0] = 1, 5 }, 0},
		{"right", func(*message) {}, 1},
		{"again", func(*message) {}, 1},
	} {
		if got := answer(tt.change); got != tt.want {
			t.Errorf("%s: %d samples, want %d", tt.name, got, tt.want)
		}
	}
}

func TestHeard(t *testing.T) {
	for _, tt := range []struct {
		name string
		seqs []uint32
		took string // of each: y or n
		bits uint32
		loss float64
	}{
		{"in order", []uint32{5, 6, 7}, "yyy", 0b111, 0},
		{"one lost", []uint32{5, 7, 8}, "yyy", 0b1011, 0.25},
		{"out of order", []uint32{5, 7, 6}, "yyy", 0b111, 0},
		{"before the first", []uint32{5, 4}, "yy", 0b11, 0},
		{"twice", []uint32{5, 6, 6, 5}, "yynn", 0b11, 0},
		{"around", []uint32{1<<32 - 1, 0, 1}, "yyy", 0b111, 0},
		{"far ahead", []uint32{5, 500}, "yy", 1, 1 - 1.0/32},
		{"too late", []uint32{500, 5}, "yn", 1, 0},
		{"a highest that was a lie", []uint32{900, 1, 2, 3, 4, 5, 6, 7, 8, 9}, "ynnnnnnnny", 1, 0},
	} {
		var h heard
		took := ""
		for i, s := range tt.seqs {
			took += map[bool]string{true: "y", false: "n"}[h.take(time.Duration(i), 1, s)]
		}
		if took != tt.took || h.ack.bits != tt.bits || h.loss() != tt.loss {
			t.Errorf("%s: took %s, bits %b, loss %v; want %s, %b, %v", tt.name, took, h.ack.bits, h.loss(), tt.took, tt.bits, tt.loss)
		}
	}
}
