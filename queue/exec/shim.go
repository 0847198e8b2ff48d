package exec

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// Names that daemon and shim agree on.
const (
	shimVerb     = "shim" // argv[1]
	shimListenFD = 3
	shimSocket   = "sock"
	shimInfo     = "info" // identity, before it answers
	shimLog      = "log"  // its standard error: empty unless something went wrong
)

// ShimMain is the shim process: main calls it, before anything else, when the program's first argument is "shim", with
// the arguments after that. It returns the exit code. Users do not call it.
func ShimMain(args []string) int {
	fl := flag.NewFlagSet(shimVerb, flag.ContinueOnError)
	dir := fl.String("dir", "", "directory of this shim, with its socket on descriptor 3")
	cg := fl.String("cgroup", "", "control group for the jobs; empty: none")
	linger := fl.Duration("linger", 10*time.Second, "how long to stay idle without a daemon")
	if err := fl.Parse(args); err != nil {
		return 2
	}
	if err := runShim(*dir, group(*cg), *linger); err != nil {
		fmt.Fprintf(os.Stderr, "vcpeer shim: %v\n", err)
		return 1
	}
	return 0
}

func runShim(dir string, cg group, linger time.Duration) error {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(400) // a small heap that is seldom touched
	f := os.NewFile(shimListenFD, shimSocket)
	if f == nil || dir == "" {
		return errors.New("started by hand; only the daemon starts a shim")
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("descriptor %d: %w", shimListenFD, err)
	}
	f.Close()
	uln, ok := ln.(*net.UnixListener)
	if !ok {
		return fmt.Errorf("descriptor %d is no unix socket", shimListenFD)
	}
	me, err := settle()
	if err != nil {
		return err
	}
	c := newCodec()
	if err := c.writeRecord(filepath.Join(dir, shimInfo), me); err != nil {
		return err
	}
	s := &shim{codec: c, me: me, group: cg, linger: linger,
		in: make(chan any), orders: make(chan *launch), signals: make(chan os.Signal, 4)}
	if err := s.openGroup(); err != nil {
		return err
	}
	signal.Notify(s.signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	go s.keep()
	go s.accept(uln)
	s.run()
	return os.RemoveAll(dir)
}

// settle takes on what a shim must be and returns its identity.
func settle() (identity, error) {
	unix.Umask(0o022)
	// What the daemon's own parent left open without close-on-exec must not reach a job. (The Go runtime's are closed so anyway.)
	if err := unix.CloseRange(shimListenFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return identity{}, fmt.Errorf("mark descriptors close-on-exec: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return identity{}, fmt.Errorf("become a child subreaper: %w", err)
	}
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil {
		return identity{}, fmt.Errorf("core limit: %w", err)
	}
	core.Cur = 0 // jobs inherit it; one that wants cores may raise it
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &core); err != nil {
		return identity{}, fmt.Errorf("core limit: %w", err)
	}
	boot, err := BootID()
	if err != nil {
		return identity{}, err
	}
	p, err := readProcess(os.Getpid())
	if err != nil {
		return identity{}, err
	}
	return identity{PID: p.pid, Ticks: p.ticks, BootID: boot}, nil
}

// Events of the shim's loop, besides those of the keeper.
type (
	connUp   struct{ conn net.Conn }
	connDown struct{}
)

// accept serves one connection after the other: what an earlier daemon sent is taken in before the next is heard.
func (s *shim) accept(ln *net.UnixListener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return // the process is ending
		}
		if !sameUser(conn.(*net.UnixConn)) {
			conn.Close()
			continue
		}
		s.in <- connUp{conn}
		for {
			m, err := s.codec.readMessage(conn)
			if err != nil {
				break
			}
			s.in <- m
		}
		s.in <- connDown{}
	}
}

// sameUser reports whether the other end runs as our own user or as root.
func sameUser(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return err == nil && credErr == nil && (cred.Uid == 0 || int(cred.Uid) == os.Getuid())
}
