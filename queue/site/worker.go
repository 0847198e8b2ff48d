package site

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"vcpeer/crdt"
	"vcpeer/queue"
	"vcpeer/queue/exec"
)

// worker gives this node's slots to tasks. Its state is behind a lock, since claims, starts, renewals and reports each
// wait for the network in goroutines of their own.
type worker struct {
	s *Service

	mu       sync.Mutex
	attempts map[string]*attempt // by key: from the moment they are granted until their end is acknowledged
	slots    int                 // free
	mem      int64
	draining bool
	claims   claimState
	voters   map[queue.SiteID][]crdt.NodeID // of owners, as last heard

	confirming bool // a renewal for what has just started is due

	offer chan struct{} // more is free: claim
	renew chan struct{} // renew now
	tasks sync.WaitGroup
}

// claimState numbers the claims of this daemon.
type claimState struct {
	life  uint64 // of this daemon: the boot clock when it started, so a later one has a higher
	last  uint64
	known uint64 // the newest whose answer has been taken
	open  int    // under way
	again bool   // more became free while maxClaims were under way
}

// attempt is one that was granted to this node.
type attempt struct {
	meta    attemptMeta
	until   exec.BootTime // the lease as last granted
	started bool          // the executor has it
	ended   bool          // its slots are free again
	doomed  bool          // told to stop
}

// attemptMeta is what the executor keeps for us, over restarts.
type attemptMeta struct {
	Owner  queue.SiteID  `cbor:"1,keyasint"`
	Ref    queue.Ref     `cbor:"2,keyasint"`
	Slots  int           `cbor:"3,keyasint"`
	Mem    int64         `cbor:"4,keyasint"`
	Submit crdt.NodeID   `cbor:"5,keyasint"` // where it was submitted
	Voters []crdt.NodeID `cbor:"6,keyasint"` // of the owner at the grant
	Doomed bool          `cbor:"7,keyasint,omitempty"`
}

// key names the attempt for the executor: unique over all sites.
func (m attemptMeta) key() string {
	return m.Ref.String() + "." + keySafe(m.Owner)
}

// keySafe makes a site ID fit for a file name without making two of them equal.
func keySafe(id queue.SiteID) string {
	safe := make([]byte, 0, len(id))
	for _, c := range []byte(id) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' {
			safe = append(safe, c)
		} else {
			safe = fmt.Appendf(safe, "_%02x", c)
		}
	}
	return string(safe)
}

func newWorker(s *Service) *worker {
	return &worker{s: s, attempts: map[string]*attempt{}, slots: s.cfg.Slots, mem: s.cfg.MemBytes,
		claims: claimState{life: uint64(s.cfg.Boot())}, voters: map[queue.SiteID][]crdt.NodeID{},
		offer: make(chan struct{}, 1), renew: make(chan struct{}, 1)}
}

// run adopts what the executor still runs, then claims, renews and reports until ctx is over.
func (w *worker) run(ctx context.Context) {
	w.adopt()
	w.offerSoon()
	w.tasks.Go(func() { w.renewLoop(ctx) })
	for {
		select {
		case <-ctx.Done():
			w.tasks.Wait()
			return
		case <-w.offer:
			w.claim(ctx)
		case r := <-w.s.cfg.Executor.Results():
			w.ended(ctx, r)
		}
	}
}

// adopt takes over the attempts of an earlier daemon. Their leases are as the shims know them.
func (w *worker) adopt() {
	for _, r := range w.s.cfg.Executor.Running() {
		a := w.remember(r.Meta, r.Key)
		if a == nil {
			continue
		}
		w.mu.Lock()
		a.started, a.until = true, r.Until
		w.mu.Unlock()
	}
	w.poke()
}

// remember returns the attempt of a key, made from its meta if this daemon does not know it; nil if that is not ours.
func (w *worker) remember(meta []byte, key string) *attempt {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a := w.attempts[key]; a != nil {
		return a
	}
	var m attemptMeta
	if err := unmarshal(meta, &m); err != nil || m.key() != key {
		w.s.cfg.Log.Error("queue: the executor has an attempt that is none of the queue's", "key", key, "err", err)
		return nil
	}
	a := &attempt{meta: m, started: true}
	w.take(a)
	return a
}

// take reserves an attempt's slots; w.mu is held. After a restart with fewer slots there may be less than nothing free.
func (w *worker) take(a *attempt) {
	w.attempts[a.meta.key()] = a
	w.slots -= a.meta.Slots
	w.mem -= a.meta.Mem
}

// give frees the slots of an attempt, once; w.mu is held.
func (w *worker) give(a *attempt) {
	if a.ended {
		return
	}
	a.ended = true
	w.slots += a.meta.Slots
	w.mem += a.meta.Mem
	w.offerSoon()
	w.s.publishSoon()
}

func (w *worker) free() (slots int, mem int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.draining {
		return 0, 0
	}
	return max(0, w.slots), max(0, w.mem)
}

func (w *worker) offerSoon() {
	select {
	case w.offer <- struct{}{}:
	default:
	}
}

// poke has all leases renewed now: one is new, or something is to be stopped.
func (w *worker) poke() {
	select {
	case w.renew <- struct{}{}:
	default:
	}
}

// confirmAfter is how long after a start its first renewal may come: one for all that started meanwhile, none for what
// has ended by then. Until then an attempt that vanishes counts as one that was never heard of.
const confirmAfter = 500 * time.Millisecond

// confirmSoon has the attempts that have started confirmed by a renewal.
func (w *worker) confirmSoon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.confirming {
		return
	}
	w.confirming = true
	time.AfterFunc(confirmAfter, func() {
		w.mu.Lock()
		w.confirming = false
		w.mu.Unlock()
		w.poke()
	})
}

// maxClaims is how many claims may be under way at once: each says how much is free in all, the newest counts.
const maxClaims = 3

// claim asks this site's leader for work for what is free.
func (w *worker) claim(ctx context.Context) {
	w.mu.Lock()
	if w.draining || w.slots <= 0 || w.claims.open >= maxClaims {
		w.claims.again = w.claims.open >= maxClaims
		w.mu.Unlock()
		return
	}
	w.claims.open++
	w.claims.last++
	c := claim{ID: w.claims.last, Known: w.claims.known, Life: w.claims.life, Slots: w.slots, MemBytes: max(0, w.mem),
		WaitMS: w.s.cfg.ClaimWait.Milliseconds(), AllSlots: w.s.cfg.Slots, AllMemBytes: w.s.cfg.MemBytes}
	w.mu.Unlock()
	w.tasks.Go(func() { w.claimed(ctx, c) })
}

// claimed waits for the answer to a claim, starts what was granted, and claims again if something is free.
func (w *worker) claimed(ctx context.Context, c claim) {
	asked := w.s.cfg.Boot()
	var got grantedList
	q, err := ask(opClaim, c)
	a := answer{}
	if err == nil {
		// Not askSite: a claim that is asked again must carry a fresh time and what is free then.
		a, err = w.s.askLeader(ctx, w.s.cfg.Site, q, w.s.cfg.ClaimWait)
	}
	if err == nil {
		err = a.unpack(&got)
	}
	for _, g := range got.Grants {
		w.granted(ctx, g, asked)
	}
	w.mu.Lock()
	w.claims.known = max(w.claims.known, c.ID) // only now are the slots of the grants no longer counted as free
	w.claims.open--
	again := c.ID == w.claims.last || w.claims.again
	w.claims.again = false
	w.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		w.s.cfg.Log.Debug("queue: claim", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(2 * w.s.cfg.RetryAfter):
		}
	}
	if again || len(got.Grants) > 0 || err != nil {
		w.offerSoon()
	}
}

// granted takes an attempt that was granted to this node, unless its first lease is over before it begins or there is no
// room for it: then it is given back, and if that does not get through its owner gives it out again after a while.
func (w *worker) granted(ctx context.Context, g granted, asked exec.BootTime) {
	if g.Node != w.s.cfg.Self || g.Spec.Slots < 0 || g.Spec.MemBytes < 0 {
		w.s.cfg.Log.Error("queue: a grant for another node", "attempt", g.Ref.String(), "node", g.Node.Short())
		return
	}
	until := exec.BootTime(queue.GrantedUntil(time.Duration(asked), g.Held, w.s.cfg.Times.First))
	a := &attempt{until: until, meta: attemptMeta{Owner: g.Owner, Ref: g.Ref, Slots: g.Spec.Slots, Mem: g.Spec.MemBytes,
		Submit: g.Spec.Node, Voters: g.Voters}}
	w.mu.Lock()
	known := w.attempts[a.meta.key()] != nil
	late := w.draining || w.s.cfg.Boot() >= until
	// A leader that has just been elected does not know what an earlier one gave to the claim before.
	late = late || a.meta.Slots > w.slots || a.meta.Mem > max(0, w.mem)
	if !known && !late {
		w.take(a)
		w.voters[g.Owner] = g.Voters
	}
	w.mu.Unlock()
	switch {
	case known:
	case late:
		w.tasks.Go(func() {
			w.send(ctx, a, report{Release: &queue.Release{Ref: g.Ref, Reason: "not started: the grant came too late, or the node had no room"}})
		})
	default:
		w.tasks.Go(func() { w.start(ctx, a, g) })
	}
}

// start gets the attempt's blobs and starts it.
func (w *worker) start(ctx context.Context, a *attempt, g granted) {
	release, complete := w.begin(ctx, a, g)
	if release == nil && complete == nil {
		w.s.publishSoon()
		w.confirmSoon()
		return
	}
	w.send(ctx, a, report{Release: release, Complete: complete})
	if release != nil && release.Failed {
		// Something is wrong here. Keeping the slots for a moment lets another node try it.
		select {
		case <-ctx.Done():
		case <-time.After(16 * w.s.cfg.RetryAfter):
		}
	}
	w.drop(a)
}

// begin starts the attempt, or says how to give it back: as failed for good if it can run nowhere, else to be tried
// elsewhere.
func (w *worker) begin(ctx context.Context, a *attempt, g granted) (*queue.Release, *queue.Complete) {
	release := func(reason string, failed bool) (*queue.Release, *queue.Complete) {
		return &queue.Release{Ref: g.Ref, Reason: reason, Failed: failed}, nil
	}
	if err := w.fetch(ctx, g); err != nil {
		return release("cannot get the job's files: "+err.Error(), ctx.Err() == nil)
	}
	account, err := w.s.cfg.Account(ctx, g.Spec.Account)
	if err != nil {
		return release(fmt.Sprintf("user %s cannot run here: %v", g.Spec.User, err), true)
	}
	spec, err := attemptSpec(a.meta, g, account, w.place())
	if err != nil {
		return release(err.Error(), true)
	}
	w.mu.Lock()
	until, doomed := a.until, a.doomed
	if doomed {
		w.mu.Unlock()
		return release("stopped before it started", false)
	}
	spec.Asked = until.Add(-w.s.cfg.Times.TTL)
	a.started = true
	w.mu.Unlock()
	err = w.s.cfg.Executor.Start(ctx, spec, w.s.cfg.Times.TTL)
	switch {
	case err == nil || errors.Is(err, exec.ErrStarted):
		return nil, nil
	case errors.Is(err, exec.ErrSpec):
		now := time.Now().UnixNano()
		return nil, &queue.Complete{Ref: g.Ref, Exit: 126, Reason: err.Error(), Started: now, Ended: now}
	case errors.Is(err, exec.ErrLease), errors.Is(err, exec.ErrClosed):
		return release(err.Error(), false)
	}
	return release(err.Error(), true)
}

// place names where the attempts of this node run.
func (w *worker) place() place {
	return place{site: w.s.siteName(w.s.cfg.Site), node: w.s.cfg.Host, env: w.s.cfg.Environ()}
}

// fetch brings the script and the inputs of a job into this node's store.
func (w *worker) fetch(ctx context.Context, g granted) error {
	from := append(append([]crdt.NodeID(nil), g.Voters...), g.Spec.Node)
	for _, h := range jobBlobs(&g.Spec) {
		if w.s.cfg.Blobs.Has(h) {
			continue
		}
		w.poke() // this may take longer than the first lease
		if err := w.s.cfg.Blobs.Fetch(ctx, h, w.s.others(from)...); err != nil {
			return err
		}
	}
	return nil
}

// ended frees the slots of an attempt that has ended, and reports how.
func (w *worker) ended(ctx context.Context, r exec.Result) {
	a := w.remember(r.Meta, r.Key)
	if a == nil {
		return
	}
	w.mu.Lock()
	w.give(a)
	doomed := a.doomed
	w.mu.Unlock()
	w.tasks.Go(func() { w.conclude(ctx, a, r, doomed) })
}

// drop forgets an attempt whose end is acknowledged.
func (w *worker) drop(a *attempt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.give(a)
	delete(w.attempts, a.meta.key())
}

// drain takes no more work and waits for the starts under way.
func (w *worker) drain(ctx context.Context) error {
	w.mu.Lock()
	w.draining = true
	w.mu.Unlock()
	w.s.publishSoon()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		w.mu.Lock()
		starting := 0
		for _, a := range w.attempts {
			if !a.started && !a.ended {
				starting++
			}
		}
		w.mu.Unlock()
		if starting == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("queue/site: drain: %d attempts are still being started: %w", starting, context.Cause(ctx))
		}
	}
}
