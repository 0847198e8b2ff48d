package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

func newStatus(e *env) *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Tell whether this node is well, and what to do if not",
		Long: "Status shows this node at a glance. It leaves with 0 when the node is well and with 1 when a check failed.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return runStatus(cmd.Context(), e) }}
}

func runStatus(ctx context.Context, e *env) error {
	var s *api.Status
	err := e.ask(ctx, func(ctx context.Context, c *api.Client) (err error) {
		s, err = c.Status(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if err := e.show(s, func() { e.printStatus(s) }); err != nil {
		return err
	}
	if !s.Well {
		return exitStatus(ExitFailed)
	}
	return nil
}

func (e *env) printStatus(s *api.Status) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(e.Out, "%s %s\n", e.paint(dim, fmt.Sprintf("%-8s", name)), clean(fmt.Sprintf(format, args...)))
	}
	n, c, q := s.Node, s.Cluster, s.Queue
	line("node", "%s at site %s, %s for %s (version %s, pid %d)", n.Name, n.Site, n.Phase, span(n.Up), n.Version, n.PID)
	if n.Detail != "" {
		line("", "%s", n.Detail)
	}
	line("", "%s", n.ID)
	if len(n.Listen) > 0 {
		line("", "reached at %s (TCP and UDP)", strings.Join(api.HostPorts(n.Listen), ", "))
	}
	line("cluster", "%s of %s, %d alive%s", plural(c.Members, "member"), plural(c.Sites, "site"), c.Alive, some(c.Failed, "failed"))
	if c.Conflicts > 0 {
		line("", "%s: vcpeer conflicts", plural(c.Conflicts, "conflict"))
	}
	line("queue", "%s, leader %s, %s, term %d, commit %d", q.Role, dash(q.Leader), plural(q.Voters, "voter"), q.Term, q.Commit)
	line("", "%d running, %d waiting, %d of %d slots free", q.Running, q.Backlog, q.Free, q.Slots)
	up := "off"
	if s.Overlay.Up {
		up = "on"
	}
	line("overlay", "%s: %s", up, dash(strings.TrimPrefix(s.Overlay.Detail, up+": ")))
	e.printChecks(s)
}

func (e *env) printChecks(s *api.Status) {
	marks := map[string]string{"ok": "✓", "note": "·", "warn": "!", "fail": "✗"}
	fmt.Fprintln(e.Out)
	for _, c := range s.Checks {
		if c.Level == "ok" {
			continue
		}
		fmt.Fprintf(e.Out, "%s %s\n", e.paint(stateColor(c.Level), marks[c.Level]+" "+c.Level), clean(c.Message))
		if c.Hint != "" {
			fmt.Fprintf(e.Out, "  hint: %s\n", clean(c.Hint))
		}
	}
	if s.Well {
		fmt.Fprintln(e.Out, e.paint(green, "✓ well"))
	} else {
		fmt.Fprintln(e.Out, e.paint(red, "✗ not well"))
	}
}

// some adds a count that is only told when there is one.
func some(n int, word string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %d %s", n, word)
}
