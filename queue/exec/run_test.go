package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestEnds(t *testing.T) {
	bothGroups(t, func(t *testing.T, cg string) {
		r := newRig(t, func(c *Config) { c.Cgroup = cg })
		for i, tt := range []struct {
			name, script string
			exit         int
			out, err     string
			reason       string
		}{
			{"ok", "echo hello; echo oops >&2", 0, "hello\n", "oops\n", ""},
			{"fails", "exit 7", 7, "", "", ""},
			{"signal", "kill -9 $$", 137, "", "", "killed by SIGKILL"},
			{"no stdin", "cat; echo end", 0, "end\n", "", ""},
			{"reopens its output", "echo a > /dev/stdout; echo b > /dev/stderr", 0, "a\n", "b\n", ""},
			{"no descriptors of others", "ls /proc/self/fd | sort | tr '\\n' ' '", 0, "0 1 2 3 ", "", ""},
			{"no new privileges, no cores", "grep NoNewPrivs: /proc/self/status; ulimit -c", 0, "NoNewPrivs:\t1\n0\n", "", ""},
			{"own session", `[ "$(cut -d' ' -f6 /proc/$$/stat)" = $$ ] && echo leader`, 0, "leader\n", "", ""},
		} {
			t.Run(tt.name, func(t *testing.T) {
				r.t = t
				s := sh(fmt.Sprintf("1.%d.1", i), tt.script)
				s.Meta = []byte{1, byte(i)}
				res := r.do(s)
				if res.Exit != tt.exit || res.Lost || string(res.Meta) != string(s.Meta) || !strings.Contains(res.Reason, tt.reason) || (tt.reason == "") != (res.Reason == "") {
					t.Errorf("result %+v", res)
				}
				if out, err := r.blobs.text(t, res.Stdout), r.blobs.text(t, res.Stderr); out != tt.out || err != tt.err {
					t.Errorf("stdout %q stderr %q", out, err)
				}
				if res.Started.IsZero() || res.Ended.Before(res.Started) || res.MaxRSS == 0 {
					t.Errorf("times or size: %+v", res)
				}
				if _, err := os.Stat(filepath.Join(r.attemptsDir(), s.Key)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("directory after Ack: %v", err)
				}
			})
		}
	})
}

func TestCannotStart(t *testing.T) {
	r := newRig(t, nil)
	script := r.blobs.file(t, "s", "#!/no/such/interpreter\n", 0)
	for i, tt := range []struct {
		spec Spec
		exit int
	}{
		{Spec{Argv: []string{"no-such-command"}}, 127},
		{Spec{Argv: []string{"/etc/passwd"}}, 126},
		{Spec{Argv: []string{"./x"}}, 127},
		{Spec{Script: script.Hash}, 127},
	} {
		tt.spec.Key = fmt.Sprintf("2.%d.1", i)
		if res := r.do(tt.spec); res.Exit != tt.exit || res.Lost || !strings.Contains(res.Reason, "cannot start") {
			t.Errorf("%v: %+v", tt.spec.Argv, res)
		}
	}
	missing := Spec{Key: "2.9.1", Script: strings.Repeat("a", 64)}
	if err := r.Start(t.Context(), missing, time.Minute); !errors.Is(err, errNoBlob) {
		t.Errorf("missing blob: %v", err)
	}
	if _, err := os.Stat(filepath.Join(r.attemptsDir(), missing.Key)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused start leaves %v", err)
	}
}

func TestScriptsInputsOutputs(t *testing.T) {
	r := newRig(t, nil)
	b := r.blobs
	s := Spec{
		Key: "3.1.1", Argv: []string{"one", "two words"}, Env: []string{"X=y", "TMPDIR=/tmp", "VCPEER_SLOTS=99"}, Slots: 2,
		Script: b.file(t, "", "echo \"$0 $1 $2 $X $TMPDIR $VCPEER_SLOTS\"; cat in/deep/a; ./tool; echo changed > in/deep/a\n"+
			"mkdir -p res/x; echo 1 > res/x/1.dat; echo 2 > res/x/2.dat; echo 3 > res/3.log; cp in/deep/a out.txt; chmod 600 out.txt; ln -s out.txt link.txt\n", 0).Hash,
		Inputs:  []File{b.file(t, "in/deep/a", "input a\n", 0o444), b.file(t, "tool", "#!/bin/sh\necho tool runs in $PWD\n", 0o755)},
		Outputs: []string{"out.txt", "link.txt", "res/**/*.dat", "*.none", "absent"},
	}
	before := s.Inputs[0]
	res := r.do(s)
	out := b.text(t, res.Stdout)
	for _, want := range []string{"one two words y /tmp 2\ninput a\n", "tool runs in " + r.cfg.Dir} {
		if !strings.Contains(out, want) {
			t.Errorf("stdout %q has no %q (stderr %q)", out, want, b.text(t, res.Stderr))
		}
	}
	var got []string
	for _, f := range res.Outputs {
		got = append(got, fmt.Sprintf("%s %o %q", f.Path, f.Mode, b.text(t, Ref{f.Hash, f.Size})))
	}
	want := `link.txt 600 "changed\n" out.txt 600 "changed\n" res/x/1.dat 644 "1\n" res/x/2.dat 644 "2\n"`
	if g := strings.Join(got, " "); os.Geteuid() == 0 && g != want {
		t.Errorf("outputs\n got %s\nwant %s", g, want)
	}
	if res.Exit != 0 || strings.Contains(res.Reason, "exit") || !strings.Contains(res.Reason, "no output matches *.none") || !strings.Contains(res.Reason, "no output matches absent") {
		t.Errorf("result %+v", res)
	}
	if b.text(t, Ref{before.Hash, before.Size}) != "input a\n" {
		t.Error("the job changed a blob")
	}
	py := Spec{Key: "3.2.1", Script: b.file(t, "", "#!/usr/bin/env -S cat\nI print myself\n", 0).Hash, Shell: "/bin/false"}
	if res := r.do(py); !strings.Contains(b.text(t, res.Stdout), "I print myself") {
		t.Errorf("#! is not honoured: %+v", res)
	}
	odd := Spec{Key: "3.3.1", Script: b.file(t, "", "not a shell script\n", 0).Hash, Shell: "/bin/cat"}
	if res := r.do(odd); b.text(t, res.Stdout) != "not a shell script\n" {
		t.Errorf("Shell is not used: %+v", res)
	}
}

// TestReasonBeginsWithTheEnd wants how the job ended to come before what is missing of its outputs.
func TestReasonBeginsWithTheEnd(t *testing.T) {
	r := newRig(t, nil)
	for i, tt := range []struct{ script, want string }{
		{"true", "no output matches out/*"},
		{"exit 1", "exit code 1; no output matches out/*"},
		{"kill -TERM $$", "killed by SIGTERM; no output matches out/*"},
	} {
		s := sh(fmt.Sprintf("6.%d.1", i), tt.script)
		s.Outputs = []string{"out/*"}
		if res := r.do(s); res.Reason != tt.want {
			t.Errorf("%s: %q, want %q", tt.script, res.Reason, tt.want)
		}
	}
}

// TestDiscardedStreams wants no file and no blob of a stream that nobody wants.
func TestDiscardedStreams(t *testing.T) {
	r := newRig(t, nil)
	for i, tt := range []struct {
		set      func(*Spec)
		out, err string
	}{
		{func(s *Spec) { s.NoStdout = true }, "", "err\n"},
		{func(s *Spec) { s.NoStderr = true }, "out\n", ""},
		{func(s *Spec) { s.NoStdout, s.NoStderr = true, true }, "", ""},
		{func(s *Spec) { s.NoStdout, s.Join = true, true }, "", ""},
		{func(s *Spec) { s.NoStderr, s.Join = true, true }, "out\nerr\n", ""},
	} {
		s := sh(fmt.Sprintf("7.%d.1", i), "echo out; echo err >&2")
		tt.set(&s)
		res := r.do(s)
		for _, stream := range []struct {
			ref  Ref
			want string
		}{{res.Stdout, tt.out}, {res.Stderr, tt.err}} {
			if stream.want == "" && stream.ref != (Ref{}) {
				t.Errorf("%d: a blob of nothing: %+v", i, stream.ref)
			}
			if stream.want != "" && r.blobs.text(t, stream.ref) != stream.want {
				t.Errorf("%d: %q, want %q", i, r.blobs.text(t, stream.ref), stream.want)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	stubborn := "trap '' TERM; echo ready; while :; do sleep 0.1; done"
	bothGroups(t, func(t *testing.T, cg string) {
		r := newRig(t, func(c *Config) { c.Cgroup, c.MaxProcs = cg, 50 })
		for i, tt := range []struct {
			name     string
			spec     Spec
			lease    time.Duration
			act      func(*testing.T, string)
			cause    Cause
			exit     int
			min, max time.Duration
		}{
			{"time limit", Spec{Argv: []string{"sleep", "60"}, TimeLimit: 200 * time.Millisecond}, time.Minute, nil, CauseTime, 143, 200 * time.Millisecond, 2 * time.Second},
			{"time limit, handled", Spec{Argv: []string{"sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done"}, TimeLimit: 200 * time.Millisecond}, time.Minute, nil, CauseTime, 3, 0, 2 * time.Second},
			{"time limit, ignored", Spec{Argv: []string{"sh", "-c", stubborn}, TimeLimit: 200 * time.Millisecond}, time.Minute, nil, CauseTime, 137, 500 * time.Millisecond, 3 * time.Second},
			{"lease", Spec{Argv: []string{"sh", "-c", stubborn}}, 300 * time.Millisecond, nil, CauseLease, 137, 250 * time.Millisecond, 1300 * time.Millisecond},
			{"kill", Spec{Argv: []string{"sleep", "60"}}, time.Minute, func(t *testing.T, key string) {
				if err := r.Kill(key, "cancelled by alice"); err != nil {
					t.Error(err)
				}
			}, CauseKill, 143, 0, 2 * time.Second},
			{"kill of a stopped job", Spec{Argv: []string{"sh", "-c", "kill -STOP $$"}}, time.Minute, func(t *testing.T, key string) {
				pid := r.Running()[0].PID
				wait(t, "the job stops", 5*time.Second, func() bool { p, err := readProcess(pid); return err == nil && p.state == 'T' })
				r.Kill(key, "cancelled")
			}, CauseKill, 143, 0, 2 * time.Second},
			{"memory", Spec{Argv: []string{"sh", "-c", "head -c 300m /dev/zero | tail -c 250m | sleep 60 & x=$(head -c 60000000 /dev/zero | tr '\\0' x); sleep 60"}, MemBytes: 40 << 20}, time.Minute, nil, CauseMemory, 137, 0, 10 * time.Second},
			{"processes", Spec{Argv: []string{"sh", "-c", "for i in $(seq 60); do sleep 60 & done; wait"}}, time.Minute, nil, CauseProcs, 137, 0, 5 * time.Second},
		} {
			t.Run(tt.name, func(t *testing.T) {
				r.t = t
				tt.spec.Key = fmt.Sprintf("4.%d.1", i)
				began := time.Now()
				r.startFor(tt.spec, tt.lease)
				if tt.act != nil {
					tt.act(t, tt.spec.Key)
				}
				res := r.result()
				took := time.Since(began)
				if res.Killed != tt.cause || res.Exit != tt.exit || res.Reason == "" || res.Lost {
					t.Errorf("result %+v", res)
				}
				if took < tt.min || took > tt.max {
					t.Errorf("took %v, want %v to %v", took, tt.min, tt.max)
				}
				if err := r.Ack(res.Key); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

func TestRenew(t *testing.T) {
	r := newRig(t, nil)
	r.startFor(sh("5.1.1", "sleep 1.5"), 400*time.Millisecond)
	for range 15 {
		if err := r.Renew("5.1.1", NowBoot().Add(400*time.Millisecond)); err != nil && !errors.Is(err, ErrUnknown) {
			t.Fatal(err)
		}
		select {
		case res := <-r.Results():
			if res.Exit != 0 || res.Killed != "" {
				t.Fatalf("renewed attempt: %+v", res)
			}
			return
		case <-time.After(150 * time.Millisecond):
		}
	}
	if res := r.result(); res.Exit != 0 {
		t.Fatalf("renewed attempt: %+v", res)
	}
}

func TestRefusals(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	if err := r.Start(ctx, sh("6.1.1", "true"), -time.Second); !errors.Is(err, ErrLease) {
		t.Errorf("lease over: %v", err)
	}
	late := sh("6.1.1", "true")
	late.Asked = NowBoot().Add(-time.Minute)
	if err := r.Start(ctx, late, 59*time.Second); !errors.Is(err, ErrLease) {
		t.Errorf("asked long ago: %v", err)
	}
	r.start(sh("6.1.1", "sleep 0.2"))
	if err := r.Start(ctx, sh("6.1.1", "true"), time.Minute); !errors.Is(err, ErrStarted) {
		t.Errorf("second start: %v", err)
	}
	if err := r.Ack("6.1.1"); !errors.Is(err, ErrNotEnded) {
		t.Errorf("early ack: %v", err)
	}
	r.Ack(r.result().Key)
	if err := r.Start(ctx, sh("6.1.1", "true"), time.Minute); !errors.Is(err, ErrStarted) {
		t.Errorf("start after ack: %v", err)
	}
	for _, err := range []error{r.Ack("6.9.1"), r.Renew("6.9.1", NowBoot()), r.Kill("6.9.1", "")} {
		if !errors.Is(err, ErrUnknown) {
			t.Errorf("unknown attempt: %v", err)
		}
	}
	r.cfg.FloorBytes = 1 << 60
	if err := r.Start(ctx, sh("6.2.1", "true"), time.Minute); !errors.Is(err, ErrNoSpace) {
		t.Errorf("full disk: %v", err)
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	bothGroups(t, func(t *testing.T, cg string) {
		r := newRig(t, func(c *Config) { c.Cgroup = cg })
		pids := filepath.Join(t.TempDir(), "pids")
		// A background process, a double fork in a session of its own with an emptied environment, and one that ignores TERM.
		res := r.do(sh("7.1.1", `sleep 300 & echo $! >> `+pids+`
			( setsid env -i /bin/sh -c 'echo $$ >> `+pids+`; exec sleep 300' & ) &
			( trap '' TERM; sh -c 'echo $$ >> `+pids+`; sleep 300' ) &
			while [ $(wc -l < `+pids+`) -lt 3 ]; do sleep 0.02; done; exit 5`))
		if res.Exit != 5 {
			t.Errorf("result %+v", res)
		}
		b, err := os.ReadFile(pids)
		if err != nil {
			t.Fatal(err)
		}
		for f := range strings.FieldsSeq(string(b)) {
			pid, _ := strconv.Atoi(f)
			if p, err := readProcess(pid); err == nil {
				t.Errorf("process %+v of the job is left", p)
			}
		}
	})
}

// TestRunawayForks: twenty chains of processes that each fork a successor and exit, so that no list of them stays true.
func TestRunawayForks(t *testing.T) {
	bothGroups(t, func(t *testing.T, cg string) {
		r := newRig(t, func(c *Config) { c.Cgroup = cg })
		s := sh("8.1.1", `cat > f <<'X'
[ -e stop ] && exit 0
sh f & exit 0
X
for i in 1 2 3 4 5 6; do sh f & done; sleep 60`)
		r.start(s)
		stop := filepath.Join(r.attemptsDir(), s.Key, dirWork, "stop")
		guard := time.AfterFunc(20*time.Second, func() { os.WriteFile(stop, nil, 0o644) })
		defer guard.Stop()
		began := time.Now()
		r.Kill(s.Key, "enough")
		res := r.result()
		if took := time.Since(began); res.Killed != CauseKill || took > 15*time.Second {
			t.Errorf("took %v: %+v", took, res)
		}
	})
}

func TestLongOutput(t *testing.T) {
	r := newRig(t, func(c *Config) { c.OutputBytes = 1 << 20 })
	s := sh("9.1.1", "seq 1500000; sleep 1.2; echo the end; echo other >&2")
	s.Join = true
	res := r.do(s)
	out := r.blobs.text(t, res.Stdout)
	if len(out) < 1<<20 || len(out) > 1<<20+200 || !strings.HasPrefix(out, "1\n2\n3\n") || !strings.HasSuffix(out, "\nthe end\nother\n") ||
		!strings.Contains(out, "bytes left out here: output is kept up to 1048576 bytes") || strings.Contains(out, "\x00") {
		t.Errorf("%d bytes, head %q, tail %q", len(out), out[:20], out[len(out)-40:])
	}
	if res.Stderr != (Ref{}) {
		t.Errorf("joined stderr is %+v", res.Stderr)
	}
	whole := newRig(t, nil)
	res = whole.do(sh("9.2.1", "head -c 10485760 /dev/zero | tr '\\0' x"))
	if res.Stdout.Size != 10<<20 {
		t.Errorf("10 MiB became %d bytes", res.Stdout.Size)
	}
}

func TestTail(t *testing.T) {
	r := newRig(t, nil)
	r.start(sh("10.1.1", "echo one; sleep 0.3; echo two; sleep 0.3; echo three"))
	f, err := r.Tail(t.Context(), "10.1.1", Stdout, 2, true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "e\ntwo\nthree\n" {
		t.Errorf("followed %q, %v", b, err)
	}
	r.start(sh("10.2.1", "sleep 60"))
	ctx, cancel := context.WithCancel(t.Context())
	g, err := r.Tail(ctx, "10.2.1", Stderr, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	time.AfterFunc(100*time.Millisecond, cancel)
	if _, err := io.ReadAll(g); !errors.Is(err, context.Canceled) {
		t.Errorf("follow without its reader: %v", err)
	}
	if _, err := r.Tail(t.Context(), "10.1.1", "other", 0, false); err == nil {
		t.Error("stream other")
	}
	r.Kill("10.2.1", "")
}

func TestAccount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to run as another user")
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Skipf("no user nobody: %v", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	acc := &Account{Name: "nobody", UID: uint32(uid), GID: uint32(uid), Groups: []uint32{uint32(uid)}}
	other := &Account{Name: "other", UID: 54321, GID: 54321}
	r := newRig(t, nil)
	secret := sh("11.1.1", "echo secret > s; sleep 60")
	secret.Account = other
	r.start(secret)
	dir := filepath.Join(r.attemptsDir(), secret.Key)
	wait(t, "the secret is there", 5*time.Second, func() bool { _, err := os.Stat(filepath.Join(dir, dirWork, "s")); return err == nil })
	spy := Spec{Key: "11.2.1", Account: acc, Outputs: []string{"*"}, Inputs: []File{r.blobs.file(t, "d/in", "x\n", 0)},
		Script: r.blobs.file(t, "", `#!/bin/sh
id -u; id -g; id -G; cat d/in; echo y > d/in; echo home $HOME user $USER
for f in `+dir+`/work/s `+dir+`/spec `+dir+`/stdout `+dir+`/end `+r.shimsDir()+`; do cat $f; ls $f; done
ls `+r.attemptsDir()+` && echo LISTED; kill $(pgrep -u 54321) && echo KILLED
ln -s `+dir+`/spec leak; ln -s /etc/shadow leak2; ln /etc/hostname hard; mkfifo pipe; mkdir shut; chmod 0 shut; echo ok > good
`, 0).Hash}
	r.start(spy)
	res := r.result()
	out, errs := r.blobs.text(t, res.Stdout), r.blobs.text(t, res.Stderr)
	want := fmt.Sprintf("%d\n%d\n%d\nx\nhome %s user nobody\n", uid, uid, uid, filepath.Join(r.attemptsDir(), spy.Key, dirWork))
	if !strings.HasPrefix(out, want) || strings.Contains(out, "secret") || strings.Contains(out, "LISTED") || strings.Contains(out, "KILLED") {
		t.Errorf("stdout %q\nstderr %q", out, errs)
	}
	var paths []string
	for _, f := range res.Outputs {
		paths = append(paths, f.Path)
	}
	if p := strings.Join(paths, " "); p != "d/in good" {
		t.Errorf("outputs %q, reason %q", p, res.Reason)
	}
	if err := r.Ack(spy.Key); err != nil {
		t.Error(err)
	}
	r.Kill(secret.Key, "")
	root := sh("11.3.1", "true")
	root.Account = &Account{Name: "root"}
	if err := r.Start(t.Context(), root, time.Minute); !errors.Is(err, ErrAccount) {
		t.Errorf("uid 0: %v", err)
	}
}
