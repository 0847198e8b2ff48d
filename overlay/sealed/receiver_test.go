package sealed

import (
	"net/netip"
	"testing"

	"vcpeer/crdt"
)

// TestSameID: two keys with the same id in their headers are told apart, before and after one of them is gone.
func TestSameID(t *testing.T) {
	tap := newFakeTAP(true)
	l, err := New(Config{Self: crdt.NodeID{1}, Device: tap, Plain: true, Send: func(_, _ netip.AddrPort, _ []byte, _ int) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	const id = 77
	var peers []*peer
	var seal []*outgoing
	for n := byte(2); n < 5; n++ {
		p := &peer{id: crdt.NodeID{n}}
		p.queue.owner = p
		s := sessionOf(n, netip.AddrPort{})
		p.update(l.cfg.Self, Peer{ID: p.id, Sessions: []Session{s}}, l.start)
		(*p.sessions.Load())[0].in.keys[1].id = id
		c := newChain(s.Secret, p.id, l.cfg.Self)
		o := &outgoing{key: c.next()}
		o.key.id = id
		peers, seal = append(peers, p), append(seal, o)
	}
	r := newReceiver(l)
	send := func(n int) (arrived bool) {
		frame, _ := tcpFrame{payload: make([]byte, 10)}.bytes(false)
		d := make([]byte, Overhead+len(frame))
		copy(d[headerBytes+metaBytes:], frame)
		seal[n].seal(typeData, d)
		r.take(Packets{Data: d, Segment: len(d)})
		r.letGo()
		return len(tap.taken()) == 1
	}
	l.roster.Store(&roster{all: peers})
	r.meet()
	for _, n := range []int{0, 1, 2, 2, 0, 1} {
		if !send(n) {
			t.Errorf("what %d sent did not arrive", n)
		}
	}
	for _, gone := range []int{1, 0} {
		var left []*peer
		for n, p := range peers {
			if n != gone && (gone == 1 || n == 2) {
				left = append(left, p)
			}
		}
		l.roster.Store(&roster{all: left})
		r.meet()
		for n := range peers {
			if want := n == 2 || n == 0 && gone == 1; send(n) != want {
				t.Errorf("without %d: what %d sent arrived: %v, want %v", gone, n, !want, want)
			}
		}
	}
}
