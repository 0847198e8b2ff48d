package peer

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"vcpeer/crdt"
	"vcpeer/peer/api"
	"vcpeer/peer/server"
)

// registerPeople adds what concerns accounts, groups and conflicts.
func (d *Daemon) registerPeople(s *server.Server) {
	s.Handle("GET /v1/accounts", d.reading(func(n *node, _ *http.Request) (any, error) {
		view := n.replica.View()
		return list(n, "AccountList", each(view.Accounts(), func(a crdt.Account) api.Account { return apiAccount(view, a) })), nil
	}))
	s.Handle("GET /v1/accounts/{name}", d.reading(func(n *node, r *http.Request) (any, error) {
		view := n.replica.View()
		a, err := findAccount(view, r.PathValue("name"))
		if err != nil {
			return nil, err
		}
		return apiAccount(view, a), nil
	}))
	s.Handle("POST /v1/accounts", d.changing(addAccount))
	s.Handle("DELETE /v1/accounts/{name}", d.onAccount(func(tx *crdt.Tx, id crdt.AccountID) error { return tx.RemoveAccount(id) }))
	s.Handle("POST /v1/accounts/{name}/enable", d.onAccount(func(tx *crdt.Tx, id crdt.AccountID) error { return tx.EnableAccount(id) }))
	s.Handle("PUT /v1/accounts/{name}/keys", d.changing(func(n *node, r *http.Request) (any, error) {
		var keys []string
		if err := server.Decode(r, &keys); err != nil {
			return nil, err
		}
		return nil, n.withAccount(r, func(tx *crdt.Tx, id crdt.AccountID) error { return tx.SetKeys(id, keys) })
	}))
	d.registerGroups(s)
	s.Handle("GET /v1/conflicts", d.reading(func(n *node, _ *http.Request) (any, error) {
		view := n.replica.View()
		return list(n, "ConflictList", each(view.Conflicts(), func(c crdt.Conflict) api.Conflict { return apiConflict(view, c) })), nil
	}))
	s.Handle("POST /v1/conflicts/settle", d.changing(func(n *node, r *http.Request) (any, error) {
		var ask api.Settle
		if err := server.Decode(r, &ask); err != nil {
			return nil, err
		}
		return nil, n.update(r, func(tx *crdt.Tx) error { return tx.Settle(ask.Kind, ask.Value, ask.Winner) })
	}))
}

func (d *Daemon) registerGroups(s *server.Server) {
	s.Handle("GET /v1/groups", d.reading(func(n *node, _ *http.Request) (any, error) {
		view := n.replica.View()
		live := slices.DeleteFunc(slices.Clone(view.Groups()), func(g crdt.Group) bool { return g.Removed })
		return list(n, "GroupList", each(live, func(g crdt.Group) api.Group { return apiGroup(view, g) })), nil
	}))
	s.Handle("POST /v1/groups", d.changing(func(n *node, r *http.Request) (any, error) {
		var ask api.GroupAdd
		if err := server.Decode(r, &ask); err != nil {
			return nil, err
		}
		var id crdt.GroupID
		err := n.update(r, func(tx *crdt.Tx) (err error) {
			id, err = tx.AddGroup(ask.Name, ask.GID)
			return err
		})
		if err != nil {
			return nil, err
		}
		view := n.replica.View()
		g, _ := view.Group(id)
		return apiGroup(view, g), nil
	}))
	s.Handle("DELETE /v1/groups/{name}", d.changing(func(n *node, r *http.Request) (any, error) {
		return nil, n.withGroup(r, func(tx *crdt.Tx, g crdt.Group) error { return tx.RemoveGroup(g.ID) })
	}))
	membership := func(change func(*crdt.Tx, crdt.GroupID, crdt.AccountID) error) func(*http.Request) (any, error) {
		return d.changing(func(n *node, r *http.Request) (any, error) {
			a, err := findAccount(n.replica.View(), r.PathValue("user"))
			if err != nil {
				return nil, err
			}
			return nil, n.withGroup(r, func(tx *crdt.Tx, g crdt.Group) error { return change(tx, g.ID, a.ID) })
		})
	}
	s.Handle("PUT /v1/groups/{name}/members/{user}", membership((*crdt.Tx).AddToGroup))
	s.Handle("DELETE /v1/groups/{name}/members/{user}", membership((*crdt.Tx).RemoveFromGroup))
}

func addAccount(n *node, r *http.Request) (any, error) {
	var ask api.AccountAdd
	if err := server.Decode(r, &ask); err != nil {
		return nil, err
	}
	var id crdt.AccountID
	err := n.update(r, func(tx *crdt.Tx) (err error) {
		id, err = tx.AddAccount(crdt.AccountSpec{
			Name: ask.Name, UID: ask.UID, FullName: ask.FullName, Home: ask.Home, Shell: ask.Shell, Keys: ask.Keys,
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	view := n.replica.View()
	a, _ := view.Account(id)
	n.events.Add("account.added", fmt.Sprintf("account %s (uid %d) was added", a.Name, a.UID), "account", a.Name)
	return apiAccount(view, a), nil
}

// onAccount is a handler that does one thing to the account in the path.
func (d *Daemon) onAccount(change func(*crdt.Tx, crdt.AccountID) error) func(*http.Request) (any, error) {
	return d.changing(func(n *node, r *http.Request) (any, error) { return nil, n.withAccount(r, change) })
}

func (n *node) withAccount(r *http.Request, change func(*crdt.Tx, crdt.AccountID) error) error {
	a, err := findAccount(n.replica.View(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return n.update(r, func(tx *crdt.Tx) error { return change(tx, a.ID) })
}

func (n *node) withGroup(r *http.Request, change func(*crdt.Tx, crdt.Group) error) error {
	g, ok := n.replica.View().GroupNamed(r.PathValue("name"))
	if !ok {
		return server.Problem(api.CodeNotFound, "`vcpeer group list` shows the groups", "no group is called %q", r.PathValue("name"))
	}
	return n.update(r, func(tx *crdt.Tx) error { return change(tx, g) })
}

// findAccount takes a name, or an ID for one that is not in force under its name.
func findAccount(view *crdt.View, name string) (crdt.Account, error) {
	if a, ok := view.AccountNamed(name); ok {
		return a, nil
	}
	if id, err := crdt.ParseAccountID(name); err == nil {
		if a, ok := view.Account(id); ok {
			return a, nil
		}
	}
	for _, a := range view.Accounts() { // removed ones keep their name for the eye
		if a.Name == name {
			return a, nil
		}
	}
	return crdt.Account{}, server.Problem(api.CodeNotFound, "`vcpeer account list` shows the accounts", "no account is called %q", name)
}

func apiAccount(view *crdt.View, a crdt.Account) api.Account {
	out := api.Account{
		ID: a.ID.String(), Name: a.Name, UID: a.UID, GID: a.UID, FullName: a.FullName, Home: a.Home, Shell: a.Shell,
		Keys: a.Keys, Disabled: a.Disabled, Why: a.Why,
	}
	for _, id := range a.Groups {
		if g, ok := view.Group(id); ok && !g.Removed {
			out.Groups = append(out.Groups, g.Name)
		}
	}
	return out
}

func apiGroup(view *crdt.View, g crdt.Group) api.Group {
	out := api.Group{ID: g.ID.String(), Name: g.Name, GID: g.GID, Members: []string{}}
	for _, id := range g.Members {
		if a, ok := view.Account(id); ok {
			out.Members = append(out.Members, a.Name)
		}
	}
	return out
}

func apiConflict(view *crdt.View, c crdt.Conflict) api.Conflict {
	out := api.Conflict{Kind: c.Kind, Value: c.Value, Winner: claimant(view, c.Winner), Since: c.Since, InForce: c.InForce, Settle: c.Settle}
	out.Authors = []string{nodeName(view, c.Winner.Author)}
	for _, l := range c.Losers {
		out.Losers = append(out.Losers, claimant(view, l))
		out.Authors = append(out.Authors, nodeName(view, l.Author))
	}
	return out
}

// claimant shows one side of a conflict: its ID, which Settle takes, and what it goes by.
func claimant(view *crdt.View, c crdt.Claimant) string {
	if c.InForce != "" && c.InForce != c.ID {
		return fmt.Sprintf("%s (%s)", c.ID, c.InForce)
	}
	if c.Label != "" {
		return fmt.Sprintf("%s (%s, by %s)", c.ID, c.Label, nodeName(view, c.Author))
	}
	return c.ID
}

// update writes records for a request and gives the errors of a transaction their codes.
func (n *node) update(r *http.Request, change func(*crdt.Tx) error) error {
	return recordProblem(n.replica.Update(r.Context(), change))
}

func recordProblem(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, crdt.ErrTaken):
		return server.Problem(api.CodeRefused, "choose another value, or see `vcpeer conflicts`", "%v", err)
	case errors.Is(err, crdt.ErrNotFound), errors.Is(err, crdt.ErrNotMember):
		return server.Problem(api.CodeNotFound, "", "%v", err)
	case errors.Is(err, crdt.ErrInvalid):
		return server.Problem(api.CodeBadRequest, "", "%v", err)
	}
	return err
}

// list wraps items that come from the records or from this node alone, and so are whole.
func list[T any](n *node, kind string, items []T) api.List[T] {
	if items == nil {
		items = []T{}
	}
	sites := len(n.livingSites())
	return api.List[T]{
		APIVersion: api.Version, Kind: kind, AsOf: time.Now(), SeenFrom: n.place(), Heard: api.Heard{Sites: sites, Of: sites}, Items: items,
	}
}

func each[A, B any](in []A, f func(A) B) []B {
	out := make([]B, 0, len(in))
	for _, a := range in {
		out = append(out, f(a))
	}
	return out
}
