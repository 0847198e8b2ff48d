package e2e

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"vcpeer/deploy/harness"
	"vcpeer/peer/api"
)

func TestThreeSitesShareAnArray(t *testing.T) {
	ctx, c := cluster(t, "kyoto-1@kyoto", "osaka-1@osaka", "lab-1@lab")
	kyoto := c.Nodes[0]
	dir := t.TempDir()
	input, err := kyoto.Client().PutBlob(ctx, strings.NewReader("7"))
	if err != nil {
		t.Fatal(err)
	}
	got := submit(t, ctx, kyoto, api.Submit{
		Key: rand.Text(), Dir: dir, Array: &api.Range{First: 1, Last: 12, Step: 1},
		Script:  script(t, ctx, kyoto, `mkdir out; sleep 0.5; echo $(($(cat in/factor) * VCPEER_TASK_ID)) > out/$VCPEER_TASK_ID; echo at $VCPEER_SITE; [ $VCPEER_TASK_ID != 5 ]`),
		Inputs:  []api.File{{Path: "in/factor", Hash: input.Hash, Size: input.Size, Mode: 0o644}},
		Outputs: []string{"out/*"},
	})
	job := waitEnded(t, ctx, kyoto, got.ID)
	if job.Job.Tasks.Done != 11 || job.Job.Tasks.Failed != 1 || job.State != api.StateFailed {
		t.Errorf("tasks: %+v, state %s; want 11 done and the honest failure", job.Job.Tasks, job.State)
	}
	sites := make(map[string]int)
	for _, task := range job.TaskList {
		sites[task.Site]++
		if task.Index == 5 && task.Exit != 1 {
			t.Errorf("task 5 ended with %d (%s), want 1", task.Exit, task.Reason)
		}
	}
	if len(sites) != 3 {
		t.Errorf("sites that worked: %v, want all three", sites)
	}
	eventually(t, ctx, "results are back", func() bool {
		job = waitEnded(t, ctx, kyoto, got.ID)
		return !slices.ContainsFunc(job.TaskList, func(t api.Task) bool { return !t.Returned })
	})
	for i := 1; i <= 12; i++ {
		if text := read(t, dir, "out", strconv.Itoa(i)); text != fmt.Sprintln(7*i) {
			t.Errorf("output of task %d: %q", i, text)
		}
		if text := read(t, dir, fmt.Sprintf("test.o%d.%d", got.Seq, i)); !strings.HasPrefix(text, "at ") {
			t.Errorf("standard output of task %d: %q", i, text)
		}
	}
}

func TestAnyNodeAnswersForAnyJob(t *testing.T) {
	ctx, c := cluster(t, "kyoto-1@kyoto", "kyoto-2@kyoto", "osaka-1@osaka")
	got := submit(t, ctx, c.Nodes[1], api.Submit{Key: rand.Text(), Argv: []string{"/bin/sh", "-c", "echo hello; exit 3"}})
	for _, n := range c.Nodes {
		job := waitEnded(t, ctx, n, got.ID)
		if job.TaskList[0].Exit != 3 {
			t.Errorf("%s says exit %d", n.Name, job.TaskList[0].Exit)
		}
		var out strings.Builder
		for chunk, err := range n.Client().Logs(ctx, got.ID, api.LogsAsk{}) {
			if err != nil {
				t.Errorf("%s: %v", n.Name, err)
			}
			out.Write(chunk.Data)
		}
		if out.String() != "hello\n" {
			t.Errorf("%s: logs %q", n.Name, out.String())
		}
		list, err := n.Client().Jobs(ctx, api.JobsAsk{All: true, User: "*"})
		if err != nil || !list.Heard.Complete() || len(list.Items) != 1 {
			t.Errorf("%s lists %+v, %v", n.Name, list, err)
		}
	}
	again := submit(t, ctx, c.Nodes[2], api.Submit{Key: "the same", Argv: []string{"/bin/true"}})
	if twice := submit(t, ctx, c.Nodes[2], api.Submit{Key: "the same", Argv: []string{"/bin/true"}}); twice.ID != again.ID {
		t.Errorf("one key, two jobs: %s and %s", again.ID, twice.ID)
	}
}

func TestCancelAndDependencies(t *testing.T) {
	ctx, c := cluster(t, "a-1@a")
	n := c.Nodes[0]
	long := submit(t, ctx, n, api.Submit{Key: rand.Text(), Argv: []string{"/bin/sleep", "600"}})
	after := submit(t, ctx, n, api.Submit{Key: rand.Text(), Argv: []string{"/bin/true"}, After: []string{long.ID}})
	eventually(t, ctx, "the long job runs", func() bool {
		job, err := n.Client().Job(ctx, long.ID)
		return err == nil && job.State == api.StateRunning
	})
	if why, err := n.Client().Why(ctx, after.ID); err != nil || !strings.Contains(fmt.Sprint(why), fmt.Sprint("job ", long.Seq)) {
		t.Errorf("why %s: %+v, %v; want it to name %s", after.ID, why, err, long.ID)
	}
	if _, err := n.Client().Cancel(ctx, long.ID, nil); err != nil {
		t.Fatal(err)
	}
	if job := waitEnded(t, ctx, n, long.ID); job.State != api.StateCancelled {
		t.Errorf("cancelled job is %s", job.State)
	}
	if job := waitEnded(t, ctx, n, after.ID); job.State == api.StateDone {
		t.Errorf("a job that needed a cancelled one is %s", job.State)
	}
	impossible := api.Submit{Key: rand.Text(), Name: "big", Argv: []string{"/bin/true"}, Slots: 1000, Dir: t.TempDir()}
	if got, err := n.Client().Submit(ctx, impossible); err == nil {
		t.Errorf("a job of 1000 slots was accepted as %s", got.ID)
	}
}

// ledger is a directory outside the cluster in which every execution leaves a line at its start and at its end.
type ledger struct{ dir string }

// script is a task that takes a moment and keeps the books.
func (l ledger) script() string {
	return fmt.Sprintf(`b() { echo "$1 $(date +%%s%%N)" >> %s/$VCPEER_TASK_ID; }; b start; sleep 0.$((VCPEER_TASK_ID %% 7 + 2)); b end; echo ok`, l.dir)
}

// check asserts that every task was executed to its end once and never twice at the same time. Starts without an end
// are those of attempts that died with their machine.
func (l ledger) check(t *testing.T, tasks int, deaths bool) {
	t.Helper()
	restarts := 0
	for i := 1; i <= tasks; i++ {
		starts, ends := 0, 0
		for line := range strings.Lines(read(t, l.dir, strconv.Itoa(i))) {
			if strings.HasPrefix(line, "start") {
				starts++
			} else {
				ends++
			}
		}
		if ends != 1 || starts < 1 || starts > 1 && !deaths {
			t.Errorf("task %d: %d starts, %d ends", i, starts, ends)
		}
		restarts += starts - 1
	}
	t.Logf("%d tasks, %d executions cut short by a dying machine and repeated", tasks, restarts)
}

// TestKillsLoseAndDoubleNothing kills daemons with SIGKILL while a 200-task array runs: the leader, a node with running
// tasks, and all nodes of the submitting site at once. Their shims live on, so every task is executed exactly once.
func TestKillsLoseAndDoubleNothing(t *testing.T) {
	ctx, c := cluster(t, "kyoto-1@kyoto", "kyoto-2@kyoto", "kyoto-3@kyoto", "osaka-1@osaka")
	kyoto, osaka := c.Nodes[:3], c.Nodes[3]
	waitVoters(t, c.Nodes[0], 3)
	books := ledger{t.TempDir()}
	dir := t.TempDir()
	got := submit(t, ctx, kyoto[2], api.Submit{
		Key: rand.Text(), Dir: dir, Array: &api.Range{First: 1, Last: 200, Step: 1}, Script: script(t, ctx, kyoto[2], books.script()),
	})
	restart := func(nodes ...*harness.Node) {
		for _, n := range nodes {
			n.Kill()
		}
		for _, n := range nodes {
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range nodes {
			if err := n.WaitRunning(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	progress(t, got.ID, 20, osaka)
	restart(leader(t, kyoto))
	progress(t, got.ID, 60, osaka)
	restart(osaka)
	progress(t, got.ID, 100, osaka)
	restart(kyoto...)
	job := waitEnded(t, ctx, osaka, got.ID)
	if job.Job.Tasks.Done != 200 {
		t.Errorf("tasks: %+v, want 200 done", job.Job.Tasks)
	}
	books.check(t, 200, false)
	eventually(t, ctx, "every output is back", func() bool {
		files, err := filepath.Glob(filepath.Join(dir, "test.o*"))
		return err == nil && len(files) == 200
	})
}

// TestMachineThatDiesHasItsTasksRepeated kills a node with everything on it, as a power cut would, and never brings
// it back: its tasks are repeated elsewhere after their leases.
func TestMachineThatDiesHasItsTasksRepeated(t *testing.T) {
	ctx, c := cluster(t, "kyoto-1@kyoto", "osaka-1@osaka")
	kyoto, osaka := c.Nodes[0], c.Nodes[1]
	books := ledger{t.TempDir()}
	got := submit(t, ctx, kyoto, api.Submit{
		Key: rand.Text(), Array: &api.Range{First: 1, Last: 40, Step: 1}, Script: script(t, ctx, kyoto, books.script()),
	})
	progress(t, got.ID, 8, kyoto)
	osaka.Kill()
	osaka.KillShims()
	job := waitEnded(t, ctx, kyoto, got.ID)
	if job.Job.Tasks.Done != 40 {
		t.Errorf("tasks: %+v, want 40 done", job.Job.Tasks)
	}
	books.check(t, 40, true)
}

// progress waits until at least n tasks of the job are done, asking the node at.
func progress(t *testing.T, id string, n int, at *harness.Node) {
	t.Helper()
	eventually(t, t.Context(), fmt.Sprintf("%d tasks are done", n), func() bool {
		job, err := at.Client().Job(t.Context(), id)
		return err == nil && job.Job.Tasks.Done >= n
	})
}

// leader returns the node that leads the site's raft group.
func leader(t *testing.T, nodes []*harness.Node) *harness.Node {
	t.Helper()
	var found *harness.Node
	eventually(t, t.Context(), "the site has a leader", func() bool {
		for _, n := range nodes {
			if s, err := n.Client().Status(t.Context()); err == nil && s.Queue.Role == "leader" {
				found = n
			}
		}
		return found != nil
	})
	return found
}

func waitVoters(t *testing.T, n *harness.Node, voters int) {
	t.Helper()
	eventually(t, t.Context(), fmt.Sprintf("the group has %d voters", voters), func() bool {
		s, err := n.Client().Status(t.Context())
		return err == nil && s.Queue.Voters == voters
	})
}

func TestWipedDiskRejoinsAsNew(t *testing.T) {
	ctx, c := cluster(t, "a-1@a", "a-2@a", "a-3@a")
	waitVoters(t, c.Nodes[0], 3)
	victim := c.Nodes[2]
	victim.Kill()
	if err := os.RemoveAll(filepath.Join(victim.Dir, "state", "queue")); err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	if err := victim.WaitRunning(ctx); err != nil {
		t.Fatal(err)
	}
	got := submit(t, ctx, victim, api.Submit{Key: rand.Text(), Argv: []string{"/bin/true"}})
	waitEnded(t, ctx, victim, got.ID)
	eventually(t, ctx, "the wiped node votes again", func() bool {
		s, err := victim.Client().Status(ctx)
		return err == nil && s.Queue.Voters == 3 && (s.Queue.Role == "follower" || s.Queue.Role == "leader")
	})
}

func TestPausedLeaderIsReplacedAndComesBack(t *testing.T) {
	ctx, c := cluster(t, "a-1@a", "a-2@a", "a-3@a")
	waitVoters(t, c.Nodes[0], 3)
	old := leader(t, c.Nodes)
	old.Pause()
	defer old.Resume()
	others := slices.DeleteFunc(slices.Clone(c.Nodes), func(n *harness.Node) bool { return n == old })
	begun := time.Now()
	got := submit(t, ctx, others[0], api.Submit{Key: rand.Text(), Argv: []string{"/bin/true"}})
	waitEnded(t, ctx, others[1], got.ID)
	t.Logf("a job was accepted and run %v after the leader was paused", time.Since(begun).Round(time.Millisecond))
	old.Resume()
	waitEnded(t, ctx, old, got.ID)
}
