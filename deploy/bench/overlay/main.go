// Command overlay measures the network over all sites against what people would build by hand in its place: a static mesh
// of Open vSwitch GRE tunnels, tinc, and babeld with its RTT metric, all in labs of package lab, which it brings up itself.
// What is compared runs in turns in one run, and each figure is a median; nothing is asserted. It needs root and the
// programs of a lab, and leaves out, with the reason, what else is missing.
//
//	go run ./deploy/bench/overlay -binary bin/vcpeer                all figures
//	go run ./deploy/bench/overlay -binary bin/vcpeer -only failover  one of: traffic, failover, sites, paths
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"vcpeer/deploy/lab"
	"vcpeer/deploy/lab/topology"
)

// options are what the command line sets.
type options struct {
	binary string
	only   string
	rounds int // of traffic
	cuts   int // of failover
	joins  int // for each size
	seeds  int // matrices of paths
	idle   time.Duration
}

// figure is one group of measurements.
type figure struct {
	name string
	run  func(ctx context.Context, b *bench) error
}

var figures = []figure{
	{"traffic", measureTraffic},
	{"failover", measureFailover},
	{"sites", measureSites},
	{"paths", measurePaths},
}

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "bin/vcpeer", "the vcpeer to measure")
	flag.StringVar(&o.only, "only", "", "one figure only")
	flag.IntVar(&o.rounds, "rounds", 9, "rounds of throughput and latency")
	flag.IntVar(&o.cuts, "cuts", 5, "cuts of one link, which comes back later every time; babeld with its defaults sees the first two")
	flag.IntVar(&o.joins, "joins", 3, "sites that join one after the other, at each size")
	flag.IntVar(&o.seeds, "seeds", 3, "random matrices of round-trip times")
	flag.DurationVar(&o.idle, "idle", 30*time.Second, "how long an idle network is watched")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if why := lab.CannotRun(ctx); why != "" {
		fmt.Println("the network over all sites is not measured:", why)
		return
	}
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	binary, err := filepath.Abs(o.binary)
	if err != nil {
		return err
	}
	o.binary = binary
	b := &bench{options: o}
	var errs []error
	for _, f := range figures {
		if o.only != "" && o.only != f.name {
			continue
		}
		b.row("== "+f.name, "load average %s", load())
		if err := f.run(ctx, b); err != nil { // the others can still be measured
			text, _, _ := strings.Cut(err.Error(), "\n")
			b.row(f.name, "not measured: %s", text)
			errs = append(errs, fmt.Errorf("%s: %w", f.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	b.table()
	return errors.Join(errs...)
}

// bench collects the rows of the table.
type bench struct {
	options
	rows []string
}

// row adds one figure, and prints it at once for those who wait.
func (b *bench) row(name, format string, args ...any) {
	r := fmt.Sprintf("%-46s %s", name, fmt.Sprintf(format, args...))
	fmt.Println(r)
	b.rows = append(b.rows, r)
}

func (b *bench) table() {
	command := "go run ./deploy/bench/overlay -binary " + b.binary
	if b.only != "" {
		command += " -only " + b.only
	}
	fmt.Printf("\nThe network over all sites, by: %s\n%s\n", command, strings.Join(b.rows, "\n"))
}

// up brings up a lab from the text of a topology.
func (b *bench) up(ctx context.Context, name, text string, m topology.Matrix) (*lab.Lab, error) {
	t, err := topology.Parse(name, []byte(text))
	if err == nil && m != nil {
		t, err = t.WithMatrix(m)
	}
	if err != nil {
		return nil, err
	}
	return lab.Up(ctx, t, lab.Options{Name: fmt.Sprintf("bench-%s-%d", name, os.Getpid()), Binary: b.binary, LogLevel: "warn"})
}

// missing says which of some programs is not there, and how to get it; empty: all are.
func missing(packages map[string]string) string {
	for program, pkg := range packages {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Sprintf("%s is missing: apt-get install %s", program, pkg)
		}
	}
	return ""
}

func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

// until waits until ok, asked now and then.
func until(ctx context.Context, every, within time.Duration, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %v: %s", within, what))
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
