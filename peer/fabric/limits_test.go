package fabric

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"vcpeer/crdt"
)

// One address has so many connections that have proven no key, by TCP and by UDP each, and cannot take the places of others.
func TestUnprovenPerAddress(t *testing.T) {
	p := newPending()
	tcp := func(ip string, port int) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: port} }
	udp := func(ip string, port int) net.Addr { return &net.UDPAddr{IP: net.ParseIP(ip), Port: port} }
	fill := func(addr func(string, int) net.Addr, ips ...string) (n int) {
		for i := range 2 * maxPendingPerIP {
			if p.enter(addr(ips[i%len(ips)], i)) != nil {
				n++
			}
		}
		return n
	}
	if n := fill(tcp, "192.0.2.1"); n != maxPendingPerIP {
		t.Errorf("one address has %d by TCP, want %d", n, maxPendingPerIP)
	}
	if p.busy() {
		t.Error("TCP alone has every QUIC client show its address")
	}
	if n := fill(udp, "192.0.2.1"); n != maxPendingPerIP {
		t.Errorf("one address has %d by UDP, want %d", n, maxPendingPerIP)
	}
	if !p.busy() {
		t.Error("with many open, a QUIC client need not show that its address is its own")
	}
	if n := fill(tcp, "2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::1"); n != maxPendingPerIP {
		t.Errorf("the addresses of one /64 have %d, want %d", n, maxPendingPerIP)
	}
	for i := 0; p.total < maxPendingConns && i < 2*maxPendingConns; i++ {
		p.enter(tcp(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}).String(), 1))
	}
	if p.total != maxPendingConns || p.enter(tcp("203.0.113.1", 1)) != nil {
		t.Errorf("%d in all, want %d and no more", p.total, maxPendingConns)
	}
}

// One address opens so many connections a second.
func TestNewConnectionsPerAddress(t *testing.T) {
	l := newRateLimiter()
	count := func(ip string) (n int) {
		for range 2 * newConnsPerIPBurst {
			if l.Allow(netip.MustParseAddr(ip)) {
				n++
			}
		}
		return n
	}
	for _, ip := range []string{"192.0.2.1", "192.0.2.2", "2001:db8::1"} {
		began := time.Now()
		n := count(ip)
		if most := newConnsPerIPBurst + int(newConnsPerIPRate*time.Since(began).Seconds()) + 1; n < newConnsPerIPBurst || n > most {
			t.Errorf("%s: %d connections at once, want %d", ip, n, newConnsPerIPBurst)
		}
	}
	if n := count("2001:db8::2"); n > newConnsPerIPBurst/2 {
		t.Errorf("another address of the same /64: %d", n)
	}
}

// A packet with a nonce that nobody gave is not answered; with one that was given the answer is as long as the question, and
// goes to few addresses. Whoever forges senders gets nothing multiplied.
func TestNothingIsAmplified(t *testing.T) {
	f := start(t, "a", &book{})
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(f.Port()))
	known, unknown := nonce{1}, nonce{2}
	q, _ := f.reacher.ask.enter(idOf("b"), known)
	answers := func(b []byte) (sizes []int) {
		for range 3 {
			if _, err := c.WriteToUDPAddrPort(b, to); err != nil {
				t.Fatal(err)
			}
		}
		buf := make([]byte, 2000)
		for {
			_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			n, err := c.Read(buf)
			if err != nil {
				return sizes
			}
			sizes = append(sizes, n)
		}
	}
	for _, b := range [][]byte{askPacket(unknown), backPacket(unknown), mappedPacket(known), reachPacket(kindSeen, unknown, to), {firstFabric}, {firstFabric, kindAsk}} {
		if got := answers(b); len(got) > 0 {
			t.Errorf("%x is answered: %d", b, got)
		}
	}
	got := answers(askPacket(known))
	if len(got) == 0 || len(got) > 3 {
		t.Errorf("three questions have %d answers", len(got))
	}
	for _, n := range got {
		if n > len(askPacket(known)) {
			t.Errorf("an answer of %d bytes to a question of %d", n, len(askPacket(known)))
		}
	}
	for i := range 100 {
		f.reacher.ask.onPacket(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 1), to, askPacket(known))
	}
	if len(q.more) > maxSeenPerNonce {
		t.Errorf("%d addresses would be dialled for one question", len(q.more))
	}
}

// A member is dialled back from time to time, however often it asks, and there are so many questions at once.
func TestDialledBackSeldom(t *testing.T) {
	o := start(t, "a", &book{}).reacher.ask
	if _, dial := o.enter(idOf("b"), nonce{1}); !dial {
		t.Error("the first question is not dialled back")
	}
	if _, dial := o.enter(idOf("b"), nonce{2}); dial {
		t.Error("the next is at once")
	}
	if q, _ := o.enter(idOf("c"), nonce{2}); q != nil {
		t.Error("one nonce, two questions")
	}
	for i := range 2 * maxObserving {
		o.enter(crdt.NodeID{byte(i), 9}, nonce{9, byte(i)})
	}
	if len(o.others) != maxObserving {
		t.Errorf("%d questions at once, want %d", len(o.others), maxObserving)
	}
}

// FuzzDatagram: whatever a member sends as a datagram is borne.
func FuzzDatagram(f *testing.F) {
	records := &book{}
	records.set(Member, idOf("b"))
	a := start(f, "a", records)
	a.Receive(7, func(crdt.NodeID, []byte) {})
	f.Add(controlMessage(controlPing, 1))
	f.Add(controlMessage(controlPong, 1))
	f.Add(controlMessage(controlNothing, 0))
	f.Add([]byte{7})
	f.Fuzz(func(t *testing.T, b []byte) {
		a.dispatch(idOf("b"), b)
		if n := len(a.peers()); n > 1 {
			t.Errorf("%d peers", n)
		}
	})
}
