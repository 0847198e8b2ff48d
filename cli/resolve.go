package cli

import (
	"context"

	"vcpeer/cli/parse"
	"vcpeer/peer/api"
)

// resolve turns what people type (42, 42.kyoto, 42.kyoto[7], last) into a job's ID and a task, nil for the whole job.
func (e *env) resolve(ctx context.Context, c *api.Client, typed string) (id string, task *int, err error) {
	sel, err := parse.Select(typed)
	if err != nil {
		return "", nil, usage("vcpeer jobs -a lists your jobs", "%v", err)
	}
	if !sel.Last {
		return sel.ID(), sel.Task, nil
	}
	l, err := c.Jobs(ctx, api.JobsAsk{All: true, Limit: 1})
	if err != nil {
		return "", nil, err
	}
	if len(l.Items) == 0 {
		return "", nil, &api.Problem{Code: api.CodeNotFound, Message: "there is no last job: you have submitted none", Hint: "vcpeer submit job.sh"}
	}
	newest := l.Items[0]
	for _, j := range l.Items {
		if j.Submitted.After(newest.Submitted) {
			newest = j
		}
	}
	return newest.ID, sel.Task, nil
}
