package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

func newJob(e *env) *cobra.Command {
	return &cobra.Command{Use: "job ID", Short: "Show one job: what was asked, its tasks, what they used", Args: exactly("ID"),
		Example: "  vcpeer job 42\n  vcpeer job '42.kyoto[7]'\n  vcpeer job last --json",
		RunE:    func(cmd *cobra.Command, args []string) error { return runJob(cmd.Context(), e, args[0]) }}
}

func runJob(ctx context.Context, e *env, typed string) error {
	var j *api.JobDetail
	err := e.ask(ctx, func(ctx context.Context, c *api.Client) error {
		id, task, err := e.resolve(ctx, c, typed)
		if err != nil {
			return err
		}
		if j, err = c.Job(ctx, id); err != nil || task == nil {
			return err
		}
		return keepTask(j, *task)
	})
	if err != nil {
		return err
	}
	return e.show(j, func() { e.printJob(j) })
}

// keepTask narrows a job to one task.
func keepTask(j *api.JobDetail, index int) error {
	for _, t := range j.TaskList {
		if t.Index == index {
			j.TaskList = []api.Task{t}
			return nil
		}
	}
	if r := j.Array; r != nil && index >= r.First && index <= r.Last && (index-r.First)%r.Step == 0 {
		j.TaskList = nil
		return nil
	}
	return &api.Problem{Code: api.CodeNotFound, Message: fmt.Sprintf("job %s has no task %d", j.ID, index)}
}

func (e *env) printJob(j *api.JobDetail) {
	s := j.Submit
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(e.Out, "%s %s\n", e.paint(dim, fmt.Sprintf("%-10s", name)), clean(value))
		}
	}
	fmt.Fprintf(e.Out, "%s %s %s\n", e.paint(bold, "job "+j.ID), clean(j.Name), e.paint(stateColor(j.State), j.State))
	field("user", j.User)
	field("command", commandText(s))
	field("tasks", tally(j.Tasks))
	field("array", arrayText(j.Array))
	field("needs", needs(s))
	field("after", strings.Join(s.After, ", "))
	field("submitted", e.when(j.Submitted))
	field("started", e.when(j.Started))
	field("ended", e.when(j.Ended))
	field("results", s.Dir)
	field("inputs", countFiles(s.Inputs))
	field("outputs", strings.Join(s.Outputs, " "))
	for _, r := range j.Reasons {
		printReason(e.Out, r)
	}
	t := newTable("TASK", "STATE", ">EXIT", "NODE", "SITE", ">TRY", ">RAN", ">CPU", ">MEMORY", "~REASON")
	for _, task := range j.TaskList {
		t.add(taskRow(e, task)...)
	}
	if len(t.rows) > 0 {
		fmt.Fprintln(e.Out)
		e.table(t, "")
	}
}

func taskRow(e *env, t api.Task) []any {
	exit, took := "-", "-"
	switch {
	case !t.Ended.IsZero() && !t.Started.IsZero():
		took = span(t.Ended.Sub(t.Started))
	case !t.Started.IsZero():
		took = span(e.Now().Sub(t.Started))
	}
	if t.State == api.StateDone || t.State == api.StateFailed {
		exit = fmt.Sprint(t.Exit)
	}
	reason := t.Reason
	if t.State == api.StateDone && !t.Returned {
		reason = strings.TrimSpace(reason + " results on their way")
	}
	return []any{t.Index, state(t.State), exit, dash(t.Node), dash(t.Site), t.Attempt, took, span(t.CPU), size(t.MaxRSS), reason}
}

func commandText(s api.Submit) string {
	words := slices.Clone(s.Argv)
	if s.Script != nil {
		words = append([]string{s.Script.Path}, words...)
	}
	for i, w := range words {
		if w == "" || strings.ContainsAny(w, " \t\n'\"$\\") {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

func needs(s api.Submit) string {
	parts := []string{plural(max(1, s.Slots), "slot")}
	if s.MemBytes > 0 {
		parts = append(parts, size(s.MemBytes))
	}
	if s.Time > 0 {
		parts = append(parts, "at most "+span(s.Time))
	}
	if s.Site != "" {
		parts = append(parts, "only at "+s.Site)
	}
	if s.MaxTasks > 0 {
		parts = append(parts, fmt.Sprintf("%d at once", s.MaxTasks))
	}
	return strings.Join(parts, ", ")
}

func countFiles(files []api.File) string {
	if len(files) == 0 {
		return ""
	}
	var total int64
	for _, f := range files {
		total += f.Size
	}
	return fmt.Sprintf("%s, %s", plural(len(files), "file"), size(total))
}

func printReason(w io.Writer, r api.Reason) {
	fmt.Fprintf(w, "  %d: %s\n", r.Count, clean(r.Text))
	if r.Hint != "" {
		fmt.Fprintf(w, "     hint: %s\n", clean(r.Hint))
	}
}

func newWhy(e *env) *cobra.Command {
	return &cobra.Command{Use: "why ID | A B", Short: "Tell why a job waits or ended as it did, or why frames go the way they go",
		Long: `With the ID of a job, why tells why it waits, or why it ended as it did. With two nodes, guests or sites it tells which
way frames go from A to B, how long that takes and what the direct link would take, what fits through, and every other
way with the reason why it was not chosen: how much worse it is, which link is down, or how long a change is held back.`,
		Example: "  vcpeer why 42\n  vcpeer why last\n  vcpeer why kyoto-1 sapporo",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 || len(args) == 2 {
				return nil
			}
			return usage(cmd.CommandPath()+" --help shows examples", "%s wants the ID of a job, or two places", cmd.CommandPath())
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				return runWhyPath(cmd.Context(), e, args[0], args[1])
			}
			return runWhy(cmd.Context(), e, args[0])
		}}
}

func runWhy(ctx context.Context, e *env, typed string) error {
	var w *api.Why
	err := e.ask(ctx, func(ctx context.Context, c *api.Client) error {
		id, _, err := e.resolve(ctx, c, typed)
		if err != nil {
			return err
		}
		w, err = c.Why(ctx, id)
		return err
	})
	if err != nil {
		return err
	}
	return e.show(w, func() {
		fmt.Fprintf(e.Out, "job %s %s: %s\n", w.ID, e.paint(stateColor(w.State), w.State), clean(w.Summary))
		for _, r := range w.Reasons {
			printReason(e.Out, r)
		}
	})
}
