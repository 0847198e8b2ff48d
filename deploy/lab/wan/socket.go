package wan

import (
	"errors"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// maxFrame is the largest frame that is read whole, should a site have left its offloads on.
const maxFrame = etherLen + 65536

var errEnded = errors.New("wan: the network between the sites has ended")

// openSocket opens an interface for whole frames of others, without blocking.
func openSocket(name string) (int, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err := setUpSocket(fd, ifi.Index); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func setUpSocket(fd, index int) error {
	for _, o := range []struct{ level, opt, val int }{
		{unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1},
		{unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1},
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16 << 20},
		{unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4 << 20},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.val); err != nil {
			return err
		}
	}
	all := unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &all); err != nil {
		return err
	}
	const proto = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network byte order
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto & 0xffff, Ifindex: index})
}

// receive reads one frame; 0: there is none.
func receive(fd int, buf []byte) (int, error) {
	n, err := unix.Read(fd, buf)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return 0, nil
	}
	return 0, err
}

// send writes one frame. An error (the site's interface is down, its buffer is full) is a frame lost, as on a wire.
func send(fd int, frame []byte) { _, _ = unix.Write(fd, frame) }

// preferThread lets this thread run as soon as a frame is due, also where all processors are busy. A nice value would not do:
// it counts only within a session (sched(7), autogroup), and each daemon of a lab is a session of its own.
func preferThread() {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	realTime := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
	if unix.SchedSetAttr(0, &realTime, 0) != nil {
		_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -20) // without the right to it, delays are less exact
	}
}

func (s *Switch) close() {
	for _, p := range s.router.ports {
		unix.Close(p.fd)
	}
	s.wake.close()
}

// waker is an eventfd that ends a poll from another goroutine.
type waker struct {
	mu sync.Mutex // so that nothing is written to a number that has become another file
	fd int        // -1: closed
}

func (w *waker) open() (err error) {
	w.fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return err
}

func (w *waker) nudge() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd >= 0 {
		_, _ = unix.Write(w.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

func (w *waker) drain() { _, _ = unix.Read(w.fd, make([]byte, 8)) }

func (w *waker) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	unix.Close(w.fd)
	w.fd = -1
}
