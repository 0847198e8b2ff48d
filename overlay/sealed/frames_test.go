package sealed

import (
	"encoding/binary"
	"math/rand/v2"
)

// Frames as a kernel makes them, built and cut the simple way: field by field.

type tcpFrame struct {
	v6, vlan, udp bool
	options       int // bytes of TCP options, a multiple of 4
	id            uint16
	seq           uint32
	flags         byte
	payload       []byte
}

func slowSum(b []byte) uint32 {
	var s uint32
	for i, c := range b {
		if i%2 == 0 {
			s += uint32(c) << 8
		} else {
			s += uint32(c)
		}
		s = s>>16 + s&0xffff
	}
	return s
}

// bytes is the frame with all checksums right; open: that of the transport is left open.
func (f tcpFrame) bytes(open bool) (frame []byte, s shape) {
	b := []byte{2, 0x76, 0, 0, 0, 2, 2, 0x76, 0, 0, 0, 1}
	if f.vlan {
		b = append(b, 0x81, 0, 0, 5)
	}
	transport := 20 + f.options
	proto := byte(6)
	if f.udp {
		transport, proto = 8, 17
	}
	net := len(b) + 2
	var addrs []byte
	if f.v6 {
		b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(transport+len(f.payload)))
		b = append(b, proto, 64)
		for i := range 32 {
			b = append(b, byte(0xfd-i*7))
		}
		addrs = b[len(b)-32:]
	} else {
		b = append(b, 0x08, 0, 0x45, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(20+transport+len(f.payload)))
		b = binary.BigEndian.AppendUint16(b, f.id)
		b = append(b, 0x40, 0, 64, proto, 0, 0, 10, 77, 0, 1, 10, 77, 0, 2)
		binary.BigEndian.PutUint16(b[net+10:], ^uint16(slowSum(b[net:])))
		addrs = b[len(b)-8:]
	}
	pseudo := slowSum(append(append([]byte{}, addrs...), 0, proto, byte((transport+len(f.payload))>>8), byte(transport+len(f.payload))))
	s = shape{udp: f.udp, start: len(b), headers: len(b) + transport}
	if f.udp {
		b = append(b, 0x12, 0x34, 0x56, 0x78)
		b = binary.BigEndian.AppendUint16(b, uint16(8+len(f.payload)))
		b = append(b, 0, 0)
	} else {
		b = append(b, 0x12, 0x34, 0x56, 0x78)
		b = binary.BigEndian.AppendUint32(b, f.seq)
		b = append(b, 1, 2, 3, 4, byte(transport/4)<<4, f.flags, 0xff, 0xff, 0, 0, 0, 0)
		for i := range f.options {
			b = append(b, byte(i+1))
		}
	}
	b = append(b, f.payload...)
	at := s.start + s.checkAt()
	if open {
		binary.BigEndian.PutUint16(b[at:], uint16(pseudo))
		return b, s
	}
	c := ^uint16(slowSum(b[s.start:]) + pseudo)
	if total := slowSum(b[s.start:]) + pseudo; true {
		c = ^uint16(total>>16 + total&0xffff)
	}
	if c == 0 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(b[at:], c)
	return b, s
}

// cut is the packet in segments, each whole, as a network interface would send them.
func (f tcpFrame) cut(size int) (out [][]byte) {
	for i := 0; i*size < len(f.payload); i++ {
		g := f
		from, to := i*size, min((i+1)*size, len(f.payload))
		g.payload, g.seq, g.id = f.payload[from:to], f.seq+uint32(from), f.id+uint16(i)
		if to < len(f.payload) {
			g.flags &^= flagFIN | flagPSH
		}
		if i > 0 {
			g.flags &^= flagCWR
		}
		b, _ := g.bytes(false)
		out = append(out, b)
	}
	return out
}

// read takes a frame apart again.
func read(frame []byte, s shape) (f tcpFrame) {
	net := etherBytes
	if frame[12] == 0x81 {
		f.vlan, net = true, net+4
	}
	f.v6, f.udp = frame[net]>>4 == 6, s.udp
	if !f.v6 {
		f.id = binary.BigEndian.Uint16(frame[net+4:])
	}
	if !s.udp {
		f.seq, f.flags, f.options = binary.BigEndian.Uint32(frame[s.start+4:]), frame[s.start+13], s.headers-s.start-20
	}
	f.payload = frame[s.headers:]
	return f
}

func randomFrame(r *rand.Rand, bytes int) tcpFrame {
	f := tcpFrame{v6: r.IntN(2) == 0, vlan: r.IntN(8) == 0, udp: r.IntN(3) == 0, id: uint16(r.Uint32()), seq: r.Uint32(), flags: byte(r.Uint32())}
	if !f.udp {
		f.options = r.IntN(11) * 4
	}
	f.payload = make([]byte, bytes)
	for i := range f.payload {
		f.payload[i] = byte(r.Uint32())
	}
	return f
}

func kindOf(f tcpFrame) byte {
	switch {
	case f.udp:
		return virtioUDP
	case f.v6:
		return virtioTCP6
	}
	return virtioTCP4
}
