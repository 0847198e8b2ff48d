package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os/exec"
	"slices"
	"sync"
	"time"

	"vcpeer/peer/api"
)

// measureSubmit times jobs that are submitted one after the other to an idle site of three voters.
func measureSubmit(ctx context.Context, b *bench) error {
	if err := b.site(ctx, 3, 4); err != nil {
		return err
	}
	client := b.Nodes[1].Client()
	var durable, started []time.Duration
	for range b.jobs {
		asked := time.Now()
		got, err := client.Submit(ctx, nullJob(b.Dir, nil))
		if err != nil {
			return err
		}
		durable = append(durable, time.Since(asked))
		job, err := ended(ctx, client, got.ID)
		if err != nil {
			return err
		}
		started = append(started, job.TaskList[0].Started.Sub(asked))
	}
	row("submit -> durable on 2 of 3 voters", "%s", spread(durable))
	row("submit -> process started", "%s", spread(started))
	return nil
}

// measureRate runs an array of null tasks beside the floor: the same number of fork+exec+wait with as many workers.
func measureRate(ctx context.Context, b *bench) error {
	if err := b.site(ctx, 1, b.slots); err != nil {
		return err
	}
	client := b.Nodes[0].Client()
	for round := range 3 {
		floor, err := forkExec(ctx, b.tasks, b.slots)
		if err != nil {
			return err
		}
		begun := time.Now()
		got, err := client.Submit(ctx, nullJob(b.Dir, &api.Range{First: 1, Last: b.tasks, Step: 1}))
		if err != nil {
			return err
		}
		for job, err := range client.Wait(ctx, got.ID) {
			if err != nil {
				return err
			}
			if job.Tasks.Ended() && job.Tasks.Done != b.tasks {
				return fmt.Errorf("%d of %d null tasks did not end well", b.tasks-job.Tasks.Done, b.tasks)
			}
		}
		took := time.Since(begun)
		row(fmt.Sprintf("null tasks/s, %d slots, round %d", b.slots, round+1), "%.0f/s; fork+exec floor %.0f/s; ratio %.2f",
			float64(b.tasks)/took.Seconds(), float64(b.tasks)/floor.Seconds(), floor.Seconds()/took.Seconds())
	}
	return nil
}

func nullJob(dir string, array *api.Range) api.Submit {
	return api.Submit{
		Key: rand.Text(), Name: "null", Argv: []string{"/bin/true"}, Slots: 1, Array: array, Dir: dir, Retries: 2,
		Stdout: "/dev/null", Stderr: "/dev/null",
	}
}

func ended(ctx context.Context, client *api.Client, id string) (*api.JobDetail, error) {
	for _, err := range client.Wait(ctx, id) {
		if err != nil {
			return nil, err
		}
	}
	job, err := client.Job(ctx, id)
	if err != nil {
		return nil, err
	}
	if job.State != api.StateDone || len(job.TaskList) == 0 {
		return nil, fmt.Errorf("job %s is %s", id, job.State)
	}
	return job, nil
}

// forkExec runs n times /bin/true with the given number of workers.
func forkExec(ctx context.Context, n, workers int) (time.Duration, error) {
	begun := time.Now()
	work := make(chan struct{}, n)
	for range n {
		work <- struct{}{}
	}
	close(work)
	var wg sync.WaitGroup
	errs := make(chan error, workers)
	for range workers {
		wg.Go(func() {
			for range work {
				if err := exec.CommandContext(ctx, "/bin/true").Run(); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return time.Since(begun), <-errs
}

// spread shows the middle and the tail of durations.
func spread(d []time.Duration) string {
	slices.Sort(d)
	at := func(q float64) time.Duration {
		return d[min(len(d)-1, int(q*float64(len(d))))].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("p50 %v, p90 %v, p99 %v, max %v (n=%d)", at(0.5), at(0.9), at(0.99), at(1), len(d))
}
