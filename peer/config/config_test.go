package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func who(uid int, env map[string]string) Who {
	return Who{UID: uid, Home: "/home/ann", Getenv: func(k string) string { return env[k] }}
}

func source(l *Loaded, key string) string {
	i := slices.IndexFunc(l.Values(), func(v Value) bool { return v.Key == key })
	v := l.Values()[i]
	return v.Value + " from " + v.Source
}

func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "vcpeer.yaml")
	if err := os.WriteFile(file, []byte("# ours\nsite: fromfile\nslots: 3\nseed: [a, \"b:1\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"VCPEER_SITE": "fromenv", "VCPEER_SEED": "c, d:2", "VCPEER_TOKEN": "s3cret"}
	l, err := Load(Sources{Flags: map[string][]string{"site": {"fromflag"}}, Dir: dir, User: who(1000, env)})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"site":      "fromflag from flag",
		"seed":      "c,d:2 from VCPEER_SEED",
		"slots":     "3 from " + file + ":3",
		"log-level": "info from default",
		"token":     "(set) from VCPEER_TOKEN",
		"integrate": "off from default",
		"overlay":   "off from default",
	} {
		if got := source(l, key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
	if l.Token != "s3cret" || l.Socket != filepath.Join(dir, "run/vcpeer.sock") || l.State != filepath.Join(dir, "state") {
		t.Errorf("token %q, socket %q, state %q", l.Token, l.Socket, l.State)
	}
}

func TestAJobsVariablesAreNoSettings(t *testing.T) {
	env := map[string]string{"VCPEER_SITE": "osaka", "VCPEER_SLOTS": "4", "VCPEER_DIR": "/work", "VCPEER_SOCKET": "/s"}
	for id, want := range map[string]string{"": "osaka /work 4 /s", "7": "  0 /s"} {
		env["VCPEER_JOB_ID"] = id
		l, err := Load(Sources{User: who(1000, env)})
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%s %s %d %s", l.Site, l.Dir, l.Slots, l.Socket); got != want {
			t.Errorf("job %q: got %q, want %q", id, got, want)
		}
	}
}

func TestBadSeeds(t *testing.T) {
	for seed, good := range map[string]bool{"a": true, "a:1": true, "::1": true, "[::1]:7475": true, "a:b:c:d": false, "a:0": false, "a:99999": false} {
		_, err := Load(Sources{Flags: map[string][]string{"seed": {seed}}, User: who(1000, nil)})
		if (err == nil) != good {
			t.Errorf("%s: %v", seed, err)
		}
	}
}

func TestBadFile(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"near", "site: a\nslot: 3\n", `f.yaml:2: unknown key "slot"; did you mean "slots"?`},
		{"underscore", "log_level: info\n", `did you mean "log-level"?`},
		{"far", "quota: 3\n", `unknown key "quota"; known are seed, token`},
		{"twice", "site: a\nsite: b\n", `site`},
		{"kind", "slots: many\n", `f.yaml:1: slots: "many" is not a whole number`},
		{"nested", "site: {a: b}\n", "f.yaml:1: site: want a value"},
		{"list of lists", "seed: [[a]]\n", "want a list of plain values"},
		{"no mapping", "- a\n", "want lines of the form key: value"},
		{"two", "site: a\n---\nsite: b\n", "more than one document"},
		{"syntax", "site: [a\n", "f.yaml"},
		{"list for one", "site: [a, b]\n", "want one value, got 2"},
		{"word", "jobs-as: accounts\n", "did you mean account?"},
		{"name", "name: Big_Box\n", "lower-case letters"},
		{"port", "listen: host:99999\n", "want a port from 0 to 65535"},
		{"no host", "seed: \":7475\"\n", "want a host before the port"},
		{"slots", "slots: -2\n", "slots -2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "f.yaml")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Load(Sources{File: file, User: who(1000, nil)})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestEmptyFiles(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "\n\n"} {
		if entries, err := parse("f", []byte(text)); err != nil || len(entries) != 0 {
			t.Errorf("%q: %v %v", text, entries, err)
		}
	}
	if _, err := Load(Sources{File: "/nonexistent/f.yaml", User: who(1000, nil)}); err == nil {
		t.Error("a named file that is not there is no error")
	}
}

func TestPlaces(t *testing.T) {
	for _, tt := range []struct {
		name, dir string
		who       Who
		want      Paths
	}{
		{"root", "", who(0, nil), Paths{"/etc/vcpeer/vcpeer.yaml", "/var/lib/vcpeer", "/run/vcpeer/vcpeer.sock"}},
		{"user", "", who(1000, nil), Paths{"/home/ann/.config/vcpeer/vcpeer.yaml", "/home/ann/.local/state/vcpeer", "/home/ann/.local/state/vcpeer/run/vcpeer.sock"}},
		{"xdg", "", who(1000, map[string]string{"XDG_RUNTIME_DIR": "/run/user/1000", "XDG_STATE_HOME": "/s", "XDG_CONFIG_HOME": "relative"}),
			Paths{"/home/ann/.config/vcpeer/vcpeer.yaml", "/s/vcpeer", "/run/user/1000/vcpeer/vcpeer.sock"}},
		{"dir", "/d", who(0, nil), Paths{"/d/vcpeer.yaml", "/d/state", "/d/run/vcpeer.sock"}},
	} {
		if got := DefaultPaths(tt.dir, tt.who); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestIntegrateOnlyTheSystemsNode(t *testing.T) {
	for _, tt := range []struct {
		dir  string
		uid  int
		want string
	}{{"", 0, IntegrateOn}, {"/d", 0, IntegrateOff}, {"", 1000, IntegrateOff}} {
		// A named empty file keeps the machine's own configuration out of the test.
		l, err := Load(Sources{Dir: tt.dir, File: os.DevNull, User: who(tt.uid, nil)})
		if err != nil || l.Integrate != tt.want {
			t.Errorf("dir %q uid %d: %v %v", tt.dir, tt.uid, l, err)
		}
	}
}

func TestLongSocket(t *testing.T) {
	_, err := Load(Sources{Dir: "/" + strings.Repeat("x", 120), File: os.DevNull, User: who(0, nil)})
	if err == nil || !strings.Contains(err.Error(), "107 bytes") {
		t.Error(err)
	}
}

func TestWithPort(t *testing.T) {
	for in, want := range map[string]string{
		"a": "a:7475", "a:1": "a:1", "10.0.0.1": "10.0.0.1:7475", "fe80::1": "[fe80::1]:7475", "[fe80::1]": "[fe80::1]:7475", "[::1]:9": "[::1]:9",
	} {
		if got := WithPort(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestIsLabel(t *testing.T) {
	for s, want := range map[string]bool{"a": true, "kyoto-1": true, "1": true, "": false, "-a": false, "a-": false, "A": false, "a.b": false, "a b": false,
		strings.Repeat("x", 63): true, strings.Repeat("x", 64): false} {
		if isLabel(s) != want {
			t.Errorf("%q: want %v", s, want)
		}
	}
}

func TestNearest(t *testing.T) {
	words := []string{"submit", "status", "stop", "start", "sites"}
	for in, want := range map[string]string{"sumbit": "submit", "stats": "status", "SITES": "sites", "frobnicate": "", "sub": "submit", "": "", "strat": "start"} {
		if got := Nearest(in, words); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("site: a\nseed: [a, b]\n")
	f.Add("a: &x [*x]\n")
	f.Add("? [a]\n: b\n")
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := parse("f", []byte(text))
		for _, e := range entries {
			if known(e.key) != nil || e.line < 1 {
				t.Errorf("%q gave %v", text, e)
			}
		}
		if err != nil && !strings.Contains(err.Error(), "f") {
			t.Errorf("%q: %v does not name the file", text, err)
		}
		_ = fmt.Sprint(entries)
	})
}
