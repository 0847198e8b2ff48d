package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

func newAttach(e *env) *cobra.Command {
	var ask api.AttachAsk
	cmd := &cobra.Command{Use: "attach IFACE", Short: "Put a virtual machine or a container on the network over all sites",
		Long: `Attach takes this side's end of an interface, a virtual machine's tap or a container's veth, and gives the machine behind
it an address, a name and an Ethernet address in the network. They stay its own: attached again, here or with --move
from another node of any site, it has them still. The other end of a veth is set up where it is found. Any other machine
is told what it is when it asks by DHCP, as most do when they start: address, length, MTU and host name, for IPv6 by
DHCPv6; it may go on for a week without vcpeer. There is no router to tell of, and no name server. The commands that
would do the same by hand are printed. vcpeer detach takes it off again.`,
		Example: "  vcpeer attach tap0 --name vm1\n  vcpeer attach veth-web --name web\n  vcpeer attach tap3 --name vm1 --move     it has moved here",
		Args:    exactly("IFACE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ask.Iface = args[0]
			return runAttach(cmd.Context(), e, ask)
		}}
	cmd.Flags().StringVar(&ask.Name, "name", "", "what it is called everywhere (default: a name by number)")
	cmd.Flags().BoolVar(&ask.Move, "move", false, "also when it is attached to another node: take it from there")
	return cmd
}

func runAttach(ctx context.Context, e *env, ask api.AttachAsk) error {
	var a *api.Attached
	err := e.ask(ctx, func(ctx context.Context, c *api.Client) (err error) {
		a, err = c.Attach(ctx, ask)
		return err
	})
	if err != nil {
		return err
	}
	return e.show(a, func() { e.printAttached(a) })
}

func (e *env) printAttached(a *api.Attached) {
	field := func(name, format string, args ...any) {
		fmt.Fprintf(e.Out, "%s %s\n", e.paint(dim, fmt.Sprintf("%-8s", name)), clean(fmt.Sprintf(format, args...)))
	}
	fmt.Fprintf(e.Out, "%s is attached by %s\n", e.paint(bold, clean(a.Name)), clean(a.Iface))
	field("address", "%s/%d", a.Address, a.PrefixLen)
	if a.Address6 != "" {
		field("IPv6", "%s/%d", a.Address6, a.PrefixLen6)
	}
	field("MAC", "%s", a.MAC)
	field("MTU", "%d", a.MTU)
	if a.Inner != "" {
		field("inside", "%s has been set up", a.Inner)
		return
	}
	e.note("Its own end is not of this machine. It is told this when it asks by DHCP. Or type there, with its interface in place of eth0:")
	for _, c := range a.Commands {
		fmt.Fprintf(e.Out, "  %s\n", clean(c))
	}
}

func newDetach(e *env) *cobra.Command {
	var forget bool
	cmd := &cobra.Command{Use: "detach NAME|IFACE", Short: "Take a guest off the network",
		Long: `Detach takes a guest off the network, and from a container's interface the addresses that attach gave it. The guest keeps
its name and address for when it is attached again, here or elsewhere; with --forget both are free for others.`,
		Example: "  vcpeer detach vm1\n  vcpeer detach tap0 --forget",
		Args:    exactly("NAME or IFACE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error { return c.Detach(ctx, args[0], forget) }); err != nil {
				return err
			}
			if forget {
				return e.done("detached and forgotten %s", args[0])
			}
			return e.done("detached %s; its name and address stay its own", args[0])
		}}
	cmd.Flags().BoolVar(&forget, "forget", false, "give up its name and address")
	return cmd
}

func newGuests(e *env) *cobra.Command {
	return withRename(e, listing(e, "guests", "List the virtual machines and containers on the network", "  vcpeer guests\n  vcpeer guest rename vm1 web1",
		listOf((*api.Client).Guests), func(l *api.List[api.Guest]) {
			t := newTable("GUEST", "NODE", "SITE", "ADDRESS", "MAC", "STATE", "SINCE", "INTERFACE", "~NOTES")
			for _, g := range l.Items {
				name := g.Name
				if g.Asked != "" && g.Asked != g.Name {
					name += " (asked for " + g.Asked + ")"
				}
				t.add(name, dash(g.Node), dash(g.Site), dash(g.Address), dash(g.MAC), state(g.State), e.when(g.Since), dash(g.Iface), g.Detail)
			}
			e.table(t, "no guests; vcpeer attach IFACE puts one on the network")
		}), "guest", (*api.Client).RenameGuest)
}
