package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"vcpeer/deploy/lab/machine"
	"vcpeer/deploy/lab/shape"
	"vcpeer/deploy/lab/topology"
	"vcpeer/deploy/lab/wan"
	"vcpeer/peer/api"
)

// Base is where labs have their directories, by name.
const Base = "/run/vcpeer-lab"

// Options are what a lab needs besides its topology.
type Options struct {
	Name     string            // tells labs apart; empty: the topology's, else "lab" and the process ID
	Binary   string            // the program vcpeer; empty: this one
	Seed     uint64            // of losses and jitter
	LogLevel string            // of vcpeer; empty: info
	NoStart  bool              // machines and Open vSwitch only; StartDaemon starts vcpeer
	Progress func(step string) // may be nil
}

// Lab is a running lab. Its methods may be called from several goroutines.
type Lab struct {
	Name     string
	Dir      string // holds a directory for each machine
	Topology topology.Topology

	opts     Options
	plan     plan
	keeper   *machine.Keeper
	machines map[string]*machine.Machine
	nodes    []*Node
	wan      *wan.Switch
	stopWAN  context.CancelFunc
	wanEnded chan struct{}
	since    time.Time

	mu      sync.Mutex // daemons are started and ended one at a time, and unplugged is read
	join    joining
	unplugs map[string]bool // nodes that are cut from the LAN of their site
	down    sync.Once
}

// Node is a machine of the lab that runs, or may run, vcpeer.
type Node struct {
	Name, Site string
	Addrs      []netip.Addr // on its eth0
	Machine    *machine.Machine

	site    topology.Site
	wanted  topology.Node
	daemons map[string]*daemon
	member  atomic.Bool // it has joined before
}

// Socket is where the API of the node's vcpeer answers.
func (n *Node) Socket() string { return filepath.Join(n.Machine.Dir, "run", "vcpeer", "vcpeer.sock") }

// OVSRunDir is where the node's Open vSwitch has its sockets, seen from outside.
func (n *Node) OVSRunDir() string { return filepath.Join(n.Machine.Dir, "run", "openvswitch") }

// Up brings up a lab and returns when every vcpeer that shall run does. When it fails, nothing is left.
func Up(ctx context.Context, t topology.Topology, o Options) (*Lab, error) {
	if why := CannotRun(ctx); why != "" {
		return nil, errors.New("lab: " + why)
	}
	if o.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("lab: %w", err)
		}
		o.Binary = self
	}
	if o.Name == "" {
		o.Name = t.Name
	}
	if o.Name == "" {
		o.Name = fmt.Sprintf("lab%d", os.Getpid())
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	l := &Lab{Name: o.Name, Dir: filepath.Join(Base, o.Name), Topology: t, opts: o, plan: planOf(t),
		machines: map[string]*machine.Machine{}, unplugs: map[string]bool{}, since: time.Now()}
	if err := l.claim(); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := l.up(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("lab: %w", err), l.Down())
	}
	return l, nil
}

func (l *Lab) up(ctx context.Context) error {
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"machines", l.makeMachines},
		{"network", l.makeNetwork},
		{"Open vSwitch", l.startSwitches},
		{"vcpeer", l.startPeers},
	} {
		l.opts.Progress(fmt.Sprintf("%s of %s", step.name, l.Name))
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if err := l.save(); err != nil {
			return err
		}
	}
	return nil
}

// atOnce bounds what is made at the same time: it is work for the kernel and for few processors.
const atOnce = 8

// each does something for all of a list, some at a time, and returns the first error.
func each[T any](ctx context.Context, all []T, atOnce int, do func(context.Context, T) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, x := range all {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return do(ctx, x)
		})
	}
	return g.Wait()
}

func (l *Lab) makeMachines(ctx context.Context) error {
	if l.plan.hasOVS() {
		if err := l.makeDatabase(ctx); err != nil {
			return err
		}
	}
	l.keeper = machine.NewKeeper()
	var mu sync.Mutex
	err := each(ctx, l.plan.machines, atOnce, func(_ context.Context, p machinePlan) error {
		dir := filepath.Join(l.Dir, p.name)
		if p.kind == KindNode && p.node.OVS {
			if err := l.prepareOVS(dir); err != nil {
				return err
			}
		}
		m, err := l.keeper.Make(machine.Spec{Name: p.name, Dir: dir, Binary: l.opts.Binary})
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		l.machines[p.name] = m
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range l.plan.machines {
		if p.kind == KindNode {
			l.nodes = append(l.nodes, l.newNode(p))
		}
	}
	return nil
}

func (l *Lab) newNode(p machinePlan) *Node {
	site, _ := l.Topology.Site(p.site)
	return &Node{Name: p.name, Site: p.site, Addrs: l.plan.addrs(p.name), Machine: l.machines[p.name],
		site: site, wanted: p.node, daemons: map[string]*daemon{}}
}

// addrs lists the addresses of a machine.
func (p plan) addrs(machine string) (all []netip.Addr) {
	for _, c := range p.cables {
		for _, e := range []end{c.a, c.b} {
			for _, a := range e.addrs {
				if e.machine == machine {
					all = append(all, a.Addr())
				}
			}
		}
	}
	return all
}

func (l *Lab) makeNetwork(ctx context.Context) error {
	nets := map[string]*network{}
	defer func() {
		for _, n := range nets {
			n.close()
		}
	}()
	for name, m := range l.machines {
		n, err := openNetwork(m.Space)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		nets[name] = n
	}
	named := func(name string, err error) error {
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	if err := each(ctx, l.plan.machines, atOnce, func(_ context.Context, p machinePlan) error {
		return named(p.name, nets[p.name].prepare(p))
	}); err != nil {
		return err
	}
	if err := each(ctx, l.plan.cables, atOnce, func(_ context.Context, c cable) error {
		return named(c.a.machine, nets[c.a.machine].plug(c, nets[c.b.machine]))
	}); err != nil {
		return err
	}
	if err := each(ctx, l.plan.machines, atOnce, func(ctx context.Context, p machinePlan) error {
		return named(p.name, nets[p.name].finish(ctx, p))
	}); err != nil {
		return err
	}
	return l.startWAN()
}

func (l *Lab) startWAN() error {
	if err := l.machines[wanName].InNetwork(func() (err error) {
		l.wan, err = wan.Open(l.plan.ports, l.opts.Seed)
		return err
	}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.stopWAN, l.wanEnded = cancel, make(chan struct{})
	go func() {
		defer close(l.wanEnded)
		l.wan.Run(ctx)
	}()
	for _, s := range l.Topology.Sites {
		if s.MTU < topology.DefaultMTU { // what is too large for the site is answered before it
			if err := l.wan.Set(shape.Pair{From: shape.Any, To: s.Name}, fmt.Sprintf("mtu=%d", s.MTU)); err != nil {
				return err
			}
		}
	}
	for _, link := range l.Topology.Links {
		if err := l.wan.Set(link.Pair, link.Words...); err != nil {
			return fmt.Errorf("link %s: %w", link.Pair, err)
		}
	}
	return nil
}

// Down ends the lab: every process of it, its network, its files.
func (l *Lab) Down() error {
	var err error
	l.down.Do(func() {
		if l.stopWAN != nil {
			l.stopWAN()
			<-l.wanEnded
		}
		_ = each(context.Background(), slices.Collect(mapValues(l.machines)), atOnce, func(_ context.Context, m *machine.Machine) error {
			m.Close()
			return nil
		})
		for _, n := range l.nodes {
			for _, d := range n.daemons {
				<-d.exited // the kernel has ended it
			}
		}
		if l.keeper != nil {
			l.keeper.Close()
		}
		if err = os.RemoveAll(l.Dir); err == nil {
			_ = os.Remove(Base) // when it was the last one
		}
	})
	return err
}

func mapValues[K comparable, V any](m map[K]V) func(func(V) bool) {
	return func(yield func(V) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

// Nodes lists the nodes in the order of the topology.
func (l *Lab) Nodes() []*Node { return slices.Clone(l.nodes) }

// Node returns a node by its name, or by its site's when that has only one; nil: there is none.
func (l *Lab) Node(name string) *Node {
	var found *Node
	for _, n := range l.nodes {
		if n.Name == name {
			return n
		}
		if n.Site == name && len(n.site.Nodes) == 1 {
			found = n
		}
	}
	return found
}

// Machine returns a node, a router or the network between the sites ("wan"); nil: there is none.
func (l *Lab) Machine(name string) *machine.Machine {
	if n := l.Node(name); n != nil {
		return n.Machine
	}
	return l.machines[name]
}

// Command is a command on a machine. It is killed when ctx ends.
func (l *Lab) Command(ctx context.Context, name string, argv ...string) *exec.Cmd {
	m := l.Machine(name)
	if m == nil {
		return &exec.Cmd{Err: l.noMachine(name)}
	}
	return m.Command(ctx, argv...)
}

// Exec runs a command on a machine and returns what it printed; the error has what it said of its failure.
func (l *Lab) Exec(ctx context.Context, name string, argv ...string) ([]byte, error) {
	out, err := l.Command(ctx, name, argv...).Output()
	if err != nil {
		said := out
		if ee, ok := errors.AsType[*exec.ExitError](err); ok && len(ee.Stderr) > 0 {
			said = ee.Stderr
		}
		return out, fmt.Errorf("lab: %s: %v: %w\n%s", name, argv, err, said)
	}
	return out, nil
}

// Client talks to the vcpeer of a node; its calls fail while there is none.
func (l *Lab) Client(name string) *api.Client {
	n := l.Node(name)
	if n == nil {
		return api.NewClient("/nonexistent")
	}
	return api.NewClient(n.Socket())
}
