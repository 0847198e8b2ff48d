package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

func newTrace(e *env) *cobra.Command {
	return &cobra.Command{Use: "trace NODE", Short: "Show the way to a node hop by hop, with the RTT up to each",
		Long: `Trace follows the chosen path and measures the RTT from here to each node on it: the gateway of this site where this node
is none, the transit gateways, the gateway of the other site, and the node or guest behind it. LINK is what leads to the
hop: GRE or sealed between sites, "site" within one. MTU is the largest IP packet that has passed that link.`,
		Example: "  vcpeer trace sapporo-2\n  vcpeer trace vm1",
		Args:    exactly("NODE"),
		RunE:    func(cmd *cobra.Command, args []string) error { return runTrace(cmd.Context(), e, args[0]) }}
}

func runTrace(ctx context.Context, e *env, to string) error {
	var t *api.Trace
	err := e.ask(ctx, func(ctx context.Context, c *api.Client) (err error) {
		t, err = c.Trace(ctx, to)
		return err
	})
	if err != nil {
		return err
	}
	if err := e.show(t, func() { e.printTrace(t) }); err != nil {
		return err
	}
	for _, note := range t.Notes {
		e.note("note: %s", clean(note))
	}
	if n := len(t.Hops); n > 0 && t.Hops[n-1].Answered == 0 {
		return exitStatus(ExitFailed)
	}
	return nil
}

func (e *env) printTrace(t *api.Trace) {
	fmt.Fprintf(e.Out, "from %s at site %s to %s (%s)\n", clean(t.SeenFrom.Node), clean(t.SeenFrom.Site), clean(t.To), dash(t.Address))
	tab := newTable(">HOP", "NODE", "SITE", "ROLE", "LINK", ">MTU", ">RTT", ">ANSWERED")
	for i, h := range t.Hops {
		rtt := ms(h.RTTMilli)
		if h.Sent > 0 && h.Answered == 0 {
			rtt = "silent"
		}
		tab.add(i+1, h.Node, dash(h.Site), h.Role, dash(h.Link), number(h.MTU), rtt, fmt.Sprintf("%d/%d", h.Answered, h.Sent))
	}
	e.table(tab, "that is this node itself")
}
