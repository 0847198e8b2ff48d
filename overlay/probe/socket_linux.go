package probe

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is an AF_PACKET socket on one interface: it sees and sends whole Ethernet frames. Reading is for one goroutine,
// writing for any.
type socket struct {
	file *os.File // keeps the descriptor, and joins it to the runtime's poller
	fd   int
	raw  syscall.RawConn
	box  *inbox
	look func(fd uintptr)      // fills the inbox; made once, for a closure of each call would be garbage
	rest func(fd uintptr) bool // the same, false when there was nothing
	n    int                   // what these two return
	err  error
}

// open returns a socket on the interface of that name, in the network namespace of the process.
func open(name string) (*socket, error) {
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("probe: interface %s: %w", name, err)
	}
	// Protocol 0: nothing comes before it is bound to the one interface.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("probe: packet socket: %w", err)
	}
	s := &socket{file: os.NewFile(uintptr(fd), "packet socket on "+name), fd: fd, box: newInbox()}
	s.look = func(fd uintptr) { s.n, s.err = s.box.fill(fd) }
	s.rest = func(fd uintptr) bool {
		s.look(fd)
		return s.err != unix.EAGAIN
	}
	if err := s.prepare(fd, dev.Index); err != nil {
		s.file.Close()
		return nil, fmt.Errorf("probe: packet socket on %s: %w", name, err)
	}
	return s, nil
}

func (s *socket) prepare(fd, index int) (err error) {
	if s.raw, err = s.file.SyscallConn(); err != nil {
		return err
	}
	// When a frame came is told by the kernel: a busy machine runs us late.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return err // Linux 4.20
	}
	var all [2]byte
	binary.BigEndian.PutUint16(all[:], unix.ETH_P_ALL)
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(all[:]), Ifindex: index})
}

// gone says whether an error of write is that there is no such interface any more.
func gone(err error) bool { return err == unix.ENXIO || err == unix.ENODEV }

// writeOwn is write for the goroutine that closes the socket, so that no descriptor has to be held meanwhile.
func (s *socket) writeOwn(frame []byte) error {
	_, err := unix.Write(s.fd, frame)
	return err
}

// write sends a frame or drops it: where there is no room there is a queue, and a probe that waited would measure it.
func (s *socket) write(frame []byte) (err error) {
	e := s.raw.Control(func(fd uintptr) {
		_, err = unix.Write(int(fd), frame)
	})
	if e != nil {
		return e
	}
	return err
}

// wake ends a wait in read.
func (s *socket) wake() { s.file.SetReadDeadline(time.Now()) }

func (s *socket) close() error { return s.file.Close() }

// Frames that are read at once, and the most bytes of one that are read: of what is longer, a head.
const (
	inboxFrames = 16
	inboxBytes  = etherBytes + maxBytes
)

// inbox is the memory that frames are read into.
type inbox struct {
	head   [inboxFrames]mmsghdr
	vector [inboxFrames]unix.Iovec
	extra  [inboxFrames][8]uint64 // control messages: when each came; aligned as they must be
	buffer [inboxFrames][inboxBytes]byte
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

func newInbox() *inbox {
	b := &inbox{}
	for i := range inboxFrames {
		b.vector[i].Base = &b.buffer[i][0]
		b.vector[i].SetLen(inboxBytes)
		b.head[i].header.Iov = &b.vector[i]
		b.head[i].header.SetIovlen(1)
		b.head[i].header.Control = (*byte)(unsafe.Pointer(&b.extra[i]))
	}
	return b
}

// frame is the i-th that was read, valid till the next read.
func (b *inbox) frame(i int) []byte { return b.buffer[i][:b.head[i].length] }

// age is how long before now the i-th frame came, by the wall clock; at most a second, in case that was set meanwhile.
func (b *inbox) age(i int, now time.Time) time.Duration {
	h := &b.head[i].header
	c := (*unix.Cmsghdr)(unsafe.Pointer(&b.extra[i]))
	if int(h.Controllen) < unix.CmsgLen(int(unsafe.Sizeof(unix.Timespec{}))) || c.Level != unix.SOL_SOCKET || c.Type != unix.SO_TIMESTAMPNS {
		return 0
	}
	at := (*unix.Timespec)(unsafe.Add(unsafe.Pointer(c), unix.CmsgLen(0)))
	return min(max(time.Duration(now.UnixNano()-at.Nano()), 0), time.Second)
}

// fill reads what is there, without waiting.
func (b *inbox) fill(fd uintptr) (int, error) {
	for i := range b.head {
		b.head[i].header.SetControllen(int(unsafe.Sizeof(b.extra[i])))
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.head[0])), inboxFrames, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// poll returns how many frames there were, which are in the inbox now.
func (s *socket) poll() (int, error) {
	if err := s.raw.Control(s.look); err != nil {
		return 0, err
	}
	if s.err == unix.EAGAIN {
		return 0, nil
	}
	return s.n, s.err
}

// waitTill sets when the next wait ends at the latest. What is looked for between the two, and comes with wake, is not
// missed.
func (s *socket) waitTill(at time.Time) error { return s.file.SetReadDeadline(at) }

// wait returns how many frames came; 0: it was ended.
func (s *socket) wait() (int, error) {
	if err := s.raw.Read(s.rest); os.IsTimeout(err) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	return s.n, s.err
}
