package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

type tokenOptions struct {
	api.TokenAsk
	quiet bool
}

func newToken(e *env) *cobra.Command {
	cmd := newTokenCreate(e, "token")
	cmd.Short = "Make a join token and print the command to type on the other machine"
	cmd.Example = "  vcpeer token\n  vcpeer token --reusable --ttl 24h --site osaka\n  ssh other vcpeer start --seed $(hostname) --token - < <(vcpeer token -q)"
	cmd.AddCommand(newTokenCreate(e, "create"),
		listing(e, "list", "List the tokens; their secrets are not kept", "", listOf((*api.Client).Tokens), e.printTokens),
		&cobra.Command{Use: "revoke ID…", Short: "Make tokens worthless", Args: atLeastOne("ID"),
			RunE: func(cmd *cobra.Command, args []string) error {
				return e.each(cmd.Context(), args, func(ctx context.Context, c *api.Client, id string) error { return c.RevokeToken(ctx, id) }, "revoked")
			}})
	return cmd
}

func newTokenCreate(e *env, use string) *cobra.Command {
	var o tokenOptions
	cmd := &cobra.Command{Use: use, Short: "Make a join token (the default)",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownVerb(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return runToken(cmd.Context(), e, o) }}
	f := cmd.Flags()
	durationFlag(f, &o.TTL, "ttl", "", time.Hour, "how long it may be used")
	f.BoolVar(&o.Reusable, "reusable", false, "for any number of machines, not one")
	f.StringVar(&o.Site, "site", "", "site name for the printed command")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print the token alone")
	return cmd
}

func runToken(ctx context.Context, e *env, o tokenOptions) error {
	if o.TTL <= 0 {
		return usage("", "--ttl %v: want a time above zero", o.TTL)
	}
	var tok *api.Token
	err := e.ask(ctx, func(ctx context.Context, c *api.Client) (err error) {
		tok, err = c.NewToken(ctx, o.TokenAsk)
		return err
	})
	if err != nil {
		return err
	}
	return e.show(tok, func() {
		if o.quiet {
			fmt.Fprintln(e.Out, tok.Token)
			return
		}
		uses := "one machine"
		if tok.Reusable {
			uses = "any number of machines"
		}
		e.note("Token %s lets %s join until %s. On the other machine type:\n", shortID(tok.ID), uses, tok.Expires.Local().Format("15:04 on 2 January"))
		fmt.Fprintf(e.Out, "%s\n", joinCommand(tok, o.Site))
	})
}

// joinCommand is what to type elsewhere; the node knows best, and without its word it is made of what the token says.
func joinCommand(tok *api.Token, site string) string {
	if tok.Command != "" {
		return tok.Command
	}
	words := []string{"vcpeer", "start"}
	if site != "" {
		words = append(words, "--site", site)
	}
	for _, s := range tok.Seeds {
		words = append(words, "--seed", s)
	}
	return strings.Join(append(words, "--token", tok.Token), " ")
}

func (e *env) printTokens(l *api.List[api.Token]) {
	t := newTable("ID", "STATE", "EXPIRES", "USE", "ISSUER", "~USED BY")
	for _, tok := range l.Items {
		use := "once"
		if tok.Reusable {
			use = "reusable"
		}
		t.add(shortID(tok.ID), state(tok.State), e.when(tok.Expires), use, tok.Issuer, dash(strings.Join(tok.UsedBy, ",")))
	}
	e.table(t, "no tokens; make one with: vcpeer token")
}

// shortID tells tokens apart for people; every command takes it.
func shortID(id string) string { return id[:min(len(id), 8)] }

func newEvict(e *env) *cobra.Command {
	var ask api.EvictAsk
	var yes bool
	cmd := &cobra.Command{Use: "evict NODE", Short: "Put a node out of the cluster, everywhere and for good",
		Long:    "Evict is for a machine that is lost or no longer trusted; one that works leaves by itself with vcpeer leave.",
		Example: "  vcpeer evict lab-3 --reason 'stolen laptop'",
		Args:    exactly("NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ask.Node = args[0]
			if err := e.confirm(yes, "evict "+ask.Node); err != nil {
				return err
			}
			if err := e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error { return c.Evict(ctx, ask) }); err != nil {
				return err
			}
			return e.done("evicted %s", ask.Node)
		}}
	cmd.Flags().StringVar(&ask.Reason, "reason", "", "why, for the others to read")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
