package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

func newStop(e *env) *cobra.Command {
	return &cobra.Command{Use: "stop", Short: "Stop the node; it stays a member and its running jobs go on", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := e.end(cmd.Context(), (*api.Client).Stop); err != nil {
				return err
			}
			return e.done("stopped; vcpeer start goes on from here")
		}}
}

// endWithin bounds how long stop and leave wait for the daemon's process to be done; it hands its work over first.
const endWithin = 30 * time.Second

// end tells the node to end and returns when it has: what is typed next finds its port and its socket free.
func (e *env) end(ctx context.Context, tell func(*api.Client, context.Context) error) error {
	return e.ask(ctx, func(ctx context.Context, c *api.Client) error {
		if err := tell(c, ctx); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(ctx, endWithin, &api.Problem{Code: api.CodeDeadline,
			Message: fmt.Sprintf("the node was told to end, but is still there after %v", endWithin), Hint: "vcpeer status shows what it does"})
		defer cancel()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			var p *api.Problem
			if _, err := c.Status(ctx); errors.As(err, &p) && p.Code == api.CodeNoDaemon {
				return nil
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
}

func newLeave(e *env) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{Use: "leave", Short: "Take this node out of the cluster; its state stays, so that it may come back",
		Long: `Leave hands over what this node holds, tells the others that it is gone on purpose, and stops it: nobody waits for it
any more. Its key and its records stay here, so vcpeer start brings it back without a token. A machine that must not
come back is evicted (vcpeer evict NODE, on another one). To stop a node for a while use vcpeer stop.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := e.confirm(yes, "take this node out of the cluster"); err != nil {
				return err
			}
			if err := e.end(cmd.Context(), (*api.Client).Leave); err != nil {
				return err
			}
			return e.done("this node has left the cluster and is stopped")
		}}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func newUninstall(e *env) *cobra.Command {
	var yes, dry bool
	cmd := &cobra.Command{Use: "uninstall", Short: "Take back what vcpeer wrote into the system",
		Long: `Uninstall takes the marked block out of /etc/hosts and the accounts out of the system, as they were before.
It does not touch the node's own directories; it says where they are.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !dry {
				if err := e.confirm(yes, "take vcpeer out of this system"); err != nil {
					return err
				}
			}
			l, err := e.load(nil)
			if err != nil {
				return err
			}
			out := e.Out
			if e.json {
				out = e.Err
			}
			if err := e.deps.Uninstall(cmd.Context(), l.Config, dry, out); err != nil {
				return err
			}
			if dry {
				return e.done("nothing was changed")
			}
			return e.done("done; keys, records and results stay in %s until you remove it", l.State)
		}}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only tell what would be done")
	return cmd
}

// confirm asks before something that is hard to undo. Without a terminal it wants --yes.
func (e *env) confirm(yes bool, what string) error {
	if yes {
		return nil
	}
	if !e.InTTY {
		return usage("add --yes if that is what you want", "not asked: %s", what)
	}
	fmt.Fprintf(e.Err, "Really %s? [y/N] ", what)
	line, _ := bufio.NewReader(e.In).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); answer == "y" || answer == "yes" {
		return nil
	}
	return &api.Problem{Code: api.CodeRefused, Message: "nothing was done"}
}

func newConfig(e *env) *cobra.Command {
	return &cobra.Command{Use: "config", Short: "Show every setting, its value and where it comes from", Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			l, err := e.load(nil)
			if err != nil {
				return err
			}
			v := map[string]any{"apiVersion": api.Version, "kind": "Config", "file": l.File, "items": l.Values()}
			return e.show(v, func() {
				t := newTable("KEY", "~VALUE", "SOURCE")
				for _, v := range l.Values() {
					t.add(v.Key, dash(v.Value), v.Source)
				}
				e.table(t, "")
				e.note("file: %s", l.File)
			})
		}}
}

func newVersion(e *env) *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"apiVersion": api.Version, "kind": "Version", "version": e.deps.Version, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH}
			return e.show(v, func() {
				fmt.Fprintf(e.Out, "vcpeer %s (%s, %s/%s, API %s)\n", e.deps.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH, api.Version)
			})
		}}
}
