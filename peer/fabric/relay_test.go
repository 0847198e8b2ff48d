package fabric

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"vcpeer/crdt"
	"vcpeer/peer/fabric/relay"
)

// apart starts members a and b that cannot dial one another, and r that both can; down lifts the wall.
func apart(t testing.TB, records *book, opts ...option) (a, b, r *Fabric, down func()) {
	t.Helper()
	records.set(Member, idOf("a"), idOf("b"), idOf("r"))
	var open atomic.Bool
	behind := func(other string) option { // who cannot be dialled by the other, nor by anybody else
		id := crdt.NodeIDOf(testKey(other))
		return func(c *Config) {
			c.walled = func(to crdt.NodeID, addr ma.Multiaddr) bool {
				_, relayed := relayOf(addr)
				return to == id && !relayed && !open.Load()
			}
		}
	}
	a, b = start(t, "a", records, append(slices.Clone(opts), behind("b"))...), start(t, "b", records, append(slices.Clone(opts), behind("a"))...)
	r = start(t, "r", records)
	for f, other := range map[*Fabric]*Fabric{a: b, b: a} {
		f.Learn(r.Self(), r.Addrs())
		f.LearnRelays(other.Self(), []crdt.NodeID{r.Self()})
	}
	for _, f := range []*Fabric{a, b} {
		var everybody []Neighbour
		for _, o := range []*Fabric{a, b, r} {
			everybody = append(everybody, Neighbour{ID: o.Self(), Site: crdt.SiteID{o.Self()[0]}, Known: true, Open: o == r})
		}
		f.natted.Store(true)
		f.reacher.mu.Lock()
		f.reacher.neighbours = everybody
		f.reacher.mu.Unlock()
		c, err := f.Open(short(t), r.Self(), reachProtocol) // connects
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	return a, b, r, func() { open.Store(true) }
}

// transports lists how f is connected with a peer.
func transports(f *Fabric, to crdt.NodeID) string {
	var out []string
	for _, l := range f.Links() {
		if l.Peer == to {
			out = append(out, l.Transport)
		}
	}
	return strings.Join(out, " ")
}

// Streams and datagrams go through a relay where there is no other way, both ways, and the relay has no keys.
func TestRelayed(t *testing.T) {
	for name, opts := range map[string][]option{"quic": nil, "tcp": {overTCP}} {
		t.Run(name, func(t *testing.T) {
			a, b, r, _ := apart(t, &book{}, opts...)
			b.Handle(echoProto, echo)
			a.Handle(echoProto, echo)
			text := strings.Repeat("through a relay ", 10_000)
			if got, err := ask(t, a, b.Self(), text); err != nil || got != text {
				t.Fatalf("%d of %d bytes, %v", len(got), len(text), err)
			}
			if got, err := ask(t, b, a.Self(), text); err != nil || got != text {
				t.Fatalf("back: %d of %d bytes, %v", len(got), len(text), err)
			}
			if how := transports(a, b.Self()); how != "relay" {
				t.Errorf("a is connected with b by %q", how)
			}
			if ls := r.RelayStats(); ls.Circuits != 1 || ls.Bytes < uint64(2*len(text)) {
				t.Errorf("the relay carries %+v", ls)
			}
			got := collectCount(b, 7)
			eventually(t, "a datagram", func() bool { a.Send(b.Self(), 7, []byte("x")); return got.Load() > 0 })
			if rtt, ok := a.RTT(b.Self()); !ok || rtt <= 0 {
				eventually(t, "a round trip time", func() bool { rtt, ok = a.RTT(b.Self()); return ok })
			}
			if s := a.Sessions(b.Self()); len(s) != 0 {
				t.Errorf("a session without a direct connection: %+v", s)
			}
			a.Close()
			eventually(t, "the circuit to end", func() bool { return r.RelayStats().Circuits == 0 })
		})
	}
}

// A newcomer behind a NAT, of which only an address is known that does not answer, is reached through a relay without waiting for
// the dial to fail.
func TestNewcomerIsReachedAtOnce(t *testing.T) {
	silent, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	records := &book{}
	records.set(Member, idOf("a"), idOf("b"), idOf("r"))
	a, b, r := start(t, "a", records), start(t, "b", records), start(t, "r", records)
	for _, f := range []*Fabric{a, b} {
		f.Learn(r.Self(), r.Addrs())
		if err := f.Try(short(t), r.Self()); err != nil {
			t.Fatal(err)
		}
	}
	a.Learn(b.Self(), []string{multiaddr(netip.MustParseAddr("127.0.0.1"), "quic", silent.LocalAddr().(*net.UDPAddr).Port).String()})
	began := time.Now()
	if err := a.Try(short(t), b.Self()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 3*time.Second { // QUIC gives up after five
		t.Errorf("after %v", took)
	}
}

func collectCount(f *Fabric, class byte) *atomic.Int64 {
	n := new(atomic.Int64)
	f.Receive(class, func(crdt.NodeID, []byte) { n.Add(1) })
	return n
}

// When the wall falls, the relayed connection gives way to a direct one: new streams use it, old ones go on.
func TestFromRelayToDirect(t *testing.T) {
	a, b, r, down := apart(t, &book{})
	b.Handle(echoProto, echo)
	old, err := a.Open(short(t), b.Self(), echoProto)
	if err != nil {
		t.Fatal(err)
	}
	if how := transports(a, b.Self()); how != "relay" {
		t.Fatalf("a is connected with b by %q", how)
	}
	down()
	first := a
	if idOf("b") != b.Self() || !isLower(a, b) {
		first = b
	}
	l := first.peek(map[*Fabric]crdt.NodeID{a: b.Self(), b: a.Self()}[first])
	eventually(t, "a direct connection", func() bool {
		l.mu.Lock()
		l.punch.next = time.Time{}
		l.mu.Unlock()
		return len(a.Sessions(b.Self())) > 0 && len(b.Sessions(a.Self())) > 0
	})
	if got, err := ask(t, a, b.Self(), "new"); err != nil || got != "new" {
		t.Errorf("%q, %v", got, err)
	}
	_ = old.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := old.Write([]byte("old")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 3)
	if _, err := old.Read(buf); err != nil || string(buf) != "old" {
		t.Errorf("the old stream: %q, %v", buf, err)
	}
	if n := r.RelayStats().Circuits; n != 1 {
		t.Errorf("%d circuits while an old stream uses one", n)
	}
	old.Close()
}

func isLower(a, b *Fabric) bool { x, y := a.Self(), b.Self(); return string(x[:]) < string(y[:]) }

// Who is no member gets nothing from a relay, and who is evicted loses what it had at once.
func TestRelayIsForMembers(t *testing.T) {
	records := &book{}
	a, b, r, _ := apart(t, records)
	b.Handle(echoProto, echo)
	eventually(t, "a place for a", func() bool { a.reacher.poke(); return len(a.Reach().Places) == 1 })
	if _, err := ask(t, a, b.Self(), "hi"); err != nil {
		t.Fatal(err)
	}
	records.set(Evicted, a.Self())
	eventually(t, "its place and circuit to be gone", func() bool { s := r.RelayStats(); return s.Circuits == 0 && s.Places <= 1 })
	eventually(t, "b to have dropped it", func() bool { return transports(b, a.Self()) == "" })
	if _, err := r.Open(short(t), a.Self(), relay.Incoming); !errors.Is(err, ErrEvicted) {
		t.Errorf("to an evicted node: %v", err)
	}
}

// A place is found again when the relay comes back, and another relay is used meanwhile.
func TestPlaces(t *testing.T) {
	a, _, r, _ := apart(t, &book{})
	eventually(t, "a place", func() bool { a.reacher.poke(); return len(a.Reach().Places) == 1 })
	if got := a.Reach().Places[0].Relay; got != r.Self() {
		t.Errorf("a place at %v", got)
	}
	a.Disconnect(r.Self())
	eventually(t, "the loss to be noticed", func() bool { return len(a.Reach().Places) == 0 })
	eventually(t, "another place", func() bool { return len(a.Reach().Places) == 1 })
}
