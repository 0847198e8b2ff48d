package sealed

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"

	"vcpeer/crdt"
	"vcpeer/overlay/label"
)

// FuzzReceive hands a receiver whatever may come from the network, and, sealed with the right key, whatever a peer gone
// wrong may send. Nothing but whole frames may reach the TAP.
func FuzzReceive(f *testing.F) {
	frame, s := tcpFrame{payload: make([]byte, 100)}.bytes(true)
	m := make([]byte, metaBytes)
	meta{7, howSegment | howOpen, byte(s.start), byte(s.headers)}.put(m)
	f.Add(append(m, frame...), uint64(0), true, 1)
	f.Add(append(m, frame...), uint64(9), false, 50)
	f.Add([]byte{controlVersion, 1, 0, 0, 0, 9}, uint64(3), true, 10)
	tap := newFakeTAP(true)
	l, err := New(Config{Self: crdt.NodeID{1}, Device: tap, Plain: true, Send: func(_, _ netip.AddrPort, _ []byte, _ int) error { return nil }})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte, counter uint64, sealed bool, segment int) {
		for _, offloads := range []bool{true, false} {
			tap.offloads = offloads
			p := &peer{id: crdt.NodeID{2}}
			p.queue.owner = p
			p.update(l.cfg.Self, Peer{ID: p.id, Label: 9, Sessions: []Session{sessionOf(1, netip.AddrPort{})}}, l.start)
			l.roster.Store(&roster{self: 8, all: []*peer{p}})
			r := newReceiver(l)
			r.meet()
			data := bytes.Clone(b)
			if sealed {
				out := newChain(sessionOf(1, netip.AddrPort{}).Secret, p.id, l.cfg.Self)
				o := outgoing{key: out.next(), counter: counter}
				kind := byte(typeData)
				if len(b) == controlBytes {
					kind = typeControl
				}
				data = nil
				for range 2 {
					d := make([]byte, headerBytes+len(b)+tagBytes)
					copy(d[headerBytes:], b)
					o.seal(kind, d)
					data = append(data, d...)
				}
				segment = len(data) / 2
			}
			r.take(Packets{Segment: max(segment, 1), Data: data})
			r.letGo()
			for _, w := range tap.taken() {
				v, frame := parseVirtio(w), w[virtioBytes:]
				if len(frame) < etherBytes || v.kind != 0 && !offloads || v.flags != 0 && (int(v.start)+int(v.check)+2 > len(frame)) {
					t.Errorf("wrote %+v with a frame of %d", v, len(frame))
				}
				if !sealed {
					t.Error("wrote what nobody had sealed")
				}
			}
		}
	})
}

// FuzzTAP hands the reader's parsers whatever a kernel or a bridge may write, and sends it on.
func FuzzTAP(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 6 {
		frame, s := randomFrame(r, 3000).bytes(true)
		b := make([]byte, virtioBytes)
		virtio{virtioOpen, virtioTCP4, 0, 500, uint16(s.start), uint16(s.checkAt())}.put(b)
		f.Add(append(b, frame...), true)
	}
	w := newWrapping(DefaultNet, []byte{2, 9, 9, 9, 9, 9}, 8, 9)
	w.fill(7, 100)
	f.Add(append(append(make([]byte, virtioBytes), w[:]...), make([]byte, 100)...), false)
	sent, wrong := 0, 0
	l, err := New(Config{Self: crdt.NodeID{1}, Device: newFakeTAP(true), Send: func(_, _ netip.AddrPort, b []byte, segment int) error {
		sent += (len(b)-1)/segment + 1
		for ; len(b) > 0; b = b[min(segment, len(b)):] {
			if _, err := parseHeader(b[:min(segment, len(b))]); err != nil {
				wrong++
			}
		}
		return nil
	}})
	if err != nil {
		f.Fatal(err)
	}
	s, scratch := newSender(l), l.pool.get(largestFrame)
	f.Fuzz(func(t *testing.T, b []byte, plain bool) {
		if len(b) <= virtioBytes || len(b) > largestFrame {
			return
		}
		l.cfg.Plain, sent = plain, 0
		p := &peer{id: crdt.NodeID{2}}
		p.queue.owner = p
		p.update(l.cfg.Self, Peer{ID: p.id, Label: 9, Sessions: []Session{sessionOf(1, netip.AddrPort{})}}, l.start)
		l.roster.Store(&roster{self: 8, all: []*peer{p}, byLabel: map[label.Label]*peer{9: p}})
		*scratch = packet{memory: scratch.memory}
		to, packet := l.classify(scratch, copy(scratch.memory, b))
		if to == nil {
			var answer [arpBytes]byte
			answerARP(l.cfg.Net, b[virtioBytes:], &answer)
			return
		}
		s.carry(to, append(s.batch[:0], packet), l.start)
		if got := p.sent.packets.Load(); got != uint64(sent) || wrong > 0 {
			t.Errorf("%d datagrams, %d wrong ones, and %d counted", sent, wrong, got)
		}
		if out, n := packet.appendTo(nil); n > 0 && int(binary.BigEndian.Uint16(out))+lengthBytes > len(out) {
			t.Error("a length is wrong")
		}
	})
}

// FuzzStream hands the reader of a stream whatever a peer gone wrong may send.
func FuzzStream(f *testing.F) {
	frame, s := tcpFrame{payload: make([]byte, 100)}.bytes(true)
	b := make([]byte, lengthBytes+metaBytes)
	binary.BigEndian.PutUint16(b, uint16(metaBytes+len(frame)))
	meta{7, howOpen, byte(s.start), byte(s.checkAt())}.put(b[lengthBytes:])
	f.Add(append(b, frame...))
	tap := newFakeTAP(true)
	l, err := New(Config{Self: crdt.NodeID{1}, Device: tap, Plain: true, Send: func(_, _ netip.AddrPort, _ []byte, _ int) error { return nil }})
	if err != nil {
		f.Fatal(err)
	}
	p := &peer{id: crdt.NodeID{2}}
	l.roster.Store(&roster{self: 8, all: []*peer{p}, byLabel: map[label.Label]*peer{0: p}})
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := l.readStream(p, &streamLink{rwc: readOnly{bytes.NewReader(b)}}); err == nil {
			t.Error("a stream had no end")
		}
		total := 0
		for _, w := range tap.taken() {
			total += len(w) - virtioBytes
		}
		if total > len(b) {
			t.Errorf("%d bytes of frames out of %d", total, len(b))
		}
	})
}

type readOnly struct{ io.Reader }

func (readOnly) Write(b []byte) (int, error) { return len(b), nil }
func (readOnly) Close() error                { return nil }

// TestHotPathAllocates nothing, to seal and to open.
func TestHotPathAllocates(t *testing.T) {
	frame, s := tcpFrame{payload: make([]byte, 40000)}.bytes(true)
	var received []byte
	segment := 0
	l, err := New(Config{Self: crdt.NodeID{1}, Device: discard{newFakeTAP(true)}, Plain: true, Send: func(_, _ netip.AddrPort, b []byte, n int) error {
		received, segment = append(received[:0], b...), n
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	other, err := New(l.cfg)
	if err != nil {
		t.Fatal(err)
	}
	other.cfg.Self = crdt.NodeID{2}
	meet := func(l *Link, id crdt.NodeID) *peer {
		p := &peer{id: id}
		p.queue.owner = p
		p.update(l.cfg.Self, Peer{ID: p.id, Label: 9, Sessions: []Session{sessionOf(1, netip.AddrPort{})}}, l.start)
		l.roster.Store(&roster{self: 8, all: []*peer{p}})
		return p
	}
	p := meet(l, crdt.NodeID{2})
	meet(other, crdt.NodeID{1})
	snd, rcv := newSender(l), newReceiver(other)
	rcv.meet()
	batch := []*packet{{large: true, size: 1240, shape: s, frame: frame}}
	if n := testing.AllocsPerRun(100, func() {
		snd.carry(p, batch, l.start)
		rcv.take(Packets{Segment: segment, Data: received})
	}); n > 0 {
		t.Errorf("%v allocations for a large packet", n)
	}
	if got := other.Stats().Peers[0]; got.Received != l.Stats().Peers[0].Sent || got.Drops != (Drops{}) {
		t.Errorf("%+v", got)
	}
}

type discard struct{ *fakeTAP }

func (discard) Write(...[]byte) error { return nil }
