package sge

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"vcpeer/peer/api"
)

// question is what a qstat command line asks.
type question struct {
	users              []string // patterns of owners; none: the caller's
	jobs               []string // -j: numbers or patterns of names
	full, xml, need    bool     // -f, -xml, -r
	byTask             bool     // -g d
	running, pending   bool     // -s
	held, states, some bool     // held: only held ones; states: -s was given; some: -j was given
}

func qstatOptions() []option[question] {
	return []option[question]{
		{"-u", 1, func(q *question, a []string) error {
			q.users = append(q.users, strings.Split(a[0], ",")...)
			return nil
		}},
		{"-j", 1, func(q *question, a []string) error { q.jobs, q.some = strings.Split(a[0], ","), true; return nil }},
		{"-f", 0, func(q *question, _ []string) error { q.full = true; return nil }},
		{"-r", 0, func(q *question, _ []string) error { q.need = true; return nil }},
		{"-xml", 0, func(q *question, _ []string) error { q.xml = true; return nil }},
		{"-ne", 0, func(*question, []string) error { return nil }},
		{"-s", 1, setStates},
		{"-g", 1, func(q *question, a []string) error {
			switch a[0] {
			case "d":
				q.byTask = true
			case "t":
			default:
				return badQstat("-g " + a[0])
			}
			return nil
		}},
		{"-q", 1, func(_ *question, a []string) error {
			if ok, err := path.Match(strings.SplitN(a[0], "@", 2)[0], "main.q"); err == nil && ok {
				return nil
			}
			return &refusal{fmt.Sprintf("error: no such queue %q", a[0]), 1}
		}},
	}
}

func badQstat(word string) error {
	return &refusal{fmt.Sprintf("qstat: invalid option argument %q", word), 1}
}

// setStates reads the letters of -s.
func setStates(q *question, a []string) error {
	q.states = true
	for _, c := range a[0] {
		switch c {
		case 'p':
			q.pending = true
		case 'r':
			q.running = true
		case 'h':
			q.held = true
		case 'a':
			q.pending, q.running = true, true
		case 's', 'u', 'o', 'd', 'j', 'S': // suspended and other holds: never any here
		default:
			return badQstat("-s " + a[0])
		}
	}
	return nil
}

func qstat(ctx context.Context, e *Env, args []string) int {
	q := new(question)
	rest, err := scan(qstatOptions(), q, args, badQstat)
	if err == nil && len(rest) > 0 {
		err = badQstat(rest[0])
	}
	if err == nil && q.some {
		return e.qstatJobs(ctx, q)
	}
	if err != nil {
		return e.failStat(err)
	}
	if !q.states {
		q.pending, q.running = true, true
	}
	rows, err := e.rows(ctx, q)
	if err != nil {
		return e.failStat(err)
	}
	switch {
	case q.full || q.xml:
		hosts, err := e.Node.Hosts(ctx)
		if err != nil {
			return e.failStat(err)
		}
		if q.xml {
			err = writeXML(e.Out, rows, hosts.Items, q.full)
		} else {
			err = writeFull(e.Out, rows, hosts.Items, q.need)
		}
		if err != nil {
			return e.failStat(err)
		}
	default:
		writePlain(e.Out, rows, q.need)
	}
	return 0
}

// failStat prints an error of qstat or qdel.
func (e *Env) failStat(err error) int {
	if r, ok := err.(*refusal); ok {
		return e.fail(r)
	}
	fmt.Fprintf(e.Err, "error: %v\n", err)
	return 1
}

// row is one line of qstat: a job, a running task, or the tasks of an array that wait.
type row struct {
	job   api.Job
	state string // as Grid Engine writes it
	node  string
	since string // MM/DD/YYYY HH:MM:SS of the start, else of submission
	iso   string // the same for XML
	tasks string
	asked *api.Submit // only with -r
}

func (r row) waits() bool { return strings.Contains(r.state, "q") }

// queue is the queue instance a task runs in.
func (r row) queue() string {
	if r.node == "" {
		return ""
	}
	return "main.q@" + r.node
}

// prior is Grid Engine's priority: held jobs have none, and all others are equal here.
func (r row) prior() string {
	if strings.HasPrefix(r.state, "h") {
		return "0.00000"
	}
	return "0.50000"
}

// rows lists what runs, then what waits, each by number and task.
func (e *Env) rows(ctx context.Context, q *question) ([]row, error) {
	ask := api.JobsAsk{Site: "."}
	if len(q.users) > 0 {
		ask.User = "*"
	}
	l, err := e.Node.Jobs(ctx, ask)
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, j := range l.Items {
		if !q.wants(j, l.SeenFrom.Site) {
			continue
		}
		found, err := e.rowsOf(ctx, q, j)
		if err != nil {
			return nil, err
		}
		rows = append(rows, found...)
	}
	rows = slices.DeleteFunc(rows, func(r row) bool { return !q.shows(r) })
	slices.SortStableFunc(rows, func(a, b row) int {
		if a.waits() != b.waits() {
			if b.waits() {
				return -1
			}
			return 1
		}
		return int(a.job.Seq) - int(b.job.Seq)
	})
	return rows, nil
}

// wants keeps this site's jobs of the users that were asked for.
func (q *question) wants(j api.Job, site string) bool {
	if j.Tasks.Ended() || (site != "" && j.Site != site) {
		return false
	}
	return len(q.users) == 0 || slices.ContainsFunc(q.users, func(u string) bool {
		ok, err := path.Match(u, j.User)
		return ok && err == nil
	})
}

func (q *question) shows(r row) bool {
	switch {
	case !r.waits():
		return q.running
	case strings.HasPrefix(r.state, "h"):
		return q.pending || q.held
	}
	return q.pending
}

const (
	stampForm = "01/02/2006 15:04:05"
	isoForm   = "2006-01-02T15:04:05"
)

// rowsOf makes the lines of one job. Only an array that has started, or -r, needs more than the list told.
func (e *Env) rowsOf(ctx context.Context, q *question, j api.Job) ([]row, error) {
	waiting := row{job: j, state: "qw", since: j.Submitted.Local().Format(stampForm), iso: j.Submitted.Local().Format(isoForm)}
	if j.Tasks.Held > 0 || j.State == api.StateHeld {
		waiting.state = "hqw"
	}
	var detail *api.JobDetail
	if (j.Array != nil && j.Tasks.Pending+j.Tasks.Held < j.Tasks.Total) || q.need {
		var err error
		if detail, err = e.Node.Job(ctx, j.ID); isNotFound(err) {
			return nil, nil // ended and gone since the list was made
		} else if err != nil {
			return nil, err
		}
		waiting.asked = &detail.Submit
	}
	if j.Array == nil {
		if j.Tasks.Running+j.Tasks.Unknown > 0 {
			return []row{running(waiting, j.Nodes, j)}, nil
		}
		return []row{waiting}, nil
	}
	return arrayRows(q, waiting, detail), nil
}

func running(r row, nodes []string, j api.Job) row {
	r.state = "r"
	if len(nodes) > 0 {
		r.node = nodes[len(nodes)-1]
	}
	if !j.Started.IsZero() {
		r.since, r.iso = j.Started.Local().Format(stampForm), j.Started.Local().Format(isoForm)
	}
	return r
}

// arrayRows gives each running task a line and those that wait one together, or with -g d one each.
func arrayRows(q *question, waiting row, detail *api.JobDetail) []row {
	var rows []row
	started := map[int]bool{}
	if detail != nil {
		for _, t := range detail.TaskList {
			if t.State == api.StatePending || t.State == api.StateHeld {
				continue
			}
			started[t.Index] = true
			if t.State != api.StateRunning && t.State != api.StateUnknown {
				continue
			}
			r := waiting
			r.state, r.node, r.tasks = "r", t.Node, strconv.Itoa(t.Index)
			r.since, r.iso = t.Started.Local().Format(stampForm), t.Started.Local().Format(isoForm)
			rows = append(rows, r)
		}
	}
	left := remaining(waiting.job.Array, started)
	switch {
	case len(left) == 0:
	case q.byTask:
		for _, i := range left {
			r := waiting
			r.tasks = strconv.Itoa(i)
			rows = append(rows, r)
		}
	default:
		r := waiting
		r.tasks = taskList(left, waiting.job.Array.Step)
		rows = append(rows, r)
	}
	return rows
}

func remaining(a *api.Range, started map[int]bool) []int {
	var left []int
	for i := a.First; i <= a.Last && a.Step > 0; i += a.Step {
		if !started[i] {
			left = append(left, i)
		}
	}
	return left
}

// taskList writes indices as Grid Engine does: runs of three and more as FIRST-LAST:STEP, others one by one.
func taskList(ids []int, step int) string {
	var parts []string
	for i := 0; i < len(ids); {
		n := i
		for n+1 < len(ids) && ids[n+1] == ids[n]+step {
			n++
		}
		if n-i >= 2 {
			parts = append(parts, fmt.Sprintf("%d-%d:%d", ids[i], ids[n], step))
			i = n + 1
			continue
		}
		parts = append(parts, strconv.Itoa(ids[i]))
		i++
	}
	return strings.Join(parts, ",")
}
