package inet

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

func TestChecksum(t *testing.T) {
	for _, tt := range []struct {
		bytes string
		want  uint16
	}{
		{"", 0xffff},
		{"0001f203f4f5f6f7", ^uint16(0xddf2)},                     // the example of RFC 1071
		{"45000073000040004011b861c0a80001c0a800c7", 0},           // a header that has it
		{"45000073000040004011" + "0000c0a80001c0a800c7", 0xb861}, // and without
		{"01", ^uint16(0x0100)},
	} {
		b, err := hex.DecodeString(tt.bytes)
		if err != nil {
			t.Fatal(err)
		}
		if got := Checksum(b); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.bytes, got, tt.want)
		}
	}
}

func TestHeaders(t *testing.T) {
	to, from, body := []byte{2, 0, 0, 0, 0, 1}, []byte{2, 0, 0, 0, 0, 2}, []byte("body")
	out := AppendIPv4(Ether(to, from, EtherIPv4), 17, netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.2"), body)
	h4, err := ipv4.ParseHeader(out[EtherLen:])
	if err != nil || h4.String() != "ver=4 hdrlen=20 tos=0x0 totallen=24 id=0x0 flags=0x0 fragoff=0x0 ttl=64 proto=17 cksum=0x6639 src=10.77.0.1 dst=10.77.0.2" {
		t.Errorf("%v, %v", h4, err)
	}
	if Checksum(out[EtherLen:][:IPv4Len]) != 0 || !bytes.HasSuffix(out, body) || !bytes.Equal(out[:14], []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0}) {
		t.Errorf("%x", out)
	}
	out = AppendIPv6(Ether(to, from, EtherIPv6), 58, 255, netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), body)
	h6, err := ipv6.ParseHeader(out[EtherLen:])
	if err != nil || h6.String() != "ver=6 tclass=0x0 flowlbl=0x0 payloadlen=4 nxthdr=58 hoplim=255 src=fd00::1 dst=fd00::2" || !bytes.HasSuffix(out, body) {
		t.Errorf("%v, %v: %x", h6, err, out)
	}
}
