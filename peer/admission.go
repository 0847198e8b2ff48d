package peer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"vcpeer/crdt"
	"vcpeer/crdt/replica"
	"vcpeer/peer/admit"
	"vcpeer/peer/api"
	"vcpeer/peer/fabric"
	"vcpeer/peer/server"
)

// syncTimeout bounds the first exchange of records with the member that let us in.
const syncTimeout = 2 * time.Minute

// join asks the seeds to let this node in and takes over the cluster's founding record. The records themselves come with
// the first session, in startNode.
func (d *Daemon) join(ctx context.Context, records *replica.Replica, net *fabric.Fabric) error {
	if len(d.cfg.Seeds) == 0 {
		return server.Problem(api.CodeBadRequest, "give the address of a member with --seed HOST[:PORT]", "a join token, but no seed to show it to")
	}
	if d.cfg.Token == "" {
		return server.Problem(api.CodeBadRequest,
			"type `vcpeer token` on a member and give what it prints with --token, --token-file, VCPEER_TOKEN or on standard input",
			"this node is in no cluster yet, and joining %s needs a token", strings.Join(d.cfg.Seeds, ", "))
	}
	token, err := admit.ParseToken(d.cfg.Token)
	if err != nil {
		return server.Problem(api.CodeBadRequest, "copy the whole token that `vcpeer token` printed", "%v", err)
	}
	d.enter(phaseJoining, "asking "+strings.Join(d.cfg.Seeds, ", "))
	welcome, err := admit.Join(ctx, net, token, d.cfg.Seeds, admit.Facts{Name: d.hostName(), Site: d.cfg.Site}, func(step string) {
		d.enter(phaseJoining, step)
	})
	if err != nil {
		hint := ""
		if refused := new(admit.Refusal); errors.As(err, &refused) {
			hint = refused.Hint()
		}
		return server.Problem(api.CodeRefused, hint, "not let in: %s", strings.TrimPrefix(err.Error(), "admit: "))
	}
	return d.takeOver(ctx, records, net, welcome)
}

// takeOver makes the cluster's records ours, so far as the welcome proves them; the rest comes with catchUp.
func (d *Daemon) takeOver(ctx context.Context, records *replica.Replica, net *fabric.Fabric, w *admit.Welcome) error {
	if err := records.Adopt(w.Proof.Founding); err != nil {
		return err
	}
	if _, err := records.Receive(ctx, w.Proof.Batches); err != nil {
		d.log.Debug("the admission proof is not whole logs; the rest comes with the first session", "err", err)
	}
	for _, p := range w.Peers {
		net.Learn(p.ID, p.Addrs)
		d.welcomers = append(d.welcomers, p.ID)
	}
	d.welcomers = append([]crdt.NodeID{w.Via}, d.welcomers...)
	if d.cfg.Site == "" {
		d.cfg.Site = w.Site
	}
	d.events.Add("member.joined", "this node was let in", "cluster", w.Cluster.String(), "by", w.By.String())
	d.log.Info("let into the cluster", "cluster", w.Cluster.String()[:16], "by", w.By.Short())
	return nil
}

// catchUp brings a newcomer the records before it writes any of its own: it has to know which sites there are. It goes on
// until one of those who welcomed it has answered.
func (d *Daemon) catchUp(ctx context.Context, n *node) error {
	if len(d.welcomers) == 0 {
		return nil
	}
	d.enter(phaseJoining, "fetching the records of the cluster")
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		var errs []error
		for _, id := range d.welcomers {
			tryCtx, cancel := context.WithTimeout(ctx, syncTimeout)
			err := n.spread.SyncWith(tryCtx, id)
			cancel()
			if err == nil && n.replica.View().Standing(n.self) == crdt.Joined {
				return struct{}{}, n.members.Join(ctx, []crdt.NodeID{id})
			}
			errs = append(errs, err)
		}
		err := errors.Join(errs...)
		d.enter(phaseJoining, fmt.Sprintf("fetching the records of the cluster: %v", err))
		return struct{}{}, err
	}, backoff.WithBackOff(backoff.NewExponentialBackOff()), backoff.WithMaxElapsedTime(0))
	return err
}

// startAdmitting lets this member admit others.
func (n *node) startAdmitting() {
	admit.Serve(admit.Config{
		Fabric: n.fabric, Records: n.replica, Peers: n.introductions, Log: n.log,
		Events: func(e admit.Event) {
			who := e.Facts.Name
			if who == "" {
				who = e.Node.Short()
			}
			if e.Err != nil {
				n.events.Add("join.refused", fmt.Sprintf("%s (%s) was not let in: %v", who, e.Remote, e.Err), "node", e.Node.String(), "token", e.Token.String())
				return
			}
			n.events.Add("join.admitted", fmt.Sprintf("%s (%s) was let in", who, e.Remote), "node", e.Node.String(), "token", e.Token.String())
		},
	})
}

// introductions names members for a newcomer to know besides its seed: the living.
func (n *node) introductions() []admit.Peer {
	view := n.replica.View()
	var out []admit.Peer
	for _, id := range append([]crdt.NodeID{n.self}, n.members.Alive()...) {
		if h, ok := view.Host(id); ok && len(h.Addrs) > 0 {
			out = append(out, admit.Peer{ID: id, Addrs: h.Addrs})
		}
	}
	return out
}

// registerTokens adds what concerns join tokens.
func (d *Daemon) registerTokens(s *server.Server) {
	s.Handle("GET /v1/tokens", d.changing(func(n *node, _ *http.Request) (any, error) {
		view := n.replica.View()
		return list(n, "TokenList", each(view.Tokens(), func(t crdt.Token) api.Token { return apiToken(view, t, time.Now()) })), nil
	}))
	s.Handle("POST /v1/tokens", d.changing(func(n *node, r *http.Request) (any, error) { return n.newToken(d, r) }))
	s.Handle("DELETE /v1/tokens/{id}", d.changing(func(n *node, r *http.Request) (any, error) {
		id, err := findToken(n.replica.View(), r.PathValue("id"))
		if err != nil {
			return nil, err
		}
		return nil, n.update(r, func(tx *crdt.Tx) error { return tx.RevokeToken(id) })
	}))
}

func (n *node) newToken(d *Daemon, r *http.Request) (any, error) {
	var ask api.TokenAsk
	if err := server.Decode(r, &ask); err != nil {
		return nil, err
	}
	if ask.TTL <= 0 {
		return nil, server.Problem(api.CodeBadRequest, "", "a token needs a time to live above zero")
	}
	t, err := admit.NewToken(n.replica.View().Cluster().ID, rand.Reader)
	if err != nil {
		return nil, err
	}
	var id crdt.TokenID
	err = n.update(r, func(tx *crdt.Tx) (err error) {
		id, err = tx.AddToken(t.Public(), time.Now().Add(ask.TTL), ask.Reusable, ask.Site)
		return err
	})
	if err != nil {
		return nil, err
	}
	view := n.replica.View()
	record, _ := view.Token(id)
	out := apiToken(view, record, time.Now())
	out.Token, out.Seeds = t.Text(), dialable(n.fabric.Addrs())
	out.Command = joinCommand(out.Seeds, ask.Site, out.Token)
	return out, nil
}

// joinCommand is what to type on the other machine.
func joinCommand(seeds []string, site, token string) string {
	var b strings.Builder
	b.WriteString("vcpeer start")
	for _, s := range seeds[:min(len(seeds), 3)] {
		b.WriteString(" --seed " + s)
	}
	if site != "" {
		b.WriteString(" --site " + site)
	}
	return b.String() + " --token " + token
}

// dialable turns multiaddrs into host:port, loopback only when there is nothing else, each once.
func dialable(addrs []string) []string {
	var far, near []string
	for _, hostport := range api.HostPorts(addrs) {
		if onlyHere(hostport) {
			near = append(near, hostport)
		} else {
			far = append(far, hostport)
		}
	}
	if len(far) > 0 {
		return far
	}
	return near
}

// onlyHere reports whether an address means this machine alone.
func onlyHere(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}

// findToken takes an ID or its unambiguous beginning.
func findToken(view *crdt.View, text string) (crdt.TokenID, error) {
	var found []crdt.TokenID
	for _, t := range view.Tokens() {
		if len(text) >= 4 && strings.HasPrefix(t.ID.String(), text) {
			found = append(found, t.ID)
		}
	}
	if len(found) != 1 {
		return crdt.TokenID{}, server.Problem(api.CodeNotFound, "`vcpeer token list` shows the tokens", "%d tokens begin with %q", len(found), text)
	}
	return found[0], nil
}

func apiToken(view *crdt.View, t crdt.Token, now time.Time) api.Token {
	out := api.Token{ID: t.ID.String(), Expires: t.Expires, Reusable: t.Reusable, Issuer: nodeName(view, t.Issuer), State: tokenState(t, now)}
	for _, id := range t.UsedBy {
		out.UsedBy = append(out.UsedBy, nodeName(view, id))
	}
	return out
}

// tokenState says what a token is good for; "open" ones admit.
func tokenState(t crdt.Token, now time.Time) string {
	switch {
	case t.Revoked:
		return "revoked"
	case len(t.UsedBy) > 0 && !t.Reusable:
		return "used"
	case now.After(t.Expires):
		return "expired"
	}
	return "open"
}
