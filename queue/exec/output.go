package exec

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// cut says what of a stream of size bytes is kept under a bound: [0, head) and [tail, size), the end being the larger
// part since errors stand there. Nothing is dropped when head == tail.
func cut(size, bound int64) (head, tail int64) {
	if size <= bound {
		return size, size
	}
	head = bound / 4
	return head, size - (bound - head)
}

// notice stands in a stream in place of what was dropped.
func notice(dropped, bound int64) string {
	return fmt.Sprintf("\n[vcpeer: %d bytes left out here: output is kept up to %d bytes]\n", dropped, bound)
}

// trim frees the disk space of what will be dropped from a stream that is still written. Offsets stay as they are, so
// writer and readers notice nothing. A file system that cannot is left alone.
func trim(path string, bound int64) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	head, tail := cut(info.Size(), bound)
	if tail-head < bound/4 { // not worth a call each second
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, head, tail-head)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}

// bounded reads the stream with the notice in place of what is dropped.
func bounded(f *os.File, size, bound int64) io.Reader {
	head, tail := cut(size, bound)
	if head == tail {
		return io.NewSectionReader(f, 0, size)
	}
	return io.MultiReader(
		io.NewSectionReader(f, 0, head),
		strings.NewReader(notice(tail-head, bound)),
		io.NewSectionReader(f, tail, size-tail),
	)
}
