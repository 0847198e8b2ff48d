package sge

import (
	"context"
	"fmt"
	"path"
	"strings"

	"vcpeer/cli/parse"
	"vcpeer/peer/api"
)

// deletion is what a qdel command line asks.
type deletion struct {
	users []string
	tasks *api.Range // -t, for all jobs named
}

func badQdel(word string) error {
	return &refusal{fmt.Sprintf("qdel: invalid option argument %q", word), 1}
}

func qdelOptions() []option[deletion] {
	return []option[deletion]{
		{"-f", 0, func(*deletion, []string) error { return nil }}, // nothing here holds a deletion up, so there is nothing to force
		{"-u", 1, func(d *deletion, a []string) error {
			d.users = append(d.users, strings.Split(a[0], ",")...)
			return nil
		}},
		{"-t", 1, func(d *deletion, a []string) error {
			r, err := parse.Range(a[0])
			if err != nil {
				return badQdel("-t " + a[0])
			}
			d.tasks = &r
			return nil
		}},
	}
}

// qdel says on standard output what became of each job and leaves with 1 if one was not there. Options may stand
// before and after jobs.
func qdel(ctx context.Context, e *Env, args []string) int {
	d := new(deletion)
	var jobs []string
	for len(args) > 0 {
		rest, err := scan(qdelOptions(), d, args, badQdel)
		if err != nil {
			return e.failStat(err)
		}
		if args = rest; len(args) > 0 {
			jobs = append(jobs, strings.Split(args[0], ",")...)
			args = args[1:]
		}
	}
	if len(jobs) == 0 && len(d.users) == 0 {
		fmt.Fprintln(e.Err, "qdel: no jobs and no users were named")
		return 1
	}
	code := 0
	for _, user := range d.users {
		of, err := e.jobsOf(ctx, api.JobsAsk{Site: ".", User: user}, "*")
		if err != nil {
			return e.failStat(err)
		}
		if len(of) == 0 {
			fmt.Fprintf(e.Out, "denied: there are no jobs of user %q\n", user)
			code = 1
		}
		jobs = append(jobs, of...)
	}
	for _, j := range jobs {
		code = max(code, e.delete(ctx, j, d.tasks))
	}
	return code
}

// jobsOf lists the numbers of live jobs whose name fits a pattern.
func (e *Env) jobsOf(ctx context.Context, ask api.JobsAsk, pattern string) ([]string, error) {
	l, err := e.Node.Jobs(ctx, ask)
	if err != nil {
		return nil, err
	}
	var numbers []string
	for _, j := range l.Items {
		if ok, _ := path.Match(pattern, j.Name); ok && !j.Tasks.Ended() {
			numbers = append(numbers, fmt.Sprint(j.Seq))
		}
	}
	return numbers, nil
}

// delete ends one job: 12, 12.3, 12.3-9:2, or all whose name fits a pattern.
func (e *Env) delete(ctx context.Context, word string, tasks *api.Range) int {
	number, span, some := strings.Cut(word, ".")
	sel, err := parse.Select(number)
	if err != nil || sel.Last {
		return e.deleteNamed(ctx, word, tasks)
	}
	if some {
		r, err := parse.Range(span)
		if err != nil {
			return e.failStat(badQdel(word))
		}
		tasks = &r
	}
	if tasks == nil {
		return e.deleteOne(ctx, number, nil)
	}
	code := 0
	for t := tasks.First; t <= tasks.Last; t += tasks.Step {
		code = max(code, e.deleteOne(ctx, number, &t))
	}
	return code
}

func (e *Env) deleteNamed(ctx context.Context, pattern string, tasks *api.Range) int {
	numbers, err := e.jobsOf(ctx, api.JobsAsk{Site: "."}, pattern)
	if err != nil {
		return e.failStat(err)
	}
	if len(numbers) == 0 {
		fmt.Fprintf(e.Out, "denied: job \"%s\" does not exist\n", pattern)
		return 1
	}
	code := 0
	for _, n := range numbers {
		code = max(code, e.delete(ctx, n, tasks))
	}
	return code
}

func (e *Env) deleteOne(ctx context.Context, number string, task *int) int {
	c, err := e.Node.Cancel(ctx, number, task)
	if isNotFound(err) || (err == nil && c.Pending == 0 && c.Running == 0) {
		fmt.Fprintf(e.Out, "denied: job \"%s\" does not exist\n", taskName(number, task))
		return 1
	}
	if err != nil {
		return e.failStat(err)
	}
	switch {
	case task != nil && c.Running > 0:
		fmt.Fprintf(e.Out, "%s has registered the job-array task %s for deletion\n", e.User, taskName(number, task))
	case task != nil:
		fmt.Fprintf(e.Out, "%s has deleted job-array task %s\n", e.User, taskName(number, task))
	case c.Running > 0:
		fmt.Fprintf(e.Out, "%s has registered the job %s for deletion\n", e.User, number)
	default:
		fmt.Fprintf(e.Out, "%s has deleted job %s\n", e.User, number)
	}
	return 0
}

func taskName(number string, task *int) string {
	if task == nil {
		return number
	}
	return fmt.Sprintf("%s.%d", number, *task)
}
