package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"vcpeer/deploy/harness"
	"vcpeer/peer/api"
)

// The nodes of these tests run as root in the places of the system, each on a machine of its own as far as files go:
//
//	                     kyoto-1       kyoto-2              osaka-1
//	/etc/hosts           a file        a mount              a file without a last line end
//	accounts read by     nss-systemd   libnss-extrausers,   nss-systemd
//	                                   where installed
//	users of its own     -             dave                 carol
const (
	ownHosts  = "127.0.0.1\tlocalhost\n# kept as it is\n192.0.2.9  printer\n"
	ownSwitch = "passwd: files systemd\ngroup: files systemd\nshadow: files systemd\nhosts: files\n"
	ownPasswd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"
	ownGroup  = "root:x:0:\nnogroup:x:65534:\n"
	carolUID  = 1234
	daveUID   = 1235
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
			"NamesakesAreStrangers":    l.testNamesakesAreStrangers,
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
	l.kyoto2 = l.machine(t, c, "kyoto-2", "kyoto", map[string]string{
		"passwd": ownPasswd + fmt.Sprintf("dave:x:%d:%[1]d::/:/bin/sh\n", daveUID),
		"group":  ownGroup + fmt.Sprintf("dave:x:%d:\n", daveUID),
	}, true)
	l.kyoto2.useExtrausers(t)
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

// useExtrausers has the machine read accounts from files, if it can.
func (m *machine) useExtrausers(t *testing.T) {
	if _, err := os.Stat("/usr/lib/libnss_extrausers.so.2"); err != nil {
		t.Logf("%s reads accounts through nss-systemd too: %v (apt-get install libnss-extrausers)", m.Name, err)
		return
	}
	conf := strings.ReplaceAll(ownSwitch, "systemd", "extrausers")
	err := errors.Join(os.Mkdir(filepath.Join(m.space.Dir, "lib", "extrausers"), 0o755),
		os.WriteFile(filepath.Join(m.space.Dir, "etc", "nsswitch.conf"), []byte(conf), 0o644))
	if err != nil {
		t.Fatal(err)
	}
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

// testRemovedAccount removes alice at one site: her files still have an owner's name at the other, but she is out.
func (l *lab) testRemovedAccount(t *testing.T, alice, bob user) {
	if got := l.root(t, l.kyoto2, "vcpeer", "account", "rm", "alice"); got.exit != 0 {
		t.Fatal(got)
	}
	for _, m := range l.all() {
		l.sees(t, m, fmt.Sprintf("alice:x:%d:%[1]d:Some alice:/home/alice:/usr/sbin/nologin\n", alice.uid), "getent", "passwd", "alice")
		l.sees(t, m, fmt.Sprintf("uid=%d(alice) gid=%[1]d(alice) groups=%[1]d(alice)\n", alice.uid), "id", "alice")
	}
	if got := l.as(t, alice, l.osaka, "vcpeer", "submit", "--", "true"); got.exit != exitRefused || !strings.Contains(got.err, "vcpeer account enable alice") {
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
