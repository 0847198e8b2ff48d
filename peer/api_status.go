package peer

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	"vcpeer/crdt"
	"vcpeer/gossip"
	"vcpeer/overlay/userdb"
	"vcpeer/peer/api"
	"vcpeer/peer/server"
	"vcpeer/queue/group"
)

// Levels of api.Health.
const (
	levelNote = "note" // worth knowing
	levelWarn = "warn" // something is wrong that this node can live with
	levelFail = "fail" // this node cannot do its work
)

func (d *Daemon) registerStatus(s *server.Server) {
	s.Handle("GET /v1/status", func(*http.Request) (any, error) { return d.status(time.Now()), nil })
}

// status says at once how this node is: it waits for nobody.
func (d *Daemon) status(now time.Time) api.Status {
	p := d.phase.Load()
	s := api.Status{
		APIVersion: api.Version, Kind: "Status", AsOf: now,
		Node: api.NodeStatus{
			ID: crdt.NodeIDOf(d.key).String(), Name: d.hostName(), Site: d.siteName(), Version: d.version, PID: os.Getpid(),
			Up: now.Sub(d.began), State: d.cfg.State, Phase: p.name, Detail: p.detail,
		},
		Queue:   api.QueueStatus{Role: "none"},
		Overlay: api.OverlayStatus{Detail: "off: this node is not running yet"},
		Checks:  []api.Health{},
	}
	n := d.node.Load()
	if n == nil {
		s.Checks = append(s.Checks, api.Health{Code: "NOT_RUNNING", Level: levelFail, Message: fmt.Sprintf("this node is %s: %s", p.name, p.detail)})
		return s
	}
	place := n.place()
	s.Node.Name, s.Node.Site, s.Node.Listen = place.Node, place.Site, n.fabric.Addrs()
	s.Cluster = n.clusterStatus()
	s.Queue = n.queueStatus()
	s.Overlay = n.overlayLine()
	s.Checks = append(s.Checks, n.checks(s)...)
	s.Well = !slices.ContainsFunc(s.Checks, func(h api.Health) bool { return h.Level == levelFail })
	return s
}

func (n *node) clusterStatus() api.ClusterStatus {
	view := n.replica.View()
	c := api.ClusterStatus{ID: view.Cluster().ID.String(), Sites: len(n.livingSites()), Conflicts: len(view.Conflicts())}
	for _, m := range view.Members() {
		if m.Standing != crdt.Joined {
			continue
		}
		c.Members++
		switch n.stateOf(m) {
		case gossip.Alive.String():
			c.Alive++
		case gossip.Failed.String():
			c.Failed++
		}
	}
	return c
}

func (n *node) queueStatus() api.QueueStatus {
	view, st := n.replica.View(), n.jobs.group.Status()
	q := api.QueueStatus{Site: siteName(view, n.site), Role: string(st.Role), Term: st.Term, Commit: st.Commit, Voters: len(st.Voters)}
	if !st.Leader.IsZero() {
		q.Leader = nodeName(view, st.Leader)
	}
	for _, s := range n.sites() {
		if s.ID == n.site.String() {
			q.Backlog, q.Running, q.Slots, q.Free = s.Backlog, s.Running, s.Slots, s.Free
		}
	}
	return q
}

// checks are what is not as it should be, with what to do about it.
func (n *node) checks(s api.Status) []api.Health {
	var out []api.Health
	add := func(code, level, hint, format string, args ...any) {
		out = append(out, api.Health{Code: code, Level: level, Message: fmt.Sprintf(format, args...), Hint: hint})
	}
	n.checkQueue(s.Queue, add)
	view := n.replica.View()
	if c := s.Cluster; c.Failed > 0 {
		add("MEMBERS_FAILED", levelWarn, "`vcpeer members` shows which; a node that will not come back is put out with `vcpeer evict NODE`",
			"%d of %d members do not answer", c.Failed, c.Members)
	}
	if c := s.Cluster; c.Conflicts > 0 {
		add("CONFLICTS", levelWarn, "`vcpeer conflicts` shows both sides and the command that settles each", "%d values are claimed twice", c.Conflicts)
	}
	for _, skew := range view.Skews() {
		add("CLOCK_AHEAD", levelWarn, "set that machine's clock (for instance with chrony)",
			"the clock of %s is ahead: it stamps until %s", nodeName(view, skew.Author), skew.Until.Format(time.RFC3339))
	}
	if st := n.spread.Stats(); st.Behind > 0 && time.Since(st.LastSync) > time.Minute {
		add("RECORDS_APART", levelWarn, "`vcpeer events` may tell why", "%d of %d peers hold other records than this node, and no exchange went well for %s",
			st.Behind, st.Known, time.Since(st.LastSync).Round(time.Second))
	}
	n.host.check(add)
	checkOverlay(apiOverlay(view, n.overlayStatus(), n.place(), n.site, s.AsOf), add)
	return out
}

type adder = func(code, level, hint, format string, args ...any)

func (n *node) checkQueue(q api.QueueStatus, add adder) {
	st := n.jobs.group.Status()
	switch {
	case q.Leader == "" && st.Role == group.RoleWaiting:
		add("NO_GROUP", levelFail, "start another node of this site that has run its queue before; `vcpeer sites` shows who leads",
			"this node waits to be taken into the queue group of site %s", q.Site)
	case q.Leader == "":
		add("NO_LEADER", levelFail, "more than half of the site's voters must run; jobs that run go on meanwhile",
			"the queue of site %s has no leader", q.Site)
	}
	if st.Problem != "" {
		add("QUEUE", levelWarn, "", "queue of site %s: %s", q.Site, st.Problem)
	}
	if space, err := n.jobs.group.Space(); err == nil && space.Low() {
		add("DISK_FULL", levelFail, "free some space below the state directory; jobs that were accepted are safe", "the disk of the queue is nearly full: nothing new is accepted")
	}
}

// check says whether the machine's programs see what this daemon shows them.
func (i *integration) check(add adder) {
	if i.hosts == nil {
		add("NOT_SHOWN", levelNote, "", "host names and accounts of the cluster are not shown to this machine: %s", i.off)
		return
	}
	if st := i.hosts.Status(); st.Err != nil {
		add("HOSTS_FILE", levelWarn, "", "host names: %v", st.Err)
	}
	if st := i.users.Status(); st.Mode == userdb.ModeOff {
		add("ACCOUNTS_UNSEEN", levelWarn, st.Hint, "accounts: %s", st.Detail)
	}
}

// sites joins the records with what each site's leader and nodes say of their queue.
func (n *node) sites() []api.Site {
	view := n.replica.View()
	loads := n.directory.heard()
	alive := n.directory.alive()
	now := time.Now()
	var out []api.Site
	for _, s := range n.livingSites() {
		row := api.Site{ID: s.ID.String(), Name: s.Name, Nodes: s.Nodes}
		for _, h := range view.Hosts() {
			if h.Site == s.ID && alive[h.ID] {
				row.Alive++
			}
		}
		for _, l := range loads {
			if l.Queue.Site != siteIDOf(s.ID) || !alive[l.Queue.Node] {
				continue
			}
			row.Slots, row.Free, row.Running = row.Slots+l.Slots, row.Free+l.Queue.FreeSlots, row.Running+l.Running
			row.AgeSec = max(row.AgeSec, now.Sub(l.at).Seconds())
			if l.Queue.Leads {
				row.Leader, row.Voters = nodeName(view, l.Queue.Node), l.Voters
				row.Backlog = backlogSize(l)
			}
		}
		switch {
		case row.Alive == 0:
			row.Notes = append(row.Notes, "no node is heard")
		case row.Leader == "":
			row.Notes = append(row.Notes, "nobody says that it leads the queue")
		}
		if s.Asked != s.Name {
			row.Notes = append(row.Notes, fmt.Sprintf("asked for the name %s, which another site holds", s.Asked))
		}
		out = append(out, row)
	}
	return out
}

func backlogSize(l heardLoad) int {
	total := l.Queue.Backlog.Free
	for _, pinned := range l.Queue.Backlog.Pinned {
		total += pinned
	}
	return total
}
