package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

// cancelWithin bounds how long run waits for a job that it cancelled.
const cancelWithin = 15 * time.Second

func newRun(e *env) *cobra.Command {
	var o jobOptions
	cmd := &cobra.Command{
		Use:                   "run [OPTIONS] SCRIPT [ARG…] | run [OPTIONS] -- COMMAND [ARG…]",
		DisableFlagsInUseLine: true,
		Short:                 "Run a job as if it were a local command: its output, its exit code",
		Long: `Run hands in a job, shows its output as it comes and leaves with its exit code; of an array, with the first that is
not 0. The output is kept in files only where --stdout or --stderr names them. When vcpeer itself fails on the way it leaves with 125 and says how to find the job. Ctrl-C cancels the job.
` + jobHelp,
		Example: "  vcpeer run -- hostname\n  vcpeer run --site osaka --slots 8 --in src/ --out a.out -- make -C src",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := e.prepare(cmd.Context(), cmd.Flags(), args)
			if err != nil {
				return attached(err)
			}
			keepNoOutput(s)
			return attached(runRun(cmd.Context(), e, s))
		},
	}
	o.flags(cmd.Flags())
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// keepNoOutput leaves no files NAME.oID behind of what is shown as it comes; who names files gets them.
func keepNoOutput(s *api.Submit) {
	if s.Stdout == "" {
		s.Stdout = api.OutputKept
	}
	if s.Stderr == "" {
		s.Stderr = api.OutputKept
	}
}

// attached marks errors as vcpeer's own, whatever they are: only a job's exit status passes.
func attached(err error) error {
	var status exitStatus
	if err == nil || errors.As(err, &status) {
		return err
	}
	return attachedError{err}
}

func runRun(ctx context.Context, e *env, s *api.Submit) error {
	sub, err := e.submit(ctx, s)
	if err != nil {
		return err
	}
	if e.ErrTTY {
		e.note("%s", e.paintErr(dim, "job "+sub.ID))
	}
	err = e.follow(ctx, func(ctx context.Context, c *api.Client) error {
		if err := e.copyLogs(ctx, c, sub.ID, api.LogsAsk{Stream: api.StreamBoth, Follow: true}, s.Array != nil); err != nil {
			return err
		}
		_, err := e.await(ctx, c, sub.ID)
		return err
	})
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return e.cancelOnInterrupt(ctx, sub.ID)
	}
	if err != nil {
		e.note("job %s goes on; to come back: vcpeer logs -f %s", sub.ID, sub.ID)
		return err
	}
	return e.exitOf(ctx, sub.ID)
}

// cancelOnInterrupt ends the job that Ctrl-C was meant for; a second Ctrl-C ends this program and leaves the job to the node.
func (e *env) cancelOnInterrupt(ctx context.Context, id string) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelWithin)
	defer stop()
	e.note("\ncancelling job %s (Ctrl-C again leaves at once)", id)
	err := e.ask(ctx, func(ctx context.Context, c *api.Client) error {
		if _, err := c.Cancel(ctx, id, nil); err != nil {
			return err
		}
		_, err := e.await(ctx, c, id)
		return err
	})
	if err != nil {
		e.note("job %s may go on; to end it: vcpeer cancel %s", id, id)
		return err
	}
	e.note("job %s is cancelled", id)
	return exitStatus(ExitSignal)
}

// exitOf leaves with the job's code, and says why where a number does not.
func (e *env) exitOf(ctx context.Context, id string) error {
	var j *api.JobDetail
	err := e.ask(ctx, func(ctx context.Context, c *api.Client) (err error) {
		j, err = c.Job(ctx, id)
		return err
	})
	if err != nil {
		return err
	}
	for _, t := range j.TaskList {
		if t.State == api.StateDone {
			continue
		}
		if t.Reason != "" {
			e.note("job %s: %s", taskID(id, j.Array, t.Index), clean(t.Reason))
		}
		if t.State == api.StateFailed && t.Exit > 0 && t.Exit < 256 {
			return exitStatus(t.Exit)
		}
		return &api.Problem{Code: "FAILED", Message: fmt.Sprintf("job %s was %s", id, t.State), Hint: "vcpeer why " + id}
	}
	if j.State != api.StateDone {
		return &api.Problem{Code: "FAILED", Message: fmt.Sprintf("job %s was %s", id, j.State), Hint: "vcpeer why " + id}
	}
	return nil
}

// taskID names a task of an array, or the job itself.
func taskID(id string, array *api.Range, index int) string {
	if array == nil {
		return id
	}
	return fmt.Sprintf("%s[%d]", id, index)
}
