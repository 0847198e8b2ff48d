package userdb

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These tests ask the machine's real programs. Each runs itself again in a mount namespace of its own, with its own
// nsswitch.conf, /run/systemd/userdb and /var/lib/extrausers, so the machine is untouched however they end:
//
//	machine: /etc/nsswitch.conf   /run/systemd/userdb   /var/lib/extrausers
//	test:    "files MODULE"       empty tmpfs           empty tmpfs

const inNamespace = "VCPEER_TEST_IN_NAMESPACE"

// inOwnMounts runs body in a namespace where the C library uses module for passwd, group and shadow.
func inOwnMounts(t *testing.T, module, debianPackage string, body func(t *testing.T, ask func(args ...string) string)) {
	t.Helper()
	if os.Getenv(inNamespace) != "" {
		mountOwn(t, module)
		body(t, func(args ...string) string { return run(t, args) })
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	cfg, err := Config{Instance: "test"}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if f := look(cfg.Paths); module == "systemd" && !f.libSystemd || module == "extrausers" && !f.libExtra {
		t.Skipf("libnss_%s.so.2 is missing: apt-get install %s", module, debianPackage)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // Go makes the mounts private first
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skip("no right to make a mount namespace:", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
}

func mountOwn(t *testing.T, module string) {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "nsswitch.conf")
	lines := "passwd: files " + module + "\ngroup: files " + module + "\nshadow: files " + module + "\n"
	if err := os.WriteFile(conf, []byte(lines), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(conf, "/etc/nsswitch.conf", "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/run", "/var/lib/extrausers"} {
		if _, err := os.Stat(dir); err != nil && dir != "/run" {
			continue // the package is not installed, and not needed
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			t.Fatal(err)
		}
	}
}

func run(t *testing.T, args []string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", args, err)
	}
	return strings.TrimRight(string(out), "\n")
}

func records() ([]Account, []Group) {
	return []Account{
			{Name: "vcalice", UID: 200001, GID: 200100, FullName: "Alice A", Shell: "/bin/bash"},
			{Name: "vcbob", UID: 200002, GID: 200002, FullName: "Bob B", Disabled: true},
			{Name: "root", UID: 200003, GID: 200003},
		}, []Group{
			{Name: "vcphysics", GID: 200100, Members: []string{"vcalice", "vcbob"}},
			{Name: "vczoo", GID: 200101, Members: []string{"vcalice", "root"}},
		}
}

// asks is what programs must see, whichever way they see it.
func asks(t *testing.T, ask func(args ...string) string) {
	t.Helper()
	for _, tt := range []struct{ command, want string }{
		{"getent passwd vcalice", "vcalice:x:200001:200100:Alice A:/home/vcalice:/bin/bash"},
		{"getent passwd 200002", "vcbob:x:200002:200002:Bob B:/home/vcbob:/usr/sbin/nologin"},
		{"id vcalice", "uid=200001(vcalice) gid=200100(vcphysics) groups=200100(vcphysics),200101(vczoo)"},
		{"id vcbob", "uid=200002(vcbob) gid=200002(vcbob) groups=200002(vcbob),200100(vcphysics)"},
		{"getent group 200100", "vcphysics:x:200100:vcalice,vcbob"},
		{"getent group vczoo", "vczoo:x:200101:vcalice"},
		{"getent group vcbob", "vcbob:x:200002:"},
		{"id root", "uid=0(root) gid=0(root) groups=0(root)"},
		{"getent passwd 200003", ""},
		{"getent passwd vcnobody", ""},
	} {
		if got := ask(strings.Fields(tt.command)...); got != tt.want {
			t.Errorf("%s\n got %q\nwant %q", tt.command, got, tt.want)
		}
	}
	if all := ask("getent", "passwd"); strings.Count(all, "\nvcalice:") != 1 || strings.Count(all, "\nvcbob:") != 1 || !strings.HasPrefix(all, "root:x:0:0:") {
		t.Errorf("getent passwd lists\n%s", all)
	}
	// The account is locked and over: field 8 is the day of expiry, in 1970.
	if got := strings.Split(ask("getent", "shadow", "vcbob"), ":"); len(got) != 9 || !strings.HasPrefix(got[1], "!") || got[7] != "1" {
		t.Errorf("getent shadow vcbob: %q", got)
	}
}

func TestSystemReadsSocket(t *testing.T) {
	inOwnMounts(t, "systemd", "libnss-systemd", func(t *testing.T, ask func(...string) string) {
		cfg := Config{Instance: "test", Coalesce: time.Millisecond}
		db, stop := start(t, cfg)
		accounts, groups := records()
		db.Set(accounts, groups)
		await(t, "accounts are given out", func() bool { return db.Status().Mode == ModeUserdb && db.Status().Accounts == 2 })
		asks(t, ask)

		begun := time.Now()
		const lookups = 50
		for range lookups {
			ask("getent", "passwd", "vcalice")
		}
		t.Logf("%v for one getent", time.Since(begun)/lookups)

		db.Set(accounts[1:], groups) // alice is removed
		await(t, "alice is gone", func() bool { return ask("getent", "passwd", "vcalice") == "" })
		if got := ask("getent", "group", "vczoo"); got != "vczoo:x:200101:" {
			t.Errorf("group of a removed member: %q", got)
		}
		stop()
		if got := ask("getent", "passwd", "vcbob"); got != "" {
			t.Errorf("after the end: %q", got)
		}
	})
}

// TestSystemOutlivesDeadDaemon: a socket file that nobody serves must not disturb the lookup of the machine's own users.
func TestSystemOutlivesDeadDaemon(t *testing.T) {
	inOwnMounts(t, "systemd", "libnss-systemd", func(t *testing.T, ask func(...string) string) {
		s, err := serve("/run/systemd/userdb", "io.vcpeer", sample)
		if err != nil {
			t.Fatal(err)
		}
		if got := ask("getent", "passwd", "alice"); !strings.HasPrefix(got, "alice:x:200001:") {
			t.Fatalf("while it is served: %q", got)
		}
		keep := filepath.Join("/run", "keep")
		if err := os.Link(s.path, keep); err != nil {
			t.Fatal(err)
		}
		s.close()
		if err := os.Rename(keep, s.path); err != nil { // as kill -9 would have left it
			t.Fatal(err)
		}
		if got := ask("id", "-u", "root"); got != "0" {
			t.Errorf("root with a dead socket: %q", got)
		}
		if got := ask("getent", "passwd", "alice"); got != "" {
			t.Errorf("alice from a dead socket: %q", got)
		}
		if got := ask("getent", "passwd"); !strings.HasPrefix(got, "root:x:0:0:") {
			t.Errorf("the list with a dead socket: %q", got)
		}
	})
}

func TestSystemReadsExtrausers(t *testing.T) {
	inOwnMounts(t, "extrausers", "libnss-extrausers", func(t *testing.T, ask func(...string) string) {
		db, stop := start(t, Config{Instance: "test", Coalesce: time.Millisecond})
		db.Set(records())
		await(t, "accounts are given out", func() bool {
			return db.Status().Mode == ModeExtrausers && db.Status().Accounts == 2 && db.Status().Err == nil
		})
		asks(t, ask)
		stop()
		if err := Uninstall(t.Context(), Config{Instance: "test"}); err != nil {
			t.Error(err)
		}
		if got := ask("getent", "passwd", "vcbob"); got != "" {
			t.Errorf("after Uninstall: %q", got)
		}
	})
}
