package hosts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"vcpeer/overlay/marked"
)

// Config of a Keeper. The zero value of each field but Instance is usable.
type Config struct {
	Instance string        // names the block, so that daemons on one machine keep theirs apart; see marked.CheckOwner
	Path     string        // default /etc/hosts
	Lock     string        // lock file shared by all daemons of the machine; default /run/vcpeer-hosts.lock
	Coalesce time.Duration // how long changes gather before they are written together; default 200 ms
	Recheck  time.Duration // how often the file is compared again, in case somebody edited it, or a write failed; default 1 min
	Log      *slog.Logger  // default: slog.Default()
}

func (c Config) withDefaults() (Config, error) {
	c.Path = cmp.Or(c.Path, "/etc/hosts")
	c.Lock = cmp.Or(c.Lock, "/run/vcpeer-hosts.lock")
	c.Coalesce = cmp.Or(c.Coalesce, 200*time.Millisecond)
	c.Recheck = cmp.Or(c.Recheck, time.Minute)
	c.Log = cmp.Or(c.Log, slog.Default())
	if c.Coalesce < 0 || c.Recheck < 0 {
		return c, errors.New("hosts: negative interval")
	}
	return c, marked.CheckOwner(c.Instance)
}

func (c Config) file() marked.File {
	return marked.File{Path: c.Path, Lock: c.Lock, Mode: 0o644}
}

// Status is what a Keeper last did. Err is nil when the file says what was last wanted.
type Status struct {
	Path    string
	Entries int       // wanted
	Names   int       // in the file
	Left    []Left    // not in the file, with reasons; shared, not to be changed
	Written time.Time // when the file was last changed by this Keeper; zero: not yet
	Err     error
}

// Keeper keeps the block up to date. Set and Status may be called from anywhere; Run once.
type Keeper struct {
	cfg    Config
	want   atomic.Pointer[[]Entry] // nil until the first Set: the file is left alone
	wake   chan struct{}           // holds one: more changes than one are still one write
	status atomic.Pointer[Status]
}

// NewKeeper checks the configuration; nothing is read or written before Run.
func NewKeeper(cfg Config) (*Keeper, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	k := &Keeper{cfg: cfg, wake: make(chan struct{}, 1)}
	k.status.Store(&Status{Path: cfg.Path})
	return k, nil
}

// Set says what the file is to hold from now on. It copies entries and never blocks.
func (k *Keeper) Set(entries []Entry) {
	entries = slices.Clone(entries)
	k.want.Store(&entries)
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Status returns what was last done.
func (k *Keeper) Status() Status { return *k.status.Load() }

// Run writes what Set wants until ctx ends. The block stays when Run ends, for the names are true without the daemon
// too; Remove takes it out. A failure is logged once, shown in Status, and tried again.
func (k *Keeper) Run(ctx context.Context) error {
	recheck := time.NewTicker(k.cfg.Recheck)
	defer recheck.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-k.wake:
			if err := wait(ctx, k.cfg.Coalesce); err != nil {
				return err
			}
			select { // what came while waiting is written along
			case <-k.wake:
			default:
			}
		case <-recheck.C:
		}
		k.round(ctx)
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

// round brings the file to what is wanted and publishes how that went.
func (k *Keeper) round(ctx context.Context) {
	want := k.want.Load()
	if want == nil {
		return
	}
	last := k.Status()
	now := Status{Path: k.cfg.Path, Entries: len(*want), Names: last.Names, Left: last.Left, Written: last.Written}
	result, changed, err := k.apply(ctx, *want)
	switch {
	case err != nil:
		now.Err = err
		if last.Err == nil || last.Err.Error() != err.Error() {
			k.cfg.Log.Error("host names are not up to date", "file", k.cfg.Path, "err", err)
		}
	default:
		now.Names, now.Left = result.Names, result.Left
		if changed {
			now.Written = time.Now()
			k.cfg.Log.Info("wrote host names", "file", k.cfg.Path, "names", now.Names, "left", len(now.Left))
		}
	}
	k.status.Store(&now)
}

// apply turns a panic into an error: entries come from records of any site, and a record that finds a fault of ours must
// not stop every daemon of the cluster. The file then stays as it was.
func (k *Keeper) apply(ctx context.Context, want []Entry) (result Result, changed bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("hosts: panic: %v\n%s", p, debug.Stack())
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // for the lock
	defer cancel()
	changed, err = k.cfg.file().Edit(ctx, func(old []byte) ([]byte, error) {
		result, err = Update(old, k.cfg.Instance, want)
		return result.File, err
	})
	return result, changed, err
}

// Remove takes the block of cfg's instance out of the file, which is then as if it had never been there, and reports
// whether one was there. Not while its Keeper runs, which would write it again.
func Remove(ctx context.Context, cfg Config) (removed bool, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return false, err
	}
	return cfg.file().Edit(ctx, func(old []byte) ([]byte, error) { return marked.Clear(old, cfg.Instance) })
}
