package exec

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"pgregory.net/rapid"
)

// TestNastyPaths: none of these may name an input, and none may be started with.
func TestNastyPaths(t *testing.T) {
	r := newRig(t, nil)
	good := r.blobs.file(t, "x", "x\n", 0)
	long := strings.Repeat("a", 256)
	for i, p := range []string{
		"", ".", "..", "/", "//", "/etc/passwd", "//etc/passwd", "../x", "../../x", "a/..", "a/../b", "a/../../b", "./a", "a/.", "a/./b",
		"a//b", "a/", "a/b/", "/a", "../../../../../../../../tmp/x", "a/b/../../../c", "..//x", ".//x", "a/...//b", "\x00", "a\x00b", "a/\x00",
		"x\x00/../../y", long, "a/" + long, strings.Repeat("a/", 2100) + "a", "../" + long, "a/../..", "./..", "../.", "./", "../", "a/b//", "///",
		"/proc/self/environ", "/../x", "..\x00",
	} {
		if ValidPath(p) {
			t.Errorf("%d: %.60q is a valid path", i, p)
		}
		s := sh(fmt.Sprintf("1.%d.1", i), "true")
		s.Inputs = []File{{Path: p, Hash: good.Hash, Size: good.Size}}
		if err := r.Start(t.Context(), s, time.Minute); !errors.Is(err, ErrSpec) {
			t.Errorf("%d: input %.60q: %v", i, p, err)
		}
		if !ValidPattern(p) {
			s.Inputs, s.Outputs = nil, []string{p}
			if err := r.Start(t.Context(), s, time.Minute); !errors.Is(err, ErrSpec) {
				t.Errorf("%d: output %.60q: %v", i, p, err)
			}
		} else if !strings.HasSuffix(p, "/") || strings.Contains(p, "..") {
			t.Errorf("%d: %.60q is a valid pattern", i, p)
		}
	}
	for _, p := range []string{"a", "a/b", "...", "..a", "a..", ".hidden", "a b/ü", "-rf", "$(reboot)", "a\nb", "~", "*", "\\", strings.Repeat("a", 255)} {
		if !ValidPath(p) {
			t.Errorf("%q is refused", p)
		}
	}
	odd := sh("2.1.1", "cat -- '-rf' 'a b/ü'")
	odd.Inputs = []File{r.blobs.file(t, "-rf", "1", 0), r.blobs.file(t, "a b/ü", "2", 0)}
	if res := r.do(odd); r.blobs.text(t, res.Stdout) != "12" {
		t.Errorf("odd names: %+v", res)
	}
	clash := sh("2.2.1", "true")
	clash.Inputs = []File{r.blobs.file(t, "a", "1", 0), r.blobs.file(t, "a/b", "2", 0)}
	if err := r.Start(t.Context(), clash, time.Minute); err == nil {
		t.Error("a file is also a directory")
	}
	if list, _ := os.ReadDir(r.attemptsDir()); len(list) != 0 {
		t.Errorf("refused attempts leave %d directories", len(list))
	}
	if _, err := os.Stat(filepath.Join(r.cfg.Dir, "x")); err == nil {
		t.Error("a path led out")
	}
}

// TestHostileOutputs: what a job leaves under the names of its outputs never brings in a file from elsewhere.
func TestHostileOutputs(t *testing.T) {
	r := newRig(t, nil)
	secret := filepath.Join(r.cfg.Dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := sh("1.1.1", fmt.Sprintf(`ln -s %s abs; ln -s ../../../secret rel; ln -s .. up; ln -s ../../.. d; mkdir e; ln -s %s e/f; ln -s abs chain
		mkfifo pipe; ln -s /dev/zero zero; ln -s loop loop; ln -s /proc/self/environ env; echo fine > fine; ln -s fine inside`, secret, secret))
	s.Outputs = []string{"abs", "rel", "up", "d/secret", "e", "chain", "pipe", "zero", "loop", "env", "fine", "inside", "up/spec", "**/f"}
	res := r.do(s)
	var got []string
	for _, f := range res.Outputs {
		got = append(got, f.Path)
		if c := r.blobs.text(t, Ref{f.Hash, f.Size}); c != "fine\n" {
			t.Errorf("%s brought %q", f.Path, c)
		}
	}
	if p := strings.Join(got, " "); p != "fine inside" || res.Exit != 0 || !strings.Contains(res.Reason, "output abs is not kept") {
		t.Errorf("kept %q: %+v", p, res)
	}
	gone := sh("1.2.1", "cd ..; rm -rf work tmp")
	gone.Outputs = []string{"x"}
	if res := r.do(gone); !strings.Contains(res.Reason, "removed its working directory") {
		t.Errorf("%+v", res)
	}
	swap := sh("1.3.1", "cd ..; rm -rf work; ln -s / work")
	swap.Outputs = []string{"etc/hostname", "etc/passwd"}
	if res := r.do(swap); len(res.Outputs) != 0 {
		t.Errorf("a working directory that became a link gave %+v", res.Outputs)
	}
}

func TestExpand(t *testing.T) {
	fsys := fstest.MapFS{}
	for _, f := range []string{"a.txt", "b.txt", "c.dat", "d/x.txt", "d/e/y.txt", "d/e/z.dat", "f/g/h/i.txt"} {
		fsys[f] = &fstest.MapFile{}
	}
	for _, tt := range []struct{ patterns, files, missing string }{
		{"*.txt", "a.txt b.txt", ""},
		{"*.txt a.*", "a.txt b.txt", ""},
		{"d", "d/e/y.txt d/e/z.dat d/x.txt", ""},
		{"d/", "d/e/y.txt d/e/z.dat d/x.txt", ""},
		{"d/*", "d/e/y.txt d/e/z.dat d/x.txt", ""},
		{"**/*.txt", "a.txt b.txt d/e/y.txt d/x.txt f/g/h/i.txt", ""},
		{"d/**", "d/e/y.txt d/e/z.dat d/x.txt", ""},
		{"**", "a.txt b.txt c.dat d/e/y.txt d/e/z.dat d/x.txt f/g/h/i.txt", ""},
		{"f/**/i.txt", "f/g/h/i.txt", ""},
		{"*/*/y.*", "d/e/y.txt", ""},
		{"[ab].txt nope ?.dat q/*", "a.txt b.txt c.dat", "nope q/*"},
		{"a.txt/x", "", "a.txt/x"},
	} {
		files, missing := expand(fsys, strings.Fields(tt.patterns))
		if f, m := strings.Join(files, " "), strings.Join(missing, " "); f != tt.files || m != tt.missing {
			t.Errorf("%s: got %q, missing %q", tt.patterns, f, m)
		}
	}
}

func TestValidate(t *testing.T) {
	ok := sh("a.1", "true")
	for name, change := range map[string]func(*Spec){
		"no key":         func(s *Spec) { s.Key = "" },
		"key of dots":    func(s *Spec) { s.Key = ".." },
		"key with slash": func(s *Spec) { s.Key = "a/b" },
		"no command":     func(s *Spec) { s.Argv = nil },
		"empty command":  func(s *Spec) { s.Argv = []string{""} },
		"NUL":            func(s *Spec) { s.Argv = append(s.Argv, "a\x00") },
		"huge argument":  func(s *Spec) { s.Argv = append(s.Argv, strings.Repeat("a", maxString)) },
		"huge in all":    func(s *Spec) { s.Argv = append(s.Argv, make11(strings.Repeat("a", maxString-1))...) },
		"bad variable":   func(s *Spec) { s.Env = []string{"A"} },
		"no name":        func(s *Spec) { s.Env = []string{"=x"} },
		"many variables": func(s *Spec) { s.Env = make([]string, maxEnv+1) },
		"script":         func(s *Spec) { s.Script = "../../etc/passwd" },
		"negative time":  func(s *Spec) { s.TimeLimit = -1 },
		"set-uid input":  func(s *Spec) { s.Inputs = []File{{Path: "a", Hash: strings.Repeat("a", 64), Mode: 0o4755}} },
		"bad pattern":    func(s *Spec) { s.Outputs = []string{"[a"} },
		"account":        func(s *Spec) { s.Account = &Account{Name: "x", UID: 0, GID: 5} },
		"no uid":         func(s *Spec) { s.Account = &Account{Name: "x", UID: 1<<32 - 1, GID: 5} },
	} {
		s := ok
		change(&s)
		if err := s.Validate(); !errors.Is(err, ErrSpec) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := ok.Validate(); err != nil {
		t.Error(err)
	}
}

func make11(s string) []string {
	return []string{s, s, s, s, s, s, s, s, s, s, s}
}

func TestRecordsAreWholeOrRefused(t *testing.T) {
	c := newCodec()
	path := filepath.Join(t.TempDir(), "r")
	rec := attemptRecord{Spec: Spec{Key: "1.1.1", Argv: []string{"x"}, Meta: []byte{1}, TimeLimit: time.Second, Account: &Account{Name: "a", UID: 5}}, Mark: "m", Until: 77}
	if err := c.writeRecord(path, &rec); err != nil {
		t.Fatal(err)
	}
	var got attemptRecord
	if err := c.readRecord(path, &got); err != nil || fmt.Sprintf("%+v", got.Spec.Argv) != "[x]" || got.Until != 77 || got.Spec.Account.UID != 5 {
		t.Errorf("%+v, %v", got, err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(b) {
		if err := c.decodeRecord(b[:n], &got); !errors.Is(err, errRecord) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
		d := bytes.Clone(b)
		d[n] ^= 0x10
		if err := c.decodeRecord(d, &got); !errors.Is(err, errRecord) {
			t.Errorf("byte %d changed: %v", n, err)
		}
	}
}

func TestCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bound := rapid.Int64Range(4, 1000).Draw(t, "bound")
		size := rapid.Int64Range(0, 5000).Draw(t, "size")
		head, tail := cut(size, bound)
		kept := head + size - tail
		if size <= bound {
			kept = head
		}
		if head < 0 || head > tail || tail > size || kept != min(size, bound) {
			t.Errorf("cut(%d, %d) = %d, %d", size, bound, head, tail)
		}
	})
}

func FuzzStat(f *testing.F) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own)
	f.Add([]byte("12 (a) b) c (x)) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 99 1000 55 1 1"))
	f.Add([]byte("() "))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parseStat(b); err == nil && p.pid < 1 {
			t.Errorf("%q gives %+v", b, p)
		}
		parsePss(b)
	})
}

func TestParseStat(t *testing.T) {
	p, err := parseStat([]byte("12 (a) b) c (x)) S 1 12 13 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 99 1000 55 1 1\n"))
	if err != nil || p != (process{pid: 12, ppid: 1, session: 13, state: 'S', ticks: 99, rssPages: 55}) {
		t.Errorf("%+v, %v", p, err)
	}
}

func FuzzMessage(f *testing.F) {
	c := newCodec()
	for _, m := range []message{
		{Kind: kindHello, Hello: &identity{PID: 5, Ticks: 6, BootID: "b"}},
		{Kind: kindRun, Key: "1.1.1", Until: 9, Run: &order{Dir: "/x", Argv: []string{"a"}, Cred: &credential{UID: 1}}},
		{Kind: kindKill, Key: "1.1.1", Reason: "why"},
		{Kind: kindEnded, Key: "1.1.1", End: &endRecord{Exit: 3, Ended: time.Unix(1, 0)}},
	} {
		var b bytes.Buffer
		if err := c.writeMessage(&b, &m); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := c.readMessage(bytes.NewReader(b))
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := c.writeMessage(&out, m); err != nil {
			t.Fatal(err)
		}
		again, err := c.readMessage(&out)
		if err != nil || again.Kind != m.Kind || again.Key != m.Key || again.Reason != m.Reason {
			t.Errorf("%+v comes back as %+v, %v", m, again, err)
		}
	})
}
