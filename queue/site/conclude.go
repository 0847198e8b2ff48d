package site

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"vcpeer/crdt"
	"vcpeer/queue"
	"vcpeer/queue/exec"
)

// conclude brings the result of an attempt to its owner, however long that takes, and has the executor forget it when
// the owner has taken or refused it. After a restart the executor gives the result again.
func (w *worker) conclude(ctx context.Context, a *attempt, r exec.Result, doomed bool) {
	rep := reportOf(a.meta.Ref, r, doomed)
	if rep.Complete != nil {
		if err := w.safeguard(ctx, a, resultBlobs(rep.Complete)); err != nil {
			return // ctx is over
		}
	}
	if !w.send(ctx, a, rep) {
		return
	}
	if err := w.s.cfg.Executor.Ack(r.Key); err != nil && !errors.Is(err, exec.ErrUnknown) {
		w.s.cfg.Log.Warn("queue: forget an attempt", "attempt", r.Key, "err", err)
	}
	w.drop(a)
}

// reportOf says how an attempt ended. One that the node ended, not the job, is given back to be run again.
func reportOf(ref queue.Ref, r exec.Result, doomed bool) report {
	switch {
	case r.Lost:
		return report{Release: &queue.Release{Ref: ref, Reason: "node-lost", Failed: true}}
	case r.Killed == exec.CauseLease || r.Killed == exec.CauseNode:
		return report{Release: &queue.Release{Ref: ref, Reason: "stopped: " + string(r.Killed), Failed: true}}
	}
	c := &queue.Complete{Ref: ref, Exit: r.Exit, Reason: r.Reason, Started: unixNano(r.Started), Ended: unixNano(r.Ended),
		CPU: int64(r.CPU), MaxRSS: r.MaxRSS, Stdout: fileOf(r.Stdout), Stderr: fileOf(r.Stderr)}
	if doomed && c.Reason == "" && r.Killed == exec.CauseKill {
		c.Reason = "cancelled"
	}
	for _, f := range r.Outputs {
		c.Outputs = append(c.Outputs, queue.File{Path: f.Path, Hash: f.Hash, Size: f.Size, Mode: f.Mode})
	}
	return report{Complete: c}
}

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fileOf(r exec.Ref) *queue.File {
	if r.Hash == "" {
		return nil
	}
	return &queue.File{Hash: r.Hash, Size: r.Size}
}

// send reports to the owner until it has taken or refused the report; false: ctx was over before.
func (w *worker) send(ctx context.Context, a *attempt, r report) bool {
	pause := w.s.cfg.RetryAfter
	for ctx.Err() == nil {
		asking, cancel := context.WithTimeout(ctx, 3*askTimeout)
		err := w.s.askSite(asking, a.meta.Owner, opReport, r, &queue.Result{}, 0)
		cancel()
		switch {
		case err == nil:
			return true
		case errors.Is(err, queue.Stale), errors.Is(err, queue.NotFound), errors.Is(err, queue.Denied), errors.Is(err, queue.Invalid):
			w.s.cfg.Log.Info("queue: the owner does not want a result", "attempt", a.meta.key(), "err", err)
			return true
		}
		w.s.cfg.Log.Debug("queue: report", "attempt", a.meta.key(), "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, 16*w.s.cfg.RetryAfter)
	}
	return false
}

// safeguard puts the results of an attempt on a majority of its owner's voters before the owner hears of its end, so
// that what it acknowledges is not on this node alone. It tries for as long as the result is wanted and ctx lives.
func (w *worker) safeguard(ctx context.Context, a *attempt, hashes []string) error {
	pause := w.s.cfg.RetryAfter
	for {
		w.mu.Lock()
		voters := w.voters[a.meta.Owner]
		w.mu.Unlock()
		if voters == nil {
			voters = a.meta.Voters
		}
		err := w.s.spread(ctx, hashes, voters, a.meta.Submit)
		if err == nil || ctx.Err() != nil {
			return context.Cause(ctx)
		}
		w.s.cfg.Log.Debug("queue: copy results", "attempt", a.meta.key(), "err", err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
		if pause < 16*w.s.cfg.RetryAfter {
			pause *= 2
			continue
		}
		// The voters may have been replaced meanwhile; whoever leads knows.
		if _, _, err := w.s.renewVoters(ctx, a.meta.Owner); err != nil && ctx.Err() == nil {
			w.s.cfg.Log.Debug("queue: ask for the voters", "site", a.meta.Owner, "err", err)
		}
	}
}

// renewVoters asks a site who its voters are: a renewal of nothing.
func (s *Service) renewVoters(ctx context.Context, site queue.SiteID) (renewed, exec.BootTime, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	got, asked, err := s.worker.renewOnce(ctx, site, renewal{})
	if err == nil {
		s.worker.mu.Lock()
		s.worker.voters[site] = got.Voters
		s.worker.mu.Unlock()
	}
	return got, asked, err
}

// spread copies blobs that this node has to others until a majority of voters have them, this node counted if it
// votes. Where this node is the only voter, one other node gets a copy if it can be reached: spare, else any.
func (s *Service) spread(ctx context.Context, hashes []string, voters []crdt.NodeID, spare crdt.NodeID) error {
	if len(hashes) == 0 {
		return nil
	}
	targets := s.others(voters)
	missing := len(voters)/2 + 1 - (len(voters) - len(targets))
	if len(voters) == 0 {
		missing = 0
	}
	if missing <= 0 && len(targets) == 0 {
		s.spareCopy(ctx, hashes, spare)
		return nil
	}
	return s.pushAround(ctx, hashes, targets, missing)
}

// spareAfter is how long a copy may take before the next node is asked for one as well.
const spareAfter = time.Second

// pushAround copies blobs to as many of the targets as are enough, those that are heard first. Who fails or takes long does
// not hold up the others.
func (s *Service) pushAround(ctx context.Context, hashes []string, targets []crdt.NodeID, enough int) error {
	ctx, cancel := context.WithCancel(ctx)
	alive := s.alive()
	slices.SortStableFunc(targets, func(a, b crdt.NodeID) int { return unheard(alive, a) - unheard(alive, b) })
	done := make(chan error, len(targets)) // none waits
	started, running := 0, 0
	begin := func() {
		if started == len(targets) {
			return
		}
		n := targets[started]
		started++
		running++
		go func() {
			err := s.push(ctx, hashes, n)
			if err != nil {
				err = fmt.Errorf("to %s: %w", n.Short(), err)
			}
			done <- err
		}()
	}
	defer func() {
		cancel()
		for range running {
			<-done
		}
	}()
	for range enough {
		begin()
	}
	slow := time.NewTicker(spareAfter)
	defer slow.Stop()
	var errs []error
	for enough > 0 && running > 0 {
		select {
		case <-slow.C:
			begin()
		case err := <-done:
			running--
			if err == nil {
				enough--
				continue
			}
			errs = append(errs, err)
			begin()
		}
	}
	if enough > 0 {
		return errors.Join(errs...)
	}
	return nil
}

func unheard(alive queue.Alive, n crdt.NodeID) int {
	if alive(n) {
		return 0
	}
	return 1
}

func (s *Service) push(ctx context.Context, hashes []string, to crdt.NodeID) error {
	for _, h := range hashes {
		if err := s.cfg.Blobs.Push(ctx, h, to); err != nil {
			return err
		}
	}
	return nil
}

// spareCopy makes one copy beside this node's, as far as that is possible.
func (s *Service) spareCopy(ctx context.Context, hashes []string, spare crdt.NodeID) {
	candidates := []crdt.NodeID{spare}
	for _, n := range s.cfg.Directory.Nodes() {
		if n.Alive && n.Site == s.cfg.Site {
			candidates = append(candidates, n.ID)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for _, n := range s.others(candidates) {
		err := s.push(ctx, hashes, n)
		if err == nil {
			return
		}
		s.cfg.Log.Debug("queue: spare copy", "node", n.Short(), "err", err)
	}
}
