package wan

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
)

var (
	stationA = mac{2, 0, 0, 0, 0, 1}
	stationB = mac{2, 0, 0, 0, 0, 2}
)

// newTestRouter joins sites a (port 0) and b (port 1), each with a net of each family.
func newTestRouter(t *testing.T) *router {
	t.Helper()
	port := func(site string, station mac, v4, v6 string) *Port {
		n4, n6 := netip.MustParsePrefix(v4), netip.MustParsePrefix(v6)
		return &Port{Site: site, Station: net.HardwareAddr(station[:]), Nets: []netip.Prefix{n4, n6},
			Gateways: []netip.Addr{n4.Addr().Next().Next(), n6.Addr().Next().Next()}}
	}
	r, err := newRouter([]*Port{port("a", stationA, "44.128.0.0/24", "2a0e:97c0::/64"), port("b", stationB, "44.128.1.0/24", "2a0e:97c0:1::/64")})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// packet is a frame from one address to another, through the gateway, with a payload of n bytes.
func packet(from, to string, n int, ttl byte) []byte {
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	if src.Is4() {
		f := make([]byte, etherLen+20+n)
		ether(f, self, typeIPv4)
		copy(f[6:], stationA[:])
		p := f[etherLen:]
		p[0], p[6], p[8], p[9] = 0x45, 0x40, ttl, 17
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
		copy(p[12:], src.AsSlice())
		copy(p[16:], dst.AsSlice())
		binary.BigEndian.PutUint16(p[10:], ^sum(0, p[:20]))
		return f
	}
	f := make([]byte, etherLen+40+n)
	ether(f, self, typeIPv6)
	copy(f[6:], stationA[:])
	ipv6Header(f[etherLen:], n, src.As16(), dst.As16())
	f[etherLen+6], f[etherLen+7] = 17, ttl
	return f
}

func TestForwards(t *testing.T) {
	for _, tt := range []struct {
		name, from, to string
		ttl            byte
		port           int
	}{
		{"to the other site", "44.128.0.1", "44.128.1.9", 64, 1},
		{"to its own", "44.128.0.1", "44.128.0.9", 64, -1},
		{"to nowhere", "44.128.0.1", "8.8.8.8", 64, -1},
		{"IPv6", "2a0e:97c0::1", "2a0e:97c0:1::9", 64, 1},
		{"IPv6 to nowhere", "2a0e:97c0::1", "2001:4860::1", 64, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newTestRouter(t)
			m := r.handle(0, packet(tt.from, tt.to, 100, tt.ttl))
			if m.to != tt.port || m.direct {
				t.Fatalf("got port %d, want %d", m.to, tt.port)
			}
			if m.to < 0 {
				return
			}
			p := m.frame[etherLen:]
			if mac(m.frame[:6]) != stationB || mac(m.frame[6:12]) != self || m.size != len(p) {
				t.Errorf("from %x to %x, %d bytes", m.frame[6:12], m.frame[:6], m.size)
			}
			if ttl := p[map[byte]int{4: 8, 6: 7}[p[0]>>4]]; ttl != tt.ttl-1 {
				t.Errorf("time to live %d", ttl)
			}
			if p[0]>>4 == 4 && sum(0, p[:20]) != 0xffff {
				t.Error("wrong checksum")
			}
		})
	}
}

func TestComplains(t *testing.T) {
	for _, tt := range []struct {
		name, from, to string
		ttl            byte
		mtu            int
		kind           byte
	}{
		{"expired", "44.128.0.1", "44.128.1.9", 1, 0, 11},
		{"expired IPv6", "2a0e:97c0::1", "2a0e:97c0:1::9", 1, 0, 3},
		{"too large", "44.128.0.1", "44.128.1.9", 64, 1300, 3},
		{"too large IPv6", "2a0e:97c0::1", "2a0e:97c0:1::9", 64, 1300, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newTestRouter(t)
			m := r.handle(0, packet(tt.from, tt.to, 1400, tt.ttl))
			if tt.mtu > 0 {
				m = r.answer(0, m.frame[etherLen:], tooLarge, tt.mtu)
			}
			if m.to != 0 || !m.direct || mac(m.frame[:6]) != stationA {
				t.Fatalf("no answer to the sender: %+v", m)
			}
			p := m.frame[etherLen:]
			icmp, valid := p[20:], true
			if p[0]>>4 == 4 {
				valid = sum(0, p[:20]) == 0xffff && sum(0, icmp) == 0xffff && netip.AddrFrom4([4]byte(p[16:20])).String() == tt.from
			} else {
				icmp = p[40:]
				valid = sum(uint32(sum(uint32(len(icmp))+protoICMPv6, p[8:40])), icmp) == 0xffff && netip.AddrFrom16([16]byte(p[24:40])).String() == tt.from
			}
			if !valid || icmp[0] != tt.kind {
				t.Errorf("type %d, valid %v", icmp[0], valid)
			}
			if tt.mtu > 0 && int(binary.BigEndian.Uint16(icmp[6:])) != tt.mtu {
				t.Errorf("MTU %d", binary.BigEndian.Uint16(icmp[6:]))
			}
			if again := r.answer(0, p, expired, 0); again.to >= 0 {
				t.Error("an error about an error")
			}
		})
	}
}

func TestAnswersForEveryNeighbour(t *testing.T) {
	r := newTestRouter(t)
	ask := func(sender, target string) []byte {
		f := make([]byte, etherLen+28)
		ether(f, mac{255, 255, 255, 255, 255, 255}, typeARP)
		copy(f[6:], stationA[:])
		copy(f[etherLen:], []byte{0, 1, 8, 0, 6, 4, 0, 1})
		copy(f[etherLen+14:], netip.MustParseAddr(sender).AsSlice())
		copy(f[etherLen+24:], netip.MustParseAddr(target).AsSlice())
		return f
	}
	m := r.handle(0, ask("44.128.0.1", "44.128.0.254"))
	if m.to != 0 || mac(m.frame[etherLen+8:][:6]) != self || [4]byte(m.frame[etherLen+14:][:4]) != [4]byte{44, 128, 0, 254} {
		t.Errorf("got %+v", m)
	}
	if m := r.handle(0, ask("44.128.0.1", "44.128.0.1")); m.to >= 0 {
		t.Error("a station that tells of itself got an answer")
	}
	solicit := packet("2a0e:97c0::1", "ff02::1:ff00:fe", 32, 255)
	p := solicit[etherLen:]
	target := netip.MustParseAddr("2a0e:97c0::fe").As16()
	p[6], p[40] = protoICMPv6, 135
	copy(p[48:], target[:])
	m = r.handle(0, solicit)
	if m.to != 0 || m.frame[etherLen+40] != 136 || [16]byte(m.frame[etherLen+48:][:16]) != target {
		t.Errorf("got %+v", m)
	}
}

func TestLearnsTheStation(t *testing.T) {
	r := newTestRouter(t)
	f := packet("44.128.1.1", "44.128.0.1", 10, 64)
	other := mac{2, 9, 9, 9, 9, 9}
	copy(f[6:], other[:])
	r.handle(1, f)
	if m := r.handle(0, packet("44.128.0.1", "44.128.1.1", 10, 64)); mac(m.frame[:6]) != other {
		t.Errorf("sent to %x", m.frame[:6])
	}
}

// FuzzHandle: whatever comes from a site, the gateway goes on.
func FuzzHandle(f *testing.F) {
	f.Add(packet("44.128.0.1", "44.128.1.9", 100, 1))
	f.Add(packet("2a0e:97c0::1", "2a0e:97c0:1::9", 100, 1))
	f.Fuzz(func(t *testing.T, frame []byte) {
		r := newTestRouter(t)
		m := r.handle(0, frame)
		if m.to >= 0 && !m.direct {
			if m.size+etherLen != len(m.frame) {
				t.Fatalf("%d bytes of %d", m.size, len(m.frame))
			}
			r.answer(0, m.frame[etherLen:], tooLarge, 1280)
		}
	})
}
