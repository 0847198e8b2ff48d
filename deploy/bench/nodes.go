package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"vcpeer/deploy/harness"
	"vcpeer/peer/api"
)

// ticksPerSecond is USER_HZ of Linux on every architecture that Go supports (proc(5)).
const ticksPerSecond = 100

// measureJoin times `vcpeer start --seed` from the start of the process until the node runs, the token being there.
func measureJoin(ctx context.Context, b *bench) error {
	if err := b.site(ctx, 1, 1); err != nil {
		return err
	}
	var took []time.Duration
	for i := range 10 {
		node, err := b.Add(fmt.Sprintf("j%d", i+1), fmt.Sprintf("site%d", i%3))
		if err != nil {
			return err
		}
		token, err := b.Nodes[0].Client().NewToken(ctx, api.TokenAsk{TTL: time.Hour})
		if err != nil {
			return err
		}
		begun := time.Now()
		if err := node.StartJoin(b.Nodes[0].Listen, token.Token); err != nil {
			return err
		}
		if err := node.WaitRunning(ctx); err != nil {
			return err
		}
		took = append(took, time.Since(begun))
	}
	row("join: process start -> running", "%s", spread(took))
	return nil
}

// measureDetect kills nodes one after the other and waits until every other one shows them as failed.
func measureDetect(ctx context.Context, b *bench) error {
	const nodes, kills = 6, 3
	if err := b.site(ctx, nodes, 1); err != nil {
		return err
	}
	var took []time.Duration
	for i := range kills {
		victim := b.Nodes[nodes-1-i]
		victim.Kill()
		begun := time.Now()
		for _, n := range b.Nodes[:nodes-1-i] {
			if err := waitFailed(ctx, n, victim.Name); err != nil {
				return err
			}
		}
		took = append(took, time.Since(begun))
	}
	row(fmt.Sprintf("kill -9 -> failed everywhere, %d nodes", nodes), "%s", spread(took))
	return nil
}

func waitFailed(ctx context.Context, n *harness.Node, name string) error {
	client := n.Client()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		list, err := client.Members(ctx)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(list.Items, func(m api.Member) bool { return m.Name == name && m.State == "failed" }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s never saw %s fail: %w", n.Name, name, ctx.Err())
		case <-tick.C:
		}
	}
}

// measureIdle watches three nodes of one site, with nothing to do.
func measureIdle(ctx context.Context, b *bench) error {
	if err := b.site(ctx, 3, 4); err != nil {
		return err
	}
	return b.watchIdle(ctx, "3 nodes (real)")
}

// measureMany watches the nodes of a large cluster of real processes: ten sites, one machine.
func measureMany(ctx context.Context, b *bench) error {
	begun := time.Now()
	for i := range b.nodes {
		if err := b.grow(ctx, fmt.Sprintf("site%d", i%10), 1); err != nil {
			return err
		}
	}
	row(fmt.Sprintf("%d nodes joined one after the other", b.nodes), "%v", time.Since(begun).Round(time.Second))
	for _, n := range b.Nodes {
		if err := n.WaitWell(ctx, b.nodes); err != nil {
			return err
		}
	}
	row(fmt.Sprintf("%d nodes, all see all", b.nodes), "%v after the first start", time.Since(begun).Round(time.Second))
	return b.watchIdle(ctx, fmt.Sprintf("%d nodes (real)", b.nodes))
}

// watchIdle lets the cluster settle and prints memory and CPU of its nodes.
func (b *bench) watchIdle(ctx context.Context, label string) error {
	if err := pause(ctx, b.idle/3); err != nil {
		return err
	}
	before := make([]float64, len(b.Nodes))
	for i, n := range b.Nodes {
		before[i] = cpuSeconds(n.PID())
	}
	begun := time.Now()
	if err := pause(ctx, b.idle); err != nil {
		return err
	}
	var cpu, rss []float64
	for i, n := range b.Nodes {
		cpu = append(cpu, 100*(cpuSeconds(n.PID())-before[i])/time.Since(begun).Seconds())
		rss = append(rss, residentMiB(n.PID()))
	}
	slices.Sort(cpu)
	slices.Sort(rss)
	mid := len(cpu) / 2
	row("memory of a node among "+label, "median %.0f MiB, max %.0f MiB resident", rss[mid], rss[len(rss)-1])
	row("idle CPU of a node among "+label, "median %.2f %%, max %.2f %% of a core", cpu[mid], cpu[len(cpu)-1])
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// cpuSeconds reads user and system time of a process from /proc/PID/stat (proc(5)); 0 if it is gone.
func cpuSeconds(pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	user, _ := strconv.ParseFloat(string(fields[11]), 64)
	system, _ := strconv.ParseFloat(string(fields[12]), 64)
	return (user + system) / ticksPerSecond
}

// residentMiB reads VmRSS of a process; 0 if it is gone.
func residentMiB(pid int) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024
		}
	}
	return 0
}
