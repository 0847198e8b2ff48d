package device

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// noChecksumOffload has an interface of this thread's network namespace write whole checksums into what it sends
// (ETHTOOL_STXCSUM of ethtool(8); segmentation goes with it).
func noChecksumOffload(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("device: socket: %w", err)
	}
	defer unix.Close(fd)
	value := struct{ cmd, data uint32 }{cmd: unix.ETHTOOL_STXCSUM}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [24 - unsafe.Sizeof(uintptr(0))]byte // struct ifreq has 40 bytes
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 && !errors.Is(errno, unix.EOPNOTSUPP) {
		return fmt.Errorf("device: checksum offload of %s: %w", name, errno)
	}
	return nil
}
