package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"vcpeer/crdt"
	"vcpeer/deploy/test/bubble"
)

func id(n byte) crdt.NodeID { return crdt.NodeID{n} }

// pipe is a stream in memory.
type pipe struct {
	net.Conn
	r *io.PipeReader
	w *io.PipeWriter
}

func streams() (a, b *pipe) {
	ar, bw := io.Pipe()
	br, aw := io.Pipe()
	return &pipe{r: ar, w: aw}, &pipe{r: br, w: bw}
}

func (p *pipe) Read(b []byte) (int, error)       { return p.r.Read(b) }
func (p *pipe) Write(b []byte) (int, error)      { return p.w.Write(b) }
func (p *pipe) CloseWrite() error                { return p.w.Close() }
func (p *pipe) Close() error                     { p.r.Close(); return p.w.Close() }
func (p *pipe) SetDeadline(time.Time) error      { return nil }
func (p *pipe) SetReadDeadline(time.Time) error  { return nil }
func (p *pipe) SetWriteDeadline(time.Time) error { return nil }
func (p *pipe) RemoteAddr() net.Addr             { return &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7} }
func (p *pipe) Reset() error {
	p.r.CloseWithError(errors.New("reset"))
	return p.w.CloseWithError(errors.New("reset"))
}

// relayTo is a relay whose far ends are echoes that accept everything.
func relayTo(limits Limits, reach error) *Server {
	return NewServer(Config{Limits: limits, Open: func(context.Context, crdt.NodeID) (Stream, error) {
		if reach != nil {
			return nil, reach
		}
		near, far := streams()
		go func() {
			if _, err := Accept(far, func(crdt.NodeID) error { return nil }); err == nil {
				_, _ = io.Copy(far, far)
			}
			far.Close()
		}()
		return near, nil
	}})
}

func connect(s *Server, from, to crdt.NodeID) (*pipe, error) {
	near, far := streams()
	go s.Serve(context.Background(), from, far)
	return near, Connect(near, to)
}

// A circuit carries bytes both ways and the end of each direction.
func TestCircuit(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := relayTo(Limits{}, nil)
		c, err := connect(s, id(1), id(2))
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte("x1y2"), 100_000)
		go func() { _, _ = c.Write(want); _ = c.CloseWrite() }()
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d of %d bytes, %v", len(got), len(want), err)
		}
		bubble.Wait()
		if st := s.Stats(); st.Circuits != 0 || st.Bytes != uint64(2*len(want)) {
			t.Errorf("after its end: %+v", st)
		}
		if len(s.busy) != 0 || len(s.circuits) != 0 {
			t.Errorf("%d buffers, %v circuits are still counted", len(s.busy), s.circuits)
		}
	})
}

// What one relay may be made to do is bounded, in all and for each member.
func TestLimits(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := relayTo(Limits{Circuits: 3, CircuitsPerMember: 2, Places: 2, PlacesPerMember: 1}, nil)
		var open []*pipe
		for _, tt := range []struct {
			from, to byte
			want     error
		}{{1, 2, nil}, {1, 3, nil}, {1, 4, ErrFull}, {5, 1, ErrFull}, {1, 1, ErrMalformed}, {6, 7, nil}, {8, 9, ErrFull}} {
			c, err := connect(s, id(tt.from), id(tt.to))
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Errorf("%d to %d: %v, want %v", tt.from, tt.to, err, tt.want)
			}
			open = append(open, c)
		}
		open[0].Reset()
		bubble.Wait()
		if c, err := connect(s, id(8), id(9)); err != nil {
			t.Errorf("after one has ended: %v", err)
		} else {
			c.Reset()
		}
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 4)
		for _, who := range []byte{1, 1, 2, 3} {
			near, far := streams()
			go s.Serve(t.Context(), id(who), far)
			go func() {
				var seen netip.AddrPort
				err := Hold(ctx, near, func(_ time.Duration, at netip.AddrPort) { seen = at })
				if err == context.Canceled && seen != netip.MustParseAddrPort("192.0.2.1:7") {
					t.Errorf("seen at %v", seen)
				}
				results <- err
			}()
			bubble.Wait()
		}
		time.Sleep(10*holdEvery + holdEvery/2)
		if st := s.Stats(); st.Places != 2 {
			t.Errorf("%d places, want 2", st.Places)
		}
		cancel()
		ended := time.Now()
		full := 0
		for range 4 {
			if errors.Is(<-results, ErrFull) {
				full++
			}
		}
		if late := time.Since(ended); late > 0 {
			t.Errorf("a place was given up %v after it was not wanted any more", late)
		}
		for _, c := range open {
			c.Reset()
		}
		bubble.Wait()
		if st := s.Stats(); full != 2 || st.Places != 0 || st.Circuits != 0 {
			t.Errorf("%d were refused, and at the end there are %+v", full, st)
		}
	})
}

// A relay that is none any more refuses, one that cannot get there says so, and a place ends when its relay is silent.
func TestRefusals(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := relayTo(Limits{}, errors.New("no route"))
		if _, err := connect(s, id(1), id(2)); !errors.Is(err, ErrUnreachable) {
			t.Errorf("not reachable: %v", err)
		}
		s.Accept(false)
		if _, err := connect(s, id(1), id(2)); !errors.Is(err, ErrRefused) {
			t.Errorf("no relay: %v", err)
		}
		bubble.Wait()
		if st := s.Stats(); st.Circuits != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// The rate is shared evenly between those who want it, however much each wants.
func TestShares(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const rate, piece = 1 << 20, 16 << 10
		s := newShares(rate)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		counts := make([]int, 3)
		done := make(chan int)
		for member, workers := range []int{1, 8, 30} { // the last wants thirty times as much as the first
			for range workers {
				go func() {
					n := 0
					for s.take(ctx, id(byte(1+member)), piece) == nil {
						n += piece
						time.Sleep(time.Millisecond)
					}
					done <- member<<40 + n
				}()
			}
		}
		for range 39 {
			v := <-done
			counts[v>>40] += v & (1<<40 - 1)
		}
		total := counts[0] + counts[1] + counts[2]
		if total < rate*19 || total > rate*21 {
			t.Errorf("%d bytes in 20 s at %d a second", total, rate)
		}
		if slices.Min(counts)*10 < slices.Max(counts)*9 {
			t.Errorf("not even: %v", counts)
		}
	})
}

func TestChoose(t *testing.T) {
	ms := time.Millisecond
	c := func(n, site byte, rtt time.Duration, held bool) Candidate {
		return Candidate{ID: id(n), Site: crdt.SiteID{site}, RTT: rtt, Held: held}
	}
	for _, tt := range []struct {
		name string
		in   []Candidate
		want []byte
	}{
		{"none", nil, nil},
		{"one", []Candidate{c(1, 1, 0, false)}, []byte{1}},
		{"nearest of different sites", []Candidate{c(1, 1, 10*ms, false), c(2, 1, 11*ms, false), c(3, 2, 40*ms, false), c(4, 3, 30*ms, false)}, []byte{1, 4}},
		{"one site only", []Candidate{c(1, 1, 10*ms, false), c(2, 1, 11*ms, false), c(3, 1, 12*ms, false)}, []byte{1, 2}},
		{"not measured goes last", []Candidate{c(1, 1, 0, false), c(2, 2, 200*ms, false), c(3, 3, 300*ms, false)}, []byte{2, 3}},
		{"what is held stays", []Candidate{c(1, 1, 20*ms, true), c(2, 2, 18*ms, false), c(3, 3, 25*ms, true)}, []byte{1, 3}},
		{"unless much nearer", []Candidate{c(1, 1, 90*ms, true), c(2, 2, 8*ms, false), c(3, 3, 25*ms, true)}, []byte{3, 2}},
		{"two held at one site", []Candidate{c(1, 1, 10*ms, true), c(2, 1, 11*ms, true), c(3, 2, 80*ms, false)}, []byte{1, 3}},
	} {
		var got []byte
		for _, n := range Choose(tt.in, 2) {
			got = append(got, n[0])
		}
		slices.Sort(got)
		slices.Sort(tt.want)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// FuzzServe: whatever a member says, a relay answers or hangs up, keeps nothing, and never reads what is not there.
func FuzzServe(f *testing.F) {
	f.Add([]byte{askHold, 1, 2, 3})
	node := id(3)
	f.Add(append([]byte{askConnect}, node[:]...))
	f.Fuzz(func(t *testing.T, in []byte) {
		s := relayTo(Limits{}, nil)
		near, far := streams()
		done := make(chan struct{})
		go func() { s.Serve(t.Context(), id(1), far); close(done) }()
		go func() { _, _ = io.Copy(io.Discard, near) }()
		_, _ = near.Write(in)
		near.Close()
		<-done
		if st := s.Stats(); st.Places != 0 || st.Circuits != 0 {
			t.Errorf("after %x: %+v", in, st)
		}
	})
}

// FuzzAnswers reads what a relay may send.
func FuzzAnswers(f *testing.F) {
	f.Add(echo(7, netip.MustParseAddrPort("192.0.2.1:7475")))
	f.Add(echo(7, netip.MustParseAddrPort("[2001:db8::1]:7475")))
	f.Fuzz(func(t *testing.T, in []byte) {
		b, seen, err := readEcho(bytes.NewReader(in))
		if err == nil && seen.IsValid() && !bytes.Equal(echo(b, seen), in[:echoBytes]) {
			t.Errorf("%x is read as %d, %v", in, b, seen)
		}
		_ = readStatus(bytes.NewReader(in))
		_, _ = Accept(&struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(in), io.Discard}, func(crdt.NodeID) error { return nil })
	})
}
