package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"vcpeer/cli/parse"
	"vcpeer/peer/api"
)

type eventsOptions struct {
	follow bool
	since  string
}

func newEvents(e *env) *cobra.Command {
	var o eventsOptions
	cmd := &cobra.Command{Use: "events", Short: "Show what happened, and with -f what happens",
		Example: "  vcpeer events --since 10m\n  vcpeer events -f --json | jq -r 'select(.type == \"member.failed\").text'",
		Args:    exactly(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runEvents(cmd.Context(), e, o) }}
	cmd.Flags().BoolVarP(&o.follow, "follow", "f", false, "go on until Ctrl-C")
	cmd.Flags().StringVar(&o.since, "since", "", "from so long ago (10m) or from a time (RFC 3339)")
	return cmd
}

// runEvents prints one event a line; with --json each line is an object. Ctrl-C is the usual end of following.
func runEvents(ctx context.Context, e *env, o eventsOptions) error {
	since, err := e.since(o.since)
	if err != nil {
		return err
	}
	lines := json.NewEncoder(e.Out)
	err = e.follow(ctx, func(ctx context.Context, c *api.Client) error {
		for ev, err := range c.Events(ctx, o.follow, since) {
			if err != nil {
				return err
			}
			if e.json {
				if err := lines.Encode(ev); err != nil {
					return err
				}
				continue
			}
			stamp := ev.Time.UTC().Format(time.RFC3339)
			if e.OutTTY {
				stamp = ev.Time.Local().Format("15:04:05")
			}
			if _, err := fmt.Fprintf(e.Out, "%s  %-16s  %s\n", e.paint(dim, stamp), ev.Type, clean(ev.Text)); err != nil {
				return err
			}
		}
		return nil
	})
	if o.follow && ctx.Err() != nil {
		return nil
	}
	return err
}

// since reads a time: RFC 3339, or how long ago; none is the zero time.
func (e *env) since(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	d, err := parse.Time(s)
	if err != nil {
		return time.Time{}, usage("", "--since %q: want a length of time such as 10m, or a time such as 2026-01-31T12:00:00Z", s)
	}
	return e.Now().Add(-d), nil
}
