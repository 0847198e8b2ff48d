package exec

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CgroupOff as Config.Cgroup turns control groups off.
const CgroupOff = "off"

// groups is the part of the cgroup v2 tree that belongs to this executor; each shim's jobs get one group in it.
// The zero value stands for "none to be had".
type groups struct{ dir string }

// openGroups finds or makes the directory: below base if given, else below the group of this process where the kernel
// lets us. Without success the zero value is returned with the reason; jobs then run without a group.
func openGroups(base, execDir string) (groups, error) {
	if base == CgroupOff {
		return groups{}, nil
	}
	if base == "" {
		own, err := ownGroup()
		if err != nil {
			return groups{}, err
		}
		base = own
	}
	h := fnv.New32a()
	h.Write([]byte(execDir))
	dir := filepath.Join(base, fmt.Sprintf("vcpeer-jobs.%08x", h.Sum32()))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return groups{}, fmt.Errorf("control group for jobs: %w", err)
	}
	for _, d := range []string{base, dir} {
		for _, controller := range []string{"+memory", "+pids"} {
			// Not delegated or not compiled in: limits are then enforced by the shim's own counting.
			_ = os.WriteFile(filepath.Join(d, "cgroup.subtree_control"), []byte(controller), 0)
		}
	}
	return groups{dir}, nil
}

// ownGroup returns the directory of this process' cgroup v2, whether v2 is alone or beside v1.
func ownGroup() (string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		rel, ok := strings.CutPrefix(line, "0::")
		if !ok {
			continue
		}
		for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
			var st unix.Statfs_t
			if unix.Statfs(mount, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
				return filepath.Join(mount, rel), nil
			}
		}
	}
	return "", errors.New("no cgroup v2 hierarchy is mounted")
}

// group is one shim's group; "" for none.
type group string

func (g groups) forShim(id string) (group, error) {
	if g.dir == "" {
		return "", nil
	}
	dir := filepath.Join(g.dir, id)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("control group for jobs: %w", err)
	}
	return group(dir), nil
}

// existing returns the group that an earlier daemon made for the shim, or "".
func (g groups) existing(id string) group {
	if g.dir == "" {
		return ""
	}
	if _, err := os.Stat(filepath.Join(g.dir, id)); err != nil {
		return ""
	}
	return group(filepath.Join(g.dir, id))
}

// all returns the IDs of the shims that have groups.
func (g groups) all() []string {
	if g.dir == "" {
		return nil
	}
	list, err := os.ReadDir(g.dir)
	if err != nil {
		return nil
	}
	var ids []string
	for _, e := range list {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids
}

// kill ends every process of the group.
func (g group) kill() error {
	if g == "" {
		return nil
	}
	err := os.WriteFile(filepath.Join(string(g), "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) { // before Linux 5.14
		return g.killEach()
	}
	return err
}

func (g group) killEach() error {
	b, err := os.ReadFile(filepath.Join(string(g), "cgroup.procs"))
	if err != nil {
		return err
	}
	for f := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil {
			if p, err := readProcess(pid); err == nil {
				p.signal(unix.SIGKILL) // the caller repeats until the group is empty
			}
		}
	}
	return nil
}

// empty reports whether no process is in the group.
func (g group) empty() bool {
	b, err := os.ReadFile(filepath.Join(string(g), "cgroup.events"))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	return bytes.Contains(b, []byte("populated 0"))
}

// clear kills until the group is empty and removes it.
func (g group) clear(ctx context.Context) error {
	if g == "" {
		return nil
	}
	if err := every(ctx, 5*time.Millisecond, func() bool { return g.empty() || g.kill() == nil && g.empty() }); err != nil {
		return fmt.Errorf("processes in %s do not end: %w", g, err)
	}
	if err := os.Remove(string(g)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// limit sets the memory limit, 0 for none, and reports whether the kernel now enforces it.
func (g group) limit(memBytes int64) bool {
	if g == "" {
		return false
	}
	text := "max"
	if memBytes > 0 {
		text = strconv.FormatInt(memBytes, 10)
	}
	if os.WriteFile(filepath.Join(string(g), "memory.max"), []byte(text), 0) != nil {
		return false
	}
	_ = os.WriteFile(filepath.Join(string(g), "memory.oom.group"), []byte("1"), 0) // absent before 4.19: one process dies then
	return true
}

// oomKills returns how many processes of the group the kernel has killed for want of memory.
func (g group) oomKills() int {
	b, err := os.ReadFile(filepath.Join(string(g), "memory.events"))
	if err != nil {
		return 0
	}
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		if v, ok := strings.CutPrefix(sc.Text(), "oom_kill "); ok {
			n, _ := strconv.Atoi(v) // the kernel writes a number
			return n
		}
	}
	return 0
}

// every calls f at once and then again each interval until it returns true or ctx is over.
func every(ctx context.Context, interval time.Duration, f func() bool) error {
	if f() {
		return nil
	}
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			if f() {
				return nil
			}
		}
	}
}
