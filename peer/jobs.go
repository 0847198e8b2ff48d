package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"vcpeer/crdt"
	"vcpeer/peer/config"
	"vcpeer/queue"
	"vcpeer/queue/blob"
	"vcpeer/queue/exec"
	"vcpeer/queue/group"
	"vcpeer/queue/site"
)

// jobs is the queue part of a node: blobs, executor, the site's raft group and the service that joins them.
type jobs struct {
	slots    int
	memBytes int64
	blobs    *blob.Store
	exchange *blob.Exchange
	executor *exec.Executor
	group    *group.Group
	book     *site.Book
	service  *site.Service
	dir      *directory
	uploads  *uploads
}

// blobMaxAge is how long a blob that no job refers to is kept for the next job that sends the same input.
const blobMaxAge = 7 * 24 * time.Hour

// blobGCEvery is how often unneeded blobs are looked for.
const blobGCEvery = 10 * time.Minute

func (d *Daemon) startJobs(ctx context.Context, n *node) (_ *jobs, err error) {
	j := &jobs{slots: d.slots(), memBytes: memoryBytes(), dir: n.directory, uploads: newUploads()}
	n.directory.own = j.load
	dir := filepath.Join(d.cfg.State, "queue")
	if j.blobs, err = blob.Open(blob.Options{Dir: filepath.Join(dir, "blobs")}); err != nil {
		return nil, err
	}
	n.closers = append(n.closers, j.blobs.Close)
	j.exchange = blob.NewExchange(j.blobs, n.fabric, blob.Limits{})
	if j.executor, err = exec.New(exec.Config{Dir: attemptsDir(d.cfg), Blobs: j.blobs, Log: n.log}); err != nil {
		return nil, err
	}
	j.book = site.NewBook(queue.New(siteIDOf(n.site), 1))
	if err := d.openGroup(n, j, filepath.Join(dir, "raft")); err != nil {
		return nil, err
	}
	exchanged := exchangedBlobs{j.blobs, j.exchange}
	j.service, err = site.New(site.Config{
		Self: n.self, Site: siteIDOf(n.site), Host: n.place().Node, Fabric: n.fabric, Group: j.group, Book: j.book, Executor: j.executor,
		Blobs: exchanged, Directory: n.directory,
		Deliver: site.Files{Blobs: exchanged, Account: d.accountOf(n)}, Account: d.accountOf(n),
		Environ: func() []string { return d.jobEnviron(n) }, Slots: j.slots, MemBytes: j.memBytes, Log: n.log,
	})
	if err != nil {
		return nil, errors.Join(err, j.group.Close())
	}
	n.serveTails(j.executor)
	n.tasks.Go(func() { n.fail("executor", j.executor.Run(ctx)) })
	n.tasks.Go(func() { n.fail("queue log", j.group.Run(ctx)) })
	n.tasks.Go(func() { n.fail("queue", j.service.Run(ctx)) })
	n.tasks.Go(func() { j.collect(ctx, n) })
	return j, nil
}

// openGroup opens this node's member of its site's raft group, and founds the group if this node has just made the site.
// The marker outlives the log: a founder whose log was wiped must not found a second group beside the one that lives on
// its other voters.
func (d *Daemon) openGroup(n *node, j *jobs, dir string) (err error) {
	marker := filepath.Join(d.cfg.State, "founded-"+n.site.String())
	_, markErr := os.Stat(marker)
	view := n.replica.View()
	s, _ := view.Site(n.site)
	found := s.Founder == n.self && errors.Is(markErr, os.ErrNotExist)
	j.group, err = group.Open(group.Config{
		Dir: dir, Self: n.self, Site: n.site.String(), Fabric: n.fabric, Machine: j.book, Peers: n.candidates, Log: n.log,
	})
	if err != nil {
		return err
	}
	if !found {
		return nil
	}
	if err := j.group.Found(); err != nil && !errors.Is(err, group.ErrExists) {
		return errors.Join(err, j.group.Close())
	}
	if err := mark(marker, n.site.String()+"\n"); err != nil {
		return errors.Join(err, j.group.Close())
	}
	n.events.Add("queue.founded", fmt.Sprintf("this node founded the queue of site %s", s.Name), "site", s.Name)
	return nil
}

// candidates are the nodes of this site, for the raft group to grow over.
func (n *node) candidates() []group.Candidate {
	view := n.replica.View()
	alive := n.directory.alive()
	var out []group.Candidate
	for _, h := range view.Hosts() {
		if h.Site == n.site {
			out = append(out, group.Candidate{ID: h.ID, Alive: alive[h.ID], Gone: h.Standing != crdt.Joined})
		}
	}
	for _, m := range view.Members() {
		if m.Standing == crdt.Evicted {
			out = append(out, group.Candidate{ID: m.ID, Gone: true})
		}
	}
	return out
}

// slots is what this node offers to jobs.
func (d *Daemon) slots() int {
	switch d.cfg.Slots {
	case 0:
		return runtime.NumCPU()
	case -1:
		return 0
	}
	return d.cfg.Slots
}

// attemptsDir is where jobs work. Accounts have to reach their own directory in it, so it is not below the state
// directory, which is closed to them.
func attemptsDir(cfg config.Config) string {
	if cfg.JobsAs == config.JobsAsAccount && os.Geteuid() == 0 {
		return filepath.Join(filepath.Dir(cfg.State), "vcpeer-jobs")
	}
	return filepath.Join(cfg.State, "jobs")
}

// load completes what the queue publishes of this node.
func (j *jobs) load(l site.Load) load {
	out := load{Queue: l, Slots: j.slots, MemBytes: j.memBytes, Running: len(j.executor.Running())}
	if l.Leads {
		out.Voters = len(j.group.Status().Voters)
	}
	return out
}

// drain takes no new work and hands leadership over, if it is ours, so that the site goes on without a pause.
func (j *jobs) drain(ctx context.Context) error {
	err := j.service.Drain(ctx)
	if j.group.Status().Role == group.RoleLeader {
		if moved := j.group.Transfer(ctx); moved != nil && !errors.Is(moved, group.ErrNoHeir) {
			err = errors.Join(err, moved)
		}
	}
	return err
}

// collect removes blobs that no job of this site refers to any more.
func (j *jobs) collect(ctx context.Context, n *node) {
	tick := time.NewTicker(blobGCEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		needed := make(map[string]bool)
		j.book.Read(func(m *queue.Machine) {
			for h := range m.Blobs() {
				needed[h] = true
			}
		})
		policy := blob.Policy{Keep: func(h string) bool { return needed[h] }, MaxAge: blobMaxAge}
		if got, err := j.blobs.GC(ctx, policy, time.Now()); err != nil {
			n.log.Warn("blobs were not collected", "err", err)
		} else if got.Removed > 0 {
			n.log.Info("removed blobs that nothing needs", "blobs", got.Removed, "bytes", got.Freed)
		}
	}
}

// exchangedBlobs is the store together with its exchange, as the queue uses them.
type exchangedBlobs struct {
	*blob.Store
	*blob.Exchange
}

// accountOf resolves the owner of a job, by the ID of his account, to whom it runs as: nil for the daemon's own user.
func (d *Daemon) accountOf(n *node) func(context.Context, string) (*exec.Account, error) {
	if d.cfg.JobsAs == config.JobsAsSelf {
		return func(context.Context, string) (*exec.Account, error) { return nil, nil }
	}
	return func(_ context.Context, text string) (*exec.Account, error) {
		view := n.replica.View()
		id, err := crdt.ParseAccountID(text)
		if err != nil || text == "" {
			return nil, errors.New("the job belongs to no account, and this node runs jobs as accounts only")
		}
		a, ok := view.Account(id)
		switch {
		case !ok:
			return nil, fmt.Errorf("account %s is not known here yet", id)
		case a.Disabled:
			return nil, fmt.Errorf("account %s is not in force: %s", a.Name, a.Why)
		}
		out := &exec.Account{Name: a.Name, UID: a.UID, GID: a.UID, Home: a.Home, Shell: a.Shell}
		for _, id := range a.Groups {
			if g, ok := view.Group(id); ok && !g.Disabled {
				out.Groups = append(out.Groups, g.GID)
			}
		}
		return out, nil
	}
}
