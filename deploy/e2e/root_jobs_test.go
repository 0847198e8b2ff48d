package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"vcpeer/peer/api"
)

// testJobRunsAsItsOwner runs a job of alice at the other site, where she has no home.
func (l *lab) testJobRunsAsItsOwner(t *testing.T, alice, _ user) {
	group, err := l.osaka.Client().Groups(l.ctx)
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(l.osaka.space.Dir, "home", "alice", "job.sh")
	const text = `#!/bin/sh
id
echo "$USER $HOME"
for closed in /var/lib/vcpeer /var/lib/vcpeer/node.key /var/lib/vcpeer/records /var/lib/vcpeer-jobs /var/lib/vcpeer-jobs/attempts /var/lib/vcpeer-jobs/shims; do
	ls "$closed" 2>/dev/null
done
cat /var/lib/vcpeer/node.key 2>/dev/null
mkdir out && echo made > out/result && chmod 640 out/result
exit 7
`
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got := l.as(t, alice, l.osaka, "vcpeer", "run", "--site", "kyoto", "--out", "out/*", "job.sh")
	if want := alice.id(group.Items[0].GID) + "alice /home/alice\n"; got.exit != 7 || got.out != want {
		t.Errorf("%v\nwant exit 7 and\n%s", got, want)
	}
	result := filepath.Join(l.osaka.space.Dir, "home", "alice", "out", "result")
	eventually(t, l.ctx, "the result is back", func() bool { _, err := os.Stat(result); return err == nil })
	if got := read(t, result); got != "made\n" {
		t.Errorf("result: %q", got)
	}
	for _, path := range []string{filepath.Dir(result), result} {
		if uid, gid, mode := owner(t, path); uid != alice.uid || gid != alice.uid || path == result && mode != 0o640 {
			t.Errorf("%s belongs to %d:%d, mode %o", path, uid, gid, mode)
		}
	}
}

func owner(t *testing.T, path string) (uid, gid uint32, mode fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return st.Uid, st.Gid, info.Mode().Perm()
}

// testJobsOfOthersAreClosed runs a job of bob at each site and lets alice try to get at it.
func (l *lab) testJobsOfOthersAreClosed(t *testing.T, alice, bob user) {
	const secret = "umask 0; echo secret > notes; echo secret; echo secret >&2; exec sleep 600"
	if err := os.WriteFile(filepath.Join(l.osaka.space.Dir, "home", "bob", "private"), []byte("for the job alone"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*machine{l.kyoto1, l.osaka} {
		id := l.submit(t, bob, l.osaka, "--site", m.Site, "--env", "PASSWORD=secret", "--in", "private", "--", "sh", "-c", secret)
		eventually(t, l.ctx, "bob's own eyes see his job's output", func() bool {
			return strings.Contains(l.as(t, bob, l.kyoto1, "vcpeer", "logs", id).out, "secret")
		})
		for _, at := range []*machine{l.kyoto1, l.osaka} {
			for _, verb := range []string{"cancel", "logs"} {
				if got := l.as(t, alice, at, "vcpeer", verb, id); got.exit != exitRefused || strings.Contains(got.out, "secret") || !strings.Contains(got.err, "bob") {
					t.Errorf("alice: %s of bob's job on %s: %v", verb, at.Name, got)
				}
			}
			if got := l.as(t, alice, at, "vcpeer", "job", id, "--json"); got.exit != 0 || strings.Contains(got.out, "secret") || strings.Contains(got.out, `"hash"`) {
				t.Errorf("alice: job of bob on %s: %v", at.Name, got)
			}
		}
		l.tryAttempts(t, alice, bob, m.Site)
		if job, err := l.osaka.Client().Job(l.ctx, id); err != nil || job.State != api.StateRunning {
			t.Errorf("bob's job after all that: %+v, %v", job, err)
		}
		if got := l.as(t, bob, l.kyoto2, "vcpeer", "cancel", id); got.exit != 0 {
			t.Errorf("bob cancels his own: %v", got)
		}
		if job := waitEnded(t, l.ctx, l.kyoto1.Node, id); job.State != api.StateCancelled {
			t.Errorf("bob's job is %s", job.State)
		}
	}
}

// tryAttempts lets one user try to read all there is of an attempt of another at a site.
func (l *lab) tryAttempts(t *testing.T, thief, victim user, site string) {
	t.Helper()
	found := 0
	for _, m := range l.all() {
		if m.Site != site {
			continue
		}
		lib := filepath.Join(m.space.Dir, "lib")
		notes, err := filepath.Glob(filepath.Join(lib, "vcpeer-jobs", "attempts", "*", "work", "notes"))
		if err != nil {
			t.Fatal(err)
		}
		for _, note := range notes {
			if uid, _, _ := owner(t, note); uid != victim.uid {
				continue
			}
			found++
			for _, path := range files(t, filepath.Dir(filepath.Dir(note))) {
				inside := "/var/lib" + strings.TrimPrefix(path, lib)
				if got := l.as(t, thief, m, "cat", inside); got.exit == 0 {
					t.Errorf("%s reads %s of %s on %s", thief.name, inside, victim.name, m.Name)
				}
			}
		}
	}
	if found == 0 {
		t.Errorf("no attempt of %s was found at %s", victim.name, site)
	}
}

// files lists what is no directory below dir; sockets too.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			all = append(all, path)
		}
		return err
	})
	if err != nil || len(all) == 0 {
		t.Fatalf("files of %s: %v, %v", dir, all, err)
	}
	return all
}

// testResultsNeedTheOwnersWord sends results where their owner may not write, directly and through links.
func (l *lab) testResultsNeedTheOwnersWord(t *testing.T, _, bob user) {
	home, closed := filepath.Join(l.osaka.space.Dir, "home", "bob"), filepath.Join(l.osaka.space.Dir, "home", "closed")
	if err := errors.Join(os.Mkdir(closed, 0o755), os.WriteFile(filepath.Join(closed, "held"), []byte("root's"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"way": "/home/closed", "held": "/home/closed/held"} {
		if err := errors.Join(os.Symlink(to, filepath.Join(home, link)), os.Lchown(filepath.Join(home, link), int(bob.uid), int(bob.uid))); err != nil {
			t.Fatal(err)
		}
	}
	made := filepath.Join(home, "made")
	if err := errors.Join(os.WriteFile(made, []byte("older"), 0o644), os.Chown(made, int(bob.uid), int(bob.uid))); err != nil {
		t.Fatal(err)
	}
	const make = "mkdir way; echo x > made; echo x > way/made; echo x > held; echo said"
	for _, tt := range []struct {
		name string
		args []string
		ok   bool // the results have a place
	}{
		{"etc", []string{"--result-dir", "/etc", "--out", "made"}, false},
		{"directory of root", []string{"--result-dir", "/home/closed", "--out", "made"}, false},
		{"missing directory", []string{"--result-dir", "/home/nobody/there", "--out", "made"}, false},
		{"through a link to a directory", []string{"--out", "way/made"}, false},
		{"standard output through a link", []string{"--stdout", "/home/bob/way/said"}, false},
		{"standard output into etc", []string{"--stdout", "/etc/said"}, false},
		{"in place of a link to a file", []string{"--out", "held"}, false},
		{"in place of his own file", []string{"--out", "made"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := l.submit(t, bob, l.osaka, append(tt.args, "--name", "results", "--", "sh", "-c", make)...)
			var job *api.JobDetail
			eventually(t, l.ctx, "the results are settled", func() bool {
				job = waitEnded(t, l.ctx, l.osaka.Node, id)
				return job.TaskList[0].Returned
			})
			if reason := job.TaskList[0].Reason; tt.ok == strings.Contains(reason, "results could not be written") {
				t.Errorf("reason %q", reason)
			}
			if job.TaskList[0].Exit != 0 {
				t.Errorf("exit %d", job.TaskList[0].Exit)
			}
			shown := l.as(t, bob, l.osaka, "vcpeer", "job", id)
			if tt.ok == strings.Contains(shown.out, "results could not be written") {
				t.Errorf("what bob is told: %v", shown)
			}
		})
	}
	if got := names(t, closed); !slices.Equal(got, []string{"held"}) || read(t, closed, "held") != "root's" {
		t.Errorf("the directory of root holds %v", got)
	}
	if to, err := os.Readlink(filepath.Join(home, "held")); to != "/home/closed/held" {
		t.Errorf("bob's link leads to %q now: %v", to, err)
	}
	if uid, _, _ := owner(t, made); uid != bob.uid || read(t, made) != "x\n" {
		t.Errorf("bob's file was not replaced by his result")
	}
	etc := names(t, filepath.Join(l.osaka.space.Dir, "etc"))
	if slices.ContainsFunc(etc, func(n string) bool { return n == "made" || n == "said" || strings.HasPrefix(n, "results.") }) {
		t.Errorf("/etc holds %v", etc)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// testWhoMaySubmit: root may not, a user of the machine alone may not until he is made an account.
func (l *lab) testWhoMaySubmit(t *testing.T, _, _ user) {
	for _, verb := range []struct {
		name string
		exit int
	}{{"submit", exitRefused}, {"run", exitAttached}} {
		if got := l.root(t, l.osaka, "vcpeer", verb.name, "--", "true"); got.exit != verb.exit ||
			!strings.Contains(got.err, "not run as root") || !strings.Contains(got.err, "hint: add an account (`vcpeer account add NAME`)") {
			t.Errorf("%s by root: %v", verb.name, got)
		}
	}
	carol := user{"carol", carolUID}
	makeHome(t, l.osaka, carol)
	refused := l.as(t, carol, l.osaka, "vcpeer", "submit", "--", "true")
	_, command, _ := strings.Cut(refused.err, "hint: an administrator can add one: ")
	if refused.exit != exitRefused || !strings.Contains(refused.err, "user carol (uid 1234) has no account") || command == "" {
		t.Fatalf("submit by a user of the machine alone: %v", refused)
	}
	if got := l.root(t, l.kyoto1, strings.Fields(command)...); got.exit != 0 {
		t.Fatalf("as the hint says, %s: %v", command, got)
	}
	eventually(t, l.ctx, "carol may submit", func() bool {
		return l.as(t, carol, l.osaka, "vcpeer", "submit", "--", "true").exit == 0
	})
	got := l.as(t, carol, l.osaka, "vcpeer", "run", "--site", "kyoto", "--", "id", "-un")
	if got.exit != 0 || got.out != "carol\n" {
		t.Errorf("carol's job at a site that knew nothing of her: %v", got)
	}
	if got := l.root(t, l.osaka, "getent", "passwd", "carol").out; got != "carol:x:1234:1234::/home/carol:/bin/sh\n" {
		t.Errorf("the machine's own carol: %q", got)
	}
}

// testAdministratorsAlone lets an ordinary user try what is not his.
func (l *lab) testAdministratorsAlone(t *testing.T, alice, _ user) {
	for _, command := range []string{
		"evict kyoto-2 --yes", "token", "token list", "account add eve", "account rm bob", "account enable bob", "group add wheelers", "group rm physics",
		"stop", "leave --yes",
	} {
		got := l.as(t, alice, l.osaka, append([]string{"vcpeer"}, strings.Fields(command)...)...)
		if got.exit != exitRefused || !strings.Contains(got.err, "only root and the user that runs vcpeer may do this") {
			t.Errorf("alice: vcpeer %s: %v", command, got)
		}
	}
	if s, err := l.osaka.Client().Status(l.ctx); err != nil || s.Cluster.Alive != 3 {
		t.Errorf("after all that: %+v, %v", s, err)
	}
}

// testNamesakesAreStrangers: a user of one machine has the name of an account, not its number.
func (l *lab) testNamesakesAreStrangers(t *testing.T, _, _ user) {
	if got := l.root(t, l.kyoto1, "vcpeer", "account", "add", "dave"); got.exit != 0 {
		t.Fatal(got)
	}
	a, err := l.kyoto1.Client().Account(l.ctx, "dave")
	if err != nil {
		t.Fatal(err)
	}
	dave := user{"dave", a.UID}
	l.sees(t, l.osaka, fmt.Sprintln(dave.uid), "id", "-u", "dave")
	l.sees(t, l.kyoto2, fmt.Sprintln(daveUID), "id", "-u", "dave") // the machine's own comes first
	makeHome(t, l.osaka, dave)
	id := l.submit(t, dave, l.osaka, "--", "sh", "-c", "echo secret; exec sleep 600")
	eventually(t, l.ctx, "dave's own eyes see his job's output", func() bool {
		return strings.Contains(l.as(t, dave, l.osaka, "vcpeer", "logs", id).out, "secret")
	})
	for _, verb := range []string{"logs", "cancel"} {
		if got := l.as(t, dave, l.kyoto2, "vcpeer", verb, id); got.exit != exitRefused || strings.Contains(got.out, "secret") {
			t.Errorf("%s by the namesake: %v", verb, got)
		}
	}
	if got := l.as(t, dave, l.osaka, "vcpeer", "cancel", id); got.exit != 0 {
		t.Errorf("dave cancels his own: %v", got)
	}
}
