package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vcpeer/deploy/lab/machine"
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
	mappers []*daemon       // of routers that pass ports on
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

// Down ends the lab: every process of it, its network, its files.
func (l *Lab) Down() error {
	var err error
	l.down.Do(func() {
		if l.stopWAN != nil {
			l.stopWAN()
			<-l.wanEnded
		}
		_ = each(context.Background(), slices.Collect(maps.Values(l.machines)), atOnce, func(_ context.Context, m *machine.Machine) error {
			m.Close()
			return nil
		})
		for _, m := range l.machines {
			if m.Space.Group != "" {
				_ = os.Remove(filepath.Dir(m.Space.Group)) // of the lab, once
			}
		}
		for _, n := range l.nodes {
			for _, d := range n.daemons {
				<-d.exited // the kernel has ended it
			}
		}
		for _, d := range l.mappers {
			<-d.exited
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
