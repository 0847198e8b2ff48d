package gossip

import (
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"

	"vcpeer/crdt"
	"vcpeer/deploy/test/bubble"
	"vcpeer/gossip/simnet"
)

func someID(n int) crdt.NodeID { return crdt.NodeID{0: byte(n + 1), 31: 7} }

func TestAddress(t *testing.T) {
	a, b := addressOf(someID(1)), addressOf(someID(2))
	if a == b || a.As16()[0] != 0xfd || !a.Is6() {
		t.Errorf("addresses %v and %v", a, b)
	}
	if got, want := joinAddress(someID(1)), someID(1).String()+"/["+a.String()+"]:7946"; got != want {
		t.Errorf("join address %q, want %q", got, want)
	}
}

func TestBook(t *testing.T) {
	b, id := newBook(), someID(1)
	addr := "[" + addressOf(id).String() + "]:7946"
	if _, err := b.find(memberlist.Address{Addr: addr}); err == nil {
		t.Error("an address is known before its node")
	}
	for _, a := range []memberlist.Address{{Addr: addr, Name: id.String()}, {Addr: addr}, {Name: id.String()}} {
		if got, err := b.find(a); err != nil || got != id {
			t.Errorf("%+v: %v, %v", a, got, err)
		}
	}
	if _, err := b.find(memberlist.Address{Addr: addr, Name: "host1"}); !errors.Is(err, crdt.ErrNodeID) {
		t.Errorf("a host name: %v, want ErrNodeID", err)
	}
}

func TestAdmission(t *testing.T) {
	self, bad := someID(1), someID(2)
	a := &admission{self: self, allowed: func(id crdt.NodeID) bool { return id != bad && id != self }}
	member := func(id crdt.NodeID) *serf.Member {
		return &serf.Member{Name: id.String(), Addr: addressOf(id).AsSlice(), Port: port}
	}
	moved := member(someID(3))
	moved.Addr = addressOf(someID(4)).AsSlice()
	for _, tt := range []struct {
		what    string
		members []*serf.Member
		ok      bool
	}{
		{"a member", []*serf.Member{member(someID(3))}, true},
		{"this node, whatever the records say", []*serf.Member{member(self)}, true},
		{"the evicted", []*serf.Member{member(bad)}, false},
		{"a pool that knew the evicted", []*serf.Member{member(someID(3)), member(bad)}, true},
		{"the address of another", []*serf.Member{moved}, false},
		{"a host name", []*serf.Member{{Name: "host1"}}, false},
	} {
		if err := a.NotifyMerge(tt.members); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.what, err)
		}
	}
}

func TestRejoin(t *testing.T) {
	p := Sites()
	start := time.Unix(1000, 0)
	known := []crdt.NodeID{someID(1), someID(2), someID(3)}
	none := func(crdt.NodeID) State { return 0 }

	r := newRejoin(p, rand.New(rand.NewPCG(1, 1)))
	if got := r.step(start, known, none, 0); len(got) != atOnce {
		t.Errorf("alone: contacts %v at once, want %d", got, atOnce)
	}
	tries, last := 0, start
	for now := start; now.Before(start.Add(10 * time.Minute)); now = now.Add(p.RejoinCheck) {
		if len(r.step(now, known, none, 0)) > 0 {
			if gap := now.Sub(last); gap > 4*p.Reconnect {
				t.Errorf("alone: a pause of %v", gap)
			}
			tries, last = tries+1, now
		}
	}
	if tries < 20 || tries > 100 {
		t.Errorf("alone for ten minutes: %d rounds", tries)
	}

	r = newRejoin(p, rand.New(rand.NewPCG(1, 1)))
	seen := func(id crdt.NodeID) State {
		if id == someID(3) {
			return 0
		}
		return Failed // Serf's own affair
	}
	tries = 0
	for now := start; now.Before(start.Add(time.Hour)); now = now.Add(p.RejoinCheck) {
		got := r.step(now, known, seen, 5)
		if len(got) == 0 {
			continue
		}
		if now.Before(start.Add(p.MissingAfter)) || !slices.Equal(got, []crdt.NodeID{someID(3)}) {
			t.Fatalf("contacts %v after %v", got, now.Sub(start))
		}
		tries++
	}
	if tries < 10 || tries > 25 {
		t.Errorf("missing for an hour: tried %d times", tries)
	}
	if r.step(start.Add(time.Hour), nil, none, 5); len(r.absent) != 0 {
		t.Errorf("%d absences are kept of nodes that are not known any more", len(r.absent))
	}
}

func TestFeedCountsWhatIsLost(t *testing.T) {
	v := newView(someID(0))
	m := &Membership{view: v}
	events, stop := m.Events()
	now := time.Unix(1, 0)
	const extra = 10
	for i := range feedSize + extra {
		v.put(someID(1), Alive, map[string]string{"n": strings.Repeat("x", i)}, now)
	}
	for range feedSize {
		if e := <-events; e.Lost != 0 {
			t.Fatalf("lost %d too early", e.Lost)
		}
	}
	v.put(someID(1), Failed, nil, now)
	if e := <-events; e.Lost != extra || e.Was != Alive || e.Member.State != Failed {
		t.Errorf("got %+v, want a failure after %d lost", e, extra)
	}
	v.put(someID(2), 0, nil, now)
	if _, ok := v.get(someID(2)); ok {
		t.Error("an update brought up a member that never joined")
	}
	v.close()
	stop()
	if _, open := <-events; open {
		t.Error("the feed is open after the end")
	}
	if w, _ := m.Watch(); !isClosed(w) {
		t.Error("a watch after the end is open")
	}
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case _, open := <-ch:
		return !open
	default:
		return false
	}
}

// TestStreamBounds has a peer with too many streams, one with too long a one, and a stranger.
func TestStreamBounds(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := simnet.New(simnet.Options{})
		here, peer, stranger := net.Add(), net.Add(), net.Add()
		tr := newTransport(here, func(id crdt.NodeID) bool { return id != stranger.Self() }, time.Second)
		tr.listen()
		open := func(n *simnet.Node) io.ReadWriteCloser {
			c, err := n.Open(t.Context(), here.Self(), Protocol)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		refused := func(c io.Reader) bool {
			bubble.Wait()
			c.(interface{ SetReadDeadline(time.Time) error }).SetReadDeadline(time.Now().Add(time.Second))
			_, err := c.Read(make([]byte, 1))
			return err == io.EOF
		}
		if !refused(open(stranger)) {
			t.Error("a stranger's stream stays open")
		}
		first := open(peer)
		served := <-tr.StreamCh()
		open(peer)
		<-tr.StreamCh()
		if !refused(open(peer)) {
			t.Error("a third stream of one peer stays open")
		}
		go func() {
			for b := make([]byte, 1<<16); ; {
				if _, err := first.Write(b); err != nil {
					return
				}
			}
		}()
		n, err := io.Copy(io.Discard, served)
		if n != streamBytes || !errors.Is(err, errTooLong) {
			t.Errorf("read %d bytes, %v; want %d and errTooLong", n, err, streamBytes)
		}
		served.Close()
		first.Close()
		bubble.Wait()
		open(peer)
		<-tr.StreamCh() // there is room again
		if _, err := tr.WriteToAddress([]byte("x"), memberlist.Address{Name: stranger.Self().String()}); err != nil {
			t.Error(err)
		}
		if _, err := tr.DialAddressTimeout(memberlist.Address{Name: stranger.Self().String()}, time.Second); !errors.Is(err, errNotAllowed) {
			t.Errorf("dial to a stranger: %v", err)
		}
		tr.Shutdown()
		if !refused(open(peer)) {
			t.Error("a stream after the end stays open")
		}
		time.Sleep(time.Minute)
	})
}

func TestLibraryLog(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		if libraryLog(slog.New(slog.DiscardHandler)) != io.Discard {
			t.Error("lines are formatted for nobody")
		}
		var out strings.Builder
		w := libraryLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
		for range 3 * linesPerSecond {
			io.WriteString(w, "[WARN] memberlist: odd packet\n")
		}
		time.Sleep(2 * time.Second)
		io.WriteString(w, "no level\n")
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != linesPerSecond+1 {
			t.Errorf("%d lines, want %d", len(lines), linesPerSecond+1)
		}
		if !strings.Contains(lines[0], `msg="memberlist: odd packet" library=WARN`) || !strings.Contains(lines[linesPerSecond], "dropped=40") {
			t.Errorf("first %s\nlast %s", lines[0], lines[len(lines)-1])
		}
	})
}

var _ Fabric = (*simnet.Node)(nil)
