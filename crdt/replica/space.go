package replica

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Floor of free space.
const (
	floorBytes    = 64 << 20
	floorMaxBytes = 1 << 30 // 2% of a large disk would be a lot to keep unused
	floorPercent  = 2
)

// checkSpace returns an error wrapping ErrNoSpace below the floor. One system call, about 1 µs.
func (s *store) checkSpace() error {
	free, total, err := s.free(s.dir)
	if err != nil {
		return fmt.Errorf("records: free space of %s: %w", s.dir, err)
	}
	if floor := max(floorBytes, min(total/100*floorPercent, floorMaxBytes)); free < floor {
		return fmt.Errorf("records: %s has %d MiB free, needs %d MiB: %w", s.dir, free>>20, floor>>20, ErrNoSpace)
	}
	return nil
}

// diskSpace returns what an ordinary user may still write to the file system of dir, and its size, in bytes.
func diskSpace(dir string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}
