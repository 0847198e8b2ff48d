package exec

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Start runs the attempt and returns once its process runs or has failed to (which is then a Result). The lease counts
// from spec.Asked. Scripts and inputs must be in the blob store. On an error nothing was or will be started and the key
// may be used again, but for ErrStarted: that attempt exists. Others: ErrSpec, ErrAccount, ErrLease, ErrNoSpace,
// ErrClosed, what the blob store says of a missing blob, and what the disk says.
func (e *Executor) Start(ctx context.Context, spec Spec, lease time.Duration) error {
	if spec.Asked == 0 {
		spec.Asked = NowBoot()
	}
	if err := spec.Validate(); err != nil {
		return err
	}
	a, err := e.begin(ctx, spec, spec.Asked.Add(lease))
	if err != nil {
		return fmt.Errorf("exec: start %s: %w", spec.Key, err)
	}
	select {
	case <-a.began:
	case <-ctx.Done(): // under way all the same
	}
	return nil
}

func (e *Executor) begin(ctx context.Context, spec Spec, until BootTime) (*attempt, error) {
	if err := canBecome(spec.Account); err != nil {
		return nil, err
	}
	select {
	case <-e.ready:
	case <-e.life.Done():
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := e.roomToStart(); err != nil {
		return nil, err
	}
	a, err := e.reserve(spec, until)
	if err != nil {
		return nil, err
	}
	l, err := e.takeShim(ctx)
	if err != nil {
		e.abandon(a)
		return nil, err
	}
	a.rec.ShimID = l.id
	o, err := e.prepare(ctx, a)
	if err == nil {
		err = e.give(a, l, o)
	}
	if err != nil {
		e.abandon(a)
		e.giveBack(l)
		return nil, err
	}
	return a, nil
}

// canBecome reports why the executor cannot run as the account.
func canBecome(a *Account) error {
	if a == nil || os.Geteuid() == 0 || int(a.UID) == os.Geteuid() {
		return nil
	}
	return fmt.Errorf("%w: %s (uid %d) needs a daemon that runs as root, this one is uid %d", ErrAccount, a.Name, a.UID, os.Geteuid())
}

func (e *Executor) roomToStart() error {
	if e.cfg.FloorBytes < 0 {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(e.cfg.Dir, &st); err != nil {
		return fmt.Errorf("free space: %w", err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < e.cfg.FloorBytes {
		return fmt.Errorf("%w: %d MiB in %s, %d MiB needed", ErrNoSpace, free>>20, e.cfg.Dir, e.cfg.FloorBytes>>20)
	}
	return nil
}

// reserve makes the key ours: in memory, then by its exclusive directory.
func (e *Executor) reserve(spec Spec, until BootTime) (*attempt, error) {
	a := &attempt{dir: filepath.Join(e.attemptsDir(), spec.Key), began: make(chan struct{}), ended: make(chan struct{}), until: until,
		rec: attemptRecord{Spec: spec, Mark: markName + "=" + spec.Key + "." + rand.Text(), BootID: e.boot, Until: until}}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return nil, ErrClosed
	case e.attempts[spec.Key] != nil, slices.Contains(e.acked, spec.Key):
		return nil, ErrStarted
	case NowBoot() >= until:
		return nil, ErrLease
	}
	var err error
	if a.spare, err = e.makeDir(a); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("%w: %w", ErrStarted, err)
		}
		return nil, err
	}
	e.attempts[spec.Key] = a
	return a, nil
}

// abandon undoes reserve: nothing was started.
func (e *Executor) abandon(a *attempt) {
	if err := removeTree(a.dir); err != nil {
		e.cfg.Log.Warn("directory of an attempt that was not started stays", "dir", a.dir, "error", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.attempts, a.rec.Spec.Key)
}

// give records the intent and hands the attempt to the shim. From here on it has a Result, whatever happens.
func (e *Executor) give(a *attempt, l *link, o *order) error {
	if err := e.codec.writeRecord(filepath.Join(a.dir, fileSpec), &a.rec); err != nil {
		return err
	}
	key := a.rec.Spec.Key
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return ErrClosed
	case e.links[l.id] != l:
		return fmt.Errorf("shim %d was killed before it could be used", l.me.PID)
	}
	a.phase, a.link = active, l
	l.key = key
	l.send(e.codec, &message{Kind: kindRun, Key: key, Until: a.until, Run: o})
	if a.killed {
		l.send(e.codec, &message{Kind: kindKill, Key: key, Reason: a.kill})
	}
	return nil
}
