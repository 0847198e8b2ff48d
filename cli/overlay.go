package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

func newOverlay(e *env) *cobra.Command {
	var of string
	cmd := &cobra.Command{Use: "overlay", Aliases: []string{"network"}, Short: "Tell how this node's part of the network over all sites is",
		Long: `Every node, and every guest that is attached to one, has an address in one network over all sites, whatever lies between
them. Overlay shows this node's part of it in detail. vcpeer links, paths, ping and trace show how others are reached.`,
		Example: "  vcpeer overlay\n  vcpeer overlay --of osaka-1\n  vcpeer overlay encrypt on",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownVerb(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return runOverlay(cmd.Context(), e, of) }}
	cmd.Flags().StringVar(&of, "of", "", "ask another node, or a gateway of a site, by name")
	cmd.AddCommand(newEncrypt(e))
	return cmd
}

func runOverlay(ctx context.Context, e *env, of string) error {
	var o *api.Overlay
	err := e.ask(ctx, func(ctx context.Context, c *api.Client) (err error) {
		o, err = c.Overlay(ctx, of)
		return err
	})
	if err != nil {
		return err
	}
	return e.show(o, func() { e.printOverlay(o) })
}

func (e *env) printOverlay(o *api.Overlay) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(e.Out, "%s %s\n", e.paint(dim, fmt.Sprintf("%-9s", name)), clean(fmt.Sprintf(format, args...)))
	}
	if !o.Up {
		line("state", "off: %s", dash(o.Why))
	} else {
		line("state", "on, as seen from %s", o.SeenFrom.Node)
	}
	if o.Address != "" {
		line("address", "%s in %s", strings.Join(nonEmpty(o.Address, o.Address6), " and "), strings.Join(nonEmpty(o.Range, o.Range6), " and "))
		line("", "MAC %s, MTU %s", dash(o.MAC), number(o.MTU))
	}
	if o.Bridge != "" {
		line("bridge", "%s, datapath %s, Open vSwitch %s", o.Bridge, dash(o.Datapath), dash(o.Version))
		line("", "%s and %s, last changed %s", plural(o.Flows, "flow"), plural(o.Groups, "group"), e.when(o.Written))
	}
	if o.Up {
		line("gateway", "%s", gatewayText(o))
		line("links", "%d of %d up", o.Links, o.LinksOf)
		if o.Overrun > 0 {
			line("", "%d frames came faster than this machine could open them: it is too busy, or its receive buffers are small", o.Overrun)
		}
		line("guests", "%d here", o.Guests)
	}
	switch {
	case o.ClearText:
		line("encrypt", "off: site-to-site traffic over GRE is clear text")
	case o.Encrypt:
		line("encrypt", "on: between sites only encrypted links are used")
	default:
		line("encrypt", "off")
	}
	for _, f := range o.Faults {
		line("fault", "%s: %s", f.Part, f.Message)
	}
	if o.Hint != "" {
		fmt.Fprintf(e.Out, "hint: %s\n", clean(o.Hint))
	}
}

func gatewayText(o *api.Overlay) string {
	switch {
	case o.Label != "":
		return fmt.Sprintf("this node is one, %s; it reaches %d of %d other sites", o.Label, o.Sites, o.SitesOf)
	case o.Uplink != "":
		return "other sites are reached by way of " + o.Uplink
	}
	return "none: other sites are not reached"
}

func nonEmpty(words ...string) []string {
	var out []string
	for _, w := range words {
		if w != "" {
			out = append(out, w)
		}
	}
	return out
}

func newEncrypt(e *env) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{Use: "encrypt on|off", Short: "Say whether traffic between sites goes over encrypted links only (whole cluster)",
		Long: `Site-to-site traffic over GRE is clear text: whoever is on its way can read it and change it. With "on" only encrypted
links are used between sites: sealed links, each frame under keys that the two gateways alone have (AES-256-GCM). They cost more
processor time than GRE, and 36 bytes more of each packet. Nodes of one site still send to each other in clear text. With
"off" a sealed link is used where GRE does not pass, or does worse. Records, accounts and jobs always travel encrypted.`,
		Example: "  vcpeer overlay encrypt on --yes\n  vcpeer overlay encrypt off",
		Args:    exactly("on or off"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] != "on" && args[0] != "off" {
				return usage("", "overlay encrypt %q: want on or off", args[0])
			}
			return runEncrypt(cmd.Context(), e, args[0] == "on", yes)
		}}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func runEncrypt(ctx context.Context, e *env, on, yes bool) error {
	if on {
		if err := e.confirm(yes, "use encrypted links only between all sites"); err != nil {
			return err
		}
	}
	if err := e.ask(ctx, func(ctx context.Context, c *api.Client) error { return c.SetEncrypt(ctx, on) }); err != nil {
		return err
	}
	if on {
		return e.done("between sites only encrypted links are used from now on")
	}
	return e.done("site-to-site traffic goes over GRE again where that passes, in clear text")
}
