package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

type pingOptions struct {
	api.PingAsk
	deadline time.Duration // 0: none
}

func newPing(e *env) *cobra.Command {
	var o pingOptions
	cmd := &cobra.Command{Use: "ping NODE", Short: "Measure the way to a node, guest or site through the network",
		Long: `Ping sends probes where programs' packets go. To nodes that this one measures anyway they are vcpeer's own, answered by
the other vcpeer: by the chosen path, or with --direct by the direct link. To all others, such as guests, they are ICMP
echo requests. If this ping is answered and the one of the system is not, look for a firewall there; if only
--size 1500 is not, see the MTU in vcpeer trace. Ctrl-C ends it with the statistics, as -w does. Times are seconds, as
with the system's ping, or have a unit. The exit code is 1 when nothing came back.`,
		Example: "  vcpeer ping osaka-1\n  vcpeer ping osaka-1 --direct -c 10 -i 0.2\n  vcpeer ping osaka-1 -i 50ms -w 5\n  vcpeer ping osaka --size 1400 -c 3",
		Args:    exactly("NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.To = args[0]
			return runPing(cmd.Context(), e, o)
		}}
	f := cmd.Flags()
	f.IntVarP(&o.Count, "count", "c", 0, "how many probes (default: until Ctrl-C)")
	durationFlag(f, &o.Interval, "interval", "i", time.Second, "time from one to the next")
	durationFlag(f, &o.deadline, "deadline", "w", 0, "end after so long, with the statistics")
	f.IntVarP(&o.Size, "size", "s", 0, "send IP packets of so many bytes, unfragmented (default 84)")
	f.BoolVar(&o.Direct, "direct", false, "by the direct link, not by the chosen path")
	return cmd
}

// pingTally counts what became of probes.
type pingTally struct {
	Sent        int     `json:"sent"`
	Answered    int     `json:"answered"`
	MinMilli    float64 `json:"minMillis"`
	MeanMilli   float64 `json:"meanMillis"`
	MaxMilli    float64 `json:"maxMillis"`
	StddevMilli float64 `json:"stddevMillis"`

	sum, squares float64
}

func (t *pingTally) add(p api.Pong) {
	t.Sent++
	if p.Lost {
		return
	}
	if t.Answered == 0 {
		t.MinMilli = p.RTTMilli
	}
	t.Answered++
	t.MinMilli, t.MaxMilli = min(t.MinMilli, p.RTTMilli), max(t.MaxMilli, p.RTTMilli)
	t.sum, t.squares = t.sum+p.RTTMilli, t.squares+p.RTTMilli*p.RTTMilli
	t.MeanMilli = t.sum / float64(t.Answered)
	t.StddevMilli = math.Sqrt(max(0, t.squares/float64(t.Answered)-t.MeanMilli*t.MeanMilli))
}

func (t *pingTally) lost() float64 {
	if t.Sent == 0 {
		return 0
	}
	return 1 - float64(t.Answered)/float64(t.Sent)
}

func runPing(ctx context.Context, e *env, o pingOptions) error {
	if o.Count < 0 || o.Size < 0 || o.deadline < 0 || o.Interval <= 0 {
		return usage("", "ping: --count, --size and --deadline must not be below zero, --interval must be above")
	}
	errOver := errors.New("the deadline is over")
	if o.deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.deadline, errOver)
		defer cancel()
	}
	var t pingTally
	to, ended := o.To, false // ended: by Ctrl-C, or by --timeout
	err := e.follow(ctx, func(ctx context.Context, c *api.Client) error {
		for line, err := range c.Ping(ctx, o.PingAsk) {
			if err != nil {
				ended = ctx.Err() != nil
				return err
			}
			if line.Pong != nil {
				t.add(*line.Pong)
			}
			if line.Way != nil {
				to = line.Way.To
			}
			if e.json {
				if err := json.NewEncoder(e.Out).Encode(line); err != nil {
					return err
				}
				continue
			}
			e.printPing(line)
		}
		return nil
	})
	if over := context.Cause(ctx) == errOver; err != nil && !over && (!ended || t.Sent == 0) {
		return err
	}
	if e.json {
		if err := json.NewEncoder(e.Out).Encode(map[string]pingTally{"summary": t}); err != nil {
			return err
		}
	} else {
		e.printTally(to, t)
	}
	if t.Answered == 0 {
		return exitStatus(ExitFailed)
	}
	return nil
}

func (e *env) printPing(l api.PingLine) {
	if w := l.Way; w != nil {
		by := "probes"
		if w.By == api.ByEcho {
			by = "ICMP echo requests"
		}
		way := ""
		if len(w.Way) > 0 {
			way = " over " + strings.Join(w.Way, " > ")
		}
		fmt.Fprintf(e.Out, "PING %s (%s)%s: %s of %d bytes\n", clean(w.To), w.Address, clean(way), by, w.Size)
	}
	if p := l.Pong; p != nil {
		text := "time=" + ms(p.RTTMilli)
		if p.Lost {
			text = e.paint(yellow, "lost")
		}
		fmt.Fprintf(e.Out, "seq=%d %s\n", p.Seq, text)
	}
}

func (e *env) printTally(to string, t pingTally) {
	fmt.Fprintf(e.Out, "--- %s: %d sent, %d answered, %s lost\n", clean(to), t.Sent, t.Answered, percent(t.lost()))
	if t.Answered > 0 {
		fmt.Fprintf(e.Out, "rtt min/mean/max/stddev = %.2f/%.2f/%.2f/%.2f ms\n", t.MinMilli, t.MeanMilli, t.MaxMilli, t.StddevMilli)
	}
}
