package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

// A wait outlives a restart of the node: it asks again for so long, with a pause, before it gives up.
const (
	askAgainFor   = time.Minute
	askAgainAfter = 500 * time.Millisecond
)

func newWait(e *env) *cobra.Command {
	return &cobra.Command{Use: "wait ID…", Short: "Wait until jobs have ended; leave with 0 if all ended well",
		Long:    "Wait shows how the jobs stand until all have ended. Ctrl-C ends the waiting, not the jobs. --timeout bounds it (exit code 124).",
		Example: "  vcpeer wait last\n  vcpeer wait 41 42.osaka --timeout 10m && echo both are done",
		Args:    atLeastOne("job ID"),
		RunE:    func(cmd *cobra.Command, args []string) error { return runWait(cmd.Context(), e, args) }}
}

// runWait waits for each job in turn and tells how it ended.
func runWait(ctx context.Context, e *env, typed []string) error {
	var ended []api.Job
	err := e.follow(ctx, func(ctx context.Context, c *api.Client) error {
		for _, t := range typed {
			id, task, err := e.resolve(ctx, c, t)
			if err != nil {
				return err
			}
			if task != nil {
				return usage("vcpeer wait "+id, "%s: one waits for a whole job, not for a task", t)
			}
			j, err := e.await(ctx, c, id)
			if err != nil {
				return err
			}
			ended = append(ended, *j)
			if !e.json {
				fmt.Fprintf(e.Out, "job %s %s: %s\n", j.ID, e.paint(stateColor(j.State), j.State), tally(j.Tasks))
			}
		}
		return nil
	})
	if err != nil {
		if ctx.Err() != nil {
			e.note("not waiting any more; to come back: vcpeer wait %s", strings.Join(typed, " "))
		}
		return err
	}
	if e.json {
		if err := writeJSON(e.Out, map[string]any{"apiVersion": api.Version, "kind": "JobList", "items": ended}); err != nil {
			return err
		}
	}
	for _, j := range ended {
		if j.State != api.StateDone {
			if !e.json {
				e.note("why: vcpeer why %s", j.ID)
			}
			return exitStatus(ExitFailed)
		}
	}
	return nil
}

// await follows one job to its end. A node that goes away is asked again, since the job is not gone with it.
func (e *env) await(ctx context.Context, c *api.Client, id string) (*api.Job, error) {
	p := e.progress()
	defer p.clear()
	var last *api.Job
	var lost time.Time // when the node went away; zero: it is there
	for {
		err := e.watchJob(ctx, c, id, p, func(j *api.Job) { last, lost = j, time.Time{} })
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err == nil && last != nil && last.Tasks.Ended():
			return last, nil
		case err == nil:
			err = &api.Problem{Code: api.CodeUnavailable, Message: fmt.Sprintf("the node ended its answer before job %s did", id)}
		case !canAskAgain(err) || last == nil:
			return nil, err // never heard of the job: do not wait for what may not exist
		}
		if lost.IsZero() {
			lost = e.Now()
			p.clear()
			e.note("lost the node (%v); asking again for %v", err, askAgainFor)
		}
		if e.Now().Sub(lost) > askAgainFor {
			return nil, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(askAgainAfter):
		}
	}
}

// watchJob reads one answer to a wait to its end.
func (e *env) watchJob(ctx context.Context, c *api.Client, id string, p *progress, heard func(*api.Job)) error {
	for j, err := range c.Wait(ctx, id) {
		if err != nil {
			return err
		}
		heard(&j)
		p.show("job %s: %s", j.ID, tally(j.Tasks))
		if j.Tasks.Ended() {
			return nil
		}
	}
	return nil
}

// canAskAgain reports whether an error may pass by itself.
func canAskAgain(err error) bool {
	var p *api.Problem
	if !errors.As(err, &p) {
		return false
	}
	return p.Code == api.CodeUnavailable || p.Code == api.CodeNoDaemon || p.Code == api.CodeBusy
}
