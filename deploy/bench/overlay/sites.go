package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"vcpeer/deploy/lab"
	"vcpeer/deploy/lab/topology"
)

// measureSites watches networks of 5 and of 20 sites with nothing to do, and has more sites join them.
func measureSites(ctx context.Context, b *bench) error {
	var errs []error
	for _, sites := range []int{5, 20} {
		if err := b.sites(ctx, sites); err != nil {
			errs = append(errs, fmt.Errorf("%d sites: %w", sites, err))
		}
	}
	return errors.Join(errs...)
}

func (b *bench) sites(ctx context.Context, n int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var text strings.Builder
	text.WriteString("sites:\n")
	for i := range n {
		fmt.Fprintf(&text, "  site%d:\n", i+1)
	}
	for i := range b.joins {
		fmt.Fprintf(&text, "  new%d: {start: no}\n", i+1)
	}
	l, err := b.up(ctx, fmt.Sprintf("sites%d", n), text.String(), topology.RandomMatrix(n+b.joins, 7))
	if err != nil {
		return err
	}
	defer l.Down()
	members := l.Nodes()[:n]
	for _, m := range members {
		if _, err := address(ctx, l, m.Name, n-1); err != nil {
			return err
		}
	}
	if err := b.watch(ctx, l, members); err != nil {
		return err
	}
	return b.join(ctx, l, members, l.Nodes()[n:])
}

// watch prints what each node of a network costs that has nothing to do.
func (b *bench) watch(ctx context.Context, l *lab.Lab, members []*lab.Node) error {
	if err := pause(ctx, 20*time.Second); err != nil { // to settle
		return err
	}
	const counting = `nft add table ip bench
nft 'add chain ip bench in { type filter hook prerouting priority -500; }'
nft add rule ip bench in ip protocol gre counter
nft add rule ip bench in meta l4proto { tcp, udp } counter`
	for _, m := range members {
		if _, err := l.Exec(ctx, m.Name, "sh", "-ec", counting); err != nil {
			return err
		}
	}
	daemons := []string{"vcpeer", "ovs-vswitchd"}
	before := map[string][]float64{}
	for _, d := range daemons {
		for _, m := range members {
			before[d] = append(before[d], cpuSeconds(pids(m, d)))
		}
	}
	gre0, rest0, err := received(ctx, l, members)
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := pause(ctx, b.idle); err != nil {
		return err
	}
	gre1, rest1, err := received(ctx, l, members)
	if err != nil {
		return err
	}
	took := time.Since(begun).Seconds()
	for _, d := range daemons {
		var cpu, rss []float64
		for i, m := range members {
			p := pids(m, d)
			cpu = append(cpu, 100*(cpuSeconds(p)-before[d][i])/took)
			rss = append(rss, residentMiB(p))
		}
		b.row(fmt.Sprintf("idle, %d sites: %s of a node", len(members), d), "CPU median %.1f %%, max %.1f %% of a core; memory median %.0f MiB, max %.0f MiB",
			median(cpu), quantile(cpu, 1), median(rss), quantile(rss, 1))
	}
	per := took * float64(len(members))
	b.row(fmt.Sprintf("idle, %d sites: on the wire to a node", len(members)), "probes and BFD %.1f kB/s, all else %.1f kB/s, means; load average %s", (gre1-gre0)/per/1e3, (rest1-rest0)/per/1e3, load())
	return nil
}

// received is how many bytes of GRE and of TCP and UDP came to all nodes since counting began.
func received(ctx context.Context, l *lab.Lab, members []*lab.Node) (gre, rest float64, err error) {
	for _, m := range members {
		out, err := l.Exec(ctx, m.Name, "nft", "-j", "list", "chain", "ip", "bench", "in")
		if err != nil {
			return 0, 0, err
		}
		var r struct {
			NFTables []struct {
				Rule struct {
					Expr []struct {
						Counter *struct{ Bytes float64 }
					}
				}
			}
		}
		if err := json.Unmarshal(out, &r); err != nil {
			return 0, 0, err
		}
		var counts []float64
		for _, o := range r.NFTables {
			for _, e := range o.Rule.Expr {
				if e.Counter != nil {
					counts = append(counts, e.Counter.Bytes)
				}
			}
		}
		if len(counts) != 2 {
			return 0, 0, fmt.Errorf("%s: %d counters in %s", m.Name, len(counts), out)
		}
		gre, rest = gre+counts[0], rest+counts[1]
	}
	return gre, rest, nil
}

// join starts new sites one after the other and notes when each exchanges packets with all that are there.
func (b *bench) join(ctx context.Context, l *lab.Lab, members, new []*lab.Node) error {
	stations := map[string]*station{}
	at := map[string]string{}
	add := func(n *lab.Node, a string) (err error) {
		at[n.Name] = a
		stations[n.Name], err = newStation(ctx, l, n.Name, a)
		return err
	}
	for _, m := range members {
		a, err := address(ctx, l, m.Name, 0)
		if err != nil {
			return err
		}
		if err := add(m, a); err != nil {
			return err
		}
	}
	var start, fromRunning []time.Duration
	for _, n := range new {
		begun := time.Now()
		if err := l.StartDaemon(ctx, n.Name, lab.VCPeer); err != nil {
			return err
		}
		running := time.Now()
		a, err := address(ctx, l, n.Name, 0)
		if err != nil {
			return err
		}
		if err := add(n, a); err != nil {
			return err
		}
		last, err := met(ctx, stations, at, n.Name)
		if err != nil {
			return err
		}
		start, fromRunning = append(start, last.Sub(begun)), append(fromRunning, last.Sub(running))
	}
	b.row(fmt.Sprintf("a site joins %d: process start to all reached", len(members)), "%s, from and to each", spread(start))
	b.row(fmt.Sprintf("a site joins %d: running to all reached", len(members)), "%s", spread(fromRunning))
	return nil
}

// askEvery is how often each of two machines asks the other. More often, twenty sites' questions alone fill a small machine.
const askEvery = 100 * time.Millisecond

// met returns when the last of all machines had an answer from a new one, and that from the last of them.
func met(ctx context.Context, stations map[string]*station, at map[string]string, newcomer string) (time.Time, error) {
	for _, s := range stations {
		s.forget()
	}
	asking, stop := context.WithCancel(ctx)
	defer stop()
	for name, s := range stations {
		if name != newcomer {
			go s.stream(asking, isAsked, at[newcomer], askEvery)
			go stations[newcomer].stream(asking, isAsked, at[name], askEvery)
		}
	}
	var last time.Time
	err := until(ctx, 5*time.Millisecond, time.Minute, newcomer+" reaches all and is reached", func() bool {
		last = time.Time{}
		for name, s := range stations {
			if name == newcomer {
				continue
			}
			for _, all := range [][]echo{s.heard(at[newcomer]), stations[newcomer].heard(at[name])} {
				if len(all) == 0 {
					return false
				}
				if all[0].came.After(last) {
					last = all[0].came
				}
			}
		}
		return true
	})
	return last, err
}
