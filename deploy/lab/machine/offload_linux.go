package machine

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// WholePackets turns off all by which an interface of the machine leaves work on packets to the next: then a packet is
// what goes over a wire, with its checksum in it.
func (s Space) WholePackets(name string) error {
	return s.InNetwork(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, set := range []uint32{unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_SGRO, unix.ETHTOOL_STXCSUM} {
			if err := ethtool(fd, name, set, 0); err != nil {
				return fmt.Errorf("ethtool %s: %w", name, err)
			}
		}
		return nil
	})
}

// ethtool is one SIOCETHTOOL with a struct ethtool_value. Without a checksum in hardware the kernel also turns off
// segmentation of UDP.
func ethtool(fd int, name string, command, value uint32) error {
	arg := struct{ command, value uint32 }{command, value}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&arg)}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return errno
	}
	return nil
}
