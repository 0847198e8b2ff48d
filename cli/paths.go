package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

func newPaths(e *env) *cobra.Command {
	return &cobra.Command{Use: "paths [A [B]]", Short: "Show which way frames go to other sites",
		Long: `Paths shows the way that a gateway chose to every other one: direct, or over other sites where that takes less time. Of
a node that is no gateway it shows those of its gateway. With A it asks that node or site, with A and B it shows the one
way. A and B are names of nodes, of guests or of sites; of a name that is both a node's and a site's, site:NAME is the
site. vcpeer why A B tells why it is this way and no other.`,
		Example: "  vcpeer paths\n  vcpeer paths osaka\n  vcpeer paths kyoto-1 sapporo",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 2 {
				return usage(cmd.CommandPath()+" --help shows examples", "%s wants A and B at most", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				return runPath(cmd.Context(), e, args[0], args[1])
			}
			from := strings.Join(args, "")
			fetch := func(ctx context.Context, c *api.Client) (*api.List[api.Path], error) { return c.Paths(ctx, from) }
			return runListing(cmd.Context(), e, fetch, e.printPaths)
		}}
}

func (e *env) printPaths(l *api.List[api.Path]) {
	e.table(e.pathTable(l.Items...), fmt.Sprintf("%s has no path to any other site; vcpeer links and vcpeer overlay tell more", dash(l.SeenFrom.Node)))
}

func (e *env) pathTable(paths ...api.Path) *table {
	t := newTable("TO", "SITE", "WAY", ">RTT", ">DIRECT", ">GAIN", ">MTU", "SINCE", ">SWITCHES", "~BACKUP")
	for _, p := range paths {
		gain := "-"
		if p.GainPercent > 0 {
			gain = fmt.Sprintf("%.0f%%", p.GainPercent)
		}
		t.add(p.To, p.ToSite, wayText(p), ms(p.RTTMilli), ms(p.DirectMilli), gain, number(p.MTU), e.when(p.Since), p.Switches, backupText(p))
	}
	return t
}

// wayText names all that frames pass.
func wayText(p api.Path) string {
	if len(p.Via) == 0 {
		return "direct"
	}
	return strings.Join(append(append([]string{p.From}, p.Via...), p.To), " > ")
}

func backupText(p api.Path) string {
	if !p.HasBackup {
		return "-"
	}
	return viaText(p.Backup)
}

// viaText tells a way by its transit gateways.
func viaText(via []string) string {
	if len(via) == 0 {
		return "direct"
	}
	return "via " + strings.Join(via, " > ")
}

func (e *env) askPath(ctx context.Context, from, to string) (w *api.PathWhy, err error) {
	err = e.ask(ctx, func(ctx context.Context, c *api.Client) (err error) {
		w, err = c.PathWhy(ctx, from, to)
		return err
	})
	if err == nil && w.Computed != "" {
		e.note("note: %s", clean(w.Computed))
	}
	return w, err
}

func runPath(ctx context.Context, e *env, from, to string) error {
	w, err := e.askPath(ctx, from, to)
	if err != nil {
		return err
	}
	if err := e.show(w, func() { e.printPath(w) }); err != nil {
		return err
	}
	if len(w.Way) == 0 {
		return exitStatus(ExitFailed)
	}
	return nil
}

func (e *env) printPath(w *api.PathWhy) {
	fmt.Fprintln(e.Out, clean(wayOf(w)))
	if w.Path != nil {
		e.table(e.pathTable(*w.Path), "")
	}
}

// wayOf tells a way from end to end in a sentence.
func wayOf(w *api.PathWhy) string {
	switch {
	case len(w.Way) == 0:
		return fmt.Sprintf("from %s to %s: no way", w.From, w.To)
	case w.Path == nil && len(w.Way) == 1:
		return fmt.Sprintf("from %s to %s: frames do not leave the machine", w.From, w.To)
	case w.Path == nil:
		return fmt.Sprintf("from %s to %s: %s, within site %s", w.From, w.To, strings.Join(w.Way, " > "), w.FromSite)
	}
	return fmt.Sprintf("from %s to %s: %s", w.From, w.To, strings.Join(w.Way, " > "))
}

func runWhyPath(ctx context.Context, e *env, from, to string) error {
	w, err := e.askPath(ctx, from, to)
	if err != nil {
		return err
	}
	return e.show(w, func() { e.printWhyPath(w) })
}

func (e *env) printWhyPath(w *api.PathWhy) {
	say := func(format string, args ...any) { fmt.Fprintln(e.Out, clean(fmt.Sprintf(format, args...))) }
	say("%s", wayOf(w))
	if p := w.Path; p != nil {
		say("%s", saving(*p))
		if len(w.Kinds) > 0 {
			say("  By %s.", strings.Join(w.Kinds, ", then "))
		}
		if p.MTU > 0 {
			say("  IP packets of up to %d bytes pass whole.", p.MTU)
		} else {
			say("  How large packets may be has not been found out yet.")
		}
		if w.Computed == "" {
			say("  Chosen by %s, since %s (%s); %s so far.", p.From, e.when(p.Since), dash(p.Cause), plural(p.Switches, "change"))
		} else {
			say("  That is what %s would choose at first; what it remembers of earlier choices is not known here.", p.From)
		}
		if p.HasBackup {
			say("  If its first link fails: %s.", viaText(p.Backup))
		} else {
			say("  If its first link fails there is no other way.")
		}
	}
	if w.Path == nil && len(w.Way) > 0 && w.FromSite == w.ToSite {
		say("  Nodes of one site send straight to each other; nothing is chosen.")
	}
	if len(w.Losers) == 0 {
		return
	}
	say("Not chosen:")
	t := newTable("WAY", ">RTT", ">MTU", "~WHY NOT")
	for _, l := range w.Losers {
		t.add(viaText(l.Via), ms(l.RTTMilli), number(l.MTU), strings.Join(l.Why, "; "))
	}
	e.table(t, "")
}

// saving compares a path with the direct link.
func saving(p api.Path) string {
	rtt := "  Between the gateways the RTT is " + ms(p.RTTMilli)
	if p.RTTMilli == 0 {
		rtt = "  Between the gateways the RTT is not known yet"
	}
	switch {
	case len(p.Via) == 0:
		return rtt + "; this is the direct link."
	case p.DirectMilli == 0:
		return rtt + "; the direct link cannot be used, or was not measured."
	case p.GainPercent > 0:
		return fmt.Sprintf("%s; the direct link has %s: the detour saves %.0f%%.", rtt, ms(p.DirectMilli), p.GainPercent)
	}
	return fmt.Sprintf("%s; the direct link has %s: the detour saves no time.", rtt, ms(p.DirectMilli))
}
