package site

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"vcpeer/crdt"
	"vcpeer/queue"
)

// Submit makes a job of this site. The script and the inputs must be in this node's blob store; they are copied to a
// majority of the site's voters first. When it returns without an error the job is on the disks of a majority. The
// error is a *queue.Error; with the same spec.Key it may be asked again.
func (s *Service) Submit(ctx context.Context, spec queue.Spec) (queue.Seq, error) {
	spec.Node = s.cfg.Self
	spec = spec.Normal()
	if err := queue.Admit(&spec, s.view()); err != nil {
		return 0, err
	}
	blobs := jobBlobs(&spec)
	for _, h := range blobs {
		if !s.cfg.Blobs.Has(h) {
			return 0, &queue.Error{Code: queue.Invalid, Text: fmt.Sprintf("file with hash %.12s… is not in this node's store", h)}
		}
	}
	if len(blobs) > 0 {
		who, _, err := s.renewVoters(ctx, s.cfg.Site)
		if err != nil {
			return 0, s.unreached(ctx, s.cfg.Site, err)
		}
		if err := s.spread(ctx, blobs, who.Voters, crdt.NodeID{}); err != nil {
			return 0, &queue.Error{Code: queue.Unavailable, Text: "the job's files could not be copied to the site's voters: " + err.Error()}
		}
	}
	var r queue.Result
	for {
		err := s.askSite(ctx, s.cfg.Site, opSubmit, queue.Submit{Spec: spec}, &r, 0)
		if err == nil {
			return r.Job, nil
		}
		if !errors.Is(err, queue.Unavailable) || ctx.Err() != nil {
			return 0, err
		}
		// The leader went away with it. The same key makes it the same job.
		select {
		case <-ctx.Done():
			return 0, err
		case <-time.After(s.cfg.RetryAfter):
		}
	}
}

// Resolve finds the site that a job ID means.
func (s *Service) Resolve(id queue.JobID) (queue.SiteID, error) {
	if id.Site == "" {
		return s.cfg.Site, nil
	}
	site, ok := s.cfg.Directory.SiteByName(id.Site)
	if !ok {
		return "", &queue.Error{Code: queue.NotFound, Text: fmt.Sprintf("site %q is not known", id.Site), Hint: "see `vcpeer sites`"}
	}
	return site, nil
}

// SiteJobs is what one site says; Err is a *queue.Error if it does not answer.
type SiteJobs struct {
	Site queue.SiteID
	Jobs []queue.JobView
	Err  error
}

// List returns the jobs of sites (all known if none are named): of a user, or of all users if empty; only those that have
// not ended if open; of each site at most limit of the newest (0: 2000). Sites that do not answer say so. Env, Inputs and
// most of Argv are left out.
func (s *Service) List(ctx context.Context, sites []queue.SiteID, user string, open bool, limit int) []SiteJobs {
	if len(sites) == 0 {
		sites = s.sites()
	}
	all := make([]SiteJobs, len(sites))
	var wg sync.WaitGroup
	for i, site := range sites {
		wg.Go(func() {
			var got jobList
			err := s.askSite(ctx, site, opList, list{user, open, limit}, &got, 0)
			all[i] = SiteJobs{site, got.Jobs, err}
		})
	}
	wg.Wait()
	return all
}

// sites returns the sites with nodes, this one first.
func (s *Service) sites() []queue.SiteID {
	var all []queue.SiteID
	for _, n := range s.cfg.Directory.Nodes() {
		if n.Site != s.cfg.Site && n.Site != "" {
			all = append(all, n.Site)
		}
	}
	slices.Sort(all)
	return append([]queue.SiteID{s.cfg.Site}, slices.Compact(all)...)
}

// Get returns a job with its tasks that were started, from index from on, at most limit (0: 2000).
func (s *Service) Get(ctx context.Context, id queue.JobID, from, limit int) (queue.JobView, []queue.TaskView, error) {
	site, err := s.Resolve(id)
	if err != nil {
		return queue.JobView{}, nil, err
	}
	var got jobDetail
	err = s.askSite(ctx, site, opGet, get{id.Seq, from, limit}, &got, 0)
	return got.Job, got.Tasks, err
}

// Why explains what a job waits for, or how it ended.
func (s *Service) Why(ctx context.Context, id queue.JobID) (queue.Why, error) {
	site, err := s.Resolve(id)
	if err != nil {
		return queue.Why{}, err
	}
	var w queue.Why
	return w, s.askSite(ctx, site, opWhy, get{Job: id.Seq}, &w, 0)
}

// Cancel ends a job, or the task that id names, for a user and his account; admin may cancel the jobs of others. It returns how many
// tasks were waiting and are gone now, and how many are being stopped.
func (s *Service) Cancel(ctx context.Context, id queue.JobID, by, account string, admin bool) (pending, running int, err error) {
	site, err := s.Resolve(id)
	if err != nil {
		return 0, 0, err
	}
	c := cancel{Job: id.Seq, By: by, ByID: account, Admin: admin}
	if id.Task != nil {
		c.Tasks = &queue.Range{First: *id.Task, Last: *id.Task, Step: 1}
	}
	var r queue.Result
	err = s.askSite(ctx, site, opCancel, c, &r, 0)
	return r.Pending, r.Running, err
}

// Wait calls each with the job as it is now, and whenever it has changed, until it has ended and its results are back
// in the submit directory, or each or ctx says stop. A site that does not answer for a while is waited for.
func (s *Service) Wait(ctx context.Context, id queue.JobID, each func(queue.JobView) error) error {
	site, err := s.Resolve(id)
	if err != nil {
		return err
	}
	w := watch{Job: id.Seq, WaitMS: s.cfg.ClaimWait.Milliseconds()}
	for {
		var v queue.JobView
		err := s.askSite(ctx, site, opWatch, w, &v, s.cfg.ClaimWait)
		switch {
		case errors.Is(err, queue.Unavailable) && ctx.Err() == nil:
			continue
		case err != nil:
			return err
		}
		if v.Counts != w.Seen || v.Owed != w.Owed {
			if err := each(v); err != nil {
				return err
			}
		}
		if !v.Ended.IsZero() && v.Owed == 0 {
			return nil
		}
		w.Seen, w.Owed = v.Counts, v.Owed
	}
}

// Fetch brings a result's blob into this node's store: from who ran the task, from the voters of the job's site, or from
// where it was submitted.
func (s *Service) Fetch(ctx context.Context, hash string, from ...crdt.NodeID) error {
	if s.cfg.Blobs.Has(hash) {
		return nil
	}
	return s.cfg.Blobs.Fetch(ctx, hash, s.others(from)...)
}

// Open fetches and opens a result's blob.
func (s *Service) Open(ctx context.Context, hash string, from ...crdt.NodeID) (io.ReadSeekCloser, int64, error) {
	if err := s.Fetch(ctx, hash, from...); err != nil {
		return nil, 0, err
	}
	return s.cfg.Blobs.Open(hash)
}
