package machine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A machine has a control group of its own (cgroup v2), since vcpeer keeps its jobs in groups below its own: two nodes in
// one group would take each other's for theirs.

// ownGroup is the directory of this process' group; empty: no cgroup v2 is mounted, or not where it usually is.
func ownGroup() string {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		rel, ok := strings.CutPrefix(line, "0::")
		if !ok {
			continue
		}
		for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
			var st unix.Statfs_t
			if unix.Statfs(mount, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
				return filepath.Join(mount, rel)
			}
		}
	}
	return ""
}

// makeGroup makes a group below that of this process; empty: the kernel does not let us, and the machine has none.
func makeGroup(name string) string {
	own := ownGroup()
	if own == "" || name == "" {
		return ""
	}
	dir := filepath.Join(own, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return ""
	}
	return dir
}

// RemoveGroup removes a group whose processes have been killed, with all below it; that none is there is no error.
func RemoveGroup(dir string) error {
	if dir == "" {
		return nil
	}
	var err error
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = removeTree(dir); err == nil || !errors.Is(err, unix.EBUSY) { // the last process is still on its way out
			break
		}
	}
	return err
}

func removeTree(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	for _, d := range slices.Backward(dirs) {
		err = errors.Join(err, os.Remove(d))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
