// Package ovs is the only part that touches Open vSwitch. It turns a machine's Open vSwitch into what it is told to be:
// bridges and ports in its database, flows and groups in its tables, and tells what changes by itself. What stands in
// the tables and why is decided elsewhere (overlay/flow); whoever calls is the one engine of a node.
//
// All is wanted state against what is there: doing it twice changes nothing, and what a crash left half done is finished
// by the next call. Only bridges whose external_ids say that they are the owner's are touched, in them only ports that
// say so, and only flows whose cookies carry flow.Magic.
//
//	sw, err := ovs.Open(ctx, ovs.Config{Owner: id})
//	err = sw.Ensure(ctx, []ovs.Bridge{{Name: "vcpeer0", Datapath: "netdev", Ports: ports}})
//	changes, err := sw.Program(ctx, "vcpeer0", tables)
//	for ev := range sw.Events() { … } // then Ensure and Program again
//
// Flows go through github.com/digitalocean/go-openvswitch, the database through libovsdb; DESIGN.md beside this file says
// what they lack and what stands here instead.
package ovs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vcpeer/overlay/flow"
)

// Config of a Switch. The zero value of each field but Owner is usable.
type Config struct {
	RunDir string // where db.sock and BRIDGE.mgmt are; default $OVS_RUNDIR, else /var/run/openvswitch
	DB     string // the database's socket; default unix:RunDir/db.sock
	Ctl    string // ovs-vswitchd's control socket; default: found in RunDir by its pid file
	Owner  string // stands in external_ids:vcpeer-owner of all we make; who has another is left alone

	Leave   []uint64      // cookies with flow.Magic that stand in no tables, since learn() makes them: left alone; default flow.LearnedCookie
	Poll    time.Duration // how often our flows are counted, to notice what others remove, and their packets; default 1 s
	Recheck time.Duration // how long Program may trust what it remembers of a bridge that nothing happened to; default a minute
	Log     *slog.Logger  // default: slog.Default()
}

func (c Config) withDefaults() (Config, error) {
	c.RunDir = cmp.Or(c.RunDir, os.Getenv("OVS_RUNDIR"), "/var/run/openvswitch")
	c.DB = cmp.Or(c.DB, "unix:"+filepath.Join(c.RunDir, "db.sock"))
	c.Poll = cmp.Or(c.Poll, time.Second)
	c.Recheck = cmp.Or(c.Recheck, time.Minute)
	c.Log = cmp.Or(c.Log, slog.Default())
	if c.Leave == nil {
		c.Leave = []uint64{flow.LearnedCookie}
	}
	if c.Poll < 0 || c.Recheck < 0 {
		return c, errors.New("ovs: negative interval")
	}
	return c, nil
}

// Switch is a machine's Open vSwitch. Its methods may be called from anywhere; those that write take turns.
type Switch struct {
	cfg    Config
	runner runner
	stop   context.CancelFunc
	spawn  func(func(context.Context)) // starts what ends with Close
	all    sync.WaitGroup

	db   atomic.Pointer[database] // nil: not connected
	view atomic.Pointer[content]  // what the database last held; shared, not to be changed
	want atomic.Pointer[[]Bridge] // what Ensure last wrote; nil: nothing yet, or it is at work
	look chan struct{}            // holds one: compare want and view again
	mail mailbox

	mu      sync.Mutex // held while writing
	bridges map[string]*bridge
}

// bridge is one that Ensure made: who watches it, and what Program knows of it.
type bridge struct {
	*watcher
	stop   context.CancelFunc
	memory memory
}

// Open connects to the database; ErrNotRunning when there is none. Close ends all that it starts; connections that break
// are made again for ever.
func Open(ctx context.Context, cfg Config) (*Switch, error) {
	return open(ctx, cfg, execute)
}

func open(ctx context.Context, cfg Config, run runner) (*Switch, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if cfg.Owner == "" {
		return nil, errors.New("ovs: no owner")
	}
	db, err := dialDatabase(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s := &Switch{cfg: cfg, runner: run, look: make(chan struct{}, 1), bridges: map[string]*bridge{}}
	s.mail.init()
	life, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.spawn = func(f func(context.Context)) { s.all.Go(func() { f(life) }) }
	have, err := db.read(ctx)
	if err != nil {
		stop()
		db.close()
		return nil, err
	}
	s.db.Store(db)
	s.view.Store(have)
	s.spawn(func(ctx context.Context) { s.watchDatabase(ctx, db) })
	s.spawn(s.mail.run)
	return s, nil
}

// Close ends all goroutines and connections. What is in Open vSwitch stays, so that traffic goes on without the daemon.
func (s *Switch) Close() {
	s.stop()
	s.all.Wait()
}

// Events tells what happened that the caller did not do, as hints to look again: an event that is not yet taken is
// replaced by a later one of the same kind, bridge and port, so that the channel never holds anything up. It is not closed.
func (s *Switch) Events() <-chan Event { return s.mail.out }

// how long ovs-vswitchd may take to do what the database says, and an ovs-ofctl to end
const (
	takeTimeout    = 10 * time.Second
	commandTimeout = 10 * time.Second
)

// Ensure makes the bridges and ports of this owner what is wanted, in one transaction, and returns when ovs-vswitchd has
// taken it over. Bridges of the owner that are not wanted are deleted. ForeignError: a wanted name is somebody else's, and
// nothing was changed. ErrNotRunning: the database has it (if it could be reached), ovs-vswitchd not yet. A port that Open
// vSwitch cannot open is no error here, but stands in Ports.
func (s *Switch) Ensure(ctx context.Context, want []Bridge) error {
	if err := check(want); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	db, err := s.connected()
	if err != nil {
		return err
	}
	old := s.want.Swap(nil) // what changes from here on is our doing
	defer func() { poke(s.look) }()
	have, err := db.read(ctx)
	if err != nil {
		s.want.Store(old)
		return err
	}
	ops, err := plan(s.cfg.Owner, want, have)
	if err != nil {
		s.want.Store(old)
		return err
	}
	next := have.next
	if len(ops) > 0 {
		if next, err = db.commit(ctx, have, ops); err != nil {
			s.want.Store(old)
			return err
		}
	}
	want = clone(want)
	s.want.Store(&want)
	err = s.taken(ctx, db, next)
	s.watchBridges(want)
	return err
}

// Remove deletes every bridge of the owner and nothing else.
func (s *Switch) Remove(ctx context.Context) error { return s.Ensure(ctx, nil) }

// taken waits until ovs-vswitchd has done what the database said at next.
func (s *Switch) taken(ctx context.Context, db *database, next int) error {
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		cur, err := db.current(ctx)
		switch {
		case err == nil && cur >= next:
			return nil
		case err != nil && ctx.Err() == nil:
			return err
		}
		if wait(ctx, pause) != nil {
			return notRunning("ovs-vswitchd", s.cfg.RunDir, fmt.Errorf("the change is in the database, but not taken: %w", context.Cause(ctx)))
		}
	}
}

// watchBridges starts and ends watchers so that each wanted bridge has one.
func (s *Switch) watchBridges(want []Bridge) {
	for name, b := range s.bridges {
		if !slices.ContainsFunc(want, func(w Bridge) bool { return w.Name == name }) {
			b.stop()
			delete(s.bridges, name)
		}
	}
	for _, w := range want {
		if s.bridges[w.Name] != nil {
			continue
		}
		b := &bridge{watcher: newWatcher(s.cfg, w.Name, &s.mail)}
		s.bridges[w.Name] = b
		ready := make(chan struct{})
		s.spawn(func(ctx context.Context) {
			ctx, b.stop = context.WithCancel(ctx)
			close(ready)
			b.watcher.run(ctx)
		})
		<-ready
	}
}

// poke puts one into a channel that holds one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
