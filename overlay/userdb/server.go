package userdb

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Any local user may connect. What one of them can hold is bounded: connections in all and of one user (root's are
// bounded by the total alone), silence, and a reply that is not read.
const (
	maxConns        = 256
	maxConnsPerUser = 64
	idleTimeout     = 30 * time.Second
	writeTimeout    = 10 * time.Second
)

// ErrServed says that another daemon of this machine serves the socket.
var ErrServed = errors.New("another daemon serves this socket")

// server answers varlink calls on one socket until it is closed.
type server struct {
	service  string
	path     string
	snapshot func() *Snapshot
	listener *net.UnixListener
	lock     *os.File    // held as long as the socket is ours
	made     os.FileInfo // of the socket file, to tell ours from one that took its place
	ended    sync.WaitGroup

	mu      sync.Mutex
	conns   map[net.Conn]uint32 // to the user behind it
	perUser map[uint32]int
	closed  bool
}

// serve starts to answer on dir/service. The directory is made if missing. A socket file that a dead daemon left is
// replaced in one step, so that no lookup meets a missing one; one that is served is ErrServed.
func serve(dir, service string, snapshot func() *Snapshot) (*server, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := holdSocket(dir, service)
	if err != nil {
		return nil, err
	}
	s := &server{service: service, path: filepath.Join(dir, service), snapshot: snapshot, lock: lock,
		conns: map[net.Conn]uint32{}, perUser: map[uint32]int{}}
	if err := s.listen(filepath.Join(dir, "."+service+".new")); err != nil {
		lock.Close()
		return nil, err
	}
	s.ended.Go(s.accept)
	return s, nil
}

// holdSocket takes the lock that goes with the socket. The kernel gives it back when its holder dies.
func holdSocket(dir, service string) (*os.File, error) {
	path := filepath.Join(dir, "."+service+".lock") // readers of the directory skip hidden files
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrServed
		}
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, service), err)
	}
	return lock, nil
}

func (s *server) listen(next string) error {
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: next, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false) // its file is moved below
	if err = os.Chmod(next, 0o666); err == nil {
		err = os.Rename(next, s.path)
	}
	if err == nil {
		s.made, err = os.Lstat(s.path)
	}
	if err != nil {
		l.Close()
		os.Remove(next)
		return err
	}
	s.listener = l
	return nil
}

// there reports whether the socket file is still ours; /run may have been swept.
func (s *server) there() bool {
	now, err := os.Lstat(s.path)
	return err == nil && os.SameFile(now, s.made)
}

// close ends all connections, removes the socket and waits until nothing of it runs.
func (s *server) close() {
	s.mu.Lock()
	s.closed = true
	s.listener.Close()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.ended.Wait()
	if s.there() {
		os.Remove(s.path)
	}
	s.lock.Close()
}

func (s *server) accept() {
	for {
		c, err := s.listener.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			pause(100 * time.Millisecond) // out of file descriptors: they come back
			continue
		}
		if !s.admit(c) {
			c.Close()
			continue
		}
		s.ended.Go(func() {
			defer s.release(c)
			s.talk(c)
		})
	}
}

func pause(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

// admit counts a connection in, or refuses it.
func (s *server) admit(c *net.UnixConn) bool {
	user, err := peerUser(c)
	if err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.conns) >= maxConns || user != 0 && s.perUser[user] >= maxConnsPerUser {
		return false
	}
	s.conns[c] = user
	s.perUser[user]++
	return true
}

func (s *server) release(c net.Conn) {
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	user := s.conns[c]
	delete(s.conns, c)
	if s.perUser[user]--; s.perUser[user] == 0 {
		delete(s.perUser, user)
	}
}

func peerUser(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}

// talk answers one call after the other. What is not a call ends the connection: there is no way to tell where the next
// one would start to make sense.
func (s *server) talk(c net.Conn) {
	in := newFrameReader(c)
	out := bufio.NewWriter(c)
	for {
		c.SetReadDeadline(time.Now().Add(idleTimeout))
		frame, err := readFrame(in)
		if err != nil {
			return
		}
		req, err := decodeCall(frame)
		if err != nil {
			return
		}
		if err := s.respond(c, out, req); err != nil {
			return
		}
	}
}

var errUpgrade = errors.New("varlink upgrade is not offered")

func (s *server) respond(c net.Conn, out *bufio.Writer, req call) error {
	if req.Upgrade {
		return errUpgrade
	}
	for r := range answer(req, s.service, s.snapshot()) {
		if req.Oneway {
			return nil
		}
		frame, err := encodeReply(r)
		if err != nil {
			return err
		}
		c.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := out.Write(frame); err != nil {
			return err
		}
	}
	return out.Flush()
}

// removeSocket takes away what a daemon that died left. ErrServed: it lives.
func removeSocket(dir, service string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, err := holdSocket(dir, service)
	if err != nil {
		return fmt.Errorf("userdb: %w", err)
	}
	defer lock.Close()
	var errs []error
	for _, name := range []string{service, "." + service + ".new", "." + service + ".lock"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
