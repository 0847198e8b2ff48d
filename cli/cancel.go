package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

func newCancel(e *env) *cobra.Command {
	return &cobra.Command{Use: "cancel ID…", Short: "End jobs, or single tasks of an array", Args: atLeastOne("job ID"),
		Example: "  vcpeer cancel 42 43.osaka\n  vcpeer cancel '42[7]'\n  vcpeer cancel last",
		RunE:    func(cmd *cobra.Command, args []string) error { return runCancel(cmd.Context(), e, args) }}
}

// runCancel goes on after one that fails and reports the first failure at the end.
func runCancel(ctx context.Context, e *env, typed []string) error {
	var gone []api.Cancelled
	var first error
	for _, t := range typed {
		err := e.ask(ctx, func(ctx context.Context, c *api.Client) error {
			id, task, err := e.resolve(ctx, c, t)
			if err != nil {
				return err
			}
			what, err := c.Cancel(ctx, id, task)
			if err != nil {
				return err
			}
			gone = append(gone, *what)
			if !e.json {
				fmt.Fprintf(e.Out, "job %s: %s\n", t, cancelText(what))
			}
			return nil
		})
		if err == nil {
			continue
		}
		if errors.Is(err, context.Canceled) {
			return err
		}
		if first == nil {
			first = err
		} else if !e.json {
			e.note("%s %v", e.paintErr(red, "error:"), err)
		}
	}
	if first != nil {
		return first
	}
	if e.json {
		return writeJSON(e.Out, map[string]any{"apiVersion": api.Version, "kind": "CancelledList", "items": gone})
	}
	return nil
}

func cancelText(c *api.Cancelled) string {
	switch {
	case c.Pending == 0 && c.Running == 0:
		return "had ended already"
	case c.Running == 0:
		return fmt.Sprintf("cancelled %s", plural(c.Pending, "waiting task"))
	case c.Pending == 0:
		return fmt.Sprintf("stopping %s", plural(c.Running, "running task"))
	}
	return fmt.Sprintf("cancelled %s, stopping %s", plural(c.Pending, "waiting task"), plural(c.Running, "running task"))
}
