package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	"vcpeer/peer/api"
)

// joining is what a node needs to become a member of the lab's cluster.
type joining struct {
	founder *Node
	token   string
	overlay bool // vcpeer start knows --overlay
}

// peersAtOnce bounds how many vcpeers start together: each is busy until it has joined.
const peersAtOnce = 4

// joinWithin bounds how long one node may take to run.
const joinWithin = 3 * time.Minute

// tokenFor is how long nodes may be started by hand after the lab is up.
const tokenFor = 30 * 24 * time.Hour

// startPeers founds the cluster and has the others join: first those that the founder can be reached from directly.
func (l *Lab) startPeers(ctx context.Context) error {
	l.join.overlay = l.knowsOverlay(ctx)
	var waiting []*Node
	for _, n := range l.nodes {
		if n.wanted.Start && !l.opts.NoStart {
			waiting = append(waiting, n)
		}
	}
	if len(waiting) == 0 {
		return nil
	}
	first := founderOf(waiting)
	if err := l.startPeer(ctx, first); err != nil {
		return err
	}
	for len(waiting) > 0 {
		var now, later []*Node
		for _, n := range waiting {
			switch {
			case n == first:
			case len(l.seedsFor(n)) > 0:
				now = append(now, n)
			default:
				later = append(later, n)
			}
		}
		if len(now) == 0 && len(later) > 0 {
			return fmt.Errorf("%s cannot reach any node that runs; want a public site with both families", later[0].Name)
		}
		if err := each(ctx, now, peersAtOnce, func(ctx context.Context, n *Node) error { return l.startPeer(ctx, n) }); err != nil {
			return err
		}
		waiting = later
	}
	return nil
}

// founderOf chooses the node that most others can dial: reachable from outside, with both families.
func founderOf(nodes []*Node) *Node {
	best, bestRank := nodes[0], -1
	for _, n := range nodes {
		rank := 0
		if n.site.Reachable() {
			rank += 2
		}
		if n.site.IP.Has4() && n.site.IP.Has6() {
			rank++
		}
		if rank > bestRank {
			best, bestRank = n, rank
		}
	}
	return best
}

// seedsFor lists addresses of members that n can dial, at most three of them.
func (l *Lab) seedsFor(n *Node) (seeds []string) {
	for _, m := range l.nodes {
		if !m.member.Load() || m == n || m.Site != n.Site && !m.site.Reachable() || len(seeds) >= 3 {
			continue
		}
		for _, a := range m.Addrs {
			if a.Is4() && n.site.IP.Has4() || a.Is6() && n.site.IP.Has6() {
				seeds = append(seeds, netip.AddrPortFrom(a, 7475).String())
			}
		}
	}
	return seeds
}

// startPeer starts vcpeer on a node, as the founder, as one that joins, or as a member.
func (l *Lab) startPeer(ctx context.Context, n *Node) error {
	ctx, cancel := context.WithTimeoutCause(ctx, joinWithin, fmt.Errorf("not running within %v", joinWithin))
	defer cancel()
	argv := []string{VCPeer, "start", "--name", n.Name, "--site", n.Site}
	if l.opts.LogLevel != "" {
		argv = append(argv, "--log-level", l.opts.LogLevel)
	}
	if n.wanted.Overlay != "" && l.join.overlay {
		argv = append(argv, "--overlay", n.wanted.Overlay)
	}
	argv = append(argv, n.wanted.Args...)
	var env []string
	if l.join.founder != nil && !n.member.Load() {
		seeds := l.seedsFor(n)
		if len(seeds) == 0 {
			return fmt.Errorf("%s cannot reach any node that runs", n.Name)
		}
		for _, s := range seeds {
			argv = append(argv, "--seed", s)
		}
		env = append(env, "VCPEER_TOKEN="+l.join.token)
	}
	if err := n.launch(VCPeer, env, argv...); err != nil {
		return err
	}
	if err := n.waitRunning(ctx); err != nil {
		return err
	}
	return l.joined(ctx, n)
}

func (n *Node) waitRunning(ctx context.Context) error {
	c := api.NewClient(n.Socket())
	defer c.Close()
	return n.waitFor(ctx, VCPeer, func() bool {
		s, err := c.Status(ctx)
		return err == nil && s.Node.Phase == "running"
	})
}

// joined notes a node that runs; the first one gives the token for all others.
func (l *Lab) joined(ctx context.Context, n *Node) error {
	if l.join.founder != nil {
		n.member.Store(true)
		return nil
	}
	c := api.NewClient(n.Socket())
	defer c.Close()
	token, err := c.NewToken(ctx, api.TokenAsk{TTL: tokenFor, Reusable: true})
	if err != nil {
		return fmt.Errorf("token of %s: %w", n.Name, err)
	}
	l.join.founder, l.join.token = n, token.Token
	n.member.Store(true)
	return nil
}

// knowsOverlay asks the program for its flags, when a node needs to know.
func (l *Lab) knowsOverlay(ctx context.Context) bool {
	for _, n := range l.nodes {
		if n.wanted.Overlay != "" {
			out, _ := exec.CommandContext(ctx, l.opts.Binary, "start", "--help").CombinedOutput()
			return strings.Contains(string(out), "--overlay ")
		}
	}
	return false
}
