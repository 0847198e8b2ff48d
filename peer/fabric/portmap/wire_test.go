package portmap

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"
)

func TestPCPRequest(t *testing.T) {
	r := request{udp: true, port: 7475, want: netip.MustParseAddrPort("198.51.100.9:7000"), life: 600 * time.Second}
	got := pcpRequest(r, Nonce{1, 2, 3}, netip.MustParseAddr("192.168.1.5"))
	want := []byte{2, 1, 0, 0, 0, 0, 2, 0x58, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 168, 1, 5,
		1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0x1d, 0x33, 0x1b, 0x58, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 9}
	if !bytes.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// pcpAnswer is what a router says to a request.
func pcpAnswer(ask []byte, result byte, at string, life byte) []byte {
	b := bytes.Clone(ask)
	b[1] |= answerBit
	b[3] = result
	clear(b[4:24])
	b[7] = life
	if to, err := netip.ParseAddrPort(at); err == nil {
		b[42], b[43] = byte(to.Port()>>8), byte(to.Port())
		copy(b[44:], mapped16(to.Addr()))
	}
	return b
}

func TestReadPCP(t *testing.T) {
	r := request{port: 7475, life: time.Minute}
	n := Nonce{9}
	ask := pcpRequest(r, n, netip.MustParseAddr("192.168.1.5"))
	other := pcpRequest(r, Nonce{8}, netip.MustParseAddr("192.168.1.5"))
	for _, tt := range []struct {
		name string
		b    []byte
		want string
		err  error
	}{
		{"granted", pcpAnswer(ask, 0, "44.1.2.3:80", 50), "44.1.2.3:80", nil},
		{"of another", pcpAnswer(other, 0, "44.1.2.3:80", 50), "", errOtherAnswer},
		{"the question itself", ask, "", errOtherAnswer},
		{"no address", pcpAnswer(ask, 0, "0.0.0.0:80", 50), "", errMalformed},
		{"no port", pcpAnswer(ask, 0, "44.1.2.3:0", 50), "", errMalformed},
		{"no time", pcpAnswer(ask, 0, "44.1.2.3:80", 0), "", errMalformed},
		{"too short", pcpAnswer(ask, 0, "44.1.2.3:80", 50)[:59], "", errMalformed},
		{"other version", pcpAnswer(ask, 1, "", 0)[:24], "", errVersion},
		{"NAT-PMP only", []byte{0, 129, 0, 1, 0, 0, 0, 1}, "", errVersion},
		{"nothing", nil, "", errMalformed},
	} {
		g, err := readPCP(tt.b, r, n)
		if !errors.Is(err, tt.err) || err == nil && g.at.String() != tt.want {
			t.Errorf("%s: %v %v, want %s %v", tt.name, g, err, tt.want, tt.err)
		}
	}
	_, err := readPCP(pcpAnswer(ask, 12, "", 0), r, n)
	if no, ok := errors.AsType[*Refusal](err); !ok || no.Code != 12 {
		t.Errorf("a refusal: %v", err)
	}
}

func TestReadPMP(t *testing.T) {
	r := request{udp: true, port: 0x1d33, life: time.Minute}
	outside := netip.MustParseAddr("44.1.2.3")
	for _, tt := range []struct {
		name string
		b    []byte
		want string
		err  error
	}{
		{"granted", []byte{0, 129, 0, 0, 0, 0, 0, 9, 0x1d, 0x33, 0, 80, 0, 0, 0, 60}, "44.1.2.3:80", nil},
		{"of TCP", []byte{0, 130, 0, 0, 0, 0, 0, 9, 0x1d, 0x33, 0, 80, 0, 0, 0, 60}, "", errOtherAnswer},
		{"of another port", []byte{0, 129, 0, 0, 0, 0, 0, 9, 0x1d, 0x34, 0, 80, 0, 0, 0, 60}, "", errOtherAnswer},
		{"too short", []byte{0, 129, 0, 0, 0, 0, 0, 9, 0x1d, 0x33, 0, 80, 0, 0, 0}, "", errMalformed},
	} {
		g, err := readPMP(tt.b, r, outside)
		if !errors.Is(err, tt.err) || err == nil && g.at.String() != tt.want {
			t.Errorf("%s: %v %v, want %s %v", tt.name, g, err, tt.want, tt.err)
		}
	}
	if a, err := readPMPAddress([]byte{0, 128, 0, 0, 0, 0, 0, 9, 44, 1, 2, 3}); err != nil || a != outside {
		t.Errorf("address: %v %v", a, err)
	}
	_, err := readPMP([]byte{0, 129, 0, 2, 0, 0, 0, 0}, r, outside)
	if no, ok := errors.AsType[*Refusal](err); !ok || no.Code != 2 {
		t.Errorf("a refusal: %v", err)
	}
}

// FuzzAnswers: whatever a router says is an error or a mapping that makes sense.
func FuzzAnswers(f *testing.F) {
	r := request{udp: true, port: 7475, life: time.Minute}
	n := Nonce{7}
	f.Add(pcpAnswer(pcpRequest(r, n, netip.MustParseAddr("10.0.0.1")), 0, "44.1.2.3:80", 50))
	f.Add([]byte{0, 129, 0, 0, 0, 0, 0, 9, 0x1d, 0x33, 0, 80, 0, 0, 0, 60})
	f.Add([]byte{0, 128, 0, 0, 0, 0, 0, 9, 44, 1, 2, 3})
	f.Add([]byte("HTTP/1.1 200 OK\r\nLOCATION: http://10.0.0.1:5000/root.xml\r\n\r\n"))
	gateway := netip.MustParseAddr("10.0.0.1")
	f.Fuzz(func(t *testing.T, b []byte) {
		sane := func(g grant, err error) {
			if err == nil && (!g.at.IsValid() || g.at.Addr().IsUnspecified() || g.at.Port() == 0 || g.life <= 0) {
				t.Errorf("%v from %x", g, b)
			}
		}
		sane(readPCP(b, r, n))
		sane(readPMP(b, r, gateway))
		_, _ = readPMPAddress(b)
		if u, ok := location(b, gateway); ok && u.Hostname() != gateway.String() {
			t.Errorf("sent to %s", u)
		}
	})
}
