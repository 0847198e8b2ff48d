package cli

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

// watchEvery is the pace of --watch.
const watchEvery = 2 * time.Second

type jobsOptions struct {
	api.JobsAsk
	everybody bool
	watch     bool
	quiet     bool
}

func newJobs(e *env) *cobra.Command {
	var o jobsOptions
	cmd := &cobra.Command{Use: "jobs", Short: "List your jobs that have not ended; -a also those that have",
		Example: "  vcpeer jobs\n  vcpeer jobs -a --site kyoto\n  vcpeer jobs --all-users --watch\n  vcpeer cancel $(vcpeer jobs -q)",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.everybody {
				if o.User != "" {
					return usage("", "--user and --all-users contradict each other")
				}
				o.User = "*"
			}
			if o.watch {
				return watchJobs(cmd.Context(), e, o)
			}
			return runJobs(cmd.Context(), e, o)
		}}
	f := cmd.Flags()
	f.BoolVarP(&o.All, "all", "a", false, "also jobs that have ended")
	f.StringVarP(&o.User, "user", "u", "", "jobs of this user")
	f.BoolVar(&o.everybody, "all-users", false, "jobs of everybody")
	f.StringVar(&o.Site, "site", "", "jobs submitted at this site")
	f.IntVar(&o.Limit, "limit", 0, "at most so many, the newest")
	f.BoolVarP(&o.watch, "watch", "w", false, "again every two seconds, until Ctrl-C")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print IDs alone")
	return cmd
}

func runJobs(ctx context.Context, e *env, o jobsOptions) error {
	return runListing(ctx, e, func(ctx context.Context, c *api.Client) (*api.List[api.Job], error) { return c.Jobs(ctx, o.JobsAsk) }, func(l *api.List[api.Job]) {
		if o.quiet {
			for _, j := range l.Items {
				fmt.Fprintln(e.Out, j.ID)
			}
			return
		}
		e.table(jobTable(e, l, o.User != ""), "no jobs")
		e.tellHidden(l, o)
	})
}

func jobTable(e *env, l *api.List[api.Job], users bool) *table {
	head := []string{"ID", "~NAME", "STATE", "TASKS", ">SLOTS", "SUBMITTED", "RAN", "~NODES"}
	if users {
		head = append(head[:2:2], append([]string{"USER"}, head[2:]...)...)
	}
	t := newTable(head...)
	for _, j := range l.Items {
		row := []any{j.ID, j.Name}
		if users {
			row = append(row, j.User)
		}
		t.add(append(row, state(j.State), tasksOf(j), j.Slots, e.when(j.Submitted), ran(e, j), dash(strings.Join(j.Nodes, ",")))...)
	}
	return t
}

// tasksOf tells how far an array is; a single task is told by the state.
func tasksOf(j api.Job) string {
	if j.Array == nil {
		return "-"
	}
	ended := j.Tasks.Done + j.Tasks.Failed + j.Tasks.Cancelled
	s := fmt.Sprintf("%d/%d", ended, j.Tasks.Total)
	if j.Tasks.Failed > 0 {
		s += fmt.Sprintf(" (%d failed)", j.Tasks.Failed)
	}
	return s
}

func ran(e *env, j api.Job) string {
	switch {
	case j.Started.IsZero():
		return "-"
	case j.Ended.IsZero():
		return span(e.Now().Sub(j.Started))
	}
	return span(j.Ended.Sub(j.Started))
}

// tellHidden says what the list leaves out, so that an empty one is not taken for "nothing there".
func (e *env) tellHidden(l *api.List[api.Job], o jobsOptions) {
	if !o.All && l.Hidden > 0 {
		e.note("%s that ended not shown; vcpeer jobs -a shows them", plural(l.Hidden, "job"))
	}
	if o.All && l.Hidden > 0 {
		e.note("%s older not shown; --limit shows more", plural(l.Hidden, "job"))
	}
}

// watchJobs shows the list again and again; on a terminal in place.
func watchJobs(ctx context.Context, e *env, o jobsOptions) error {
	for {
		var screen bytes.Buffer
		again := *e
		again.Out = &screen
		err := runJobs(ctx, &again, o)
		if ctx.Err() != nil {
			return nil
		}
		if p, _ := explainOrNil(err); p != nil && screen.Len() == 0 {
			return err
		}
		if e.OutTTY {
			fmt.Fprint(e.Out, "\x1b[H\x1b[2J")
		}
		if _, err := e.Out.Write(screen.Bytes()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchEvery):
		}
	}
}
