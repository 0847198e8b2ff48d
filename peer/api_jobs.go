package peer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"vcpeer/crdt"
	"vcpeer/peer/api"
	"vcpeer/peer/server"
	"vcpeer/queue"
	"vcpeer/queue/blob"
)

// Time limits of requests that ask a site, this one or another.
const (
	askTimeout    = 10 * time.Second
	submitTimeout = 10 * time.Minute // inputs may be large, and are copied to the voters first
)

// registerJobs adds what concerns blobs and jobs.
func (d *Daemon) registerJobs(s *server.Server) {
	s.Handle("PUT /v1/blobs", d.reading(func(n *node, r *http.Request) (any, error) {
		_, uid, _, err := caller(r)
		if err != nil {
			return nil, err
		}
		hash, size, err := n.jobs.blobs.Put(r.Context(), r.Body)
		if errors.Is(err, blob.ErrNoSpace) || errors.Is(err, blob.ErrQuota) {
			return nil, server.Problem(api.CodeBusy, "free some space below the state directory of this node", "%v", err)
		}
		if err == nil {
			n.jobs.uploads.add(uid, hash)
		}
		return api.Blob{Hash: hash, Size: size}, err
	}))
	s.Handle("HEAD /v1/blobs/{hash}", d.reading(func(n *node, r *http.Request) (any, error) {
		if hash := r.PathValue("hash"); !n.jobs.blobs.Has(hash) || !n.mayUse(r, hash) {
			return nil, server.Problem(api.CodeNotFound, "", "no such blob")
		}
		return nil, nil
	}))
	s.Handle("POST /v1/jobs", d.reading(func(n *node, r *http.Request) (any, error) { return n.submit(d, r) }))
	s.Handle("GET /v1/jobs", d.reading(func(n *node, r *http.Request) (any, error) { return n.listJobs(r) }))
	s.Handle("GET /v1/jobs/{id}", d.reading(func(n *node, r *http.Request) (any, error) { return n.jobDetail(r) }))
	s.Handle("GET /v1/jobs/{id}/why", d.reading(func(n *node, r *http.Request) (any, error) { return n.why(r) }))
	s.Handle("POST /v1/jobs/{id}/cancel", d.reading(func(n *node, r *http.Request) (any, error) { return n.cancelJob(r) }))
	s.Stream("GET /v1/jobs/{id}/wait", d.streaming(func(n *node, r *http.Request, send func(any) error) error {
		id, err := jobID(r)
		if err != nil {
			return err
		}
		owner, err := n.resolve(id)
		if err != nil {
			return err
		}
		return jobProblem(n.jobs.service.Wait(r.Context(), id, func(v queue.JobView) error { return send(n.job(owner, v)) }))
	}))
	s.Stream("GET /v1/jobs/{id}/logs", d.streaming((*node).logs))
}

// streaming wraps a handler of a long answer that needs a running node.
func (d *Daemon) streaming(h func(*node, *http.Request, func(any) error) error) func(*http.Request, func(any) error) error {
	return func(r *http.Request, send func(any) error) error {
		_, err := d.reading(func(n *node, r *http.Request) (any, error) { return nil, h(n, r, send) })(r)
		return err
	}
}

// caller is who asks, and whether the administrator's rights are his.
func caller(r *http.Request) (name string, uid uint32, admin bool, err error) {
	c, ok := server.CallerOf(r.Context())
	if !ok {
		return "", 0, false, server.Problem(api.CodeRefused, "", "the kernel does not say who is asking")
	}
	return c.Name(), c.UID, c.UID == 0 || int(c.UID) == os.Geteuid(), nil
}

// owner is whom jobs belong to: by the ID of his account where jobs run as accounts, else by name.
type owner struct{ name, account string }

// submitter is the account that a caller's jobs belong to. Where jobs run as accounts, the caller must be one, by number:
// a local user who merely has an account's name is somebody else.
func (d *Daemon) submitter(n *node, r *http.Request) (owner, error) {
	name, uid, _, err := caller(r)
	if err != nil || !n.asAccounts {
		return owner{name: name}, err
	}
	if uid == 0 {
		return owner{}, server.Problem(api.CodeRefused,
			"add an account (`vcpeer account add NAME`) and submit as that user, or start the node with --jobs-as self to run all jobs as the daemon's user",
			"jobs are not run as root")
	}
	account, ok := accountWithUID(n.replica.View(), uid)
	switch {
	case ok && !account.Disabled:
		return owner{account.Name, account.ID.String()}, nil
	case ok:
		return owner{}, server.Problem(api.CodeRefused, "an administrator can bring it back: vcpeer account enable "+account.Name,
			"account %s (uid %d) is not in force: %s", account.Name, uid, account.Why)
	case crdt.CheckID("uid", uid) != nil:
		return owner{}, server.Problem(api.CodeRefused, "add an account (`vcpeer account add NAME`) and submit as that user",
			"user %s (uid %d) is one of the system, and has no account in this cluster", name, uid)
	}
	return owner{}, server.Problem(api.CodeRefused, fmt.Sprintf("an administrator can add one: vcpeer account add %s --uid %d", name, uid),
		"user %s (uid %d) has no account in this cluster", name, uid)
}

// script is the job's script as a list: of one, or none.
func script(ask api.Submit) []api.File {
	if ask.Script == nil {
		return nil
	}
	return []api.File{*ask.Script}
}

// mayUse says whether the caller has shown that he has a content. Where all jobs run as one user there is nobody to hide
// it from.
func (n *node) mayUse(r *http.Request, hash string) bool {
	c, ok := server.CallerOf(r.Context())
	return !n.asAccounts || ok && n.jobs.uploads.has(c.UID, hash)
}

// accountWithUID returns the account that has a number, also when it was removed; not one that lost the number to it.
func accountWithUID(view *crdt.View, uid uint32) (crdt.Account, bool) {
	var removed crdt.Account
	for _, a := range view.Accounts() {
		if a.UID == uid && !a.Disabled {
			return a, true
		}
		if a.UID == uid && a.Removed {
			removed = a
		}
	}
	return removed, removed.Removed
}

func (n *node) submit(d *Daemon, r *http.Request) (any, error) {
	var ask api.Submit
	if err := server.Decode(r, &ask); err != nil {
		return nil, err
	}
	user, err := d.submitter(n, r)
	if err != nil {
		return nil, err
	}
	spec, err := n.spec(ask, user)
	if err != nil {
		return nil, err
	}
	for _, f := range append(ask.Inputs, script(ask)...) {
		if !n.mayUse(r, f.Hash) {
			return nil, server.Problem(api.CodeRefused, "submit again: the files are sent anew", "you have not sent this node the content of %s", f.Path)
		}
	}
	if space, err := n.jobs.group.Space(); err == nil && space.Low() {
		return nil, server.Problem(api.CodeBusy, "free some space below the state directory of this node", "the disk of the queue is nearly full: nothing new is accepted")
	}
	ctx, cancel := context.WithTimeout(r.Context(), submitTimeout)
	defer cancel()
	seq, err := n.jobs.service.Submit(ctx, spec)
	if err != nil {
		return nil, jobProblem(err)
	}
	name := siteName(n.replica.View(), n.site)
	id := queue.JobID{Seq: seq, Site: name}.String()
	tasks := spec.Tasks().Len()
	n.events.Add("job.submitted", fmt.Sprintf("%s submitted job %s (%s, %d tasks)", user.name, id, spec.Name, tasks), "job", id, "user", user.name)
	return api.Submitted{ID: id, Seq: uint64(seq), Site: name, Tasks: tasks}, nil
}

// callerOwner is whom the caller's jobs belong to: the account with his number, else his name. A user of this machine
// who merely has the name of an account is somebody else, and goes by no name that an account can have.
func (n *node) callerOwner(r *http.Request, name string) owner {
	c, ok := server.CallerOf(r.Context())
	if !ok || !n.asAccounts {
		return owner{name: name}
	}
	if a, ok := accountWithUID(n.replica.View(), c.UID); ok {
		return owner{a.Name, a.ID.String()}
	}
	return owner{name: fmt.Sprintf("uid %d", c.UID)}
}

func (n *node) jobDetail(r *http.Request) (any, error) {
	id, err := jobID(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	owner, err := n.resolve(id)
	if err != nil {
		return nil, err
	}
	view, tasks, err := n.allTasks(ctx, id)
	if err != nil {
		return nil, jobProblem(err)
	}
	out := api.JobDetail{Job: n.job(owner, view), Submit: n.submitted(view), TaskList: []api.Task{}}
	closed := n.mayRead(r, view) != nil
	if closed { // what a job is told is its owner's affair, and who knows the hash of a blob can have it as an input
		s := &out.Submit
		s.Env, s.Argv, s.Key, s.Script, s.Inputs = nil, nil, "", nil, nil
	}
	for _, t := range tasks {
		if id.Task == nil || *id.Task == t.Index {
			if closed {
				t.Outputs = nil
			}
			out.TaskList = append(out.TaskList, n.task(t))
		}
	}
	if c := out.Job.Tasks; c.Pending+c.Held+c.Unknown > 0 {
		if w, err := n.jobs.service.Why(ctx, id); err == nil {
			out.Reasons = each(w.Reasons, reason)
		}
	}
	return out, nil
}

// allTasks reads a job with all its tasks that were started, page by page.
func (n *node) allTasks(ctx context.Context, id queue.JobID) (view queue.JobView, all []queue.TaskView, err error) {
	for from := 0; ; {
		v, page, err := n.jobs.service.Get(ctx, id, from, 0)
		if err != nil {
			return view, nil, err
		}
		view, all = v, append(all, page...)
		if len(page) == 0 || len(all) >= v.Counts.Total {
			return view, all, nil
		}
		from = page[len(page)-1].Index + 1
	}
}

func (n *node) why(r *http.Request) (any, error) {
	id, err := jobID(r)
	if err != nil {
		return nil, err
	}
	if _, err := n.resolve(id); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	w, err := n.jobs.service.Why(ctx, id)
	if err != nil {
		return nil, jobProblem(err)
	}
	if id.Site == "" {
		id.Site = siteName(n.replica.View(), n.site)
	}
	return api.Why{ID: id.String(), State: string(w.State), Summary: w.Summary, Reasons: each(w.Reasons, reason)}, nil
}

func (n *node) cancelJob(r *http.Request) (any, error) {
	id, err := jobID(r)
	if err != nil {
		return nil, err
	}
	name, _, admin, err := caller(r)
	if err != nil {
		return nil, err
	}
	if text := r.URL.Query().Get("task"); text != "" {
		task, err := number(text, "task")
		if err != nil {
			return nil, err
		}
		id.Task = &task
	}
	if _, err := n.resolve(id); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	by := n.callerOwner(r, name)
	pending, running, err := n.jobs.service.Cancel(ctx, id, by.name, by.account, admin)
	if err != nil {
		return nil, jobProblem(err)
	}
	n.events.Add("job.cancelled", fmt.Sprintf("%s cancelled job %s", name, id), "job", id.String())
	return api.Cancelled{ID: id.String(), Pending: pending, Running: running}, nil
}

// mayRead says whether the caller may see what a job wrote: its owner and the administrator may.
func (n *node) mayRead(r *http.Request, v queue.JobView) error {
	name, _, admin, err := caller(r)
	if err != nil {
		return err
	}
	if by := n.callerOwner(r, name); admin || v.Spec.OwnedBy(by.name, by.account) {
		return nil
	}
	return server.Problem(api.CodeRefused, "", "job %d belongs to %s", v.Seq, v.Spec.User)
}

func jobID(r *http.Request) (queue.JobID, error) {
	id, err := queue.ParseJobID(r.PathValue("id"))
	return id, jobProblem(err)
}

func number(text, what string) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, server.Problem(api.CodeBadRequest, "", "%s: want a number, not %q", what, text)
	}
	return n, nil
}

var problemCodes = map[queue.Code]string{
	queue.Invalid: api.CodeBadRequest, queue.Impossible: api.CodeRefused, queue.Busy: api.CodeBusy, queue.NotFound: api.CodeNotFound,
	queue.Stale: api.CodeRefused, queue.Refused: api.CodeRefused, queue.Denied: api.CodeRefused, queue.Unavailable: api.CodeUnavailable,
}

// jobProblem gives the queue's errors their code and hint for the caller.
func jobProblem(err error) error {
	var qe *queue.Error
	if !errors.As(err, &qe) {
		return err
	}
	code, ok := problemCodes[qe.Code]
	if !ok {
		code = api.CodeInternal
	}
	return server.Problem(code, qe.Hint, "%s", qe.Text)
}

// spec translates a request to what the queue keeps.
func (n *node) spec(ask api.Submit, by owner) (queue.Spec, error) {
	if !filepath.IsAbs(ask.Dir) {
		return queue.Spec{}, server.Problem(api.CodeBadRequest, "", "dir %q: want an absolute path", ask.Dir)
	}
	s := queue.Spec{
		Key: ask.Key, User: by.name, Account: by.account, Name: ask.Name, Argv: ask.Argv, Shell: ask.Shell, Env: ask.Env, Slots: ask.Slots, MemBytes: ask.MemBytes,
		Time: ask.Time, MaxTasks: ask.MaxTasks, Inputs: each(ask.Inputs, queueFile), Outputs: ask.Outputs, AfterAny: ask.AfterAny,
		Dir: ask.Dir, Stdout: ask.Stdout, Stderr: ask.Stderr, Join: ask.Join, Retries: ask.Retries,
	}
	if ask.Script != nil {
		f := queueFile(*ask.Script)
		s.Script = &f
	}
	if ask.Array != nil {
		s.Array = &queue.Range{First: ask.Array.First, Last: ask.Array.Last, Step: ask.Array.Step}
	}
	if ask.Site != "" {
		id, ok := n.directory.SiteByName(ask.Site)
		if !ok {
			return s, server.Problem(api.CodeRefused, "`vcpeer sites` shows the sites", "no site is called %q", ask.Site)
		}
		s.Pin = id
	}
	for _, text := range ask.After {
		id, err := queue.ParseJobID(text)
		if err != nil {
			return s, jobProblem(err)
		}
		if owner, err := n.jobs.service.Resolve(id); err != nil {
			return s, jobProblem(err)
		} else if owner != siteIDOf(n.site) {
			return s, server.Problem(api.CodeRefused, "submit at that site", "job %s belongs to another site; a job can wait for jobs of its own site only", text)
		}
		s.After = append(s.After, id.Seq)
	}
	return s, nil
}

// submitted translates back.
func (n *node) submitted(v queue.JobView) api.Submit {
	s := v.Spec
	out := api.Submit{
		Key: s.Key, Name: s.Name, Argv: s.Argv, Shell: s.Shell, Env: s.Env, Slots: s.Slots, MemBytes: s.MemBytes, Time: s.Time,
		Site: n.directory.SiteName(s.Pin), Array: apiRange(s.Array), MaxTasks: s.MaxTasks, Inputs: each(s.Inputs, apiFile), Outputs: s.Outputs,
		AfterAny: s.AfterAny, Dir: s.Dir, Stdout: s.Stdout, Stderr: s.Stderr, Join: s.Join, Retries: s.Retries,
	}
	if s.Script != nil {
		f := apiFile(*s.Script)
		out.Script = &f
	}
	for _, seq := range s.After {
		out.After = append(out.After, strconv.FormatUint(uint64(seq), 10))
	}
	return out
}

func (n *node) job(owner queue.SiteID, v queue.JobView) api.Job {
	view := n.replica.View()
	site := n.directory.SiteName(owner)
	return api.Job{
		ID: queue.JobID{Seq: v.Seq, Site: site}.String(), Seq: uint64(v.Seq), Site: site, Name: v.Spec.Name, User: v.Spec.User, State: string(v.State),
		Slots: v.Spec.Slots, Array: apiRange(v.Spec.Array), Tasks: api.Counts(v.Counts), Submitted: v.Submitted, Started: v.Started, Ended: v.Ended,
		Nodes: each(v.Nodes, func(id crdt.NodeID) string { return nodeName(view, id) }),
	}
}

func (n *node) task(t queue.TaskView) api.Task {
	return api.Task{
		Index: t.Index, State: string(t.State), Node: nodeName(n.replica.View(), t.Node), Site: n.directory.SiteName(t.Site), Attempt: t.Attempt,
		Epoch: uint64(t.Epoch), Exit: t.Exit, Reason: t.Reason, Started: t.Started, Ended: t.Ended, CPU: t.CPU, MaxRSS: t.MaxRSS,
		Outputs: each(t.Outputs, apiFile), Returned: t.Returned,
	}
}

func queueFile(f api.File) queue.File {
	return queue.File{Path: f.Path, Hash: f.Hash, Size: f.Size, Mode: f.Mode}
}

func apiFile(f queue.File) api.File {
	return api.File{Path: f.Path, Hash: f.Hash, Size: f.Size, Mode: f.Mode}
}

func apiRange(r *queue.Range) *api.Range {
	if r == nil {
		return nil
	}
	return &api.Range{First: r.First, Last: r.Last, Step: r.Step}
}

func reason(r queue.Reason) api.Reason { return api.Reason{Count: r.Count, Text: r.Text, Hint: r.Hint} }
