package peer

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"vcpeer/peer/api"
	"vcpeer/peer/server"
	"vcpeer/queue"
)

// listTimeout bounds how long a list waits for a site of which a node is heard: long enough for a site to choose a new
// leader, short enough for a person. A site of which no node is heard is not waited for at all.
const listTimeout = 5 * time.Second

func (n *node) listJobs(r *http.Request) (any, error) {
	name, _, _, err := caller(r)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	user := q.Get("user")
	switch user {
	case "":
		user = n.callerOwner(r, name).name
	case "*":
		user = ""
	}
	limit, err := number(q.Get("limit"), "limit")
	if err != nil {
		return nil, err
	}
	sites, err := n.namedSites(q.Get("site"))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), listTimeout)
	defer cancel()
	heard, silent := splitSites(n.directory.Nodes(), siteIDOf(n.site), sites)
	answer := list(n, "JobList", []api.Job{})
	out := &answer
	out.Heard = api.Heard{Of: len(heard) + len(silent)}
	for _, s := range silent {
		out.Heard.Missing = append(out.Heard.Missing, api.Missing{Site: n.directory.SiteName(s), Reason: noNodeHeard})
	}
	if len(heard) > 0 { // none would mean all to the queue
		n.listSites(ctx, out, heard, user, q.Get("all") != "1", limit)
	}
	return out, nil
}

// listSites adds what the sites answer; of open jobs only, with the number of those left out.
func (n *node) listSites(ctx context.Context, out *api.List[api.Job], sites []queue.SiteID, user string, open bool, limit int) {
	var counting sync.WaitGroup
	if open {
		counting.Go(func() { out.Hidden = n.ended(ctx, sites, user) })
	}
	for _, s := range n.jobs.service.List(ctx, sites, user, open, limit) {
		if s.Err != nil {
			out.Heard.Missing = append(out.Heard.Missing, api.Missing{Site: n.directory.SiteName(s.Site), Reason: s.Err.Error()})
			continue
		}
		out.Heard.Sites++
		for _, v := range s.Jobs {
			out.Items = append(out.Items, n.job(s.Site, v))
		}
	}
	counting.Wait()
}

// ended counts the jobs that a list of open ones leaves out, as far as the sites answer.
func (n *node) ended(ctx context.Context, sites []queue.SiteID, user string) int {
	count := 0
	for _, s := range n.jobs.service.List(ctx, sites, user, false, 0) {
		for _, v := range s.Jobs {
			if !v.Ended.IsZero() {
				count++
			}
		}
	}
	return count
}

const noNodeHeard = "none of its nodes is heard"

// splitSites sorts the sites asked for (none: all that have nodes, own first) into those with a node that is heard,
// as own always has, and others.
func splitSites(nodes []queue.Node, own queue.SiteID, asked []queue.SiteID) (heard, silent []queue.SiteID) {
	alive := map[queue.SiteID]bool{own: true}
	for _, n := range nodes {
		if n.Site != "" {
			alive[n.Site] = alive[n.Site] || n.Alive
		}
	}
	if len(asked) == 0 {
		others := slices.Sorted(maps.Keys(alive))
		asked = append([]queue.SiteID{own}, slices.DeleteFunc(others, func(s queue.SiteID) bool { return s == own })...)
	}
	for _, s := range asked {
		if alive[s] {
			heard = append(heard, s)
		} else {
			silent = append(silent, s)
		}
	}
	return heard, silent
}

// resolve finds the site that owns a job, and refuses at once if nobody of it can answer.
func (n *node) resolve(id queue.JobID) (queue.SiteID, error) {
	owner, err := n.jobs.service.Resolve(id)
	if err != nil {
		return "", jobProblem(err)
	}
	if _, silent := splitSites(n.directory.Nodes(), siteIDOf(n.site), []queue.SiteID{owner}); len(silent) > 0 {
		return "", server.Problem(api.CodeUnavailable, "`vcpeer members` shows its nodes; the job is safe there", "site %s, which keeps job %d, cannot be asked: %s",
			n.directory.SiteName(owner), id.Seq, noNodeHeard)
	}
	return owner, nil
}

// namedSites turns the query's site into IDs: none for all, "." for this one.
func (n *node) namedSites(name string) ([]queue.SiteID, error) {
	switch name {
	case "":
		return nil, nil
	case ".":
		return []queue.SiteID{siteIDOf(n.site)}, nil
	}
	id, ok := n.directory.SiteByName(name)
	if !ok {
		return nil, server.Problem(api.CodeNotFound, "`vcpeer sites` shows the sites", "no site is called %q", name)
	}
	return []queue.SiteID{id}, nil
}
