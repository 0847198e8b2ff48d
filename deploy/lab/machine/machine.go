// Package machine makes machines of a lab out of Linux namespaces: each has its own network, process IDs, host name and
// mounts, in which /etc and /usr/local/bin are layers over the real ones and /run, /var/lib, /var/log and /home are its
// own. All else is the real machine's.
//
// A machine is held by its first process, and that ends with the program that made it, however that ends; then the
// kernel ends every process in it and takes down its network and mounts. Nothing has a name outside, so nothing is left
// but the files below Dir.
//
//	k := machine.NewKeeper()
//	defer k.Close()
//	m, err := k.Make(machine.Spec{Name: "kyoto-1", Dir: dir, Binary: "/usr/bin/vcpeer"})
//	out, err := m.Command(ctx, "ip", "addr").Output()
package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
)

// Spec says what a machine is called and where its files are.
type Spec struct {
	Name   string // its host name
	Dir    string // absolute; made if absent; holds run, lib, log, home, etc, bin
	Binary string // seen as /usr/local/bin/vcpeer
	Group  string // of its control group, below that of this process; empty: it has none of its own
}

// Machine is a running machine.
type Machine struct {
	Space
	Spec
	holder *exec.Cmd
	hold   io.Closer // its standard input
}

// setUp gives a machine its own mounts and holds it until standard input ends. $1 is the directory, $2 the program, $3
// the name. /sys is mounted anew, since it shows the network of whoever mounts it. As the first process of its machine it inherits orphans; with SIGCHLD ignored the kernel buries them. /run
// comes last, since the directory may be below it.
const setUp = `set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --rbind /sys/fs/cgroup "$1/work.etc"
mount -t sysfs sysfs /sys
mount --move "$1/work.etc" /sys/fs/cgroup
printf %s "$3" >/proc/sys/kernel/hostname
layer() {
	mount -t overlay overlay -o "lowerdir=$3,upperdir=$1,workdir=$2" "$3" 2>/dev/null && return
	cp -a --update=none "$3/." "$1" 2>/dev/null || cp -an "$3/." "$1"
	mount --bind "$1" "$3"
}
layer "$1/etc" "$1/work.etc" /etc
layer "$1/bin" "$1/work.bin" /usr/local/bin
mount --bind "$2" /usr/local/bin/vcpeer
for pair in lib:/var/lib log:/var/log home:/home run:/run; do mount --bind "$1/${pair%%:*}" "${pair#*:}"; done
trap '' CHLD
echo ready
exec cat >/dev/null`

// Keeper starts machines from one thread that stays, since the kernel ends a child when the thread that started it ends
// (PR_SET_PDEATHSIG), and the threads of a Go program come and go.
type Keeper struct{ do chan func() }

// NewKeeper starts the thread.
func NewKeeper() *Keeper {
	k := &Keeper{do: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for f := range k.do {
			f()
		}
	}()
	return k
}

// Close ends the thread, and with it every machine that is left.
func (k *Keeper) Close() { close(k.do) }

// Make starts a machine. Its network has nothing but a loopback interface that is down.
func (k *Keeper) Make(s Spec) (*Machine, error) {
	if err := s.files(); err != nil {
		return nil, fmt.Errorf("machine %s: %w", s.Name, err)
	}
	m := &Machine{Spec: s, holder: exec.Command("/bin/sh", "-c", setUp, "sh", s.Dir, s.Binary, s.Name)}
	m.holder.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true, // Ctrl-C is for the program that made it
	}
	m.holder.Dir = "/"
	m.Space.Group = makeGroup(s.Group)
	leave, err := m.Space.join(m.holder.SysProcAttr)
	if err == nil {
		defer leave()
		err = k.hold(m)
	}
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", s.Name, err)
	}
	return m, nil
}

func (k *Keeper) hold(m *Machine) error {
	in, err := m.holder.StdinPipe()
	if err != nil {
		return err
	}
	out, err := m.holder.StdoutPipe()
	if err != nil {
		return err
	}
	problem := new(bytes.Buffer)
	m.hold, m.holder.Stderr = in, problem
	started := make(chan error, 1)
	k.do <- func() { started <- m.holder.Start() }
	if err := <-started; err != nil {
		return err
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		m.hold.Close()
		return fmt.Errorf("%w\n%s", errors.Join(err, m.holder.Wait()), problem)
	}
	m.PID = m.holder.Process.Pid
	return nil
}

// files makes the directories, with the few files that differ between machines.
func (s Spec) files() error {
	for _, d := range []string{"etc", "work.etc", "bin", "work.bin", "run", "lib", "log", "home"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, d), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"etc/hostname": s.Name + "\n",
		"etc/hosts":    "127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t" + s.Name + "\n",
		"bin/vcpeer":   "", // to mount the program on
	} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return os.Chmod(filepath.Join(s.Dir, "bin/vcpeer"), 0o755)
}

// Close ends all processes of the machine and returns when they have ended. The files stay.
func (m *Machine) Close() {
	_ = m.holder.Process.Kill() // the kernel ends the others with the first, before that is gone
	m.hold.Close()
	_ = m.holder.Wait()
	_ = RemoveGroup(m.Space.Group) // what cannot go is empty and harms nobody
}
