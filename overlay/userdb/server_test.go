package userdb

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// socketDir is short: a socket's path has at most 107 bytes, less than the test's own directory may take.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "userdb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func startServer(t *testing.T, dir string) *server {
	t.Helper()
	s, err := serve(dir, "io.vcpeer", sample)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

const aliceCall = `{"method":"io.systemd.UserDatabase.GetUserRecord","parameters":{"userName":"alice","service":"io.vcpeer"}}` + "\x00"

func reads(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	got, err := r.ReadString(0)
	if err != nil || !strings.Contains(got, want) {
		t.Fatalf("got %q, %v; want …%s…", got, err, want)
	}
}

func TestServer(t *testing.T) {
	dir := socketDir(t)
	s := startServer(t, dir)
	defer s.close()
	if info, err := os.Lstat(s.path); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("socket: %v, %v; want mode 0666", info.Mode(), err)
	}

	c := dial(t, s.path)
	r := bufio.NewReader(c)
	io.WriteString(c, aliceCall[:20]) // in pieces
	io.WriteString(c, aliceCall[20:]+strings.Replace(aliceCall, "alice", "nobody", 1)+aliceCall)
	reads(t, r, `"userName":"alice"`)
	reads(t, r, `NoRecordFound`)
	reads(t, r, `"userName":"alice"`)

	io.WriteString(c, strings.Replace(aliceCall, `{"method"`, `{"oneway":true,"method"`, 1)+strings.Replace(aliceCall, "alice", "bob", 1))
	reads(t, r, `"userName":"bob"`) // the first was not to be answered

	for _, garbage := range []string{"GET / HTTP/1.1\r\n\r\n\x00", "{}\x00", "[1]\x00", strings.Repeat("x", maxFrameBytes+1), strings.Replace(aliceCall, `{"method"`, `{"upgrade":true,"method"`, 1)} {
		c := dial(t, s.path)
		io.WriteString(c, garbage)
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%.20q: read %d, %v; want the end of the connection", garbage, n, err)
		}
	}
	io.WriteString(c, aliceCall) // the others are not disturbed
	reads(t, r, `"userName":"alice"`)
}

func TestServerLimitsConnections(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Log("as root only the total is limited")
	}
	s := startServer(t, socketDir(t))
	defer s.close()
	limit := maxConnsPerUser
	if os.Geteuid() == 0 {
		limit = maxConns
	}
	var open []net.Conn
	for range limit {
		c := dial(t, s.path)
		io.WriteString(c, aliceCall)
		reads(t, bufio.NewReader(c), "alice")
		open = append(open, c)
	}
	over := dial(t, s.path)
	if n, err := over.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("connection %d: read %d, %v; want it closed", limit+1, n, err)
	}
	open[0].Close()
	await(t, "a place is free again", func() bool {
		c, err := net.Dial("unix", s.path)
		if err != nil {
			return false
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		io.WriteString(c, aliceCall)
		_, err = c.Read(make([]byte, 1))
		return err == nil
	})
}

// await polls a condition, ten seconds at most.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestServerTakesOverOnlyFromTheDead(t *testing.T) {
	dir := socketDir(t)
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "io.vcpeer"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close() // as kill -9 leaves it

	s := startServer(t, dir)
	if _, err := serve(dir, "io.vcpeer", sample); !errors.Is(err, ErrServed) {
		t.Errorf("a second server: %v, want ErrServed", err)
	}
	if err := removeSocket(dir, "io.vcpeer"); !errors.Is(err, ErrServed) {
		t.Errorf("removing a served socket: %v, want ErrServed", err)
	}
	c := dial(t, s.path)
	io.WriteString(c, aliceCall)
	reads(t, bufio.NewReader(c), "alice")
	s.close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlived the server")
	}
	if err := removeSocket(dir, "io.vcpeer"); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
