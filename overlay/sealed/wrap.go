package sealed

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"

	"vcpeer/overlay/label"
)

// DefaultNet is the range of addresses by which the bridge of this machine knows sealed links. It is of those that no
// network uses (RFC 1112, class E); packets with these addresses go to the TAP and come from it, and nowhere else.
var DefaultNet = netip.MustParsePrefix("240.118.0.0/16")

// AddrOf is the address of the sealed link to a gateway, and on a gateway of its own TAP.
func AddrOf(net netip.Prefix, l label.Label) netip.Addr {
	a := net.Addr().As4()
	a[2], a[3] = byte(l>>8), byte(l)
	return netip.AddrFrom4(a)
}

// labelOf is the gateway with an address; false: it is nobody's.
func labelOf(net netip.Prefix, a [4]byte) (label.Label, bool) {
	l := label.Label(binary.BigEndian.Uint16(a[2:]))
	return l, net.Addr().As4() == [4]byte{a[0], a[1]} && l.Valid()
}

// The wrapping: Ethernet, IPv4, GRE with a key, as Open vSwitch makes and reads it.
const (
	ipAt      = etherBytes
	greAt     = ipAt + 20
	wrapBytes = greAt + 8
	greKey    = 0x2000 // flags: a key, no checksum, no sequence number
	greEther  = 0x6558 // transparent Ethernet bridging
)

// WrapBytes is what the frames on the TAP have before the frames that they carry; the MTU of the TAP has to allow for it
// without the first Ethernet header.
const WrapBytes = wrapBytes

// unwrap reads a frame from the TAP: it goes to a gateway, and has a frame with a key in it. Anything else is not ok.
func unwrap(net netip.Prefix, b []byte) (to label.Label, key uint32, frame []byte, ok bool) {
	if len(b) < wrapBytes+etherBytes || binary.BigEndian.Uint16(b[12:]) != 0x0800 || b[ipAt] != 0x45 || b[ipAt+9] != 47 ||
		binary.BigEndian.Uint16(b[greAt:]) != greKey || binary.BigEndian.Uint16(b[greAt+2:]) != greEther ||
		binary.BigEndian.Uint16(b[ipAt+6:])&0x3fff != 0 { // a fragment
		return 0, 0, nil, false
	}
	to, ok = labelOf(net, [4]byte(b[ipAt+16:]))
	end := ipAt + int(binary.BigEndian.Uint16(b[ipAt+2:]))
	if !ok || end > len(b) || end < wrapBytes+etherBytes {
		return 0, 0, nil, false
	}
	return to, binary.BigEndian.Uint32(b[greAt+4:]), b[wrapBytes:end], true
}

// wrapping makes the headers for frames that come from one gateway.
type wrapping [wrapBytes]byte

// MACOf is the Ethernet address that stands for the sealed link to a gateway.
func MACOf(l label.Label) [6]byte { return [6]byte{0x02, 0x73, 0, 0, byte(l >> 8), byte(l)} }

func newWrapping(net netip.Prefix, tap net.HardwareAddr, from, self label.Label) (w wrapping) {
	copy(w[:6], tap)
	mac := MACOf(from)
	copy(w[6:], mac[:])
	binary.BigEndian.PutUint16(w[12:], 0x0800)
	ip := w[ipAt:greAt]
	ip[0], ip[6], ip[8], ip[9] = 0x45, 0x40, 64, 47
	src, dst := AddrOf(net, from).As4(), AddrOf(net, self).As4()
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	binary.BigEndian.PutUint16(w[greAt:], greKey)
	binary.BigEndian.PutUint16(w[greAt+2:], greEther)
	return w
}

// fill completes the headers for a frame.
func (w *wrapping) fill(key uint32, frameBytes int) {
	ip := w[ipAt:greAt]
	binary.BigEndian.PutUint16(ip[2:], uint16(20+8+frameBytes))
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], ^fold(sum(ip, 0)))
	binary.BigEndian.PutUint32(w[greAt+4:], key)
}

// arpBytes is the length of a frame with a question or an answer.
const arpBytes = 42

// answerARP answers a question for the address of a gateway (RFC 826), so that the machine finds on the TAP what it looks
// for; false: b is no such question, or for an address that is the asker's or nobody's.
func answerARP(net netip.Prefix, b []byte, out *[arpBytes]byte) bool {
	if len(b) < arpBytes || binary.BigEndian.Uint16(b[12:]) != 0x0806 || !bytes.Equal(b[14:22], []byte{0, 1, 8, 0, 6, 4, 0, 1}) {
		return false
	}
	l, ok := labelOf(net, [4]byte(b[38:]))
	if !ok || bytes.Equal(b[28:32], b[38:42]) {
		return false
	}
	mac := MACOf(l)
	copy(out[:6], b[6:12])
	copy(out[6:], mac[:])
	copy(out[12:], b[12:20])
	out[20], out[21] = 0, 2
	copy(out[22:], mac[:])
	copy(out[28:], b[38:42])
	copy(out[32:], b[22:32])
	return true
}
