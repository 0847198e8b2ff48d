package fabric

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Packets of others go through the sockets of QUIC, batched or not, while QUIC works on them; both ends agree on keys.
func TestPackets(t *testing.T) {
	fs := mesh(t, &book{}, "a b")
	a, b := fs[0], fs[1]
	b.Handle(echoProto, echo)
	if got, err := ask(t, a, b.Self(), "hi"); err != nil || got != "hi" {
		t.Fatal(got, err)
	}
	var mu sync.Mutex
	seen := map[string]int{}
	batches, local := 0, netip.AddrPort{}
	b.HandlePackets(func(p *Packets) {
		mu.Lock()
		defer mu.Unlock()
		batches++
		local = p.Local
		for d := range p.All() {
			seen[string(d)]++
		}
		p.Release()
	})
	sa, ok := a.Session(b.Self())
	if !ok {
		t.Fatal("a has no session with b")
	}
	var sb Session
	eventually(t, "b to have the session", func() bool { sb, ok = b.Session(a.Self()); return ok })
	if sa.ID != sb.ID || sa.Lower == sb.Lower || sa.Remote.Port() != uint16(b.Port()) || sb.Remote.Port() != uint16(a.Port()) {
		t.Errorf("two sides of one session: %+v, %+v", sa, sb)
	}
	ka, err := sa.Export("EXPERIMENTAL test", 32)
	kb, err2 := sb.Export("EXPERIMENTAL test", 32)
	if err != nil || err2 != nil || !bytes.Equal(ka, kb) {
		t.Errorf("keys %x, %x: %v %v", ka, kb, err, err2)
	}
	const segment, count = 1200, 100
	var all []byte
	for i := range count {
		all = append(all, bytes.Repeat([]byte{byte(1 + i%63)}, segment)...)
		copy(all[len(all)-3:], fmt.Sprintf("%3d", i))
	}
	all = append(all, "\x05short"...)
	if err := a.SendPackets(sa.Local, sa.Remote, all, segment); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all packets", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(seen) == count+1
	})
	mu.Lock()
	if seen["\x05short"] != 1 || local.Port() != uint16(b.Port()) {
		t.Errorf("the short one %d times, at %v", seen["\x05short"], local)
	}
	t.Logf("%d packets in %d batches", count+1, batches)
	mu.Unlock()
	big := strings.Repeat("x", 200_000)
	if got, err := ask(t, a, b.Self(), big); err != nil || got != big {
		t.Fatalf("QUIC beside it: %d bytes, %v", len(got), err)
	}
	changed, stop := a.WatchSessions()
	defer stop()
	b.Close()
	select {
	case <-changed:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody told that the session went")
	}
	eventually(t, "the session to be gone", func() bool { _, ok := a.Session(b.Self()); return !ok })
}

// What is received is sorted into what is QUIC's and the rest, however the kernel mixed them.
func TestSortPackets(t *testing.T) {
	var got []string
	sockets := &packetSockets{}
	h := func(p *Packets) {
		for b := range p.All() {
			got = append(got, string(b))
		}
	}
	sockets.handler.Store(&h)
	own := ""
	o := func(_, _ netip.AddrPort, b []byte) { own += string(b) + " " }
	sockets.own.Store(&o)
	for _, tt := range []struct {
		in, quic, rest, own string
		segment             int
		kept                bool
	}{
		{"Qa", "Qa", "", "", 0, false},
		{"QaQbQc", "Qa Qb Qc", "", "", 2, false},
		{"1a", "", "1a", "", 0, true},
		{"1a2b3", "", "1a 2b 3", "", 2, true},
		{"Qa1a2bQb3", "Qa Qb", "1a 2b 3", "", 2, true},
		{"1aQb", "Qb", "1a", "", 2, true},
		{"1aQb2bQ", "Qb Q", "1a 2b", "", 2, true},
		{"\x00x", "", "", "\x00x ", 0, false},
		{"1a\x00xQb2b", "Qb", "1a 2b", "\x00x ", 2, true},
	} {
		got, own = nil, ""
		buf := new(packetBuffer)
		n := copy(buf[:], tt.in)
		quic, kept := sockets.sort(nil, buf, n, tt.segment, netip.AddrPort{}, netip.AddrPort{})
		q := string(bytes.Join(quic, []byte(" ")))
		if rest := strings.Join(got, " "); q != tt.quic || rest != tt.rest || own != tt.own || kept != tt.kept {
			t.Errorf("%q: QUIC %q, rest %q, own %q, kept %v", tt.in, q, rest, own, kept)
		}
	}
}

// FuzzSortPackets: whatever comes, nothing is lost, changed or given to the wrong one.
func FuzzSortPackets(f *testing.F) {
	f.Add([]byte("Qa1a2bQb3"), 2)
	f.Add([]byte("\x00\x01\x40\x80"), 1)
	f.Fuzz(func(t *testing.T, in []byte, segment int) {
		if len(in) == 0 {
			return
		}
		buf := new(packetBuffer)
		n := copy(buf[:], in)
		in = in[:n]
		var got [][]byte
		add := func(b []byte) { got = append(got, slices.Clone(b)) }
		sockets := &packetSockets{}
		h := func(p *Packets) {
			for b := range p.All() {
				if b[0] >= firstQUIC || b[0] == firstFabric {
					t.Errorf("%x is not for others", b)
				}
				add(b)
			}
		}
		sockets.handler.Store(&h)
		o := func(_, _ netip.AddrPort, b []byte) { add(b) }
		sockets.own.Store(&o)
		quic, _ := sockets.sort(nil, buf, n, segment, netip.AddrPort{}, netip.AddrPort{})
		for _, b := range quic {
			if b[0] < firstQUIC {
				t.Errorf("%x is not QUIC's", b)
			}
			add(b)
		}
		var want [][]byte
		if segment <= 0 || segment > n {
			segment = n
		}
		for b := range slices.Chunk(in, segment) {
			want = append(want, b)
		}
		slices.SortFunc(got, bytes.Compare)
		slices.SortFunc(want, bytes.Compare)
		if !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("segments of %d: got %q, want %q", segment, got, want)
		}
	})
}

// BenchmarkPackets sends batches as a data plane does.
func BenchmarkPackets(b *testing.B) {
	fs := mesh(b, &book{}, "a b")
	fs[1].HandlePackets(func(p *Packets) { p.Release() })
	fs[0].Send(fs[1].Self(), 1, []byte("x"))
	var s Session
	eventually(b, "a session", func() (ok bool) { s, ok = fs[0].Session(fs[1].Self()); return ok })
	batch := bytes.Repeat([]byte{1}, 48*1200)
	b.SetBytes(int64(len(batch)))
	b.ReportAllocs()
	for b.Loop() {
		if err := fs[0].SendPackets(s.Local, s.Remote, batch, 1200); err != nil {
			b.Fatal(err)
		}
	}
}
