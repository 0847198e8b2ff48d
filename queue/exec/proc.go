package exec

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// process is one line of /proc/PID/stat; see proc_pid_stat(5).
type process struct {
	pid, ppid, session int
	state              byte
	ticks              uint64 // start time since boot
	rssPages           int64
}

var errStat = errors.New("not a line of /proc/PID/stat")

// parseStat reads the line. The command name may hold any byte, parentheses and newlines too: the last ')' ends it.
func parseStat(b []byte) (process, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return process{}, errStat
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 22 || len(f[0]) != 1 {
		return process{}, errStat
	}
	p := process{state: f[0][0]}
	var errs [5]error
	p.pid, errs[0] = strconv.Atoi(string(bytes.TrimSpace(b[:open])))
	p.ppid, errs[1] = strconv.Atoi(f[1])
	p.session, errs[2] = strconv.Atoi(f[3])
	p.ticks, errs[3] = strconv.ParseUint(f[19], 10, 64)
	p.rssPages, errs[4] = strconv.ParseInt(f[21], 10, 64)
	if errors.Join(errs[:]...) != nil || p.pid < 1 {
		return process{}, errStat
	}
	return p, nil
}

// readProcess returns what /proc says of pid; fs.ErrNotExist or ESRCH when there is no such process.
func readProcess(pid int) (process, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, err
	}
	p, err := parseStat(b)
	if err != nil {
		return process{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return p, nil
}

// alive reports whether the process with this ID and start time exists and is no zombie.
func alive(pid int, ticks uint64) bool {
	p, err := readProcess(pid)
	return err == nil && p.ticks == ticks && p.state != 'Z' && p.state != 'X'
}

// descendants returns the processes below pid, parents before children. It may miss some that are being started or
// are changing parents: who must have all repeats it until none is left.
func descendants(pid int) []process {
	var list []process
	queue := []int{pid}
	seen := map[int]bool{pid: true}
	for len(queue) > 0 {
		for _, c := range children(queue[0]) {
			if seen[c] {
				continue
			}
			seen[c] = true
			if p, err := readProcess(c); err == nil {
				list = append(list, p)
				queue = append(queue, c)
			}
		}
		queue = queue[1:]
	}
	return list
}

// children reads the kernel's own lists, one a thread (CONFIG_PROC_CHILDREN); without them it reads all of /proc.
func children(pid int) []int {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	threads, err := os.ReadDir(dir)
	if err != nil {
		return nil // it has ended
	}
	var list []int
	for _, t := range threads {
		b, err := os.ReadFile(dir + "/" + t.Name() + "/children")
		if errors.Is(err, os.ErrNotExist) && t.Name() == strconv.Itoa(pid) {
			if _, gone := os.Stat(dir); gone == nil {
				return childrenByScan(pid)
			}
		}
		for f := range strings.FieldsSeq(string(b)) {
			if c, err := strconv.Atoi(f); err == nil {
				list = append(list, c)
			}
		}
	}
	return list
}

func childrenByScan(pid int) []int {
	var list []int
	eachProcess(func(p process) {
		if p.ppid == pid {
			list = append(list, p.pid)
		}
	})
	return list
}

// memory returns the bytes of memory that the processes use: the sum of their resident sets or, where that is more than
// enough, of their proportional shares, which count a page shared by forks only once but cost much more to read.
func memory(list []process, enough int64) int64 {
	var resident int64
	for _, p := range list {
		resident += p.rssPages * int64(os.Getpagesize())
	}
	if resident <= enough {
		return resident
	}
	var shares int64
	for _, p := range list {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/smaps_rollup")
		kb, ok := parsePss(b)
		if err != nil || !ok { // ended, or the kernel does not tell
			shares += p.rssPages * int64(os.Getpagesize())
			continue
		}
		shares += kb << 10
	}
	return shares
}

func parsePss(b []byte) (kb int64, ok bool) {
	_, rest, found := strings.Cut(string(b), "\nPss:")
	f := strings.Fields(rest)
	if !found || len(f) < 2 {
		return 0, false
	}
	kb, err := strconv.ParseInt(f[0], 10, 64)
	return kb, err == nil && kb >= 0
}

// eachProcess visits every process that /proc shows.
func eachProcess(visit func(process)) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, err := readProcess(pid); err == nil {
			visit(p)
		}
	}
}

// signal sends sig to exactly this process: never to another that got its number since.
func (p process) signal(sig syscall.Signal) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	now, err := readProcess(p.pid)
	if err != nil || now.ticks != p.ticks {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// remnant describes the processes of an attempt whose shim is gone.
type remnant struct {
	mark    string // NAME=value in their environment
	first   startedRecord
	workDir string
}

// kill sends SIGKILL to every process of the attempt that it can tell and returns how many. A process is told by the
// mark in its environment; or by the session, if the session's leader is the recorded process, or has gone and the
// process works in the attempt's directory. (The number of a session is not given out again while it has members.)
func (r remnant) kill() int {
	n := 0
	self := os.Getpid()
	eachProcess(func(p process) {
		if p.pid == self || p.state == 'Z' || p.state == 'X' || p.ticks < r.first.Ticks || !r.owns(p) {
			return
		}
		n++
		p.signal(unix.SIGKILL) // ended meanwhile, or the next round finds it again
	})
	return n
}

func (r remnant) owns(p process) bool {
	dir := "/proc/" + strconv.Itoa(p.pid)
	if env, err := os.ReadFile(dir + "/environ"); err == nil && hasEntry(env, r.mark) {
		return true
	}
	if r.first.PID == 0 || p.session != r.first.PID {
		return false
	}
	if leader, err := readProcess(p.session); err == nil {
		return leader.ticks == r.first.Ticks
	}
	cwd, err := os.Readlink(dir + "/cwd")
	return err == nil && (cwd == r.workDir || strings.HasPrefix(cwd, r.workDir+"/"))
}

// hasEntry reports whether the NUL-separated list holds the entry.
func hasEntry(list []byte, entry string) bool {
	for e := range bytes.SplitSeq(list, []byte{0}) {
		if string(e) == entry {
			return true
		}
	}
	return false
}
