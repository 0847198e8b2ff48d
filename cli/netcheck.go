package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

func newNetcheck(e *env) *cobra.Command {
	return &cobra.Command{Use: "netcheck [NODE...]", Short: "Tell what this network allows, and how each member is reached",
		Long: `Netcheck tells whether others can open connections to this node, what the NAT before it does, which members relay for it,
how each member is reached, and what would make it better. It asks every member, or those named, for an answer. It leaves
with 0 when all of them are reached somehow and with 1 when one is not.`,
		RunE: func(cmd *cobra.Command, args []string) error { return runNetcheck(cmd.Context(), e, args) }}
}

func runNetcheck(ctx context.Context, e *env, members []string) error {
	var c *api.Netcheck
	err := e.ask(ctx, func(ctx context.Context, client *api.Client) (err error) {
		c, err = client.Netcheck(ctx, members...)
		return err
	})
	if err != nil {
		return err
	}
	if err := e.show(c, func() { err = e.printNetcheck(c) }); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	if c.Lost > 0 {
		return exitStatus(ExitFailed)
	}
	return nil
}

func (e *env) printNetcheck(c *api.Netcheck) error {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(e.Out, "%s %s\n", e.paint(dim, fmt.Sprintf("%-8s", name)), clean(fmt.Sprintf(format, args...)))
	}
	line("dialled", "%s", map[string]string{
		"yes":     "yes: other sites can open connections to this node",
		"no":      "no: other sites cannot open connections to this node",
		"unknown": "not known yet: no other site has tried",
	}[c.Open])
	line("IPv4", "%s", familyText(c.V4))
	line("IPv6", "%s", familyText(c.V6))
	if text := routerText(c.Router); text != "" {
		line("router", "%s", text)
	}
	switch {
	case len(c.Relays) > 0:
		var parts []string
		for _, r := range c.Relays {
			parts = append(parts, fmt.Sprintf("%s at %s (%.1f ms)", r.Node, r.Site, r.RTTMillis))
		}
		line("relays", "%s", strings.Join(parts, ", "))
	case c.Open == "yes":
		line("relays", "none needed")
	default:
		line("relays", "none")
	}
	if c.Carries.Places > 0 || c.Carries.Circuits > 0 {
		line("", "this node is one for %s, with %s and %s carried so far", plural(c.Carries.Places, "node"), plural(c.Carries.Circuits, "circuit"), size(int64(c.Carries.Bytes)))
	}
	fmt.Fprintln(e.Out)
	t := newTable("MEMBER", "SITE", "WAY", ">RTT", "GRE", "~BY")
	for _, m := range c.Members {
		rtt := "-"
		if m.RTTMillis > 0 {
			rtt = fmt.Sprintf("%.1f ms", m.RTTMillis)
		}
		t.add(m.Node, dash(m.Site), state(m.Way), rtt, dash(m.GRE), byText(m))
	}
	if err := t.print(e.Out, e.Width, e.paint); err != nil {
		return err
	}
	if len(c.Advice) > 0 {
		fmt.Fprintln(e.Out)
	}
	for _, a := range c.Advice {
		fmt.Fprintf(e.Out, "hint: %s\n", clean(a))
	}
	return nil
}

// familyText says in a sentence what one address family allows.
func familyText(f api.NetFamily) string {
	if len(f.Local) == 0 {
		return "this machine has none"
	}
	parts := []string{strings.Join(f.Local, ", ")}
	switch f.NAT {
	case "same for all":
		parts = append(parts, "behind a NAT that shows "+strings.Join(f.Seen, ", ")+" to all others")
	case "another for each":
		parts = append(parts, "behind a NAT that shows each other node another port ("+strings.Join(f.Seen, ", ")+"): holes cannot be made in it")
	case "unknown":
		if len(f.Seen) > 0 {
			parts = append(parts, "behind a NAT (seen as "+strings.Join(f.Seen, ", ")+" by one node)")
		}
	}
	if f.UDPOut == "no" {
		parts = append(parts, "UDP does not get out")
	}
	if f.UDPIn != "unknown" || f.TCPIn != "unknown" {
		parts = append(parts, fmt.Sprintf("dialled by UDP: %s, by TCP: %s", f.UDPIn, f.TCPIn))
	} else if f.UDPOut == "unknown" {
		parts = append(parts, "not tried: no other site is reached by it")
	}
	return strings.Join(parts, "; ")
}

// routerText says in a sentence whether the router passes ports on; empty: it was not asked, since no NAT is there.
func routerText(r api.NetRouter) string {
	where := outside(r)
	works := []string{}
	for _, w := range []struct{ name, works string }{{"UDP", r.UDPWorks}, {"TCP", r.TCPWorks}} {
		if w.works == "yes" {
			works = append(works, w.name)
		}
	}
	switch {
	case r.Off:
		return "not asked for a port: the setting port-mapping is off"
	case r.Addr == "" && r.Refused != "":
		return "none can be asked for a port: " + r.Refused
	case r.Addr == "":
		return ""
	case r.Protocol == "":
		return r.Addr + " passes no ports on by itself: it answers neither to PCP nor to NAT-PMP nor to UPnP"
	case where == "":
		return fmt.Sprintf("%s answers to %s but passes no port on: %s", r.Addr, r.Protocol, r.Refused)
	case len(works) > 0:
		return fmt.Sprintf("%s passes %s on to this node (%s); others get in by %s", r.Addr, where, r.Protocol, strings.Join(works, " and "))
	case r.UDPWorks == "no" || r.TCPWorks == "no":
		return fmt.Sprintf("%s says that it passes %s on to this node (%s), but nobody gets in there", r.Addr, where, r.Protocol)
	}
	return fmt.Sprintf("%s says that it passes %s on to this node (%s), but that is not where others see it: another NAT is behind that router, or nobody has tried yet", r.Addr, where, r.Protocol)
}

// outside says what a router passes on, in short; empty: nothing.
func outside(r api.NetRouter) string {
	switch {
	case r.UDP == r.TCP:
		return r.UDP
	case r.UDP == "":
		return r.TCP + " (TCP)"
	case r.TCP == "":
		return r.UDP + " (UDP)"
	}
	return r.UDP + " (UDP) and " + r.TCP + " (TCP)"
}

func byText(m api.NetPeer) string {
	switch {
	case m.Error != "":
		return m.Error
	case m.Via != "":
		return "through " + m.Via
	case m.Transport != "":
		return m.Transport + " " + m.Addr
	}
	return "-"
}
