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
	if _, err := ethtool(name, unix.ETHTOOL_STXCSUM, 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("device: checksum offload of %s: %w", name, err)
	}
	return nil
}

// ethtool performs a command that takes or returns one value.
func ethtool(name string, cmd, data uint32) (uint32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	value := struct{ cmd, data uint32 }{cmd, data}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [24 - unsafe.Sizeof(uintptr(0))]byte // struct ifreq has 40 bytes
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return 0, errno
	}
	return value.data, nil
}
