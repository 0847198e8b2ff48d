package nat

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"vcpeer/deploy/lab"
)

// mib is how much a test moves: little in every run, all of it in a long one.
func mib(usual, long int) int {
	if os.Getenv("VCPEER_LONG") == "" {
		return usual
	}
	return long
}

// content makes a file on a node and returns what sha256sum says of it.
func content(t *testing.T, l *lab.Lab, node string, mib int) []byte {
	t.Helper()
	sum, err := l.Exec(t.Context(), node, "sh", "-c", fmt.Sprintf("cd /tmp && head -c %dM /dev/urandom > in.dat && sha256sum < in.dat", mib))
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// job is a `vcpeer run` that goes on while the network is being disturbed.
type job struct {
	began time.Time
	done  chan struct{}
	out   []byte
	err   error
}

func start(t *testing.T, l *lab.Lab, within time.Duration, node string, args ...string) *job {
	t.Helper()
	j := &job{began: time.Now(), done: make(chan struct{})}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	go func() {
		defer cancel()
		defer close(j.done)
		j.out, j.err = l.Exec(ctx, node, append([]string{"vcpeer", "run"}, args...)...)
	}()
	return j
}

// until waits for a moment in the life of a job; false: it has ended before.
func (j *job) until(reached func() bool) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !reached() {
		select {
		case <-j.done:
			return false
		case <-tick.C:
		}
	}
	return true
}

// end waits for the job and compares what it printed.
func (j *job) end(t *testing.T, want []byte) time.Duration {
	t.Helper()
	<-j.done
	if j.err != nil || !bytes.Equal(j.out, want) {
		t.Fatalf("printed %q, want %q: %v", j.out, want, j.err)
	}
	return time.Since(j.began)
}

// TestRelayDiesInTransfer: the relay that carries a job's input from a lab behind a symmetric NAT to another is killed. The
// other relay carries the rest, and only that.
func TestRelayDiesInTransfer(t *testing.T) {
	size := mib(24, 256)
	l := up(t, `
args: [--jobs-as, self]
sites:
  hub1: {nodes: [hub1]}
  hub2: {nodes: [hub2]}
  left: {nodes: [left], nat: symmetric}
  right: {nodes: [right], nat: symmetric}
links:
  default: delay=10ms rate=100mbit
`)
	ways(t, l, "left", time.Minute, "right=relayed")
	ways(t, l, "right", time.Minute, "left=relayed")
	for _, n := range []string{"left", "right"} {
		relaysOf(t, l, n, time.Minute, 2, "")
	}
	carried := func(hub string) int { return int(netcheck(t, l, hub, hub).Carries.Bytes >> 20) }
	before := map[string]int{"hub1": carried("hub1"), "hub2": carried("hub2")}
	want := content(t, l, "left", size)
	j := start(t, l, 5*time.Minute, "left", "--site", "right", "--in", "/tmp/in.dat:in.dat", "--", "sh", "-c", "sha256sum < in.dat")
	dies := ""
	if !j.until(func() bool {
		for hub := range before {
			if carried(hub)-before[hub] >= size/3 {
				dies = hub
			}
		}
		return dies != ""
	}) {
		t.Fatalf("the job ended while less than a third was relayed: %q %v", j.out, j.err)
	}
	other := map[string]string{"hub1": "hub2", "hub2": "hub1"}[dies]
	rest := carried(other)
	if err := l.Kill(dies, lab.VCPeer, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	if !j.until(func() bool { return carried(other)-rest >= 1 }) {
		t.Fatalf("the job ended with nothing carried by %s: %q %v", other, j.out, j.err)
	}
	again := time.Since(killed)
	took := j.end(t, want)
	more := carried(other) - rest
	if more > size*3/4 {
		t.Errorf("%s carried %d MiB of %d, of which a third had arrived", other, more, size)
	}
	t.Logf("%d MiB in %v; %s was killed when a third was there, %s went on after %v and carried %d MiB", size, took.Round(100*time.Millisecond), dies, other, again.Round(100*time.Millisecond), more)
}

// TestCutsInTransfer: a lab of three nodes behind a symmetric NAT is cut off again and again while it gets a large input, and
// while it sends one. Each transfer goes on where it was.
func TestCutsInTransfer(t *testing.T) {
	long(t)
	const size = 1024
	l := up(t, `
args: [--jobs-as, self]
sites:
  campus: {nodes: [campus]}
  second: {nodes: [second]}
  labo: {nodes: [labo1, labo2, labo3], nat: symmetric}
links:
  default: delay=10ms
`)
	for _, tt := range []struct{ from, site, line string }{{"campus", "labo", "campus>labo"}, {"labo1", "campus", "labo>campus"}} {
		t.Run(tt.from+" to "+tt.site, func(t *testing.T) {
			want := content(t, l, tt.from, size)
			before := moved(t, l, tt.line)
			j := start(t, l, 10*time.Minute, tt.from, "--site", tt.site, "--in", "/tmp/in.dat:in.dat", "--", "sh", "-c", "sha256sum < in.dat")
			for i := 1; i <= 3; i++ {
				if !j.until(func() bool { return moved(t, l, tt.line)-before >= i*size/4 }) {
					t.Fatalf("ended early: %q %v", j.out, j.err)
				}
				if err := l.Cut("labo"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(4*i) * time.Second) // shorter and longer than connections live without an answer
				if err := l.Heal("labo"); err != nil {
					t.Fatal(err)
				}
			}
			took := j.end(t, want)
			total := moved(t, l, tt.line) - before
			if total > size*5/4 {
				t.Errorf("%d MiB crossed the network for %d", total, size)
			}
			t.Logf("%d MiB in %v with cuts of 4, 8 and 12 s; %d MiB crossed the network", size, took.Round(time.Second), total)
		})
	}
}

// moved is how many MiB have gone one way between two sites.
func moved(t *testing.T, l *lab.Lab, line string) int {
	t.Helper()
	lines, err := l.Links()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range lines {
		if n.From+">"+n.To == line {
			return int(n.Count.Bytes >> 20)
		}
	}
	t.Fatalf("no line %s", line)
	return 0
}
