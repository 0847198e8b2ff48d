package cli

import (
	"bufio"
	"context"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

func newStop(e *env) *cobra.Command {
	return &cobra.Command{Use: "stop", Short: "Stop the node; it stays a member and its running jobs go on", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error { return c.Stop(ctx) }); err != nil {
				return err
			}
			return e.done("stopping; vcpeer start goes on from here")
		}}
}

func newLeave(e *env) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{Use: "leave", Short: "Take this node out of the cluster for good",
		Long: `Leave hands over what this node holds, tells the others, and stops it. The machine needs a new join token to come
back. To stop it for a while use vcpeer stop.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := e.confirm(yes, "take this node out of the cluster"); err != nil {
				return err
			}
			if err := e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error { return c.Leave(ctx) }); err != nil {
				return err
			}
			return e.done("this node has left the cluster")
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
