package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

func newGroup(e *env) *cobra.Command {
	cmd := nouns("group", "Groups of users: add, rm, list, add-user, remove-user", "")
	cmd.AddCommand(newGroupAdd(e),
		&cobra.Command{Use: "rm NAME…", Aliases: []string{"remove"}, Short: "Remove groups; their users stay", Args: atLeastOne("NAME"),
			RunE: func(cmd *cobra.Command, args []string) error {
				return e.each(cmd.Context(), args, func(ctx context.Context, c *api.Client, name string) error { return c.RemoveGroup(ctx, name) }, "removed")
			}},
		listing(e, "list", "List the groups", "", listOf((*api.Client).Groups), func(l *api.List[api.Group]) {
			t := newTable("NAME", ">GID", "~MEMBERS")
			for _, g := range l.Items {
				t.add(g.Name, g.GID, dash(strings.Join(g.Members, ",")))
			}
			e.table(t, "no groups; add one with: vcpeer group add NAME")
		}),
		newMembership(e, "add-user GROUP USER…", "Put users into a group", "added", (*api.Client).AddToGroup),
		newMembership(e, "remove-user GROUP USER…", "Take users out of a group", "removed", (*api.Client).RemoveFromGroup))
	return cmd
}

func newGroupAdd(e *env) *cobra.Command {
	var ask api.GroupAdd
	cmd := &cobra.Command{Use: "add NAME", Short: "Add a group to the cluster", Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ask.Name = args[0]
			var g *api.Group
			err := e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) (err error) {
				g, err = c.AddGroup(ctx, ask)
				return err
			})
			if err != nil {
				return err
			}
			return e.show(g, func() { fmt.Fprintf(e.Out, "added %s with gid %d\n", g.Name, g.GID) })
		}}
	cmd.Flags().Uint32Var(&ask.GID, "gid", 0, "numeric group ID (default: a free one)")
	return cmd
}

func newMembership(e *env, use, short, word string, do func(*api.Client, context.Context, string, string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usage("", "%s wants a GROUP and at least one USER", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.each(cmd.Context(), args[1:], func(ctx context.Context, c *api.Client, user string) error { return do(c, ctx, args[0], user) }, word)
		}}
}
