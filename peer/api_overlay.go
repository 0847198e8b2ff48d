package peer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"vcpeer/crdt"
	"vcpeer/overlay"
	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
	"vcpeer/peer/api"
	"vcpeer/peer/server"
)

// overlayNetwork is what the API needs of the network over all sites.
type overlayNetwork interface {
	Status() overlay.Status
	// Explain tells why a gateway sends to another as it does: this one by its plan in force, any other as it would from
	// what all gateways last said of their links. False: one of them is none, this node has no plan, or the network is off.
	Explain(ctx context.Context, from, to label.Label) (path.Explanation, bool)
	// Behind is the gateway that this one sends to for a node of another site; false: none.
	Behind(id crdt.NodeID) (label.Label, bool)
	// Ping calls each, never twice at once, for every probe, and returns when all are done or ctx is over.
	Ping(ctx context.Context, ask overlay.PingAsk, each func(overlay.Pong)) error
	SetGuests(ifaces map[string]string)
	Attach(ctx context.Context, id, iface string) (overlay.GuestStatus, error)
	Detach(ctx context.Context, id string) error
}

// network is this node's part of the network over all sites; nil: it takes no part.
func (n *node) network() overlayNetwork {
	if n.overlay == nil {
		return nil
	}
	return n.overlay
}

// registerOverlay adds what concerns the network over all sites.
func (d *Daemon) registerOverlay(s *server.Server) {
	s.Handle("GET /v1/overlay", d.reading(func(n *node, r *http.Request) (any, error) {
		a, err := n.askNamed(r, r.URL.Query().Get("of"), overlayQuestion{Op: askStatus})
		return a.Overlay, err
	}))
	s.Handle("POST /v1/overlay/encrypt", d.changing(func(n *node, r *http.Request) (any, error) {
		var ask api.Encrypt
		if err := server.Decode(r, &ask); err != nil {
			return nil, err
		}
		if err := n.update(r, func(tx *crdt.Tx) error { tx.SetEncrypt(ask.Encrypt); return nil }); err != nil {
			return nil, err
		}
		n.events.Add("overlay.encrypt", fmt.Sprintf("encryption between sites was set to %v here", ask.Encrypt))
		return nil, nil
	}))
	s.Handle("GET /v1/links", d.reading(func(n *node, r *http.Request) (any, error) {
		a, err := n.askNamed(r, r.URL.Query().Get("of"), overlayQuestion{Op: askLinks})
		return listFrom(n, "LinkList", a, a.Links), err
	}))
	s.Handle("GET /v1/paths", d.reading(func(n *node, r *http.Request) (any, error) {
		from, err := n.namedOr(r.URL.Query().Get("from"))
		if err != nil {
			return nil, err
		}
		a, err := n.askChooser(r.Context(), from, overlayQuestion{Op: askPaths})
		return listFrom(n, "PathList", a, a.Paths), err
	}))
	s.Handle("GET /v1/paths/why", d.reading(func(n *node, r *http.Request) (any, error) {
		from, err := n.namedOr(r.URL.Query().Get("from"))
		if err != nil {
			return nil, err
		}
		to, err := n.namedOr(r.URL.Query().Get("to"))
		if err != nil {
			return nil, err
		}
		return n.explain(r.Context(), from, to)
	}))
	s.Stream("GET /v1/ping", func(r *http.Request, send func(any) error) error {
		_, err := d.reading(func(n *node, r *http.Request) (any, error) { return nil, n.ping(r, send) })(r)
		return err
	})
	s.Handle("GET /v1/trace", d.reading(func(n *node, r *http.Request) (any, error) {
		to, err := n.namedOr(r.URL.Query().Get("to"))
		if err != nil {
			return nil, err
		}
		return n.trace(r.Context(), to)
	}))
}

// listFrom wraps items that are another node's word.
func listFrom[T any](n *node, kind string, a overlayAnswer, items []T) api.List[T] {
	l := list(n, kind, items)
	l.SeenFrom, l.AsOf = a.Seen, a.AsOf
	return l
}

// overlayStatus is the state of this node's part, also where it has none.
func (n *node) overlayStatus() overlay.Status {
	if net := n.network(); net != nil {
		return net.Status()
	}
	return overlay.Status{
		Why: "switched off in its configuration", Hint: "`vcpeer config` shows the setting overlay; by itself, only the node of root that stands for its machine takes part",
	}
}

// running returns the network of a node that takes part just now.
func (n *node) running() (overlayNetwork, overlay.Status, error) {
	st := n.overlayStatus()
	if !st.Up {
		return nil, st, server.Problem(api.CodeUnavailable, cmp.Or(st.Hint, "`vcpeer overlay` shows more"),
			"%s is not on the network over all sites: %s", n.place().Node, st.Why)
	}
	return n.network(), st, nil
}

// namedOr finds what a name stands for; empty is this node.
func (n *node) namedOr(name string) (target, error) {
	view := n.replica.View()
	if name == "" {
		return targetOf(view, n.self), nil
	}
	return findTarget(view, name)
}

// askNamed asks the node that a name stands for: of a site one that is heard, a gateway first.
func (n *node) askNamed(r *http.Request, name string, q overlayQuestion) (overlayAnswer, error) {
	t, err := n.namedOr(name)
	if err != nil {
		return overlayAnswer{}, err
	}
	id, err := n.spokesman(t)
	if err != nil {
		return overlayAnswer{}, err
	}
	return n.askOverlay(r.Context(), id, q)
}

// spokesman is the node to ask about a target: itself, or of a site a gateway that is heard, else any that is.
func (n *node) spokesman(t target) (crdt.NodeID, error) {
	if !t.node.IsZero() {
		return t.node, nil
	}
	if t.site.IsZero() {
		return t.node, server.Problem(api.CodeUnavailable, "`vcpeer guests` shows where guests are", "%s is attached nowhere", t.name)
	}
	view, alive := n.replica.View(), n.directory.alive()
	for _, h := range append(gatewaysOf(view, t.site), view.Hosts()...) {
		if h.Site == t.site && alive[h.ID] {
			return h.ID, nil
		}
	}
	return t.node, server.Problem(api.CodeUnavailable, "`vcpeer members` shows the nodes", "no node of site %s is heard", t.name)
}

// chooser is the gateway that chooses paths for a target: itself, or the one that it reaches other sites over.
func (n *node) chooser(ctx context.Context, from target) (crdt.NodeID, error) {
	id, err := n.spokesman(from)
	if err != nil {
		return id, err
	}
	view := n.replica.View()
	if h, ok := view.Host(id); ok && h.Label != 0 {
		return id, nil
	}
	a, err := n.askOverlay(ctx, id, overlayQuestion{Op: askStatus})
	if err != nil {
		return id, err
	}
	if o := a.Overlay; o != nil && o.Up && o.Uplink != "" {
		return findNode(view, o.Uplink)
	}
	why := "its site has no gateway"
	if o := a.Overlay; o != nil && !o.Up {
		why = o.Why
	}
	return id, server.Problem(api.CodeUnavailable, "`vcpeer overlay --of "+a.Seen.Node+"` shows more", "%s reaches no other site: %s", a.Seen.Node, why)
}

func (n *node) askChooser(ctx context.Context, from target, q overlayQuestion) (overlayAnswer, error) {
	id, err := n.chooser(ctx, from)
	if err != nil {
		return overlayAnswer{}, err
	}
	return n.askOverlay(ctx, id, q)
}

// explain tells how frames get from one target to another. Where the gateway that chooses is not reached, it is computed
// here what that would choose, which is said.
func (n *node) explain(ctx context.Context, from, to target) (api.PathWhy, error) {
	view := n.replica.View()
	if to.node.IsZero() && to.site.IsZero() {
		return api.PathWhy{}, server.Problem(api.CodeUnavailable, "`vcpeer guests` shows where guests are", "%s is attached nowhere", to.name)
	}
	if from.site == to.site {
		return api.PathWhy{
			APIVersion: api.Version, Kind: "PathWhy", AsOf: time.Now(), SeenFrom: n.place(), From: from.name, To: to.name,
			FromSite: siteName(view, from.site), ToSite: siteName(view, to.site), Way: complete(view, nil, from, to), Losers: []api.Loser{},
		}, nil
	}
	why, err := n.askWhy(ctx, from, to)
	if err != nil {
		return why, err
	}
	why.Way = complete(view, why.Way, from, to)
	why.From, why.FromSite, why.To, why.ToSite = from.name, siteName(view, from.site), to.name, siteName(view, to.site)
	return why, nil
}

func (n *node) askWhy(ctx context.Context, from, to target) (api.PathWhy, error) {
	id, err := n.chooser(ctx, from)
	var a overlayAnswer
	if err == nil {
		a, err = n.askOverlay(ctx, id, about(askExplain, to))
	}
	if err == nil && a.Why == nil {
		err = errors.New("an answer without an explanation")
	}
	if err == nil {
		return *a.Why, nil
	}
	if errors.As(err, new(*unreachedError)) || id.IsZero() {
		if why, ok := n.computeWhy(ctx, from, to); ok {
			why.Computed = fmt.Sprintf("%v; computed on %s from what gateways last said of their links", err, why.SeenFrom.Node)
			return why, nil
		}
	}
	return api.PathWhy{}, err
}

// computeWhy computes what the first gateway of a site, or the one that is meant, would choose.
func (n *node) computeWhy(ctx context.Context, from, to target) (api.PathWhy, bool) {
	view, net := n.replica.View(), n.network()
	sources, ends := gatewaysOf(view, from.site), gatewaysOf(view, to.site)
	first := func(hosts []crdt.Host, id crdt.NodeID) (crdt.Host, bool) {
		if i := slices.IndexFunc(hosts, func(h crdt.Host) bool { return h.ID == id }); i >= 0 {
			return hosts[i], true
		}
		if len(hosts) == 0 {
			return crdt.Host{}, false
		}
		return hosts[0], true
	}
	source, ok1 := first(sources, from.node)
	end, ok2 := first(ends, to.node)
	if net == nil || !ok1 || !ok2 {
		return api.PathWhy{}, false
	}
	e, ok := net.Explain(ctx, label.Label(source.Label), label.Label(end.Label))
	if !ok || !e.Chosen.Exists() && len(e.Losers) == 0 { // nobody told of any link: nothing can be said
		return api.PathWhy{}, false
	}
	return apiWhy(view, e, source, n.place(), time.Now()), true
}

// complete adds the ends to a way between gateways; nil is a way within one site.
func complete(view *crdt.View, between []string, from, to target) []string {
	if between != nil && len(between) == 0 {
		return between // there is none
	}
	way := []string{}
	put := func(name string) {
		if name != "" && (len(way) == 0 || way[len(way)-1] != name) {
			way = append(way, name)
		}
	}
	if !from.guest.IsZero() {
		put(from.name)
	}
	if !from.node.IsZero() {
		put(nodeName(view, from.node))
	}
	for _, name := range between {
		put(name)
	}
	if !to.node.IsZero() {
		put(nodeName(view, to.node))
	}
	if !to.guest.IsZero() {
		put(to.name)
	}
	return way
}

// explainHere tells how this gateway sends to a target of another site, and why.
func (n *node) explainHere(ctx context.Context, to target) (api.PathWhy, error) {
	net, st, err := n.running()
	if err != nil {
		return api.PathWhy{}, err
	}
	view := n.replica.View()
	self, _ := view.Host(n.self)
	if !st.Label.Valid() {
		return api.PathWhy{}, server.Problem(api.CodeUnavailable, "try again in a moment", "%s is no gateway any more", self.Name)
	}
	dst, ok := n.endOf(net, st, to)
	if !ok {
		return api.PathWhy{}, server.Problem(api.CodeUnavailable, "`vcpeer hosts` and `vcpeer overlay --of NODE` show who takes part",
			"no node of site %s is a gateway: the site takes no part in the network", siteName(view, to.site))
	}
	e, ok := net.Explain(ctx, st.Label, dst)
	if !ok {
		return api.PathWhy{}, server.Problem(api.CodeUnavailable, "try again in a moment", "%s has no plan for %s yet", self.Name, to.name)
	}
	return apiWhy(view, e, self, n.place(), time.Now()), nil
}

// endOf is the gateway at the end of this one's way to a target: where its frames go now, else where they would.
func (n *node) endOf(net overlayNetwork, st overlay.Status, to target) (label.Label, bool) {
	if !to.node.IsZero() {
		if l, ok := net.Behind(to.node); ok {
			return l, true
		}
	}
	gateways := gatewaysOf(n.replica.View(), to.site)
	var best overlay.PathStatus
	for _, p := range st.Paths {
		here := slices.ContainsFunc(gateways, func(h crdt.Host) bool { return h.ID == p.Node })
		if here && (!best.Label.Valid() || p.RTT > 0 && (best.RTT == 0 || p.RTT < best.RTT)) {
			best = p
		}
	}
	if best.Label.Valid() {
		return best.Label, true
	}
	if len(gateways) > 0 {
		return label.Label(gateways[0].Label), true
	}
	return 0, false
}
