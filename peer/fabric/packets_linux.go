package fabric

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// readBatch is how many messages, each of up to 64 KiB of packets, one system call takes.
const readBatch = 4

// packetSocket is a UDP socket that shows QUIC only what is QUIC's. quic-go reads it through ReadBatch and sends with
// WriteMsgUDP, so that it keeps its own batches, segmentation and congestion marks (ECN).
type packetSocket struct {
	*net.UDPConn
	of    *packetSockets
	local netip.AddrPort
	noGSO atomic.Bool // the system cannot cut batches for this socket

	// Owned by the goroutine that reads.
	batch   *ipv4.PacketConn // of UDPConn; serves IPv6 as well
	in      [readBatch]ipv4.Message
	bufs    [readBatch]*packetBuffer
	waiting []quicPacket // received, and not read by quic-go yet
	read    int          // of waiting
	split   [][]byte
}

// quicPacket is one packet of QUIC's with what the kernel said of it.
type quicPacket struct {
	b, oob []byte
	from   net.Addr
}

func newPacketSocket(of *packetSockets, c *net.UDPConn, local netip.AddrPort) *packetSocket {
	s := &packetSocket{UDPConn: c, of: of, local: local, batch: ipv4.NewPacketConn(c)}
	for i := range s.in {
		s.in[i].OOB = make([]byte, 256)
		s.in[i].Buffers = make([][]byte, 1)
	}
	if raw, err := c.SyscallConn(); err == nil {
		// A kernel that cannot join packets hands them over one by one.
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1) })
	}
	return s
}

// ReadBatch is what quic-go calls for its packets. It returns as soon as there is at least one.
func (s *packetSocket) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	for s.read == len(s.waiting) {
		if err := s.fill(flags); err != nil {
			return 0, err
		}
	}
	n := 0
	for ; n < len(ms) && s.read < len(s.waiting); n++ {
		p := s.waiting[s.read]
		s.read++
		ms[n].N, ms[n].NN = copy(ms[n].Buffers[0], p.b), copy(ms[n].OOB, p.oob)
		ms[n].Addr, ms[n].Flags = p.from, 0
	}
	return n, nil
}

// fill waits for messages and sorts them.
func (s *packetSocket) fill(flags int) error {
	s.waiting, s.read = s.waiting[:0], 0
	for i := range s.in {
		if s.bufs[i] == nil {
			s.bufs[i] = buffers.Get().(*packetBuffer)
		}
		s.in[i].Buffers[0] = s.bufs[i][:]
	}
	n, err := s.batch.ReadBatch(s.in[:], flags)
	if err != nil {
		return err
	}
	for i := range n {
		m := &s.in[i]
		from, ok := m.Addr.(*net.UDPAddr)
		if !ok || m.N == 0 {
			continue
		}
		at := from.AddrPort()
		oob := m.OOB[:m.NN]
		var kept bool
		s.split, kept = s.of.sort(s.split[:0], s.bufs[i], m.N, joined(oob), netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), s.local)
		if kept {
			s.bufs[i] = nil
		}
		for _, b := range s.split {
			s.waiting = append(s.waiting, quicPacket{b, oob, m.Addr})
		}
	}
	return nil
}

// joined finds in control messages how long the packets are that the kernel joined; 0: it is one packet.
func joined(oob []byte) int {
	for len(oob) > 0 {
		h, body, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return 0
		}
		if h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(body) >= 2 {
			if len(body) >= 4 {
				return int(binary.NativeEndian.Uint32(body))
			}
			return int(binary.NativeEndian.Uint16(body))
		}
		oob = rest
	}
	return 0
}

// send sends b in packets of segment bytes in one call, or packet by packet where the system cannot cut them.
func (s *packetSocket) send(b []byte, segment int, to netip.AddrPort) error {
	if len(b) <= segment {
		_, err := s.WriteToUDPAddrPort(b, to)
		return err
	}
	if !s.noGSO.Load() {
		var oob [4]uint64 // aligned, and no less than unix.CmsgSpace(2)
		_, _, err := s.WriteMsgUDPAddrPort(b, segmentMessage((*[32]byte)(unsafe.Pointer(&oob))[:], segment), to)
		if !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.EOPNOTSUPP) {
			return err
		}
		s.noGSO.Store(true) // a device without checksum offload, or an old kernel
	}
	for p := range (&Packets{Segment: segment, Data: b}).All() {
		if _, err := s.WriteToUDPAddrPort(p, to); err != nil {
			return err
		}
	}
	return nil
}

// segmentMessage is the control message that has the kernel cut a batch.
func segmentMessage(oob []byte, segment int) []byte {
	oob = oob[:unix.CmsgSpace(2)]
	h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(oob[unix.CmsgLen(0):], uint16(segment))
	return oob
}
