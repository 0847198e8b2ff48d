// Command bench measures vcpeer as its users meet it: real processes on this machine, through the public API, with
// every write synced. Each figure stands beside a floor or a condition measured in the same run; nothing is asserted.
//
//	go run ./deploy/bench -binary bin/vcpeer            all figures
//	go run ./deploy/bench -binary bin/vcpeer -only rate  one of: submit, rate, join, detect, idle, many
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"vcpeer/deploy/harness"
)

// options are what the command line sets.
type options struct {
	binary string
	only   string
	jobs   int           // jobs submitted one after the other
	tasks  int           // tasks of the array that measures the rate
	slots  int           // slots of the node that runs it
	nodes  int           // size of the large cluster
	idle   time.Duration // how long idle CPU is watched
}

// figure is one measurement.
type figure struct {
	name string
	run  func(ctx context.Context, b *bench) error
}

var figures = []figure{
	{"submit", measureSubmit},
	{"rate", measureRate},
	{"join", measureJoin},
	{"detect", measureDetect},
	{"idle", measureIdle},
	{"many", measureMany},
}

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "bin/vcpeer", "the vcpeer to measure")
	flag.StringVar(&o.only, "only", "", "one figure only")
	flag.IntVar(&o.jobs, "jobs", 200, "jobs submitted one after the other")
	flag.IntVar(&o.tasks, "tasks", 1000, "null tasks of the array that measures the rate")
	flag.IntVar(&o.slots, "slots", 8, "slots of the node that runs them")
	flag.IntVar(&o.nodes, "nodes", 30, "nodes of the large cluster")
	flag.DurationVar(&o.idle, "idle", 30*time.Second, "how long idle CPU is watched")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
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
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("load average before: %s\n", strings.Join(strings.Fields(string(load))[:3], " "))
	for _, f := range figures {
		if o.only != "" && o.only != f.name {
			continue
		}
		if err := measure(ctx, o, f); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

// bench is one figure's cluster, fresh for each.
type bench struct {
	options
	*harness.Cluster
}

func measure(ctx context.Context, o options, f figure) error {
	dir, err := os.MkdirTemp("", "vcb")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{options: o, Cluster: harness.New(dir, o.binary)}
	defer b.Kill()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	return f.run(ctx, b)
}

// site starts n nodes of one site and waits until all are well.
func (b *bench) site(ctx context.Context, n, slots int) error {
	for range n {
		if err := b.grow(ctx, "bench", slots); err != nil {
			return err
		}
	}
	for _, node := range b.Nodes {
		if err := node.WaitWell(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// grow adds one node, the first of which founds the cluster.
func (b *bench) grow(ctx context.Context, site string, slots int) error {
	node, err := b.Add(fmt.Sprintf("n%d", len(b.Nodes)+1), site, "--slots", fmt.Sprint(slots))
	if err != nil {
		return err
	}
	if len(b.Nodes) == 1 {
		return b.Found(ctx, node)
	}
	return b.Join(ctx, node, b.Nodes[0])
}

// row prints one figure.
func row(name, format string, args ...any) {
	fmt.Printf("%-38s %s\n", name, fmt.Sprintf(format, args...))
}
