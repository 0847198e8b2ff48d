package sealed

import "encoding/binary"

// virtio is the header before each frame of a TAP with IFF_VNET_HDR (struct virtio_net_hdr): what the kernel left for
// hardware to do, and what it may find done.
type virtio struct {
	flags   byte
	kind    byte   // of large packet
	headers uint16 // bytes of all headers, as a hint
	size    uint16 // payload of each segment
	start   uint16 // the checksum covers all from here on
	check   uint16 // where it is, from start
}

const (
	virtioBytes = 10
	virtioOpen  = 1 // flags: the checksum is open

	virtioNone = 0
	virtioTCP4 = 1
	virtioTCP6 = 4
	virtioUDP  = 5
	virtioECN  = 0x80 // beside kind
)

func (v virtio) put(b []byte) {
	b[0], b[1] = v.flags, v.kind
	binary.NativeEndian.PutUint16(b[2:], v.headers)
	binary.NativeEndian.PutUint16(b[4:], v.size)
	binary.NativeEndian.PutUint16(b[6:], v.start)
	binary.NativeEndian.PutUint16(b[8:], v.check)
}

func parseVirtio(b []byte) virtio {
	return virtio{b[0], b[1], binary.NativeEndian.Uint16(b[2:]), binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]),
		binary.NativeEndian.Uint16(b[8:])}
}

// large reports whether the frame is a large packet, and its shape.
func (v virtio) large(frame []byte) (shape, bool) {
	s := shape{start: int(v.start)}
	switch v.kind &^ virtioECN {
	case virtioTCP4, virtioTCP6:
		if len(frame) < s.start+20 {
			return s, true // and split refuses it
		}
		s.headers = s.start + int(frame[s.start+tcpOffset]>>4)*4
	case virtioUDP:
		s.udp, s.headers = true, s.start+8
	default:
		return s, v.kind != virtioNone
	}
	return s, true
}
