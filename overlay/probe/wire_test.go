package probe

import (
	"encoding/hex"
	"net/netip"
	"testing"

	"vcpeer/overlay/flow"
	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
)

func TestHeader(t *testing.T) {
	self := Self{Label: 0x101, Slot: 0x0a0b}
	v4, v6 := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")
	via := func(v ...label.Label) []label.Label { return v }
	for _, tt := range []struct {
		name string
		id   ID
		via  []label.Label
		addr netip.Addr
		want string // eth_dst eth_src
	}{
		{"node of the own site", Node(flow.Slot(0x0102)), nil, v4, "027f00000102 027600000a0b"},
		{"gateway, IPv4", Gateway(0x1234), nil, v4, "027a00001234 0276c0000207"},
		{"gateway, IPv6", Gateway(0x1234), nil, v6, "027b00001234 027600001234"},
		{"gateway by its link", Gateway(0x1234), nil, netip.Addr{}, "027600001234 027600001234"},
		{"one transit", Gateway(0x1234), via(0x11), v4, "027700001234 027600000011"},
		{"two", Gateway(0x1234), via(0x11, 0x22), v4, "027800221234 027600000011"},
		{"three", Gateway(0x1234), via(0x11, 0x22, 0x33), v4, "027900331234 027600220011"},
	} {
		w, ok := wayTo(tt.id, tt.via)
		if !ok {
			t.Fatalf("%s: no way", tt.name)
		}
		var b [etherBytes]byte
		header(b[:], w, tt.addr, self)
		if got := hex.EncodeToString(b[:6]) + " " + hex.EncodeToString(b[6:12]); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		if got := hex.EncodeToString(b[12:]); got != "88b5" {
			t.Errorf("%s: type %s", tt.name, got)
		}
	}
}

func TestWaysThatCannotBe(t *testing.T) {
	via := func(v ...label.Label) []label.Label { return v }
	for _, tt := range []struct {
		name string
		id   ID
		via  []label.Label
	}{
		{"over itself", Gateway(5), via(5)},
		{"twice over one", Gateway(5), via(6, 7, 6)},
		{"over four", Gateway(5), via(6, 7, 8, 9)},
		{"over none", Gateway(5), via(0)},
		{"to all", Gateway(label.Broadcast), nil},
		{"to no node", Node(0), nil},
		{"a node over a gateway", Node(5), via(6)},
	} {
		if _, ok := wayTo(tt.id, tt.via); ok {
			t.Errorf("%s: is a way", tt.name)
		}
	}
}

func sampleMessage() message {
	return message{
		kind: request, from: Gateway(1), way: way{id: Gateway(2), n: 2, via: [3]label.Label{3, 4}}, size: 60,
		session: 7, seq: 9, aux: 8, ack: ack{high: 5, bits: 3},
	}
}

func TestMessageThereAndBack(t *testing.T) {
	one := sampleMessage()
	one.oneShot, one.aux, one.ack = true, 0, ack{}
	answer := message{kind: reply, from: Node(1), way: way{id: Node(2)}, size: messageBytes, session: 7, seq: 9, aux: 250, ack: ack{9, 1}}
	over := message{kind: request, from: Gateway(1), way: way{id: Gateway(2), kind: path.Sealed}, size: messageBytes, session: 7}
	for _, m := range []message{sampleMessage(), one, answer, over} {
		b := make([]byte, m.size)
		m.put(b)
		if got, err := parse(append(b, 0, 0)); err != nil || got != m {
			t.Errorf("%+v\nbecame %+v, %v", m, got, err)
		}
		if _, err := parse(b[:m.size-1]); err == nil {
			t.Errorf("%+v: taken without its last byte", m)
		}
	}
}

func TestMessagesRefused(t *testing.T) {
	for _, tt := range []struct {
		name string
		at   int
		v    byte
	}{
		{"version", 0, 2}, {"kind", 1, 3}, {"flags", 2, 8}, {"a sealed link over transits", 2, 4}, {"too many transits", 3, 4}, {"transit not named", 3, 3},
		{"transit not counted", 3, 1}, {"from broadcast", 4, 0x7f}, {"to itself", 7, 1}, {"larger than it is", 8, 9},
		{"smaller than a message", 9, 35}, {"transit is the end", 11, 2}, {"transit is the start", 11, 1},
		{"acks of no session", 27, 0}, {"acks without the highest", 35, 2},
	} {
		m := sampleMessage()
		b := make([]byte, m.size)
		m.put(b)
		b[tt.at] = tt.v
		if got, err := parse(b); err == nil {
			t.Errorf("%s: %+v", tt.name, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	m := sampleMessage()
	b := make([]byte, m.size)
	m.put(b)
	f.Add(b)
	f.Add(b[:messageBytes])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil {
			return
		}
		again := make([]byte, m.size)
		m.put(again)
		if back, err := parse(again); err != nil || back != m {
			t.Errorf("%+v became %+v, %v", m, back, err)
		}
	})
}
