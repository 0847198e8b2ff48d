package userdb

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

func TestSources(t *testing.T) {
	conf := "# passwd: no\npasswd:         files [NOTFOUND=continue] systemd # tail\ngroup:files systemd[!SUCCESS=return]\n\n shadow : files\nhosts\n"
	for database, want := range map[string]string{"passwd": "files systemd", "group": "files systemd", "shadow": "files", "hosts": "", "netgroup": ""} {
		if got := strings.Join(sources([]byte(conf), database), " "); got != want {
			t.Errorf("%s: got %q, want %q", database, got, want)
		}
	}
}

func FuzzSources(f *testing.F) {
	f.Add([]byte("passwd: files [ NOTFOUND=return ] systemd\n"))
	f.Add([]byte("passwd: ]files[["))
	f.Fuzz(func(t *testing.T, conf []byte) {
		for _, s := range sources(conf, "passwd") {
			if s == "" || strings.ContainsAny(s, "[]# \t\n") {
				t.Fatalf("source %q of %q", s, conf)
			}
		}
	})
}

func TestChoose(t *testing.T) {
	both := func(source string) facts {
		return facts{passwd: []string{"files", source}, group: []string{"files", source}, anyLib: true}
	}
	with := func(f facts, change func(*facts)) facts { change(&f); return f }
	for _, tt := range []struct {
		name string
		f    facts
		mode Mode
		hint string
	}{
		{"nss-systemd", with(both("systemd"), func(f *facts) { f.libSystemd = true }), ModeUserdb, ""},
		{"named and not installed", with(both("systemd"), func(f *facts) { f.debian = true }), ModeOff, "apt-get install libnss-systemd"},
		{"installed and not named", with(both("files"), func(f *facts) { f.libSystemd, f.debian = true, true }), ModeOff, "add the word systemd"},
		{"named for one of two", with(both("systemd"), func(f *facts) { f.libSystemd = true; f.group = f.group[:1] }), ModeOff, "add the word systemd"},
		{"extrausers", with(both("extrausers"), func(f *facts) { f.libExtra, f.extraDir = true, true }), ModeExtrausers, ""},
		{"extrausers without its directory", with(both("extrausers"), func(f *facts) { f.libExtra = true }), ModeOff, "add the word extrausers"},
		{"extrausers when the socket fails", with(both("extrausers"), func(f *facts) { f.libExtra, f.extraDir, f.libSystemd, f.serveErr = true, true, true, fs.ErrPermission }), ModeExtrausers, ""},
		{"both: the socket", with(both("systemd"), func(f *facts) {
			f.passwd, f.group = append(f.passwd, "extrausers"), append(f.group, "extrausers")
			f.libExtra, f.extraDir, f.libSystemd = true, true, true
		}), ModeUserdb, ""},
		{"no root", with(both("systemd"), func(f *facts) { f.libSystemd = true; f.serveErr = fmt.Errorf("mkdir: %w", fs.ErrPermission) }), ModeOff, "run vcpeer as root"},
		{"another daemon", with(both("systemd"), func(f *facts) { f.libSystemd = true; f.serveErr = fmt.Errorf("x: %w", ErrServed) }), ModeOff, "one daemon"},
		{"no glibc", facts{}, ModeOff, "glibc"},
		{"other distribution", facts{anyLib: true}, ModeOff, "install nss-systemd"},
	} {
		mode, detail, hint := choose(tt.f)
		if mode != tt.mode || !strings.Contains(hint, tt.hint) || (mode == ModeOff) != (detail != "") || tt.hint == "" && hint != "" {
			t.Errorf("%s: got %s, %q, %q; want %s, hint …%s…", tt.name, mode, detail, hint, tt.mode, tt.hint)
		}
	}
}
