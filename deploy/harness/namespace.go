package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Namespace is a mount namespace in which a node of root finds a machine of its own: /etc, /run, /var/lib, /home and
// /usr/local/bin are directories below Dir, and all else is the real machine's. So nothing that the node writes outside
// its directory is seen by the machine, and the namespace is gone when its last process has ended. The network is the
// machine's own.
type Namespace struct {
	Dir    string // of etc, run, lib, home, bin
	holder *exec.Cmd
	hold   io.Closer // its standard input: it ends with it, also when this process is killed
}

// setUp mounts a machine's own directories and holds the namespace until its standard input ends. $1 is the directory,
// $2 the program, $3 whether /etc/hosts is a mount of its own, as it is in containers.
const setUp = `set -e
for pair in etc:/etc run:/run lib:/var/lib home:/home bin:/usr/local/bin; do mount --bind "$1/${pair%%:*}" "${pair#*:}"; done
mount --bind "$2" /usr/local/bin/vcpeer
if [ "$3" = true ]; then mount --bind /etc/hosts /etc/hosts; fi
echo ready
exec cat >/dev/null`

// CannotIsolate says why this process cannot make a Namespace in which accounts are seen; empty: it can.
func CannotIsolate(ctx context.Context) string {
	if os.Geteuid() != 0 {
		return "needs root for mount namespaces"
	}
	for _, tool := range []string{"unshare", "nsenter", "setpriv"} {
		if _, err := exec.LookPath(tool); err != nil {
			return tool + " is missing: apt-get install util-linux"
		}
	}
	if out, err := exec.CommandContext(ctx, "unshare", "--mount", "--propagation", "private", "true").CombinedOutput(); err != nil {
		return fmt.Sprintf("no right to make a mount namespace: %v %s", err, strings.TrimSpace(string(out)))
	}
	if found, _ := filepath.Glob("/lib/*-linux-gnu*/libnss_systemd.so.2"); len(found) == 0 {
		return "libnss_systemd.so.2 is missing: apt-get install libnss-systemd"
	}
	return ""
}

// NewNamespace makes a namespace whose /etc holds the given files, by name. With mountedHosts /etc/hosts is a mount
// point, so that no file can be renamed to its place.
func NewNamespace(dir, binary string, etc map[string]string, mountedHosts bool) (*Namespace, error) {
	for _, d := range []string{"", "etc", "run", "lib", "home", "bin"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	for name, text := range etc {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "vcpeer"), nil, 0o755); err != nil { // to mount the program on
		return nil, err
	}
	s := &Namespace{Dir: dir, holder: exec.Command("unshare", "--mount", "--propagation", "private",
		"sh", "-c", setUp, "sh", dir, binary, strconv.FormatBool(mountedHosts))}
	in, err := s.holder.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := s.holder.StdoutPipe()
	if err != nil {
		return nil, err
	}
	problem := new(tail)
	s.hold, s.holder.Stderr = in, problem
	if err := s.holder.Start(); err != nil {
		return nil, fmt.Errorf("harness: namespace: %w", err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		s.hold.Close()
		return nil, fmt.Errorf("harness: namespace: %w\n%s", errors.Join(err, s.holder.Wait()), problem)
	}
	return s, nil
}

// AddIsolated describes a node that is to run as root in s, in the places of the system and with all that touches them.
func (c *Cluster) AddIsolated(s *Namespace, name, site string, args ...string) (*Node, error) {
	n, err := c.Add(name, site, args...)
	if err != nil {
		return nil, err
	}
	n.Dir, n.space = s.Dir, s
	return n, nil
}

// Command is a command of root in the namespace, in the directory dir there.
func (s *Namespace) Command(ctx context.Context, dir string, argv ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", slices.Concat(s.enter(), []string{"env", "--chdir", dir}, argv)...)
}

// CommandAs is a command of a user in the namespace, whom the machine is asked for by name: with his groups, and an
// environment that says nothing of the caller's.
func (s *Namespace) CommandAs(ctx context.Context, user, dir string, argv ...string) *exec.Cmd {
	become := []string{"setpriv", "--reuid", user, "--regid", user, "--init-groups"}
	env := []string{"env", "--ignore-environment", "--chdir", dir, "PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + dir}
	return exec.CommandContext(ctx, "nsenter", slices.Concat(s.enter(), become, env, argv)...)
}

func (s *Namespace) enter() []string {
	return []string{fmt.Sprintf("--mount=/proc/%d/ns/mnt", s.holder.Process.Pid), "--"}
}

// start is the command that starts the node's daemon there.
func (s *Namespace) start(args []string) *exec.Cmd {
	return exec.Command("nsenter", slices.Concat(s.enter(), []string{"vcpeer"}, args)...)
}

// Close ends all processes that are left in the namespace, and with them the namespace. The files below Dir stay.
func (s *Namespace) Close() {
	for _, pid := range s.processes() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	s.hold.Close()
	_ = s.holder.Wait() // its standard input has ended
}

// processes lists those in the namespace but for the one that holds it.
func (s *Namespace) processes() []int {
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", s.holder.Process.Pid))
	if err != nil {
		return nil
	}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == s.holder.Process.Pid {
			continue
		}
		if ns, err := os.Readlink(filepath.Join("/proc", p.Name(), "ns", "mnt")); err == nil && ns == own {
			pids = append(pids, pid)
		}
	}
	return pids
}
