package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"vcpeer/deploy/lab"
)

func newLabSet(e *env, name *string) *cobra.Command {
	return &cobra.Command{Use: "set PAIR KEY=VALUE…", Short: "Change what the network does between sites",
		Long: `Set changes delay, jitter, loss, rate, queue (bytes) and mtu of both directions of a pair ('a<>b'), of one ('a>b'), or of
all to and from a site ('a'); * stands for every site. What is not named stays. Delays are one way.`,
		Example: "  vcpeer lab set 'kyoto<>osaka' delay=50ms loss=1%\n  vcpeer lab set 'kyoto>osaka' loss=30%     # one-way loss\n  vcpeer lab set kyoto rate=10mbit queue=100000",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usage(cmd.CommandPath()+" --help shows examples", "%s wants a pair of sites and what to change", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := e.askLab(cmd.Context(), *name, func(ctx context.Context, r lab.Remote) error { return r.Set(ctx, args[0], args[1:]...) }); err != nil {
				return err
			}
			return e.done("%s: %s", args[0], strings.Join(args[1:], " "))
		}}
}

func newLabCut(e *env, name *string) *cobra.Command {
	return &cobra.Command{Use: "cut SITE SITE | 'A>B' | SITE | NODE", Short: "Let nothing pass between sites, or to and from a site or node",
		Example: "  vcpeer lab cut kyoto osaka\n  vcpeer lab cut 'kyoto>osaka'      # one way\n  vcpeer lab cut kyoto              # from all other sites\n  vcpeer lab cut kyoto-2            # one node from everything",
		Args:    oneOrTwoSites,
		RunE: func(cmd *cobra.Command, args []string) error {
			what := strings.Join(args, "<>")
			if err := e.askLab(cmd.Context(), *name, func(ctx context.Context, r lab.Remote) error { return r.Cut(ctx, what) }); err != nil {
				return err
			}
			return e.done("cut %s; vcpeer lab heal ends it", what)
		}}
}

func newLabHeal(e *env, name *string) *cobra.Command {
	return &cobra.Command{Use: "heal [SITE SITE | 'A>B' | SITE | NODE]", Short: "End cuts: those named, or all",
		Example: "  vcpeer lab heal\n  vcpeer lab heal kyoto osaka",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return oneOrTwoSites(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			what := firstOf(strings.Join(args, "<>"), "*")
			if err := e.askLab(cmd.Context(), *name, func(ctx context.Context, r lab.Remote) error { return r.Heal(ctx, what) }); err != nil {
				return err
			}
			return e.done("healed %s", what)
		}}
}

func oneOrTwoSites(cmd *cobra.Command, args []string) error {
	if len(args) == 1 || len(args) == 2 {
		return nil
	}
	return usage(cmd.CommandPath()+" --help shows examples", "%s wants two sites, or one site or node", cmd.CommandPath())
}
