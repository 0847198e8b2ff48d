package cli

import (
	"os"
	"strings"
	"testing"
	"time"

	"vcpeer/deploy/lab"
	"vcpeer/deploy/lab/topology"
)

func TestLabUsage(t *testing.T) {
	s := newShell(t, nil)
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"lab", "upp"}, ExitUsage, "did you mean vcpeer lab up?"},
		{[]string{"lab", "set", "a<>b"}, ExitUsage, "wants a pair of sites and what to change"},
		{[]string{"lab", "cut", "a", "b", "c"}, ExitUsage, "wants two sites, or one site or node"},
		{[]string{"lab", "status", "--name", "none-such"}, ExitNotFound, `there is no lab "none-such"`},
		{[]string{"lab", "exec", "--name", "none-such", "n", "--", "true"}, ExitAttached, `there is no lab "none-such"`},
		{[]string{"lab", "kill", "n", "--signal", "HUPP"}, ExitUsage, `--signal "HUPP"`},
		{[]string{"lab", "down", "--name", "none-such"}, ExitNotFound, `there is no lab "none-such"`},
	} {
		if code := s.run(tt.args...); code != tt.code || !strings.Contains(s.errs.String(), tt.want) {
			t.Errorf("vcpeer %s: exit %d, want %d\n%swant %s", strings.Join(tt.args, " "), code, tt.code, &s.errs, tt.want)
		}
	}
}

func TestLabUpWantsOneTopology(t *testing.T) {
	s := newShell(t, nil)
	s.write("two.yaml", "sites:\n  a:\n  b:\nlinks:\n  default: delay=1ms\n  a>b: delay=3ms\n")
	s.write("bad.yaml", "sites:\n  a: {nod: 2}\n")
	s.write("m.txt", "0 8\n8 0\n")
	e := newEnv(s.sys, s.deps)
	for _, tt := range []struct {
		name string
		o    labUpOptions
		args []string
		want string // delays there and back, or the error
	}{
		{"nothing", labUpOptions{}, nil, "want a topology file or --sites"},
		{"both", labUpOptions{sites: 2}, []string{"two.yaml"}, "a file and --sites were both given"},
		{"a wrong file", labUpOptions{}, []string{"bad.yaml"}, `bad.yaml:2: unknown key "nod"; did you mean "nodes"?`},
		{"a file", labUpOptions{}, []string{"two.yaml"}, "3ms 1ms"},
		{"a flag beats the default of the file", labUpOptions{delay: 7 * time.Millisecond}, []string{"two.yaml"}, "3ms 7ms"},
		{"a matrix beats all", labUpOptions{delay: 7 * time.Millisecond, matrix: "m.txt"}, []string{"two.yaml"}, "4ms 4ms"},
		{"no file", labUpOptions{sites: 2, link: []string{"delay=2ms loss=1%"}}, nil, "2ms 2ms"},
		{"a matrix for others", labUpOptions{sites: 3, matrix: "m.txt"}, nil, "the matrix is for 2 sites, the lab has 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			top, err := tt.o.topology(e, tt.args)
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = delays(t, top)
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func delays(t *testing.T, top topology.Topology) string {
	t.Helper()
	there, err := top.Shape(top.Sites[0].Name, top.Sites[1].Name)
	if err != nil {
		t.Fatal(err)
	}
	back, err := top.Shape(top.Sites[1].Name, top.Sites[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	return there.Delay.String() + " " + back.Delay.String()
}

func TestLabNeedsRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("is root")
	}
	s := newShell(t, nil)
	if code := s.run("lab", "up", "--sites", "2"); code != ExitRefused || !strings.Contains(s.errs.String(), lab.CannotRun(t.Context())) {
		t.Errorf("exit %d\n%s", code, &s.errs)
	}
}
