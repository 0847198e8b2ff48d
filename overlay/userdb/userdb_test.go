package userdb

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// machine makes the files that a DB looks at; mode says which module its C library has.
func machine(t *testing.T, module string) Config {
	t.Helper()
	dir := socketDir(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, content := range map[string]string{
		"nsswitch.conf": "passwd: files " + module + "\ngroup: files " + module + "\n",
		"passwd":        localPasswd, "group": localGroup,
		"lib/libnss_" + module + ".so.2": "", "extra/passwd": "hand:x:1500:1500::/:/bin/sh\n", "extra/group": "",
	} {
		if err := os.MkdirAll(filepath.Dir(at(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at(name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Config{Instance: "a", Coalesce: time.Millisecond, Recheck: 10 * time.Millisecond, Log: slog.New(slog.DiscardHandler), Paths: Paths{
		Sockets: at("run"), NSSwitch: at("nsswitch.conf"), Passwd: at("passwd"), Group: at("group"),
		Extrausers: at("extra"), Lock: at("lock"), Modules: []string{at("lib")}, AptGet: at("apt-get"),
	}}
}

func start(t *testing.T, cfg Config) (db *DB, stop func()) {
	t.Helper()
	db, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- db.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	}
	t.Cleanup(stop)
	return db, stop
}

// lookup asks the socket; empty: it is not there.
func lookUp(path, name string) string {
	c, err := net.Dial("unix", path)
	if err != nil {
		return ""
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, strings.Replace(aliceCall, "alice", name, 1))
	answer, _ := bufio.NewReader(c).ReadString(0)
	return answer
}

func TestServesAndFollows(t *testing.T) {
	cfg := machine(t, "systemd")
	db, stop := start(t, cfg)
	socket := filepath.Join(cfg.Paths.Sockets, "io.vcpeer")

	await(t, "an answer before any account is known", func() bool { return strings.Contains(lookUp(socket, "alice"), "ServiceNotAvailable") })
	if s := db.Status(); s.Mode != ModeOff || !strings.Contains(s.Detail, "not known yet") {
		t.Errorf("status before any account is known: %+v", s)
	}
	db.Set([]Account{{Name: "alice", UID: 200001, GID: 200001}, {Name: "local", UID: 200002, GID: 200002}}, nil)
	await(t, "alice is found", func() bool { return strings.Contains(lookUp(socket, "alice"), `"uid":200001`) })
	await(t, "status", func() bool {
		s := db.Status()
		return s.Mode == ModeUserdb && s.Accounts == 1 && s.Groups == 1 && len(s.Refused) == 1 && s.Err == nil && strings.Contains(s.Detail, "1 left out")
	})

	if err := os.RemoveAll(cfg.Paths.Sockets); err != nil { // somebody sweeps /run
		t.Fatal(err)
	}
	await(t, "the socket is back", func() bool { return strings.Contains(lookUp(socket, "alice"), `"uid":200001`) })

	// Somebody adds a local user of that name: it comes first, without any change of ours.
	if err := os.WriteFile(cfg.Paths.Passwd, []byte("alice:x:1001:1001::/home/alice:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	await(t, "the local alice is left alone", func() bool { return strings.Contains(lookUp(socket, "alice"), "NoRecordFound") })
	if err := os.Remove(cfg.Paths.Passwd); err != nil {
		t.Fatal(err)
	}
	await(t, "an error is shown", func() bool { return errors.Is(db.Status().Err, fs.ErrNotExist) })
	if got := lookUp(socket, "local"); !strings.Contains(got, "200002") { // the last good snapshot: local was free to take there
		t.Errorf("the last good accounts are gone: %s", got)
	}

	stop()
	if got := lookUp(socket, "alice"); got != "" {
		t.Errorf("answer after the end: %s", got)
	}
	if err := Uninstall(t.Context(), cfg); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(cfg.Paths.Sockets); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestExtrausersFiles(t *testing.T) {
	cfg := machine(t, "extrausers")
	db, stop := start(t, cfg)
	content := func(name string) string {
		b, _ := os.ReadFile(filepath.Join(cfg.Paths.Extrausers, name))
		return string(b)
	}
	db.Set([]Account{{Name: "alice", UID: 200001, GID: 200001, FullName: "Alice: A"}, {Name: "bob", UID: 200002, GID: 200001, Disabled: true}},
		[]Group{{Name: "physics", GID: 200100, Members: []string{"bob", "alice"}}})
	await(t, "mode", func() bool { return db.Status().Mode == ModeExtrausers && db.Status().Err == nil })
	const begin, end = "# BEGIN vcpeer a (kept by vcpeer, edits in here are lost)\n", "# END vcpeer a\n"
	for name, want := range map[string]string{
		"passwd": "hand:x:1500:1500::/:/bin/sh\n" + begin + "alice:x:200001:200001:Alice  A:/home/alice:/bin/sh\nbob:x:200002:200001::/home/bob:/usr/sbin/nologin\n" + end,
		"group":  begin + "alice:x:200001:\nphysics:x:200100:alice,bob\n" + end,
		"shadow": begin + "alice:*:::::::\nbob:!*::::::1:\n" + end,
	} {
		await(t, name+" is written", func() bool { return content(name) == want })
	}
	if info, err := os.Stat(filepath.Join(cfg.Paths.Extrausers, "shadow")); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("shadow: %v, %v; want mode 0640", info.Mode(), err)
	}

	// libnss-systemd is installed later: the socket takes over, and nothing is listed twice.
	if err := os.WriteFile(filepath.Join(cfg.Paths.Modules[0], "libnss_systemd.so.2"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.Paths.NSSwitch, []byte("passwd: files systemd extrausers\ngroup: files systemd extrausers\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	await(t, "the socket takes over", func() bool {
		return db.Status().Mode == ModeUserdb && content("passwd") == "hand:x:1500:1500::/:/bin/sh\n"
	})

	stop()
	if err := Uninstall(t.Context(), cfg); err != nil {
		t.Error(err)
	}
	if content("passwd") != "hand:x:1500:1500::/:/bin/sh\n" || content("group") != "" {
		t.Errorf("after Uninstall: %q, %q", content("passwd"), content("group"))
	}
}

// TestTheMachineIsLookedAtNowAndThen: accounts that change do not cost a look at the C library's modules each.
func TestTheMachineIsLookedAtNowAndThen(t *testing.T) {
	cfg := machine(t, "extrausers")
	cfg.Recheck = time.Hour
	db, _ := start(t, cfg)
	one := []Account{{Name: "alice", UID: 200001, GID: 200001}}
	db.Set(one, nil)
	await(t, "alice is there", func() bool { return db.Status().Mode == ModeExtrausers && db.Status().Accounts == 1 })
	if err := os.Remove(filepath.Join(cfg.Paths.Modules[0], "libnss_extrausers.so.2")); err != nil {
		t.Fatal(err)
	}
	db.Set(append(one, Account{Name: "bob", UID: 200002, GID: 200002}), nil)
	await(t, "bob is there", func() bool { return db.Status().Accounts == 2 })
	if s := db.Status(); s.Mode != ModeExtrausers {
		t.Errorf("the machine was looked at again: %+v", s)
	}
}

func TestUninstallRestoresFiles(t *testing.T) {
	cfg := machine(t, "extrausers")
	db, stop := start(t, cfg)
	db.Set([]Account{{Name: "alice", UID: 200001, GID: 200001}}, nil)
	file := filepath.Join(cfg.Paths.Extrausers, "passwd")
	await(t, "alice is written", func() bool {
		b, _ := os.ReadFile(file)
		return strings.Contains(string(b), "alice")
	})
	if err := Uninstall(t.Context(), cfg); !errors.Is(err, ErrServed) {
		t.Errorf("while the daemon runs: %v, want ErrServed", err)
	}
	stop()
	for range 2 { // a second time there is nothing to do
		if err := Uninstall(t.Context(), cfg); err != nil {
			t.Error(err)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "hand:x:1500:1500::/:/bin/sh\n" {
		t.Errorf("after Uninstall: %q, %v", b, err)
	}
}

func TestNewChecksConfig(t *testing.T) {
	for _, cfg := range []Config{{}, {Instance: "a/b"}, {Instance: "a", Service: "../x"}, {Instance: "a", Service: "io.systemd.Multiplexer"}, {Instance: "a", Recheck: -1}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
