package e2e

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"vcpeer/peer/api"
)

// TestFullDisk fills the file system below a node from outside: nothing new is accepted, with a word that says why; the
// daemon and what runs live on; nothing acknowledged is lost; and when there is room again the node works by itself.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, 700<<20)
	ctx, c := clusterIn(t, dir, "a-1@a")
	n := c.Nodes[0]
	before := submit(t, ctx, n, api.Submit{Key: rand.Text(), Argv: []string{"/bin/true"}})
	waitEnded(t, ctx, n, before.ID)
	gate := filepath.Join(t.TempDir(), "gate")
	running := submit(t, ctx, n, api.Submit{Key: rand.Text(), Argv: []string{"/bin/sh", "-c", "until [ -e " + gate + " ]; do sleep 0.1; done"}})
	eventually(t, ctx, "the job runs", func() bool {
		job, err := n.Client().Job(ctx, running.ID)
		return err == nil && job.State == api.StateRunning
	})
	filler := fill(t, dir)
	_, err := n.Client().Submit(ctx, api.Submit{Key: rand.Text(), Name: "late", Argv: []string{"/bin/true"}, Slots: 1, Dir: t.TempDir()})
	if err == nil || !strings.Contains(fmt.Sprint(err), "disk") {
		t.Errorf("a job on a full disk: %v, want a refusal that names the disk", err)
	}
	if _, err := n.Client().AddAccount(ctx, api.AccountAdd{Name: "alice"}); err == nil {
		t.Error("a record on a full disk was accepted")
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if job, err := n.Client().Job(ctx, before.ID); err != nil || job.State != api.StateDone {
		t.Errorf("a job that was done: %+v, %v", job, err)
	}
	if !n.Alive() {
		t.Fatal("the daemon died of a full disk")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if job := waitEnded(t, ctx, n, running.ID); job.State != api.StateDone {
		t.Errorf("the job that ran through it is %s", job.State)
	}
	eventually(t, ctx, "jobs are accepted again", func() bool {
		got, err := n.Client().Submit(ctx, api.Submit{Key: "again", Name: "again", Argv: []string{"/bin/true"}, Slots: 1, Dir: t.TempDir()})
		return err == nil && waitEnded(t, ctx, n, got.ID).State == api.StateDone
	})
}

// smallDisk mounts a file system of its own for the test; it needs root.
func smallDisk(t *testing.T, bytes int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	dir, err := os.MkdirTemp("", "vcd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// fill takes all the space that is left and returns the file that holds it.
func fill(t *testing.T, dir string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for size := len(block); size > 0; {
		if _, err := f.Write(block[:size]); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return f.Name()
}
