package exec

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// BootTime is a moment on CLOCK_BOOTTIME: nanoseconds since this machine started, counting while it is suspended. It
// means nothing on another machine or after a reboot. Leases are counted on it because a wall clock can be set.
type BootTime int64

// NowBoot returns the present moment.
func NowBoot() BootTime {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("exec: CLOCK_BOOTTIME: %v", err)) // in every Linux since 2.6.39
	}
	return BootTime(ts.Nano())
}

// Add returns the moment d later.
func (t BootTime) Add(d time.Duration) BootTime { return t + BootTime(d) }

// Sub returns how much later t is than u.
func (t BootTime) Sub(u BootTime) time.Duration { return time.Duration(t - u) }

// BootID returns the kernel's random name of this boot. Put it into claims of work: a lease granted to another boot of
// this node must not be started.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("exec: boot ID: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
