package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vcpeer/deploy/lab"
	"vcpeer/deploy/lab/topology"
	"vcpeer/peer/api"
)

type labUpOptions struct {
	sites, nodes int
	delay        time.Duration
	link         []string
	matrix       string
	random       uint64
	isRandom     bool
	seed         uint64
	noStart      bool
	logLevel     string
}

func newLabUp(e *env, name *string) *cobra.Command {
	var o labUpOptions
	cmd := &cobra.Command{
		Use:   "up [FILE | --sites N]",
		Short: "Bring up a lab, from a topology file or as so many equal sites",
		Long: `Up makes the machines, the network between them, an Open vSwitch and a vcpeer on each, and returns when all are
members of one cluster. The lab stays until vcpeer lab down. A topology file looks like this:

  name: three-sites
  sites:
    kyoto: {nodes: 2}
    osaka:
    home: {nodes: [laptop], nat: port-restricted}
  links:
    default: delay=10ms
    kyoto<>osaka: delay=4ms jitter=200us rate=100mbit
    kyoto>home: {delay: 30ms, loss: 0.5%, mtu: 1400}

A site has nodes (a number, names, or names with settings of their own), nat (none, full-cone, restricted,
port-restricted, symmetric), double-nat: yes, port-mapping (none, pcp, upnp, all: what the router passes ports on by; pcp has
NAT-PMP too), router: yes, ip (v4, v6, both), mtu, and udp, gre or inbound: blocked.
The whole lab, a site or a node has start: no (vcpeer is not started), ovs: no, overlay (auto, on, off), and args for
vcpeer start. Delays are one way: RTT is the sum of both.`,
		Example: `  vcpeer lab up --sites 5 --nodes 2 --delay 20ms
  vcpeer lab up --sites 20 --random 7            # RTTs as between real sites; lab status --json has the matrix
  vcpeer lab up --sites 3 --link 'delay=5ms jitter=1ms loss=0.1% rate=50mbit'
  vcpeer lab up deploy/lab/topologies/nat.yaml --name nat`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.isRandom = cmd.Flags().Changed("random")
			return runLabUp(cmd.Context(), e, args, *name, o)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.sites, "sites", 0, "make so many sites, site1 and on, without a file")
	f.IntVar(&o.nodes, "nodes", 1, "nodes of each site, with --sites")
	f.DurationVar(&o.delay, "delay", 0, "one-way delay between every two sites")
	f.StringArrayVar(&o.link, "link", nil, "what each direction between sites does, as 'delay=5ms loss=1%'")
	f.StringVar(&o.matrix, "matrix", "", "`FILE` with the RTTs between sites in milliseconds, a line for each site")
	f.Uint64Var(&o.random, "random", 0, "draw the RTTs between sites; the same number gives the same")
	f.Uint64Var(&o.seed, "chance", 1, "seed of losses and jitter")
	f.BoolVar(&o.noStart, "no-start", false, "do not start vcpeer; vcpeer lab start NODE does")
	f.StringVar(&o.logLevel, "log-level", "", "log level of the nodes' vcpeer")
	f.SortFlags = false
	return cmd
}

func runLabUp(ctx context.Context, e *env, args []string, name string, o labUpOptions) error {
	if why := lab.CannotRun(ctx); why != "" {
		return &api.Problem{Code: api.CodeRefused, Message: "no lab on this machine: " + why}
	}
	t, err := o.topology(e, args)
	if err != nil {
		var p *api.Problem
		if errors.As(err, &p) {
			return err
		}
		return usage("vcpeer lab up --help shows the form of a topology", "%v", err)
	}
	if t.Name = firstOf(name, e.Getenv("VCPEER_LAB"), t.Name, "lab"); strings.ContainsAny(t.Name, "/ \t\n") || strings.HasPrefix(t.Name, ".") {
		return usage("", "--name %q: want a short word", t.Name)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	began := e.Now()
	s, err := lab.UpBehind(ctx, t, lab.Options{Name: t.Name, Binary: self, Seed: o.seed, LogLevel: o.logLevel, NoStart: o.noStart,
		Progress: func(step string) { e.note("%s …", step) }}, "lab", "hold")
	if err != nil {
		return err
	}
	e.note("lab %s is up after %.1fs; vcpeer lab exec NODE -- COMMAND runs a command there, vcpeer lab down ends it", t.Name, e.Now().Sub(began).Seconds())
	return e.askLab(ctx, s.Name, e.printLab)
}

func firstOf(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}

// topology is what was asked for, by a file or by flags.
func (o labUpOptions) topology(e *env, args []string) (t topology.Topology, err error) {
	switch {
	case len(args) > 1:
		return t, usage("", "want one topology file, got %s", strings.Join(args, " "))
	case len(args) == 1 && o.sites != 0:
		return t, usage("", "a file and --sites were both given")
	case len(args) == 1:
		b, err := os.ReadFile(inDir(e.Dir, args[0]))
		if err != nil {
			return t, err
		}
		if t, err = topology.Parse(args[0], b); err != nil {
			return t, err
		}
		if t.Name == "" {
			t.Name = strings.TrimSuffix(filepath.Base(args[0]), filepath.Ext(args[0]))
		}
	case o.sites > 0:
		if t, err = topology.New(topology.Options{Name: "lab", Sites: o.sites, Nodes: o.nodes}); err != nil {
			return t, err
		}
	default:
		return t, usage("vcpeer lab up --sites 3, or vcpeer lab up FILE", "want a topology file or --sites")
	}
	return o.shape(e, t)
}

// shape adds what the flags say of the links.
func (o labUpOptions) shape(e *env, t topology.Topology) (topology.Topology, error) {
	words := strings.Fields(strings.Join(o.link, " "))
	if o.delay != 0 {
		words = append(words, "delay="+o.delay.String())
	}
	t, err := t.WithDefault(words...)
	if err != nil {
		return t, err
	}
	switch {
	case o.matrix != "" && o.isRandom:
		return t, usage("", "--matrix and --random were both given")
	case o.matrix != "":
		b, err := os.ReadFile(inDir(e.Dir, o.matrix))
		if err != nil {
			return t, err
		}
		m, err := topology.ParseMatrix(o.matrix, b)
		if err != nil {
			return t, err
		}
		return t.WithMatrix(m)
	case o.isRandom:
		m := topology.RandomMatrix(len(t.Sites), o.random)
		e.note("RTTs in milliseconds, drawn from %d:\n%s", o.random, m)
		return t.WithMatrix(m)
	}
	return t, nil
}

func inDir(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

func newLabStatus(e *env, name *string) *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Show the nodes of a lab and what the network between its sites does", Args: exactly(),
		Long: `Status lists the nodes, then what the network does in each direction. With --json it has the round-trip times by the
delays in force (rttMillis, in the order of sites) and the shortest ones over any sites (shortestMillis).`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.askLab(cmd.Context(), *name, e.printLab)
		}}
}

func (e *env) printLab(ctx context.Context, r lab.Remote) error {
	s, err := r.Status(ctx)
	if err != nil {
		return err
	}
	return e.show(s, func() {
		nat := map[string]string{}
		for _, site := range s.Sites {
			nat[site.Name] = string(site.NAT)
		}
		t := newTable("NODE", "SITE", "NAT", "~ADDRESS", "UP", "DOWN")
		for _, n := range s.Nodes {
			down := strings.Join(n.Down, ",")
			if n.Cut {
				down = firstOf(down+",", "") + "cut"
			}
			t.add(n.Name, n.Site, nat[n.Site], strings.Join(n.Addrs, ","), strings.Join(n.Up, ","), dash(strings.TrimPrefix(down, ",")))
		}
		e.table(t, "the lab has no nodes")
		e.printLines(s)
	})
}

// linesShown bounds the list for people; --json has all.
const linesShown = 60

func (e *env) printLines(s *lab.Status) {
	t := newTable("LINK", "SHAPE", ">PACKETS", ">LOST", ">OVERFLOW", ">TOO BIG")
	for _, l := range s.Links {
		what := l.Shape.String()
		if l.Shape.Cut {
			what = "cut (" + what + ")"
		}
		t.add(l.From+">"+l.To, what, l.Count.Packets, l.Count.Lost, l.Count.Overflow, l.Count.TooBig)
	}
	if len(t.rows) > linesShown {
		e.note("%d links; vcpeer lab status --json has them all", len(t.rows))
		return
	}
	fmt.Fprintln(e.Out)
	e.table(t, "")
}
