package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"vcpeer/deploy/lab/machine"
	"vcpeer/deploy/lab/topology"
	"vcpeer/deploy/lab/wan"
)

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
		{"port mapping", l.startMappers},
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
		m, err := l.keeper.Make(machine.Spec{Name: p.name, Dir: dir, Binary: l.opts.Binary, Group: filepath.Join(groupOf(l.Name), p.name)})
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
	shapes, err := l.Topology.Shapes()
	if err != nil {
		return err
	}
	for i := range shapes {
		for j, s := range l.Topology.Sites { // what is too large for a site is answered before it
			if sh := &shapes[i][j]; s.MTU < topology.DefaultMTU && sh.MTUBytes == 0 {
				sh.MTUBytes = s.MTU
			}
		}
	}
	return l.wan.SetAll(shapes)
}
