package peer

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"

	"vcpeer/crdt"
	"vcpeer/gossip"
	"vcpeer/peer/api"
	"vcpeer/peer/server"
)

// registerCluster adds what concerns members, sites, hosts and events.
func (d *Daemon) registerCluster(s *server.Server) {
	s.Handle("GET /v1/members", d.reading(func(n *node, _ *http.Request) (any, error) {
		view := n.replica.View()
		rows := each(view.Members(), func(m crdt.Member) api.Member { return n.member(view, m) })
		slices.SortStableFunc(rows, func(a, b api.Member) int { return cmp.Or(cmp.Compare(a.Site, b.Site), cmp.Compare(a.Name, b.Name)) })
		return list(n, "MemberList", rows), nil
	}))
	s.Handle("GET /v1/hosts", d.reading(func(n *node, r *http.Request) (any, error) {
		view := n.replica.View()
		rows := each(view.Hosts(), func(h crdt.Host) api.Host { return n.hostRow(view, h) })
		if r.URL.Query().Get("guests") == "1" {
			rows = append(rows, n.guestHosts(view)...)
		}
		return list(n, "HostList", rows), nil
	}))
	s.Handle("GET /v1/sites", d.reading(func(n *node, _ *http.Request) (any, error) {
		return list(n, "SiteList", n.sites()), nil
	}))
	s.Handle("POST /v1/hosts/{name}/rename", d.changing(func(n *node, r *http.Request) (any, error) {
		id, err := findNode(n.replica.View(), r.PathValue("name"))
		if err != nil {
			return nil, err
		}
		return nil, n.rename(r, func(tx *crdt.Tx, name string) error { return tx.RenameHost(id, name) })
	}))
	s.Handle("POST /v1/sites/{name}/rename", d.changing(func(n *node, r *http.Request) (any, error) {
		s, ok := n.replica.View().SiteNamed(r.PathValue("name"))
		if !ok {
			return nil, server.Problem(api.CodeNotFound, "`vcpeer sites` shows the sites", "no site is called %q", r.PathValue("name"))
		}
		return nil, n.rename(r, func(tx *crdt.Tx, name string) error { return tx.RenameSite(s.ID, name) })
	}))
	s.Handle("POST /v1/evict", d.changing(evict))
	s.Handle("POST /v1/leave", d.changing(func(n *node, r *http.Request) (any, error) {
		if err := n.update(r, func(tx *crdt.Tx) error { tx.MarkLeft(); return nil }); err != nil {
			return nil, err
		}
		n.stop(leaving)
		return nil, nil
	}))
	s.Handle("POST /v1/stop", d.admin(func(*http.Request) (any, error) {
		d.stop(stopping)
		return nil, nil
	}))
	s.Stream("GET /v1/events", func(r *http.Request, send func(any) error) error {
		since, err := parseSince(r.URL.Query().Get("since"))
		if err != nil {
			return err
		}
		if r.URL.Query().Get("follow") != "1" {
			for _, e := range d.events.Since(since) {
				if err := send(e); err != nil {
					return err
				}
			}
			return nil
		}
		if err := send(nil); err != nil { // the headers, so that the reader knows it is connected
			return err
		}
		return d.events.Follow(r.Context(), since, func(e api.Event) error { return send(e) })
	})
}

func parseSince(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return t, server.Problem(api.CodeBadRequest, "", "since: %v", err)
	}
	return t, nil
}

func evict(n *node, r *http.Request) (any, error) {
	var ask api.EvictAsk
	if err := server.Decode(r, &ask); err != nil {
		return nil, err
	}
	view := n.replica.View()
	id, err := findNode(view, ask.Node)
	if err != nil {
		return nil, err
	}
	if id == n.self {
		return nil, server.Problem(api.CodeRefused, "`vcpeer leave` takes this node out of the cluster", "a node does not evict itself")
	}
	if err := n.update(r, func(tx *crdt.Tx) error { return tx.Evict(id, ask.Reason) }); err != nil {
		return nil, err
	}
	n.events.Add("member.evicted", fmt.Sprintf("%s was evicted here", nodeName(view, id)), "node", id.String(), "reason", ask.Reason)
	return nil, nil
}

// rename gives something the name in the request's body.
func (n *node) rename(r *http.Request, do func(tx *crdt.Tx, name string) error) error {
	var ask api.Rename
	if err := server.Decode(r, &ask); err != nil {
		return err
	}
	return n.update(r, func(tx *crdt.Tx) error { return do(tx, ask.Name) })
}

// findNode takes a host name in force, an ID or the unambiguous end of one.
func findNode(view *crdt.View, name string) (crdt.NodeID, error) {
	if h, ok := view.HostNamed(name); ok {
		return h.ID, nil
	}
	var found []crdt.NodeID
	for _, m := range view.Members() {
		if m.ID.String() == name || len(name) >= 6 && m.ID.Short() == name {
			found = append(found, m.ID)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	return crdt.NodeID{}, server.Problem(api.CodeNotFound, "`vcpeer members` shows the nodes", "no node is called %q", name)
}

// nodeName is how people know a node: its host's name in force, else the end of its ID.
func nodeName(view *crdt.View, id crdt.NodeID) string {
	if name := view.NameOf(id); name != "" {
		return name
	}
	return id.Short()
}

func siteName(view *crdt.View, id crdt.SiteID) string {
	if s, ok := view.Site(id); ok {
		return s.Name
	}
	return ""
}

func (n *node) member(view *crdt.View, m crdt.Member) api.Member {
	out := api.Member{ID: m.ID.String(), Name: nodeName(view, m.ID), State: n.stateOf(m), Joined: m.Joined, Self: m.ID == n.self}
	if h, ok := view.Host(m.ID); ok {
		out.Site, out.Addrs, out.Version = siteName(view, h.Site), h.Addrs, h.Version
	}
	if !m.AdmittedBy.IsZero() {
		out.By = nodeName(view, m.AdmittedBy)
	}
	if rtt, ok := n.fabric.RTT(m.ID); ok {
		out.RTTMilli = float64(rtt) / float64(time.Millisecond)
	}
	return out
}

// stateOf joins what the records say of a member with what gossip sees of it.
func (n *node) stateOf(m crdt.Member) string {
	switch {
	case m.Standing == crdt.Evicted:
		return "evicted"
	case m.ID == n.self:
		return gossip.Alive.String()
	}
	seen, ok := n.members.Member(m.ID)
	switch {
	case m.Standing == crdt.Left && !(ok && seen.State == gossip.Alive):
		return gossip.Left.String()
	case !ok:
		return "unseen"
	case seen.State == gossip.Left: // it said good-bye, but not for good
		return "stopped"
	}
	return seen.State.String()
}

func (n *node) hostRow(view *crdt.View, h crdt.Host) api.Host {
	out := api.Host{
		ID: h.ID.String(), Name: h.Name, Asked: h.Asked, Site: siteName(view, h.Site), OS: h.OS, Arch: h.Arch, CPUs: h.CPUs, MemBytes: h.MemBytes,
	}
	if h.Address.IsValid() {
		out.Address = h.Address.String()
	}
	if m, ok := view.Member(h.ID); ok {
		out.State = n.stateOf(m)
	}
	return out
}

// livingSites returns the sites that have nodes, by name.
func (n *node) livingSites() []crdt.Site {
	return slices.DeleteFunc(slices.Clone(n.replica.View().Sites()), func(s crdt.Site) bool { return s.Nodes == 0 })
}

func (n *node) place() api.Place {
	view := n.replica.View()
	return api.Place{Node: nodeName(view, n.self), Site: siteName(view, n.site)}
}
