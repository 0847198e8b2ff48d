package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vcpeer/deploy/harness"
	"vcpeer/peer/api"
)

// The nodes of this file run as root in the places of the system, each on a machine of its own as far as files go:
//
//	kyoto-1, kyoto-2 at kyoto   osaka-1 at osaka
//	/etc/hosts is              a file       a mount      a file without a last line end
//	carol, a user of           -            -            osaka-1's /etc/passwd
const (
	ownHosts  = "127.0.0.1\tlocalhost\n# kept as it is\n192.0.2.9  printer\n"
	ownSwitch = "passwd: files systemd\ngroup: files systemd\nshadow: files systemd\nhosts: files\n"
	ownPasswd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"
	ownGroup  = "root:x:0:\nnogroup:x:65534:\n"
	carolUID  = 1234
)

// Exit codes of vcpeer that these tests meet (vcpeer help exit-codes).
const (
	exitRefused  = 5
	exitAttached = 125
)

// soon is how long a change at one site may take until the programs of a machine at another see it.
const soon = 10 * time.Second

// machine is a node of root and the machine it has.
type machine struct {
	*harness.Node
	space *harness.Namespace
	hosts string // /etc/hosts as it was before
}

// lab is the cluster of these tests.
type lab struct {
	ctx                   context.Context
	kyoto1, kyoto2, osaka *machine
}

func (l *lab) all() []*machine { return []*machine{l.kyoto1, l.kyoto2, l.osaka} }

func TestNodesOfRoot(t *testing.T) {
	if why := harness.CannotIsolate(t.Context()); why != "" {
		t.Skip(why)
	}
	l := newLab(t)
	t.Run("HostNames", l.testHostNames)
	alice, bob := l.testAccountsAppear(t)
	t.Run("Users", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T, user, user){
			"JobRunsAsItsOwner":        l.testJobRunsAsItsOwner,
			"JobsOfOthersAreClosed":    l.testJobsOfOthersAreClosed,
			"ResultsNeedTheOwnersWord": l.testResultsNeedTheOwnersWord,
			"WhoMaySubmit":             l.testWhoMaySubmit,
			"AdministratorsAlone":      l.testAdministratorsAlone,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, alice, bob)
			})
		}
	})
	t.Run("RemovedAccount", func(t *testing.T) { l.testRemovedAccount(t, alice, bob) })
	t.Run("Uninstall", func(t *testing.T) { l.testUninstall(t, bob) })
}

func newLab(t *testing.T) *lab {
	ctx, c := cluster(t)
	l := &lab{ctx: ctx}
	l.kyoto1 = l.machine(t, c, "kyoto-1", "kyoto", nil, false)
	l.kyoto2 = l.machine(t, c, "kyoto-2", "kyoto", nil, true)
	l.osaka = l.machine(t, c, "osaka-1", "osaka", map[string]string{
		"hosts":  strings.TrimSuffix(ownHosts, "\n"),
		"passwd": ownPasswd + fmt.Sprintf("carol:x:%d:%d::/home/carol:/bin/sh\n", carolUID, carolUID),
		"group":  ownGroup + fmt.Sprintf("carol:x:%d:\n", carolUID),
	}, false)
	if err := c.Found(ctx, l.kyoto1.Node); err != nil {
		t.Fatal(err)
	}
	for _, m := range l.all()[1:] {
		if err := c.Join(ctx, m.Node, l.kyoto1.Node); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range l.all() {
		if err := m.WaitWell(ctx, 3); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func (l *lab) machine(t *testing.T, c *harness.Cluster, name, site string, etc map[string]string, mountedHosts bool) *machine {
	files := map[string]string{"hosts": ownHosts, "nsswitch.conf": ownSwitch, "passwd": ownPasswd, "group": ownGroup}
	for name, text := range etc {
		files[name] = text
	}
	space, err := harness.NewNamespace(filepath.Join(c.Dir, name), binary, files, mountedHosts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(space.Close)
	n, err := c.AddIsolated(space, name, site, "--slots", "4")
	if err != nil {
		t.Fatal(err)
	}
	return &machine{n, space, files["hosts"]}
}

// answer is what a command printed, and how it ended.
type answer struct {
	out, err string
	exit     int
}

func (a answer) String() string { return fmt.Sprintf("exit %d\n%s%s", a.exit, a.out, a.err) }

// ask runs a command to its end, which must come within a minute.
func ask(t *testing.T, ctx context.Context, command func(context.Context) *exec.Cmd) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := command(ctx)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, time.Second
	err := cmd.Run()
	if err != nil && !errors.As(err, new(*exec.ExitError)) || ctx.Err() != nil {
		t.Fatalf("%v: %v\n%s%s", cmd.Args, err, out.String(), errs.String())
	}
	return answer{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// root runs a command of root on the machine.
func (l *lab) root(t *testing.T, m *machine, argv ...string) answer {
	t.Helper()
	return ask(t, l.ctx, func(ctx context.Context) *exec.Cmd { return m.space.Command(ctx, "/", argv...) })
}

// user is an account of the cluster, or a user of one machine.
type user struct {
	name string
	uid  uint32
}

// as runs a command of a user in his home, or in / where he has none.
func (l *lab) as(t *testing.T, u user, m *machine, argv ...string) answer {
	t.Helper()
	dir := "/home/" + u.name
	if _, err := os.Stat(filepath.Join(m.space.Dir, "home", u.name)); err != nil {
		dir = "/"
	}
	return ask(t, l.ctx, func(ctx context.Context) *exec.Cmd { return m.space.CommandAs(ctx, u.name, dir, argv...) })
}

// submit hands a job in as a user and returns its ID.
func (l *lab) submit(t *testing.T, u user, m *machine, args ...string) string {
	t.Helper()
	got := l.as(t, u, m, append([]string{"vcpeer", "submit", "-q"}, args...)...)
	if got.exit != 0 {
		t.Fatalf("submit %v: %v", args, got)
	}
	return strings.TrimSpace(got.out)
}

// sees waits until a command of root on a machine prints what is wanted.
func (l *lab) sees(t *testing.T, m *machine, want string, argv ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(l.ctx, soon)
	defer cancel()
	got := ""
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for got = l.root(t, m, argv...).out; got != want; got = l.root(t, m, argv...).out {
		select {
		case <-ctx.Done():
			t.Errorf("%s on %s after %v\n got %q\nwant %q", strings.Join(argv, " "), m.Name, soon, got, want)
			return
		case <-tick.C:
		}
	}
}

// makeHome makes a user's home on a machine, as the administrator of a site does.
func makeHome(t *testing.T, m *machine, u user) string {
	t.Helper()
	home := filepath.Join(m.space.Dir, "home", u.name)
	if err := errors.Join(os.Mkdir(home, 0o700), os.Chown(home, int(u.uid), int(u.uid))); err != nil {
		t.Fatal(err)
	}
	return home
}

func (l *lab) testHostNames(t *testing.T) {
	list, err := l.kyoto1.Client().Hosts(l.ctx)
	if err != nil || len(list.Items) != 3 {
		t.Fatalf("hosts: %+v, %v", list, err)
	}
	for _, m := range l.all() {
		for _, h := range list.Items {
			full := h.Name + "." + h.Site
			for _, name := range []string{h.Name, full} {
				l.sees(t, m, fmt.Sprintf("%-15s %s %s\n", h.Address, full, h.Name), "getent", "hosts", name)
			}
		}
		if got := l.root(t, m, "getent", "hosts", "printer").out; !strings.HasPrefix(got, "192.0.2.9 ") {
			t.Errorf("the machine's own line on %s: %q", m.Name, got)
		}
	}
}

// testAccountsAppear adds accounts at one site and a group at the other.
func (l *lab) testAccountsAppear(t *testing.T) (alice, bob user) {
	for i, u := range []*user{&alice, &bob} {
		u.name = []string{"alice", "bob"}[i]
		if got := l.root(t, l.osaka, "vcpeer", "account", "add", u.name, "--full-name", "Some "+u.name); got.exit != 0 {
			t.Fatal(got)
		}
		a, err := l.osaka.Client().Account(l.ctx, u.name)
		if err != nil {
			t.Fatal(err)
		}
		u.uid = a.UID
	}
	begun := time.Now()
	for _, m := range l.all() {
		l.sees(t, m, fmt.Sprintf("alice:x:%d:%[1]d:Some alice:/home/alice:/bin/bash\n", alice.uid), "getent", "passwd", "alice")
		l.sees(t, m, fmt.Sprintf("uid=%d(alice) gid=%[1]d(alice) groups=%[1]d(alice)\n", alice.uid), "id", "alice")
		l.sees(t, m, fmt.Sprintln(bob.uid), "id", "-u", "bob")
	}
	group, err := l.kyoto1.Client().AddGroup(l.ctx, api.GroupAdd{Name: "physics"})
	if err == nil {
		err = l.kyoto1.Client().AddToGroup(l.ctx, "physics", "alice")
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range l.all() {
		l.sees(t, m, alice.id(group.GID), "id", "alice")
		l.sees(t, m, fmt.Sprintf("physics:x:%d:alice\n", group.GID), "getent", "group", "physics")
	}
	t.Logf("accounts and a group were seen everywhere %v after they were added", time.Since(begun).Round(time.Millisecond))
	makeHome(t, l.osaka, alice)
	makeHome(t, l.osaka, bob)
	return alice, bob
}

// id is what id(1) says of a user who is in the group physics.
func (u user) id(physics uint32) string {
	return fmt.Sprintf("uid=%d(%s) gid=%[1]d(%[2]s) groups=%[1]d(%[2]s),%[3]d(physics)\n", u.uid, u.name, physics)
}

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
	for _, m := range []*machine{l.kyoto1, l.osaka} {
		id := l.submit(t, bob, l.osaka, "--site", m.Site, "--env", "PASSWORD=secret", "--", "sh", "-c", secret)
		eventually(t, l.ctx, "bob's own eyes see his job's output", func() bool {
			return strings.Contains(l.as(t, bob, l.kyoto1, "vcpeer", "logs", id).out, "secret")
		})
		for _, at := range []*machine{l.kyoto1, l.osaka} {
			for _, verb := range []string{"cancel", "logs"} {
				if got := l.as(t, alice, at, "vcpeer", verb, id); got.exit != exitRefused || strings.Contains(got.out, "secret") || !strings.Contains(got.err, "bob") {
					t.Errorf("alice: %s of bob's job on %s: %v", verb, at.Name, got)
				}
			}
			if got := l.as(t, alice, at, "vcpeer", "job", id, "--json"); got.exit != 0 || strings.Contains(got.out, "secret") {
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
		{"in place of a link to a file", []string{"--out", "held"}, true},
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
	if uid, _, _ := owner(t, filepath.Join(home, "held")); uid != bob.uid || read(t, home, "held") != "x\n" {
		t.Errorf("the link was not replaced by bob's file")
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

// testRemovedAccount removes alice at one site: her files still have an owner's name at the other, but she is out.
func (l *lab) testRemovedAccount(t *testing.T, alice, bob user) {
	if got := l.root(t, l.kyoto2, "vcpeer", "account", "rm", "alice"); got.exit != 0 {
		t.Fatal(got)
	}
	for _, m := range l.all() {
		l.sees(t, m, fmt.Sprintf("alice:x:%d:%[1]d:Some alice:/home/alice:/usr/sbin/nologin\n", alice.uid), "getent", "passwd", "alice")
		l.sees(t, m, fmt.Sprintf("uid=%d(alice) gid=%[1]d(alice) groups=%[1]d(alice)\n", alice.uid), "id", "alice")
	}
	if got := l.as(t, alice, l.osaka, "vcpeer", "submit", "--", "true"); got.exit != exitRefused {
		t.Errorf("submit by a removed account: %v", got)
	}
	if got := l.as(t, bob, l.osaka, "vcpeer", "run", "--", "true"); got.exit != 0 {
		t.Errorf("bob is still there: %v", got)
	}
	// A new alice takes the name, not the number.
	if got := l.root(t, l.osaka, "vcpeer", "account", "add", "alice"); got.exit != 0 {
		t.Fatal(got)
	}
	again, err := l.osaka.Client().Account(l.ctx, "alice")
	if err != nil || again.UID == alice.uid {
		t.Fatalf("the new alice: %+v, %v", again, err)
	}
	for _, m := range l.all() {
		l.sees(t, m, fmt.Sprintln(again.UID), "id", "-u", "alice")
	}
}

// testUninstall ends the nodes, one without warning, and takes back what they wrote.
func (l *lab) testUninstall(t *testing.T, bob user) {
	if got := l.root(t, l.osaka, "vcpeer", "uninstall", "--yes"); got.exit != exitRefused {
		t.Errorf("uninstall of a running node: %v", got)
	}
	var stopped sync.WaitGroup
	for _, m := range []*machine{l.kyoto1, l.osaka} {
		stopped.Go(m.Stop)
	}
	stopped.Wait()
	l.kyoto2.Kill()
	for _, m := range l.all() {
		hosts := filepath.Join(m.space.Dir, "etc", "hosts")
		if m != l.kyoto2 && read(t, hosts) == m.hosts {
			t.Errorf("%s has no block in /etc/hosts before uninstall", m.Name)
		}
		if got := l.root(t, m, "vcpeer", "uninstall", "--yes"); got.exit != 0 {
			t.Errorf("uninstall on %s: %v", m.Name, got)
		}
		if got := read(t, hosts); got != m.hosts {
			t.Errorf("/etc/hosts of %s\n got %q\nwant %q", m.Name, got, m.hosts)
		}
		if got := names(t, filepath.Dir(hosts)); !slices.Equal(got, []string{"group", "hosts", "nsswitch.conf", "passwd"}) {
			t.Errorf("/etc of %s holds %v", m.Name, got)
		}
		if got := l.root(t, m, "getent", "passwd", bob.name); got.out != "" {
			t.Errorf("bob on %s after uninstall: %v", m.Name, got)
		}
		if got := names(t, filepath.Join(m.space.Dir, "run", "systemd", "userdb")); len(got) > 0 {
			t.Errorf("left on %s: %v", m.Name, got)
		}
	}
}
