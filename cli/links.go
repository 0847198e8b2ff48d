package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

func newLinks(e *env) *cobra.Command {
	var of string
	cmd := &cobra.Command{Use: "links", Short: "List this node's links to others as it measures them",
		Long: `Links shows what a node measures of the ways that it can send by: a gateway of its links to the gateways of other sites,
any other node of those to the gateways of its own. RTT is the least of the last seconds, jitter its standard deviation;
loss is told for both directions, since a link may lose on one of them alone. A link that is watched by BFD is left within
a fraction of a second when it fails; the others within about one.

DROPPED are frames of a sealed link that vcpeer itself did not pass on since it started; below the links stands why, and what to
do. Those of GRE links are counted by the kernel and by Open vSwitch.

KIND is GRE, or sealed: encrypted, by UDP through the same hole in a NAT as all else, and where there is no direct way by UDP as a
stream, over TCP or through a relay. GRE is used as long as it passes and is about as good, unless the cluster is set
to encrypt all traffic between sites.`,
		Example: "  vcpeer links\n  vcpeer links --of osaka-1\n  vcpeer links --json | jq '.items[] | select(.lossOut > 0.01)'",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			fetch := func(ctx context.Context, c *api.Client) (*api.List[api.Link], error) { return c.Links(ctx, of) }
			return runListing(cmd.Context(), e, fetch, e.printLinks)
		}}
	cmd.Flags().StringVar(&of, "of", "", "ask another node, or a gateway of a site, by name")
	return cmd
}

func (e *env) printLinks(l *api.List[api.Link]) {
	t := newTable("SITE", "NODE", "KIND", "STATE", ">RTT", ">JITTER", ">LOST OUT", ">IN", ">MTU", ">DROPPED", "SINCE", ">FAILED", "BFD")
	for _, k := range l.Items {
		st, rtt, jitter := "up", ms(k.RTTMilli), ms(k.JitterMilli)
		switch {
		case !k.Up && !k.Measured:
			st, rtt, jitter = "never up", "-", "-"
		case !k.Up:
			st, rtt, jitter = "down", "-", "-"
		}
		bfd := "-"
		if k.Protected {
			bfd = dash(k.BFD)
		}
		kind := k.Kind
		if k.Stream {
			kind += ", stream"
		}
		dropped := "-"
		if k.Frames != nil {
			dropped = fmt.Sprint(k.Frames.Drops.All())
		}
		t.add(dash(k.Site), k.Node, kind, state(st), rtt, jitter, percent(k.LossOut), percent(k.LossIn), number(k.MTU), dropped, e.when(k.Since), k.Flaps, bfd)
	}
	e.table(t, fmt.Sprintf("%s has no links; vcpeer overlay tells whether it takes part", dash(l.SeenFrom.Node)))
	e.printDrops(l.Items)
}

// causes are why sealed links drop frames, and what to do.
var causes = []struct {
	of        func(api.Drops) uint64
	came      bool // of those that came
	why, hint string
}{
	{func(d api.Drops) uint64 { return d.Late + d.Full }, false, "waited too long to be sent",
		"more is sent than the way there takes: TCP adapts by this; send UDP slower"},
	{func(d api.Drops) uint64 { return d.NoWay }, false, "had no way", "the other end was away, as while it restarts; if it goes on: vcpeer netcheck NODE"},
	{func(d api.Drops) uint64 { return d.TooLarge }, false, "were too large for the way",
		"sizes are found anew within a minute; if it goes on: set the MTU of this machine's interface to what the way takes"},
	{func(d api.Drops) uint64 { return d.System }, false, "were refused by the system", "is there a firewall, or no route, on this machine?"},
	{func(d api.Drops) uint64 { return d.Replayed }, true, "came twice, or far too late",
		"a few are nothing; many: something on the way repeats or holds back datagrams"},
	{func(d api.Drops) uint64 { return d.Forged }, true, "could not be opened", "they were damaged on the way, or are somebody else's"},
	{func(d api.Drops) uint64 { return d.Malformed }, true, "made no sense", "does the other end run another version? vcpeer status"},
}

// printDrops says of each cause which link it concerns.
func (e *env) printDrops(links []api.Link) {
	for _, k := range links {
		if k.Frames == nil {
			continue
		}
		for _, c := range causes {
			n := c.of(k.Frames.Drops)
			if n == 0 {
				continue
			}
			went := fmt.Sprintf("%d were sent", k.Frames.Sent)
			if c.came {
				went = fmt.Sprintf("%d were received", k.Frames.Received)
			}
			e.note("%s: %d frames %s; %s\nhint: %s", clean(k.Node), n, c.why, went, strings.ReplaceAll(c.hint, "NODE", clean(k.Node)))
		}
	}
}

// ms tells milliseconds; "-" for what was not measured.
func ms(v float64) string {
	switch {
	case v == 0:
		return "-"
	case v < 1:
		return fmt.Sprintf("%.2f ms", v)
	}
	return fmt.Sprintf("%.1f ms", v)
}

// percent tells a share, of which a little is never nothing.
func percent(share float64) string {
	if p := 100 * share; p > 0 && p < 1 {
		return fmt.Sprintf("%.1f%%", p)
	}
	return fmt.Sprintf("%.0f%%", 100*share)
}

// number tells a number that is never 0; "-" for none.
func number(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}
