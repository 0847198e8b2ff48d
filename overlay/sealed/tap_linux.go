package sealed

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TAPOptions say how a TAP is to be.
type TAPOptions struct {
	MTU int // bytes; 0: the kernel's choice

	// Offload has the kernel hand over large packets and open checksums, and take them. Not where the TAP is a port of Open
	// vSwitch, whose datapath in user space knows neither.
	Offload bool

	// Persist: the TAP stays when the process ends, so that the bridge's port does not go; the next OpenTAP takes it over.
	Persist bool
}

// TAP is a network interface whose frames the process reads and writes.
type TAP struct {
	file     *os.File
	raw      syscall.RawConn
	mac      net.HardwareAddr
	offloads bool

	in      readCall // has one caller at a time
	waiting func(uintptr) bool
	polling func(uintptr) bool
}

type readCall struct {
	b   []byte
	n   int
	err error
}

// writeCall is kept between calls, since what it holds would be allocated anew for each.
type writeCall struct {
	iovs []unix.Iovec
	err  error
	do   func(uintptr) bool
}

var writeCalls = sync.Pool{New: func() any {
	c := &writeCall{iovs: make([]unix.Iovec, 0, maxJoined+2)}
	c.do = c.write
	return c
}}

// OpenTAP makes an interface, or takes over one that was left. It is down; addresses and flags are for others to set.
func OpenTAP(name string, o TAPOptions) (*TAP, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("sealed: /dev/net/tun: %w", err)
	}
	t := &TAP{}
	if err := t.set(fd, name, o); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("sealed: TAP %s: %w", name, err)
	}
	t.file = os.NewFile(uintptr(fd), "/dev/net/tun") // which polls it, since it does not block
	if t.raw, err = t.file.SyscallConn(); err != nil {
		t.file.Close()
		return nil, fmt.Errorf("sealed: TAP %s: %w", name, err)
	}
	t.waiting = func(fd uintptr) bool { return t.read(fd) || t.in.err != nil || t.in.n != 0 }
	t.polling = func(fd uintptr) bool { t.read(fd); return true }
	return t, nil
}

// userSegments are offloads that kernels before 6.2 do not know: segmentation of UDP.
const userSegments = 0x20 | 0x40

func (t *TAP) set(fd int, name string, o TAPOptions) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, r); err != nil {
		return err
	}
	flags := 0
	if o.Offload {
		flags = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	}
	if o.Offload && unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, flags|userSegments) == nil {
		t.offloads = true
	} else if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, flags); err != nil {
		return fmt.Errorf("offload: %w", err)
	}
	t.offloads = o.Offload
	persist := 0
	if o.Persist {
		persist = 1
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, persist); err != nil {
		return fmt.Errorf("persist: %w", err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	t.mac = link.Attrs().HardwareAddr
	if o.MTU > 0 && link.Attrs().MTU != o.MTU {
		if err := netlink.LinkSetMTU(link, o.MTU); err != nil {
			return fmt.Errorf("MTU %d: %w", o.MTU, err)
		}
	}
	if o.Offload { // a large packet goes out in one call, and all its segments but the last are as long
		segment := link.Attrs().MTU
		if o.MTU > 0 {
			segment = o.MTU
		}
		most := min(maxBatchSegments, maxBatchBytes/(segment+etherBytes+Overhead)) * (segment - 40)
		if err := netlink.LinkSetGSOMaxSize(link, most+40); err != nil {
			return fmt.Errorf("largest packet: %w", err)
		}
	}
	return nil
}

// read reads once; false: there is nothing.
func (t *TAP) read(fd uintptr) bool {
	for {
		n, err := unix.Read(int(fd), t.in.b)
		switch {
		case err == nil:
			t.in.n = n
			return true
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return false
		default:
			t.in.err = err
			return true
		}
	}
}

// Read reads a frame; see [Device].
func (t *TAP) Read(b []byte, wait bool) (int, error) {
	t.in = readCall{b: b}
	do := t.polling
	if wait {
		do = t.waiting
	}
	err := t.raw.Read(do)
	if err == nil {
		err = t.in.err
	}
	if err != nil {
		return 0, fmt.Errorf("sealed: read the TAP: %w", err)
	}
	return t.in.n, nil
}

func (c *writeCall) write(fd uintptr) bool {
	for {
		_, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(unsafe.SliceData(c.iovs))), uintptr(len(c.iovs)))
		if errno == unix.EINTR {
			continue
		}
		if c.err = nil; errno != 0 {
			c.err = errno
		}
		return true
	}
}

// Write writes a frame; see [Device]. A TAP takes each at once, or refuses it.
func (t *TAP) Write(parts ...[]byte) error {
	c := writeCalls.Get().(*writeCall)
	for _, p := range parts {
		if len(p) > 0 {
			v := unix.Iovec{Base: unsafe.SliceData(p)}
			v.SetLen(len(p))
			c.iovs = append(c.iovs, v)
		}
	}
	err := t.raw.Write(c.do)
	if err == nil {
		err = c.err
	}
	runtime.KeepAlive(parts)
	clear(c.iovs)
	c.iovs = c.iovs[:0]
	writeCalls.Put(c)
	if err != nil {
		return fmt.Errorf("sealed: write to the TAP: %w", err)
	}
	return nil
}

// Offloads reports whether the TAP takes large packets and open checksums.
func (t *TAP) Offloads() bool { return t.offloads }

// MAC is the interface's address.
func (t *TAP) MAC() net.HardwareAddr { return t.mac }

// Close gives the TAP up. It goes, unless it was to persist.
func (t *TAP) Close() error { return t.file.Close() }

// RemoveTAP removes a TAP that was to persist, and that no process has open. Where there is none it does nothing.
func RemoveTAP(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("sealed: remove TAP %s: %w", name, err)
	}
	return nil
}
