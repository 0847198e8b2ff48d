package exec

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// link is a shim as the daemon sees it.
type link struct {
	id    string
	dir   string
	me    identity // of the shim's process
	group group
	conn  net.Conn
	in    *bufio.Reader
	hello *message

	key   string    // its attempt, or "": by Executor.mu
	since time.Time // idle since: by Executor.mu
}

const (
	helloWithin = 30 * time.Second // a shim on a very busy machine
	sendWithin  = 2 * time.Second  // its messages are small and it always reads: more than this is a stopped shim
)

// send writes the message. A shim that cannot be reached is noticed by its reader, which closes the link.
func (l *link) send(c codec, m *message) {
	l.conn.SetWriteDeadline(time.Now().Add(sendWithin))
	if err := c.writeMessage(l.conn, m); err != nil {
		l.conn.Close()
	}
}

// kill ends exactly this process, if it is still there.
func (l *link) kill() {
	process{pid: l.me.PID, ticks: l.me.Ticks}.signal(unix.SIGKILL) // gone is what we want
}

// atSocket calls f with a path to the directory's socket that is short enough for any directory (sun_path has 108 bytes).
func atSocket[T any](dir string, f func(*net.UnixAddr) (T, error)) (T, error) {
	d, err := os.Open(dir)
	if err != nil {
		var zero T
		return zero, err
	}
	defer d.Close()
	return f(&net.UnixAddr{Net: "unix", Name: "/proc/self/fd/" + strconv.Itoa(int(d.Fd())) + "/" + shimSocket})
}

func (e *Executor) dial(id string) (*link, error) {
	dir := filepath.Join(e.shimsDir(), id)
	conn, err := atSocket(dir, func(a *net.UnixAddr) (*net.UnixConn, error) { return net.DialUnix("unix", nil, a) })
	if err != nil {
		return nil, err
	}
	l := &link{id: id, dir: dir, conn: conn, in: bufio.NewReader(conn), since: time.Now(), group: e.groups.existing(id)}
	conn.SetReadDeadline(time.Now().Add(helloWithin))
	if l.hello, err = e.codec.readMessage(l.in); err == nil && l.hello.Kind != kindHello {
		err = errMessage
	}
	if err == nil && (l.hello.Hello.BootID != e.boot || !alive(l.hello.Hello.PID, l.hello.Hello.Ticks)) {
		err = errors.New("who answers is not the shim")
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("shim %s: %w", id, err)
	}
	conn.SetReadDeadline(time.Time{})
	l.me = *l.hello.Hello
	return l, nil
}

// takeShim returns an idle shim, or a new one.
func (e *Executor) takeShim(ctx context.Context) (*link, error) {
	e.mu.Lock()
	if n := len(e.idle); n > 0 {
		l := e.idle[n-1]
		e.idle = e.idle[:n-1]
		e.mu.Unlock()
		return l, nil
	}
	e.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l, err := e.spawn()
	if err != nil {
		return nil, fmt.Errorf("start a shim: %w", err)
	}
	if !e.attach(l) {
		return nil, ErrClosed
	}
	return l, nil
}

// attach registers the link and starts its reader.
func (e *Executor) attach(l *link) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		l.conn.Close()
		return false
	}
	e.links[l.id] = l
	e.work.Go(func() { e.serve(l) })
	return true
}

// giveBack makes the shim ready for the next attempt.
func (e *Executor) giveBack(l *link) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.free(l)
}

// free needs e.mu.
func (e *Executor) free(l *link) {
	l.key = ""
	if e.links[l.id] != l {
		return // lost meanwhile, or we are closing
	}
	l.since = time.Now()
	e.idle = append(e.idle, l)
}

// spawn starts a shim process with its socket already made, so that it can be reached at once and found by any later daemon.
func (e *Executor) spawn() (*link, error) {
	id := rand.Text()[:16]
	dir := filepath.Join(e.shimsDir(), id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	l, err := e.spawnIn(id, dir)
	if err != nil {
		os.RemoveAll(dir) // the error below says more
		return nil, err
	}
	return l, nil
}

func (e *Executor) spawnIn(id, dir string) (*link, error) {
	g, err := e.groups.forShim(id)
	if err != nil {
		return nil, err
	}
	ln, err := atSocket(dir, func(a *net.UnixAddr) (*net.UnixListener, error) { return net.ListenUnix("unix", a) })
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	defer ln.Close()
	if err := os.Chmod(filepath.Join(dir, shimSocket), 0o600); err != nil {
		return nil, err
	}
	sock, err := ln.File()
	if err != nil {
		return nil, err
	}
	defer sock.Close()
	log, err := os.OpenFile(filepath.Join(dir, shimLog), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(e.cfg.Self, shimVerb, "-dir", dir, "-cgroup", string(g), "-linger", e.cfg.Linger.String())
	cmd.Dir, cmd.Env = "/", []string{"PATH=" + defaultPath} // nothing of ours, secrets least of all
	cmd.Stderr, cmd.ExtraFiles = log, []*os.File{sock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go cmd.Wait() // only to reap it: it may outlive us, and its link tells when it goes
	l, err := e.dial(id)
	if err != nil {
		cmd.Process.Kill()
		return nil, err
	}
	return l, nil
}

// serve reads what the shim says until the link breaks.
func (e *Executor) serve(l *link) {
	for {
		m, err := e.codec.readMessage(l.in)
		if err != nil {
			break
		}
		e.hear(l, m)
	}
	l.conn.Close()
	if a := e.detach(l); a != nil {
		e.recover(a, l)
		return
	}
	if e.life.Err() == nil {
		e.cleanShim(l)
	}
}

func (e *Executor) hear(l *link, m *message) {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := e.attempts[m.Key]
	if a == nil || a.link != l {
		return
	}
	switch m.Kind {
	case kindStarted:
		a.first = *m.Started
		a.hasBegun()
	case kindEnded:
		e.free(l)
		e.conclude(a, *m.End)
	}
}

// hasBegun needs Executor.mu.
func (a *attempt) hasBegun() {
	if !a.isBegun {
		a.isBegun = true
		close(a.began)
	}
}

// conclude takes the end of an attempt and collects its outputs in the background; it needs e.mu.
func (e *Executor) conclude(a *attempt, end endRecord) {
	if a.phase >= over {
		return
	}
	a.phase, a.link = over, nil
	a.hasBegun()
	close(a.ended)
	if !e.closed {
		e.work.Go(func() { e.collectResult(a, end) })
	}
}

// detach forgets the link and returns the attempt it had, unless we are closing.
func (e *Executor) detach(l *link) *attempt {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	delete(e.links, l.id)
	e.idle = slices.DeleteFunc(e.idle, func(o *link) bool { return o == l })
	a := e.attempts[l.key]
	if l.key == "" || a == nil || a.phase != active {
		return nil
	}
	a.link = nil
	return a
}

// cleanShim removes what a shim that has ended leaves.
func (e *Executor) cleanShim(l *link) {
	ctx, cancel := context.WithTimeout(e.life, 10*time.Second)
	defer cancel()
	if err := l.group.clear(ctx); err != nil {
		e.cfg.Log.Warn("control group of an ended shim stays", "error", err)
	}
	if err := os.RemoveAll(l.dir); err != nil {
		e.cfg.Log.Warn("directory of an ended shim stays", "error", err)
	}
}
