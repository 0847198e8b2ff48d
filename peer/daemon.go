package peer

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"vcpeer/crdt"
	"vcpeer/crdt/replica"
	"vcpeer/peer/api"
	"vcpeer/peer/config"
	"vcpeer/peer/events"
	"vcpeer/peer/fabric"
	"vcpeer/peer/server"
)

// Daemon is one vcpeer process. Its API answers from the first moment, so that `vcpeer status` can say what a node that
// has not joined yet waits for; the rest of the API follows when node is set.
type Daemon struct {
	cfg     config.Config
	version string
	log     *slog.Logger
	events  *events.Log
	began   time.Time
	key     ed25519.PrivateKey

	welcomers []crdt.NodeID // members that a newcomer gets the records from; the one that let it in first

	narrator narrator // owned by the goroutine of Run

	phase atomic.Pointer[phase]
	node  atomic.Pointer[node] // nil until the node is a running member
	quit  chan ending          // holds the first request to end
}

// phase is what the daemon is doing, for status and for systemd.
type phase struct{ name, detail string }

// The phases of api.NodeStatus.
const (
	phaseStarting = "starting"
	phaseJoining  = "joining"
	phaseRunning  = "running"
	phaseStopping = "stopping"
)

// ending is why the daemon stops by itself.
type ending int

const (
	stopping ending = iota + 1 // asked to stop: it is expected back
	leaving                    // asked to leave the cluster
	evicted                    // put out by another member
)

// Run runs a node until ctx ends or the node is told to stop. Everything it started has ended when it returns.
func Run(ctx context.Context, cfg config.Config, version string, log *slog.Logger) error {
	d := &Daemon{cfg: cfg, version: version, log: log, events: events.New(time.Now), began: time.Now(), quit: make(chan ending, 1)}
	d.enter(phaseStarting, "opening the records")
	saveMemory()
	fabric.QuietLibraries(log)
	if err := os.MkdirAll(cfg.State, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	key, created, err := fabric.Identity(filepath.Join(cfg.State, "node.key"))
	if err != nil {
		return err
	}
	d.key = key
	if created {
		log.Info("made this node's identity", "node", crdt.NodeIDOf(key))
	}
	return d.serve(ctx)
}

// saveMemory has a node, which has little to do most of the time, keep half the garbage that Go's default lets lie: about
// 8 of 62 MiB among eight sites, for a collection that takes two hundredths of its time. GOGC says otherwise.
func saveMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// serve runs the API and, behind it, the node.
func (d *Daemon) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	apiCtx, stopAPI := context.WithCancel(context.WithoutCancel(ctx)) // answers until the node has stopped
	apiDone := make(chan error, 1)
	go func() {
		err := d.routes().Serve(apiCtx, d.cfg.Socket, d.socketMode())
		apiDone <- err
		if err != nil {
			cancel(err)
		}
	}()
	err := d.run(ctx)
	stopAPI()
	if apiErr := <-apiDone; apiErr != nil {
		return apiErr
	}
	return err
}

// socketMode lets every user of the machine talk to a system daemon, which knows them by SO_PEERCRED, and only its own
// user to any other.
func (d *Daemon) socketMode() os.FileMode {
	if d.cfg.JobsAs == config.JobsAsAccount && os.Geteuid() == 0 {
		return 0o666
	}
	return 0o600
}

func (d *Daemon) run(ctx context.Context) error {
	records, err := replica.Open(replica.Options{Dir: filepath.Join(d.cfg.State, "records"), Key: d.key, Now: time.Now, Log: d.log})
	if err != nil {
		return err
	}
	defer d.close("records", records.Close)
	net, err := d.openFabric(records)
	if err != nil {
		return err
	}
	defer d.close("fabric", net.Close)
	if err := d.belong(ctx, records, net); err != nil {
		if ctx.Err() != nil {
			return nil // told to stop while waiting
		}
		return err
	}
	n, err := d.startNode(ctx, records, net)
	if err != nil {
		return err
	}
	d.node.Store(n)
	d.enter(phaseRunning, "")
	d.greet(n)
	d.notify(daemon.SdNotifyReady)
	why, err := d.wait(ctx, n)
	d.notify(daemon.SdNotifyStopping)
	d.enter(phaseStopping, "handing over")
	n.shutdown(context.WithoutCancel(ctx), why)
	d.log.Info(farewell(why))
	return err
}

// wait returns when the node is to end, why, and what Run shall say of it.
func (d *Daemon) wait(ctx context.Context, n *node) (ending, error) {
	select {
	case <-ctx.Done():
		if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
			return stopping, err
		}
		return stopping, nil
	case why := <-d.quit:
		if why == evicted {
			return why, d.outForGood()
		}
		return why, nil
	case err := <-n.failed:
		d.events.Add("node.failed", err.Error())
		return stopping, fmt.Errorf("stopped because a part failed: %w", err)
	}
}

// farewell is the last line of a node's log.
func farewell(why ending) string {
	switch why {
	case leaving:
		return "this node has left the cluster"
	case evicted:
		return "this node was put out of the cluster"
	}
	return "stopped; this node stays a member, and jobs that run here go on"
}

// outForGood ends the daemon of a node that the cluster has put out.
func (d *Daemon) outForGood() error {
	return server.Problem(api.CodeRefused, "to join again as a new node, remove "+d.cfg.State+" and ask a member for a token",
		"this node was evicted from the cluster")
}

// stop asks the daemon to end; the first reason counts.
func (d *Daemon) stop(why ending) {
	select {
	case d.quit <- why:
	default:
	}
}

// enter sets the phase for whoever asks, and tells it in the log where it is news. Only Run's goroutine calls it.
func (d *Daemon) enter(name, detail string) {
	d.phase.Store(&phase{name, detail})
	step := name
	if detail != "" {
		step += ": " + detail
	}
	if d.narrator.tells(step, time.Now()) {
		d.log.Log(context.Background(), levelOf(name), step)
	}
	d.notify("STATUS=" + step)
}

// levelOf is how loud a phase is in the log: what is over in a moment, or told otherwise, is for those who look for it.
func levelOf(phase string) slog.Level {
	if phase == phaseJoining || phase == phaseStopping {
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// notify tells systemd, if it started us (sd_notify(3)).
func (d *Daemon) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		d.log.Debug("systemd was not told", "state", state, "err", err)
	}
}

func (d *Daemon) close(what string, f func() error) {
	if err := f(); err != nil {
		d.log.Warn("not closed cleanly", "part", what, "err", err)
	}
}

// reading wraps a handler that needs a running node.
func (d *Daemon) reading(h func(*node, *http.Request) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		n := d.node.Load()
		if n == nil {
			p := d.phase.Load()
			return nil, server.Problem(api.CodeUnavailable, "`vcpeer status` shows how far it is", "this node is still %s: %s", p.name, p.detail)
		}
		return h(n, r)
	}
}

// admin wraps a handler that only root and the daemon's own user may call.
func (d *Daemon) admin(h func(*http.Request) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		c, ok := server.CallerOf(r.Context())
		if !ok || c.UID != 0 && int(c.UID) != os.Geteuid() {
			return nil, server.Problem(api.CodeRefused, "try it as root", "only root and the user that runs vcpeer may do this")
		}
		return h(r)
	}
}

// changing wraps a handler that changes the cluster: it needs a running node and an administrator.
func (d *Daemon) changing(h func(*node, *http.Request) (any, error)) func(*http.Request) (any, error) {
	return d.admin(d.reading(h))
}
