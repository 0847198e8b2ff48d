package site

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"vcpeer/queue"
	"vcpeer/queue/exec"
)

// renewLoop renews all leases four times a TTL, and at once when poked.
func (w *worker) renewLoop(ctx context.Context) {
	every := time.NewTicker(w.s.cfg.Times.TTL / 4)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		case <-w.renew:
		}
		for site, as := range w.byOwner() {
			w.tasks.Go(func() { w.renewAt(ctx, site, as) })
		}
	}
}

// byOwner returns the attempts that run, by the site that owns them.
func (w *worker) byOwner() map[queue.SiteID][]*attempt {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[queue.SiteID][]*attempt{}
	for _, a := range w.attempts {
		if !a.ended {
			all[a.meta.Owner] = append(all[a.meta.Owner], a)
		}
	}
	for _, as := range all {
		slices.SortFunc(as, func(a, b *attempt) int { return cmp.Compare(a.meta.key(), b.meta.key()) })
	}
	return all
}

// maxRenew bounds the leases of one question.
const maxRenew = 1000

// renewAt asks one owner for leases of its attempts. What gets no answer is asked again the next time; the shims stop
// what is not renewed.
func (w *worker) renewAt(ctx context.Context, site queue.SiteID, as []*attempt) {
	ctx, cancel := context.WithTimeout(ctx, w.s.cfg.Times.TTL/4)
	defer cancel()
	for chunk := range slices.Chunk(as, maxRenew) {
		q := renewal{Refs: make([]queue.Ref, len(chunk))}
		for i, a := range chunk {
			q.Refs[i] = a.meta.Ref
		}
		got, asked, err := w.renewOnce(ctx, site, q)
		if err != nil || len(got.Verdicts) != len(chunk) {
			w.s.cfg.Log.Debug("queue: renew", "site", site, "leases", len(chunk), "err", err)
			return
		}
		w.mu.Lock()
		w.voters[site] = got.Voters
		w.mu.Unlock()
		for i, a := range chunk {
			w.renewed(a, got.Verdicts[i], asked)
		}
	}
}

// renewOnce asks until somebody answers, taking the time anew before each question.
func (w *worker) renewOnce(ctx context.Context, site queue.SiteID, body renewal) (got renewed, asked exec.BootTime, err error) {
	q, err := ask(opRenew, body)
	if err != nil {
		return got, 0, err
	}
	for {
		asked = w.s.cfg.Boot()
		a, err := w.s.askLeader(ctx, site, q, 0)
		if err == nil && (a.Err == nil || a.Err.Code != notLeader) {
			return got, asked, a.unpack(&got)
		}
		select {
		case <-ctx.Done():
			return got, asked, errors.Join(err, context.Cause(ctx))
		case <-time.After(w.s.cfg.RetryAfter):
		}
	}
}

// renewed acts on the owner's word about one attempt.
func (w *worker) renewed(a *attempt, v verdict, asked exec.BootTime) {
	w.mu.Lock()
	if a.ended {
		w.mu.Unlock()
		return
	}
	if v == leaseGone || v == leaseDoomed {
		a.doomed = true
	}
	until := asked.Add(w.s.cfg.Times.TTL)
	if v != leaseGone && until > a.until {
		a.until = until
	}
	until = a.until
	started := a.started
	w.mu.Unlock()
	if !started {
		return // it starts with the lease it has then, or not at all
	}
	var err error
	switch v {
	case leaseOK:
		err = w.s.cfg.Executor.Renew(a.meta.key(), until)
	case leaseDoomed:
		err = w.s.cfg.Executor.Kill(a.meta.key(), "cancelled")
	case leaseGone:
		err = w.s.cfg.Executor.Kill(a.meta.key(), "its lease was lost")
	}
	if err != nil && !errors.Is(err, exec.ErrUnknown) {
		w.s.cfg.Log.Warn("queue: lease", "attempt", a.meta.key(), "err", err)
	}
}
