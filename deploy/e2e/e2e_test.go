// Package e2e starts whole clusters of real vcpeer processes and does to them what users, failing machines and
// strangers do.
package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vcpeer/deploy/harness"
	"vcpeer/peer/api"
)

// limit bounds each test; they end in a small part of it on a quiet machine.
const limit = 4 * time.Minute

// binary is the vcpeer under test: $VCPEER_BINARY, or built once by TestMain.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "vce")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if binary = os.Getenv("VCPEER_BINARY"); binary == "" {
		binary, err = harness.Build(context.Background(), dir, buildFlags...)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// cluster returns a running cluster with the given node names, "name@site" each; the first founds it.
func cluster(t *testing.T, names ...string) (context.Context, *harness.Cluster) {
	t.Helper()
	dir, err := os.MkdirTemp("", "vcn") // short: a unix socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return clusterIn(t, dir, names...)
}

// clusterIn is cluster with a directory of the caller's.
func clusterIn(t *testing.T, dir string, names ...string) (context.Context, *harness.Cluster) {
	t.Helper()
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	c := harness.New(dir, binary)
	t.Cleanup(func() {
		c.Kill()
		for _, n := range c.Nodes {
			if _, race, found := strings.Cut(n.Log(), "WARNING: DATA RACE"); found {
				t.Errorf("%s has a data race:%s", n.Name, race[:min(len(race), 6000)])
			}
		}
		if t.Failed() {
			for _, n := range c.Nodes {
				t.Logf("==== %s\n%s", n.Name, lastLines(n.Log(), 60))
			}
		}
	})
	for i, name := range names {
		n := add(t, c, name)
		start := c.Found
		if i > 0 {
			start = func(ctx context.Context, n *harness.Node) error { return c.Join(ctx, n, c.Nodes[0]) }
		}
		if err := start(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range c.Nodes {
		if err := n.WaitWell(ctx, len(c.Nodes)); err != nil {
			t.Fatal(err)
		}
	}
	return ctx, c
}

func add(t *testing.T, c *harness.Cluster, name string, args ...string) *harness.Node {
	t.Helper()
	node, site, ok := strings.Cut(name, "@")
	if !ok {
		t.Fatalf("node %q has no site", name)
	}
	n, err := c.Add(node, site, append([]string{"--slots", "2"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func lastLines(s string, n int) string {
	lines := strings.Split(s, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// eventually polls until ok or the test's time is over.
func eventually(t *testing.T, ctx context.Context, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

// script puts a shell script into the blob store of n and returns the file to submit.
func script(t *testing.T, ctx context.Context, n *harness.Node, text string) *api.File {
	t.Helper()
	blob, err := n.Client().PutBlob(ctx, strings.NewReader("#!/bin/sh\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return &api.File{Path: "job.sh", Hash: blob.Hash, Size: blob.Size, Mode: 0o755}
}

func submit(t *testing.T, ctx context.Context, n *harness.Node, s api.Submit) *api.Submitted {
	t.Helper()
	if s.Dir == "" {
		s.Dir = t.TempDir()
	}
	if s.Name == "" {
		s.Name = "test"
	}
	s.Slots, s.Retries = max(1, s.Slots), 5
	got, err := n.Client().Submit(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// waitEnded follows a job to its end through n; a broken connection is tried again, as a user would.
func waitEnded(t *testing.T, ctx context.Context, n *harness.Node, id string) *api.JobDetail {
	t.Helper()
	var job *api.JobDetail
	eventually(t, ctx, "job "+id+" ends", func() bool {
		var err error
		job, err = n.Client().Job(ctx, id)
		return err == nil && job.Job.Tasks.Ended()
	})
	return job
}

func read(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Error(err)
	}
	return string(b)
}
