package nat

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"vcpeer/deploy/lab"
)

// TestLaboratory: three nodes behind a symmetric NAT are a site like any other. They have a queue of their own with three
// voters, run their own jobs, take work from outside and give some away, and a large input file gets in and out, also to a
// site that is itself behind a symmetric NAT and reached through a relay only.
func TestLaboratory(t *testing.T) {
	long(t)
	l := up(t, `
args: [--jobs-as, self]
sites:
  campus: {nodes: [campus]}
  second: {nodes: [second]}
  labo: {nodes: [labo1, labo2, labo3], nat: symmetric}
  other: {nodes: [other], nat: symmetric}
links:
  default: delay=10ms
`)
	eventually(t, 40*time.Second, func() string {
		c := l.Client("labo2")
		defer c.Close()
		s, err := c.Status(t.Context())
		if err != nil || s.Queue.Voters != 3 || s.Queue.Leader == "" {
			return fmt.Sprintf("labo has no group of three: %+v %v", s, err)
		}
		return ""
	})
	const mib = 64
	for _, tt := range []struct{ from, at string }{{"labo1", "labo"}, {"campus", "labo"}, {"labo2", "campus"}, {"labo3", "other"}, {"other", "labo"}} {
		t.Run(tt.from+" to "+tt.at, func(t *testing.T) {
			want, err := l.Exec(t.Context(), tt.from, "sh", "-c", fmt.Sprintf("cd /tmp && head -c %dM /dev/urandom > in.dat && sha256sum < in.dat", mib))
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			run(t, l, tt.from, "--site", tt.at, "--", "true")
			null := time.Since(began)
			began = time.Now()
			out := run(t, l, tt.from, "--site", tt.at, "--in", "/tmp/in.dat:in.dat", "--", "sh", "-c", "sha256sum < in.dat")
			took := time.Since(began)
			if !bytes.Equal(out, want) {
				t.Errorf("got %q, want %q", out, want)
			}
			t.Logf("a null job in %v, with %d MiB in %v: %.0f Mbit/s", null.Round(time.Millisecond), mib, took.Round(10*time.Millisecond), mib<<20*8/1e6/took.Seconds())
		})
	}
	noAlarms(t, l)
}

// run runs a job as a user would, and returns what it printed.
func run(t *testing.T, l *lab.Lab, node string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := l.Exec(ctx, node, append([]string{"vcpeer", "run"}, args...)...)
	if err != nil {
		t.Errorf("%s: run %v: %v", node, args, err)
	}
	return out
}
