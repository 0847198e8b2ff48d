package toobig

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"vcpeer/overlay/inet"
)

var (
	srcMAC = []byte{2, 0x76, 0, 0, 0, 1}
	dstMAC = []byte{2, 0x76, 0, 0, 0, 2}
)

func frame4(size int, change func(*ipv4.Header, []byte)) []byte {
	h := &ipv4.Header{Version: 4, Len: 20, TotalLen: size, TTL: 64, Protocol: 17, Flags: ipv4.DontFragment,
		Src: net.IPv4(10, 77, 0, 1), Dst: net.IPv4(10, 77, 0, 2)}
	payload := make([]byte, size-20)
	if change != nil {
		change(h, payload)
	}
	head, err := h.Marshal()
	if err != nil {
		panic(err)
	}
	return append(append(append(bytes.Clone(dstMAC), srcMAC...), 8, 0), append(head, payload...)...)
}

func frame6(size int, next byte, first byte) []byte {
	p := make([]byte, size)
	p[0], p[6], p[7] = 6<<4, next, 64
	binary.BigEndian.PutUint16(p[4:], uint16(size-40))
	p[8], p[23], p[24], p[39] = 0xfd, 1, 0xfd, 2
	p[40] = first
	return append(append(append(bytes.Clone(dstMAC), srcMAC...), 0x86, 0xdd), p...)
}

func TestAnswer4(t *testing.T) {
	out, ok := Answer(frame4(1500, nil), 1400)
	if !ok {
		t.Fatal("no answer")
	}
	if !bytes.Equal(out[:6], srcMAC) || !bytes.Equal(out[6:12], dstMAC) {
		t.Errorf("addresses %x", out[:12])
	}
	h, err := ipv4.ParseHeader(out[14:])
	if err != nil || !h.Src.Equal(net.IPv4(10, 77, 0, 2)) || !h.Dst.Equal(net.IPv4(10, 77, 0, 1)) || h.TotalLen != len(out)-14 {
		t.Fatalf("header %v %v", h, err)
	}
	if inet.Checksum(out[14:34]) != 0 {
		t.Error("wrong checksum of the IP header")
	}
	m, err := icmp.ParseMessage(1, out[34:])
	if err != nil || m.Type != ipv4.ICMPTypeDestinationUnreachable || m.Code != 4 {
		t.Fatalf("message %v %v", m, err)
	}
	if mtu := binary.BigEndian.Uint16(out[34+6:]); mtu != 1400 {
		t.Errorf("mtu %d", mtu)
	}
	if inet.Checksum(append(out[34:], make([]byte, len(out)%2)...)) != 0 {
		t.Error("wrong checksum of the message")
	}
}

func TestAnswer6(t *testing.T) {
	out, ok := Answer(frame6(1500, 17, 0), 1380)
	if !ok {
		t.Fatal("no answer")
	}
	h, err := ipv6.ParseHeader(out[14:])
	if err != nil || h.PayloadLen != len(out)-54 || h.Src[15] != 2 || h.Dst[15] != 1 {
		t.Fatalf("header %v %v", h, err)
	}
	m, err := icmp.ParseMessage(58, out[54:])
	if err != nil || m.Type != ipv6.ICMPTypePacketTooBig || m.Body.(*icmp.PacketTooBig).MTU != 1380 {
		t.Fatalf("message %v %v", m, err)
	}
	if len(out)-14 > 1280 {
		t.Errorf("%d bytes, more than the smallest MTU", len(out)-14)
	}
}

func TestNoAnswer(t *testing.T) {
	broadcast := frame4(1500, nil)
	copy(broadcast, []byte{255, 255, 255, 255, 255, 255})
	for name, f := range map[string][]byte{
		"empty": nil, "short": {1, 2, 3}, "no IP": append(bytes.Clone(dstMAC), append(srcMAC, 8, 6)...), "broadcast": broadcast,
		"later fragment": frame4(1500, func(h *ipv4.Header, _ []byte) { h.FragOff = 100 }),
		"an error":       frame4(1500, func(h *ipv4.Header, b []byte) { h.Protocol = 1; b[0] = 3 }),
		"an error of v6": frame6(1500, 58, 1),
		"header cut":     frame4(1500, nil)[:20],
	} {
		if _, ok := Answer(f, 1400); ok {
			t.Errorf("%s: answered", name)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(frame4(100, nil), 1400)
	f.Add(frame6(100, 17, 0), 1280)
	f.Fuzz(func(t *testing.T, frame []byte, mtu int) {
		if out, ok := Answer(frame, mtu); ok && len(out) > 14+1280 {
			t.Errorf("an answer of %d bytes", len(out))
		}
	})
}
