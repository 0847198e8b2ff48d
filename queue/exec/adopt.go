package exec

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// adopt finds what an earlier daemon left: shims that answer are taken over with their attempts, ended attempts are
// collected, and what has neither shim nor end is killed for sure and reported lost.
func (e *Executor) adopt(ctx context.Context) error {
	if err := e.emptyTrash(); err != nil {
		return err
	}
	links, err := e.findShims(ctx)
	if err != nil {
		return err
	}
	list, err := os.ReadDir(e.attemptsDir())
	if err != nil {
		return err
	}
	owned := map[string]bool{} // shims whose remains belong to an attempt that is being recovered
	for _, d := range list {
		if a := e.readAttempt(d.Name()); a != nil {
			if e.takeOver(a, links[a.rec.ShimID]) {
				owned[a.rec.ShimID] = true
			}
		}
	}
	for _, l := range links {
		switch {
		case l.key != "":
		case l.hello.Key != "":
			e.cfg.Log.Warn("a shim runs an attempt that has no directory; both are ended", "attempt", l.hello.Key)
			l.kill()
		default:
			e.mu.Lock()
			e.idle = append(e.idle, l)
			e.mu.Unlock()
		}
		e.attach(l)
	}
	e.cleanRemains(links, owned)
	return nil
}

func (e *Executor) emptyTrash() error {
	list, err := os.ReadDir(e.trashDir())
	if err != nil {
		return err
	}
	for _, d := range list {
		if err := removeTree(filepath.Join(e.trashDir(), d.Name())); err != nil {
			e.cfg.Log.Warn("directory of a finished attempt stays", "error", err)
		}
	}
	return nil
}

// findShims asks every socket. Who does not answer, or is not the process that its info names, is no shim.
func (e *Executor) findShims(ctx context.Context) (map[string]*link, error) {
	list, err := os.ReadDir(e.shimsDir())
	if err != nil {
		return nil, err
	}
	links := map[string]*link{}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(32)
	for _, d := range list {
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if l := e.findShim(d.Name()); l != nil {
				mu.Lock()
				defer mu.Unlock()
				links[l.id] = l
			}
			return nil
		})
	}
	return links, g.Wait()
}

func (e *Executor) findShim(id string) *link {
	l, err := e.dial(id)
	if err == nil {
		var info identity
		if err = e.codec.readRecord(filepath.Join(l.dir, shimInfo), &info); err == nil && info == l.me {
			return l
		}
		l.conn.Close()
		err = fmt.Errorf("it is not the process it was: %v", err)
	}
	e.cfg.Log.Debug("no shim answers", "shim", id, "error", err)
	e.killMute(id)
	return nil
}

// killMute ends a shim process that exists but does not answer, such as a stopped one: it cannot keep its lease.
func (e *Executor) killMute(id string) {
	var info identity
	if e.codec.readRecord(filepath.Join(e.shimsDir(), id, shimInfo), &info) == nil && info.BootID == e.boot {
		(&link{me: info}).kill()
	}
}

// readAttempt returns the attempt of a directory, or nil if nothing can have been started there.
func (e *Executor) readAttempt(name string) *attempt {
	a := &attempt{dir: filepath.Join(e.attemptsDir(), name), began: make(chan struct{}), ended: make(chan struct{}), phase: active, adopted: true}
	err := e.codec.readRecord(filepath.Join(a.dir, fileSpec), &a.rec)
	if err == nil && a.rec.Spec.Key != name {
		err = errRecord
	}
	if err != nil {
		// The daemon ended before it gave the attempt to a shim, or the machine lost power; either way nothing of it runs.
		e.cfg.Log.Warn("an attempt was never started and is removed", "attempt", name, "error", err)
		if err := removeTree(a.dir); err != nil {
			e.cfg.Log.Warn("directory of an attempt stays", "error", err)
		}
		return nil
	}
	a.until = a.rec.Until
	e.codec.readRecord(filepath.Join(a.dir, fileStarted), &a.first) // absent: it had not started, or had just
	return a
}

// takeOver makes the attempt known: running at l, ended, or to be buried, with what its shim left; it reports the latter.
func (e *Executor) takeOver(a *attempt, l *link) (buried bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := a.rec.Spec.Key
	e.attempts[key] = a
	a.hasBegun()
	if l != nil && l.hello.Key == key {
		e.bind(a, l)
		return false
	}
	var end endRecord
	if e.codec.readRecord(filepath.Join(a.dir, fileEnd), &end) == nil {
		e.conclude(a, end)
		return false
	}
	id := a.rec.ShimID
	e.work.Go(func() {
		e.bury(a, e.groups.existing(id))
		if l == nil {
			e.cleanShim(&link{id: id, dir: filepath.Join(e.shimsDir(), id), group: e.groups.existing(id)})
		}
	})
	return l == nil
}

// bind joins a running attempt to the shim that answered for it; it needs e.mu.
func (e *Executor) bind(a *attempt, l *link) {
	a.link, a.until, l.key = l, l.hello.Until, a.rec.Spec.Key
	if l.hello.Started != nil && l.hello.Started.PID != 0 {
		a.first = *l.hello.Started
	}
}

// recover is called when the link to a shim with an attempt broke: reach the same process again, or bury the attempt.
func (e *Executor) recover(a *attempt, old *link) {
	ctx, cancel := context.WithTimeout(e.life, 3*time.Second)
	defer cancel()
	again := false
	every(ctx, 50*time.Millisecond, func() bool {
		if !alive(old.me.PID, old.me.Ticks) {
			return true
		}
		l, err := e.dial(old.id)
		if err != nil {
			return false
		}
		again = e.rejoin(a, l)
		return true
	})
	if again || e.life.Err() != nil {
		return
	}
	old.kill()
	e.bury(a, old.group)
	os.RemoveAll(old.dir) // found again at the next start if it stays
}

// rejoin takes the attempt back from a shim that was reached again.
func (e *Executor) rejoin(a *attempt, l *link) bool {
	e.mu.Lock()
	var end endRecord
	switch {
	case l.hello.Key == a.rec.Spec.Key:
		e.bind(a, l)
	case e.codec.readRecord(filepath.Join(a.dir, fileEnd), &end) == nil:
		e.idle = append(e.idle, l)
		e.conclude(a, end)
	default:
		e.mu.Unlock()
		l.conn.Close()
		return false
	}
	e.mu.Unlock()
	return e.attach(l)
}

// bury ends an attempt whose shim is gone: when none of its processes is left, its end is what the shim still recorded,
// or lost. It does not give up before that: a lost attempt is started elsewhere.
func (e *Executor) bury(a *attempt, g group) {
	if a.rec.BootID == e.boot {
		if err := e.killRemnant(a, g); err != nil {
			return // we are closing; the next daemon goes on
		}
	}
	path := filepath.Join(a.dir, fileEnd)
	var end endRecord
	if err := e.codec.readRecord(path, &end); err != nil {
		end = endRecord{Exit: -1, Lost: true, Started: a.first.At, Ended: time.Now(), Reason: "its shim was killed"}
		if a.rec.BootID != e.boot {
			end.Reason = "the node restarted"
		} else if errors.Is(err, fs.ErrNotExist) && a.first.PID == 0 {
			end.Reason = "the node stopped while it was being started, or just after"
		}
		if err := e.codec.writeRecord(path, &end); err != nil {
			e.cfg.Log.Warn("a lost attempt is not recorded as such", "attempt", a.rec.Spec.Key, "error", err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conclude(a, end)
}

// killRemnant kills by group and by mark until two rounds in a row find nothing.
func (e *Executor) killRemnant(a *attempt, g group) error {
	r := remnant{mark: a.rec.Mark, first: a.first, workDir: filepath.Join(a.dir, dirWork)}
	begun, clean := time.Now(), 0
	return every(e.life, 20*time.Millisecond, func() bool {
		ctx, cancel := context.WithTimeout(e.life, 2*time.Second)
		defer cancel()
		err := g.clear(ctx)
		if r.kill() > 0 || err != nil {
			clean = 0
			if time.Since(begun) > 10*time.Second {
				e.cfg.Log.Warn("processes of a lost attempt do not end", "attempt", a.rec.Spec.Key, "error", err)
				begun = time.Now()
			}
			return false
		}
		clean++
		return clean >= 2
	})
}

// cleanRemains removes groups and directories of shims that are gone and no attempt's.
func (e *Executor) cleanRemains(links map[string]*link, owned map[string]bool) {
	ids := e.groups.all()
	if list, err := os.ReadDir(e.shimsDir()); err == nil {
		for _, d := range list {
			ids = append(ids, d.Name())
		}
	}
	for _, id := range ids {
		if links[id] == nil && !owned[id] {
			e.cleanShim(&link{id: id, dir: filepath.Join(e.shimsDir(), id), group: e.groups.existing(id)})
		}
	}
}
