package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

func newConflicts(e *env) *cobra.Command {
	cmd := listing(e, "conflicts", "List values that two objects claim: names, uids, addresses", "", listOf((*api.Client).Conflicts), e.printConflicts)
	cmd.Long = `Sites that were cut apart may have given one name or uid to two things. Every node picks the same winner by itself;
the loser works on under another name or is disabled, and both stand here until somebody settles it.`
	cmd.AddCommand(&cobra.Command{Use: "settle KIND VALUE WINNER", Short: "Decide a conflict for good",
		Example: "  vcpeer conflicts settle hostname node1 12D3Koo…",
		Args:    exactly("KIND", "VALUE", "WINNER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := api.Settle{Kind: args[0], Value: args[1], Winner: args[2]}
			if err := e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error { return c.Settle(ctx, s) }); err != nil {
				return err
			}
			return e.done("%s %s now belongs to %s", s.Kind, s.Value, s.Winner)
		}})
	return cmd
}

func (e *env) printConflicts(l *api.List[api.Conflict]) {
	for _, c := range l.Items {
		fmt.Fprintf(e.Out, "%s\n", e.paint(bold, clean(c.Kind+" "+c.Value)))
		fmt.Fprintf(e.Out, "  winner    %s\n  loser     %s\n", clean(c.Winner), clean(strings.Join(c.Losers, ", ")))
		fmt.Fprintf(e.Out, "  by        %s\n  since     %s\n", clean(strings.Join(c.Authors, ", ")), e.when(c.Since))
		fmt.Fprintf(e.Out, "  in force  %s\n", clean(c.InForce))
		if c.Settle != "" {
			fmt.Fprintf(e.Out, "  settle    %s\n", clean(c.Settle))
		}
	}
	if len(l.Items) == 0 {
		e.note("no conflicts")
	}
}
