package sealed

import (
	"encoding/binary"
	"errors"
)

// shape is how the headers of a large packet and of its segments lie: Ethernet, IP, TCP or UDP.
type shape struct {
	udp     bool
	start   int // of the transport header
	headers int // bytes of all headers
}

// layout is a shape that was found to be true.
type layout struct {
	shape
	net int // where the IP header begins
	v6  bool
}

var errShape = errors.New("sealed: the headers are not what they are said to be")

// Offsets in headers.
const (
	tcpSeq, tcpOffset, tcpFlags, tcpCheck = 4, 12, 13, 16
	udpLength, udpCheck                   = 4, 6
	flagFIN, flagPSH, flagCWR             = 0x01, 0x08, 0x80
)

// check reports whether a frame has the headers that s says.
func (s shape) check(frame []byte) (layout, error) {
	l := layout{shape: s, net: etherBytes}
	if len(frame) < s.headers || s.headers < s.start+8 || s.start < etherBytes+20 {
		return l, errShape
	}
	kind := binary.BigEndian.Uint16(frame[12:])
	if kind == 0x8100 || kind == 0x88a8 {
		kind, l.net = binary.BigEndian.Uint16(frame[16:]), l.net+4
	}
	switch kind {
	case 0x0800:
		if s.start < l.net+20 || frame[l.net]>>4 != 4 || int(frame[l.net]&15)*4 != s.start-l.net {
			return l, errShape
		}
	case 0x86dd:
		l.v6 = true
		if s.start < l.net+40 || frame[l.net]>>4 != 6 {
			return l, errShape
		}
	default:
		return l, errShape
	}
	want := s.start + 8
	if !s.udp {
		if s.headers < s.start+20 {
			return l, errShape
		}
		want = s.start + int(frame[s.start+tcpOffset]>>4)*4
	}
	if s.headers != want {
		return l, errShape
	}
	return l, nil
}

// checkAt is where the checksum of the transport is, from start.
func (s shape) checkAt() int {
	if s.udp {
		return udpCheck
	}
	return tcpCheck
}

// pseudo is the sum of the pseudo header without the length.
func (l layout) pseudo(frame []byte) uint64 {
	proto := uint64(6)
	if l.udp {
		proto = 17
	}
	if l.v6 {
		return sum(frame[l.net+8:l.net+40], proto)
	}
	return sum(frame[l.net+12:l.net+20], proto)
}

// resize makes the headers say that payload bytes follow them, with the checksum of the transport left open.
func (l layout) resize(frame []byte, payload int, pseudo uint64) {
	ip, transport := frame[l.net:], l.headers-l.start+payload
	if l.v6 {
		binary.BigEndian.PutUint16(ip[4:], uint16(l.headers-l.net-40+payload))
	} else {
		binary.BigEndian.PutUint16(ip[2:], uint16(l.headers-l.net+payload))
		binary.BigEndian.PutUint16(ip[10:], 0)
		binary.BigEndian.PutUint16(ip[10:], ^fold(sum(ip[:l.start-l.net], 0)))
	}
	if l.udp {
		binary.BigEndian.PutUint16(frame[l.start+udpLength:], uint16(transport))
	}
	binary.BigEndian.PutUint16(frame[l.start+l.checkAt():], fold(pseudo+uint64(transport)))
}

// large is a packet that is to travel in segments.
type large struct {
	layout
	frame  []byte
	size   int // payload of each segment but the last
	pseudo uint64
	next   int // the segment that comes next
	count  int
}

// maxSegmentsOfOne is how many segments a packet may have: a TCP that sends single bytes would otherwise fill the link.
const maxSegmentsOfOne = 1024

// split prepares a packet to be cut in segments with payloads of size bytes.
func split(frame []byte, s shape, size int) (large, error) {
	l, err := s.check(frame)
	if err != nil {
		return large{}, err
	}
	payload := len(frame) - l.headers
	if size <= 0 || payload <= 0 || (payload-1)/size >= maxSegmentsOfOne || len(frame)-l.net > 0xffff {
		return large{}, errShape
	}
	return large{layout: l, frame: frame, size: size, pseudo: l.pseudo(frame), count: (payload-1)/size + 1}, nil
}

// skip leaves the first segment out.
func (p *large) skip(yes bool) {
	if yes {
		p.next = 1
	}
}

// done reports that there is no further segment.
func (p *large) done() bool { return p.next == p.count }

// bytes is the length of the next segment's frame.
func (p *large) bytes() int { return min(p.headers+p.size, len(p.frame)-p.next*p.size) }

// put writes the next segment to dst, which has room for bytes.
func (p *large) put(dst []byte) {
	i := p.next
	p.next++
	from := p.headers + i*p.size
	to := min(from+p.size, len(p.frame))
	copy(dst, p.frame[:p.headers])
	copy(dst[p.headers:], p.frame[from:to])
	if !p.v6 {
		at := dst[p.net+4:]
		binary.BigEndian.PutUint16(at, binary.BigEndian.Uint16(at)+uint16(i))
	}
	if !p.udp {
		tcp := dst[p.start:]
		binary.BigEndian.PutUint32(tcp[tcpSeq:], binary.BigEndian.Uint32(tcp[tcpSeq:])+uint32(i*p.size))
		if !p.done() {
			tcp[tcpFlags] &^= flagFIN | flagPSH
		}
		if i > 0 {
			tcp[tcpFlags] &^= flagCWR
		}
	}
	p.resize(dst, to-from, p.pseudo)
}
