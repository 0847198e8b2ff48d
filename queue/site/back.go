package site

import (
	"context"
	"time"

	"vcpeer/crdt"
	"vcpeer/queue"
)

// bringBack brings the results of the jobs submitted on this node into their directories, until ctx is over. A job's
// owner is always the site where it was submitted, so only its leader is asked; the question is parked there.
func (s *Service) bringBack(ctx context.Context) {
	pause := s.cfg.RetryAfter
	for ctx.Err() == nil {
		var got owedList
		err := s.askSite(ctx, s.cfg.Site, opOwed, owed{s.cfg.ClaimWait.Milliseconds()}, &got, s.cfg.ClaimWait)
		stuck := err != nil
		for _, j := range got.Jobs {
			if !s.bringJob(ctx, j) {
				stuck = true
			}
		}
		if !stuck {
			pause = s.cfg.RetryAfter
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, 64*s.cfg.RetryAfter)
	}
}

// bringJob brings the owed results of one job and reports whether all are settled.
func (s *Service) bringJob(ctx context.Context, j owedJob) bool {
	all := true
	byProblem := map[string][]int{}
	for _, t := range j.Tasks {
		problem, err := s.bringTask(ctx, j, t)
		if err != nil {
			s.cfg.Log.Warn("queue: bring back results", "job", j.Job, "task", t.Index, "err", err)
			all = false
			continue
		}
		byProblem[problem] = append(byProblem[problem], t.Index)
	}
	for problem, tasks := range byProblem {
		if problem != "" {
			s.cfg.Log.Warn("queue: results cannot be brought back", "job", j.Job, "tasks", len(tasks), "problem", problem)
		}
		c := queue.Returned{Job: j.Job, Tasks: tasks, Problem: problem}
		if err := s.askSite(ctx, s.cfg.Site, opBack, c, &queue.Result{}, 0); err != nil {
			all = false
		}
	}
	return all
}

func (s *Service) bringTask(ctx context.Context, j owedJob, t queue.TaskView) (problem string, err error) {
	from := append([]crdt.NodeID{t.Node}, j.Voters...)
	c := queue.Complete{Stdout: t.Stdout, Stderr: t.Stderr, Outputs: t.Outputs}
	for _, h := range resultBlobs(&c) {
		if err := s.Fetch(ctx, h, from...); err != nil {
			return "", err
		}
	}
	return s.cfg.Deliver.Deliver(ctx, Delivery{Spec: j.Spec, Job: j.Job, Task: t})
}
