package overlay

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"vcpeer/crdt"
	"vcpeer/overlay/ovs"
)

// Config is what a Network needs. Self and Underlay are required; a nil func is not called.
type Config struct {
	Self     crdt.NodeID
	Name     string                               // of the bridge, and the beginning of its ports' names; at most 8 bytes; empty: "vcpeer"
	RunDir   string                               // of Open vSwitch; empty: its default
	Underlay func(a netip.Addr, link string) bool // which addresses of the machine tunnels may use
	Protect  int                                  // links that this node wants watched by BFD
	Publish  func(value []byte)                   // tells the other nodes of this gateway's links; must not block
	Facts    func(Facts)                          // told how this node takes part, whenever that changes; must not block
	Tell     func(code, text string)              // told what people may want to know; must not block
	Wants    func([]crdt.NodeID)                  // told whom sealed links are wanted to, whenever that changes; must not block
	Log      *slog.Logger

	// Send sends datagrams of sealed links; see [sealed.Config]. nil: there are no sealed links.
	Send func(local, to netip.AddrPort, b []byte, segment int) error
}

// Facts is how this node takes part, for its record.
type Facts struct {
	Takes    bool
	Underlay []netip.Addr // where it takes tunnels
	MTU      int          // the smallest of their interfaces, bytes
}

// Network is this node's part of the network. Run owns what it knows; the other methods may be called from anywhere, hand
// something over or read what was last published, and never wait for a round.
type Network struct {
	cfg Config

	records atomic.Pointer[Records] // nil: not yet
	heard   atomic.Pointer[[]Heard]
	ways    atomic.Pointer[map[crdt.NodeID]Way]
	sealing *sealing      // nil: there are no sealed links
	wake    chan struct{} // holds one: something was handed over …
	urgent  chan struct{} // … that cannot wait
	asks    chan func(*session)

	status atomic.Pointer[func() Status]
	view   atomic.Pointer[view]          // what it is made of; nil: the network is off
	news   atomic.Pointer[chan struct{}] // closed when another is published
	pongs  pongs

	mu     sync.Mutex        // guards guests
	guests map[string]string // interface by guest's ID
}

// New checks the configuration; nothing is read or written before Run.
func New(cfg Config) (*Network, error) {
	if cfg.Self.IsZero() || cfg.Underlay == nil {
		return nil, errors.New("overlay: the node's ID and its underlay are needed")
	}
	if cfg.Name == "" {
		cfg.Name = defaultName
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Publish == nil {
		cfg.Publish = func([]byte) {}
	}
	if cfg.Facts == nil {
		cfg.Facts = func(Facts) {}
	}
	if cfg.Tell == nil {
		cfg.Tell = func(string, string) {}
	}
	if cfg.Wants == nil {
		cfg.Wants = func([]crdt.NodeID) {}
	}
	n := &Network{cfg: cfg, wake: make(chan struct{}, 1), urgent: make(chan struct{}, 1), asks: make(chan func(*session)), guests: map[string]string{}}
	if cfg.Send != nil {
		var err error
		if n.sealing, err = newSealing(cfg); err != nil {
			return nil, err
		}
	}
	n.down("starting", "")
	return n, nil
}

// SetRecords says what the records say from now on. The Network keeps r's slices: they must not change.
func (n *Network) SetRecords(r Records) {
	n.records.Store(&r)
	n.touch()
}

// SetLinks says what all gateways last said of their links. The Network keeps the slice: it must not change.
func (n *Network) SetLinks(all []Heard) {
	n.heard.Store(&all)
	n.touch()
}

func (n *Network) touch() { poke(n.wake) }

// poke puts one into a channel that holds one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Status returns this node's part of the network as of now.
func (n *Network) Status() Status { return (*n.status.Load())() }

func (n *Network) publish(status func() Status) {
	n.status.Store(&status)
	next := make(chan struct{})
	if old := n.news.Swap(&next); old != nil {
		close(*old)
	}
}

// down publishes that the network is not up, and why.
func (n *Network) down(why, hint string) {
	n.view.Store(nil)
	n.publish(func() Status { return Status{Why: why, Hint: hint} })
}

// lookAgain is how often a machine without Open vSwitch is looked at again.
const lookAgain = 5 * time.Second

// Run takes part until ctx ends. What it made stays when it ends: traffic goes on, and the next Run takes it over. Without
// Open vSwitch it waits for that to come.
func (n *Network) Run(ctx context.Context) error {
	if n.sealing != nil {
		var link sync.WaitGroup
		defer link.Wait()
		link.Go(func() { _ = n.sealing.link.Run(ctx) }) // its TAP never fails: it ends with ctx
	}
	last := ""
	for {
		err := n.runOnce(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		why, hint := explain(err)
		n.down(why, hint)
		n.cfg.Facts(Facts{})
		if why != last {
			n.cfg.Log.Warn("the network over all sites is off", "why", why, "hint", hint)
			n.cfg.Tell("overlay.off", "the network over all sites is off on this node: "+why)
			last = why
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(lookAgain):
		}
	}
}

// runOnce takes part as long as Open vSwitch is there.
func (n *Network) runOnce(ctx context.Context) error {
	cfg := ovs.Config{RunDir: n.cfg.RunDir, Owner: n.cfg.Self.String(), Log: n.cfg.Log}
	info, err := ovs.Detect(ctx, cfg)
	if err != nil {
		return err
	}
	sw, err := ovs.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer sw.Close()
	s := newSession(n, sw, info)
	return s.run(ctx)
}

// explain says why the network is off, and what to do about it.
func explain(err error) (why, hint string) {
	switch {
	case errors.Is(err, ovs.ErrNotInstalled):
		return "Open vSwitch is not installed", "apt-get install openvswitch-switch; the network comes up by itself then"
	case errors.Is(err, ovs.ErrNotRunning):
		return "Open vSwitch does not run", "systemctl start openvswitch-switch; the network comes up by itself then"
	case err == nil:
		return "Open vSwitch has gone", ""
	}
	return err.Error(), ""
}

// defaultName begins the names of bridges and their ports.
const defaultName = "vcpeer"
