package peer

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"vcpeer/overlay"
	"vcpeer/peer/api"
	"vcpeer/peer/echo"
	"vcpeer/peer/server"
)

// minPingInterval keeps a ping from being a flood.
const minPingInterval = 10 * time.Millisecond

func pingAsk(r *http.Request) (api.PingAsk, error) {
	q := r.URL.Query()
	ask := api.PingAsk{To: q.Get("to"), Direct: q.Get("direct") == "1", Interval: time.Second}
	if ask.To == "" {
		return ask, server.Problem(api.CodeBadRequest, "", "ping: nobody was named")
	}
	for name, put := range map[string]func(int64){
		"count":         func(v int64) { ask.Count = int(v) },
		"size":          func(v int64) { ask.Size = int(v) },
		"intervalNanos": func(v int64) { ask.Interval = time.Duration(v) },
	} {
		if text := q.Get(name); text != "" {
			v, err := strconv.ParseInt(text, 10, 64)
			if err != nil || v < 0 {
				return ask, server.Problem(api.CodeBadRequest, "", "ping: %s %q: want a number, not below 0", name, text)
			}
			put(v)
		}
	}
	switch {
	case ask.Interval < minPingInterval:
		return ask, server.Problem(api.CodeBadRequest, "", "ping: interval %v: want at least %v", ask.Interval, minPingInterval)
	case ask.Size != 0 && (ask.Size < echo.MinSize || ask.Size > echo.MaxSize):
		return ask, server.Problem(api.CodeBadRequest, "", "ping: packets of %d bytes: want %d to %d", ask.Size, echo.MinSize, echo.MaxSize)
	}
	return ask, nil
}

// pingSize is that of packets for which none was asked: of ping(8).
const pingSize = 84

// ping sends probes through the data path and tells what became of each: the agent's own probes where this node has a link
// or a path to the other, which can be made to go directly; else ICMP echo requests, which go where programs' packets go.
func (n *node) ping(r *http.Request, send func(any) error) error {
	ask, err := pingAsk(r)
	if err != nil {
		return err
	}
	net, st, err := n.running()
	if err != nil {
		return err
	}
	to, err := n.pingTarget(r.Context(), ask.To)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	ask.Size = cmp.Or(ask.Size, pingSize)
	p := pinger{n: n, ctx: ctx, net: net, st: st, ask: ask, to: to, send: func(l api.PingLine) {
		if err := send(l); err != nil {
			cancel(err) // the reader has gone
		}
	}}
	switch {
	case probed(st, to):
		err = p.probe()
	case ask.Direct:
		return server.Problem(api.CodeRefused, "leave --direct away: `vcpeer trace "+to.name+"` shows the way",
			"there is no direct link from %s to %s: only gateways of different sites have them", n.place().Node, to.name)
	default:
		err = p.echo()
	}
	switch {
	case r.Context().Err() != nil:
		return nil // the reader has what it wanted
	case errors.Is(err, echo.ErrTooLarge):
		return server.Problem(api.CodeBadRequest, "`vcpeer paths` and `vcpeer trace` show what fits", "%v", err)
	}
	return err
}

// pingTarget finds who is to be pinged: for a site the gateway that it is reached by.
func (n *node) pingTarget(ctx context.Context, name string) (target, error) {
	view := n.replica.View()
	t, err := findTarget(view, name)
	if err != nil {
		return t, err
	}
	if t.node.IsZero() && t.guest.IsZero() {
		id, err := n.spokesman(t)
		if err != nil {
			return t, err
		}
		if why, err := n.explain(ctx, targetOf(view, n.self), t); err == nil && why.Path != nil {
			if end, err := findNode(view, why.Path.To); err == nil {
				id = end
			}
		}
		t = targetOf(view, id)
	}
	if !t.guest.IsZero() && t.node.IsZero() {
		return t, server.Problem(api.CodeUnavailable, "`vcpeer guests` shows where guests are", "%s is attached nowhere", t.name)
	}
	if !t.addr.IsValid() {
		return t, server.Problem(api.CodeUnavailable, "`vcpeer hosts` shows the addresses", "%s has no address in the network", t.name)
	}
	return t, nil
}

// probed reports whether the agent has a link or a path to a target.
func probed(st overlay.Status, t target) bool {
	if !t.guest.IsZero() {
		return false
	}
	return slices.ContainsFunc(st.Links, func(l overlay.LinkStatus) bool { return l.Node == t.node }) ||
		slices.ContainsFunc(st.Paths, func(p overlay.PathStatus) bool { return p.Node == t.node })
}

// pinger is one ping under way.
type pinger struct {
	n    *node
	ctx  context.Context // of the request
	net  overlayNetwork
	st   overlay.Status
	ask  api.PingAsk
	to   target
	send func(api.PingLine)
}

func (p *pinger) pong(seq int, lost bool, rtt time.Duration) {
	p.send(api.PingLine{Pong: &api.Pong{Seq: seq, Lost: lost, RTTMilli: milli(rtt)}})
}

// probe pings by the agent's probes and tells whenever they go another way.
func (p *pinger) probe() error {
	self := p.n.place().Node
	names := labelNames(p.n.replica.View())
	tell := func(via []string) {
		p.send(api.PingLine{Way: &api.PingWay{
			To: p.to.name, Address: p.to.addr.String(), By: api.ByProbe, Size: p.ask.Size, Way: append(append([]string{self}, via...), p.to.name),
		}})
	}
	var last []string
	if i := slices.IndexFunc(p.st.Paths, func(s overlay.PathStatus) bool { return s.Node == p.to.node }); i >= 0 && !p.ask.Direct {
		last = p.st.Paths[i].Via
	}
	tell(last)
	ask := overlay.PingAsk{To: p.to.node, Chosen: !p.ask.Direct, Count: p.ask.Count, Interval: p.ask.Interval, Size: p.ask.Size}
	return p.net.Ping(p.ctx, ask, func(g overlay.Pong) {
		if via := namesOf(names, g.Via); !slices.Equal(via, last) {
			names = labelNames(p.n.replica.View())
			last = namesOf(names, g.Via)
			tell(last)
		}
		p.pong(g.Seq, g.Lost, g.RTT)
	})
}

// wayTime bounds how long an echo waits for others to tell which way it goes.
const wayTime = time.Second

func (p *pinger) echo() error {
	way := &api.PingWay{To: p.to.name, Address: p.to.addr.String(), By: api.ByEcho, Size: p.ask.Size}
	ctx, cancel := context.WithTimeout(p.ctx, wayTime)
	if why, err := p.n.explain(ctx, targetOf(p.n.replica.View(), p.n.self), p.to); err == nil {
		way.Way = why.Way
	}
	cancel()
	p.send(api.PingLine{Way: way})
	ask := echo.Ask{To: p.to.addr, Count: p.ask.Count, Interval: p.ask.Interval, Size: p.ask.Size}
	return echo.Run(p.ctx, ask, func(g echo.Pong) { p.pong(g.Seq, g.Lost, g.RTT) })
}

// Probes of a trace, for each hop.
const (
	traceProbes = 3
	traceEvery  = 20 * time.Millisecond
)

// trace tells the way to a target hop by hop.
func (n *node) trace(ctx context.Context, to target) (any, error) {
	_, st, err := n.running()
	if err != nil {
		return nil, err
	}
	if to.node.IsZero() {
		if to, err = n.pingTarget(ctx, to.name); err != nil {
			return nil, err
		}
	}
	view := n.replica.View()
	out := api.Trace{
		APIVersion: api.Version, Kind: "Trace", AsOf: time.Now(), SeenFrom: n.place(), To: to.name, Address: addrText(to.addr), Hops: []api.Hop{},
	}
	if own, _ := view.Host(n.self); own.Site != to.site {
		var legs []api.Hop
		if st.Label.Valid() {
			legs, err = n.traceGateways(ctx, to)
		} else {
			legs, err = n.traceOverUplink(ctx, st, to)
		}
		if err != nil {
			return nil, err
		}
		out.Hops = append(out.Hops, legs...)
	}
	host := targetOf(view, to.node)
	last := ""
	if len(out.Hops) > 0 {
		last = out.Hops[len(out.Hops)-1].Node
	}
	if to.node != n.self && last != host.name {
		out.Hops = append(out.Hops, n.echoHop(ctx, host, "node", "site"))
	}
	if !to.guest.IsZero() {
		out.Hops = append(out.Hops, n.echoHop(ctx, to, "guest", "guest"))
	}
	n.knowLinks(ctx, out.Hops)
	for _, h := range out.Hops {
		if h.Sent > 0 && h.Answered == 0 {
			out.Notes = append(out.Notes, h.Node+" did not answer")
		}
	}
	return out, nil
}

// traceGateways measures this gateway's path to a target's gateway: each hop is probed by its beginning of the path.
func (n *node) traceGateways(ctx context.Context, to target) ([]api.Hop, error) {
	net, st, err := n.running()
	if err != nil {
		return nil, err
	}
	dst, ok := n.endOf(net, st, to)
	if !ok || !st.Label.Valid() {
		_, err := n.explainHere(ctx, to) // which says why not
		return nil, err
	}
	e, ok := net.Explain(ctx, st.Label, dst)
	if !ok || !e.Chosen.Exists() {
		return nil, server.Problem(api.CodeUnavailable, "`vcpeer why "+n.place().Node+" "+to.name+"` tells why", "there is no way to %s just now", to.name)
	}
	view := n.replica.View()
	names := labelNames(view)
	way := append(slices.Clone(e.Chosen.Via), dst)
	hops := make([]api.Hop, len(way))
	var wg sync.WaitGroup
	for i, l := range way {
		h := names[l]
		hops[i] = api.Hop{Node: gatewayName(names, l), Site: siteName(view, h.Site), Role: "transit"}
		wg.Go(func() {
			sent, answered, least := n.probeHop(ctx, net, overlay.PingAsk{To: h.ID, Via: way[:i]})
			setHop(&hops[i], sent, answered, least)
		})
	}
	wg.Wait()
	hops[len(hops)-1].Role = "gateway"
	return hops, nil
}

// traceOverUplink is the way of a node that is no gateway: to its own, and what that measures from there.
func (n *node) traceOverUplink(ctx context.Context, st overlay.Status, to target) ([]api.Hop, error) {
	if st.Uplink == "" {
		return nil, server.Problem(api.CodeUnavailable, "`vcpeer links` and `vcpeer overlay` show more", "no gateway of this site is reached")
	}
	view := n.replica.View()
	id, err := findNode(view, st.Uplink)
	if err != nil {
		return nil, err
	}
	first := n.echoHop(ctx, targetOf(view, id), "gateway", "site")
	a, err := n.askOverlay(ctx, id, about(askTrace, to))
	if err != nil {
		return nil, err
	}
	for i := range a.Hops {
		if a.Hops[i].Answered > 0 {
			a.Hops[i].RTTMilli += first.RTTMilli
		}
	}
	return append([]api.Hop{first}, a.Hops...), nil
}

func (n *node) probeHop(ctx context.Context, net overlayNetwork, ask overlay.PingAsk) (sent, answered int, least time.Duration) {
	ask.Count, ask.Interval = traceProbes, traceEvery
	_ = net.Ping(ctx, ask, func(p overlay.Pong) { // what was not sent was not answered either
		if p.Lost {
			return
		}
		answered++
		if least == 0 || p.RTT < least {
			least = p.RTT
		}
	})
	return traceProbes, answered, least
}

// echoHop measures a hop by echo requests to its address.
func (n *node) echoHop(ctx context.Context, t target, role, link string) api.Hop {
	h := api.Hop{Node: t.name, Site: siteName(n.replica.View(), t.site), Role: role, Link: link}
	if !t.addr.IsValid() {
		return h
	}
	answered, least := 0, time.Duration(0)
	_ = echo.Run(ctx, echo.Ask{To: t.addr, Count: traceProbes, Interval: traceEvery, Timeout: time.Second}, func(p echo.Pong) {
		if p.Lost {
			return
		}
		answered++
		if least == 0 || p.RTT < least {
			least = p.RTT
		}
	})
	setHop(&h, traceProbes, answered, least)
	return h
}

func setHop(h *api.Hop, sent, answered int, least time.Duration) {
	h.Sent, h.Answered, h.RTTMilli = sent, answered, milli(least)
}

// linkTime bounds how long the gateways on a way are asked for their links.
const linkTime = 2 * time.Second

// knowLinks fills in what is known of the links between gateways: each is asked of the gateway before it.
func (n *node) knowLinks(ctx context.Context, hops []api.Hop) {
	ctx, cancel := context.WithTimeout(ctx, linkTime)
	defer cancel()
	view := n.replica.View()
	var wg sync.WaitGroup
	before := n.self
	for i := range hops {
		id, err := findNode(view, hops[i].Node)
		if hops[i].Link == "" && err == nil {
			at := before
			wg.Go(func() {
				a, err := n.askOverlay(ctx, at, overlayQuestion{Op: askLinks, Node: id.String()})
				if err == nil && len(a.Links) == 1 {
					hops[i].Link, hops[i].MTU = a.Links[0].Kind, a.Links[0].MTU
				}
			})
		}
		before = id
	}
	wg.Wait()
}
