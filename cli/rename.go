package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

// withRename lets a list's command rename what it lists, under the name of one of them: vcpeer host rename.
func withRename(e *env, list *cobra.Command, what string, rename func(*api.Client, context.Context, string, string) error) *cobra.Command {
	list.Aliases = append(list.Aliases, what)
	list.AddCommand(newRename(e, what, rename))
	return list
}

func newRename(e *env, what string, rename func(*api.Client, context.Context, string, string) error) *cobra.Command {
	return &cobra.Command{
		Use: "rename OLD NEW", Short: "Give a " + what + " another name, everywhere",
		Example: "  vcpeer " + what + " rename old-name new-name",
		Args:    exactly("OLD", "NEW"),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error { return rename(c, ctx, args[0], args[1]) })
			if err != nil {
				return err
			}
			return e.done("%s %s is now called %s", what, args[0], args[1])
		},
	}
}
