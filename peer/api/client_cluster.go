package api

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// Settle names the winner of a conflict, as [Client.Settle] sends it.
type Settle struct {
	Kind   string `json:"kind"`
	Value  string `json:"value"`
	Winner string `json:"winner"` // an object ID or a name among the conflict's winner and losers
}

// get fetches one value.
func get[T any](ctx context.Context, c *Client, path string, query url.Values) (*T, error) {
	v := new(T)
	if err := c.call(ctx, http.MethodGet, path, query, nil, v); err != nil {
		return nil, err
	}
	return v, nil
}

// post sends in and reads one value.
func post[T any](ctx context.Context, c *Client, path string, in any) (*T, error) {
	v := new(T)
	if err := c.call(ctx, http.MethodPost, path, nil, in, v); err != nil {
		return nil, err
	}
	return v, nil
}

// Status tells how this node is.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return get[Status](ctx, c, "/v1/status", nil)
}

// Members lists the nodes of the cluster.
func (c *Client) Members(ctx context.Context) (*List[Member], error) {
	return get[List[Member]](ctx, c, "/v1/members", nil)
}

// Sites lists the sites and the state of their queues.
func (c *Client) Sites(ctx context.Context) (*List[Site], error) {
	return get[List[Site]](ctx, c, "/v1/sites", nil)
}

// Hosts lists the machines.
func (c *Client) Hosts(ctx context.Context) (*List[Host], error) {
	return get[List[Host]](ctx, c, "/v1/hosts", nil)
}

// HostsAndGuests lists the machines, and after them the guests of the network.
func (c *Client) HostsAndGuests(ctx context.Context) (*List[Host], error) {
	return get[List[Host]](ctx, c, "/v1/hosts", url.Values{"guests": {"1"}})
}

// Accounts lists the users of the cluster.
func (c *Client) Accounts(ctx context.Context) (*List[Account], error) {
	return get[List[Account]](ctx, c, "/v1/accounts", nil)
}

// Account returns one user by name.
func (c *Client) Account(ctx context.Context, name string) (*Account, error) {
	return get[Account](ctx, c, "/v1/accounts/"+url.PathEscape(name), nil)
}

// AddAccount makes a user known in the whole cluster.
func (c *Client) AddAccount(ctx context.Context, a AccountAdd) (*Account, error) {
	return post[Account](ctx, c, "/v1/accounts", a)
}

// RemoveAccount removes a user; the uid is never given to another.
func (c *Client) RemoveAccount(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, "/v1/accounts/"+url.PathEscape(name), nil, nil, nil)
}

// EnableAccount brings a disabled user back.
func (c *Client) EnableAccount(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodPost, "/v1/accounts/"+url.PathEscape(name)+"/enable", nil, nil, nil)
}

// SetKeys replaces a user's SSH public keys (authorized_keys lines).
func (c *Client) SetKeys(ctx context.Context, name string, keys []string) error {
	if keys == nil {
		keys = []string{}
	}
	return c.call(ctx, http.MethodPut, "/v1/accounts/"+url.PathEscape(name)+"/keys", nil, keys, nil)
}

// Groups lists the groups of accounts.
func (c *Client) Groups(ctx context.Context) (*List[Group], error) {
	return get[List[Group]](ctx, c, "/v1/groups", nil)
}

// AddGroup makes a group known in the whole cluster.
func (c *Client) AddGroup(ctx context.Context, g GroupAdd) (*Group, error) {
	return post[Group](ctx, c, "/v1/groups", g)
}

// RemoveGroup removes a group.
func (c *Client) RemoveGroup(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, "/v1/groups/"+url.PathEscape(name), nil, nil, nil)
}

// AddToGroup puts a user into a group; doing it twice is harmless.
func (c *Client) AddToGroup(ctx context.Context, group, user string) error {
	return c.call(ctx, http.MethodPut, membership(group, user), nil, nil, nil)
}

// RemoveFromGroup takes a user out of a group.
func (c *Client) RemoveFromGroup(ctx context.Context, group, user string) error {
	return c.call(ctx, http.MethodDelete, membership(group, user), nil, nil, nil)
}

func membership(group, user string) string {
	return "/v1/groups/" + url.PathEscape(group) + "/members/" + url.PathEscape(user)
}

// Conflicts lists the values that two objects claim.
func (c *Client) Conflicts(ctx context.Context) (*List[Conflict], error) {
	return get[List[Conflict]](ctx, c, "/v1/conflicts", nil)
}

// Settle decides a conflict.
func (c *Client) Settle(ctx context.Context, s Settle) error {
	return c.call(ctx, http.MethodPost, "/v1/conflicts/settle", nil, s, nil)
}

// Rename is the new name of a host or a site.
type Rename struct {
	Name string `json:"name"`
}

// RenameHost gives a host another name.
func (c *Client) RenameHost(ctx context.Context, host, name string) error {
	return c.call(ctx, http.MethodPost, "/v1/hosts/"+url.PathEscape(host)+"/rename", nil, Rename{name}, nil)
}

// RenameSite gives a site another name.
func (c *Client) RenameSite(ctx context.Context, site, name string) error {
	return c.call(ctx, http.MethodPost, "/v1/sites/"+url.PathEscape(site)+"/rename", nil, Rename{name}, nil)
}

// Events yields what happened since a time (zero: what the node still remembers) and, with follow, what happens.
func (c *Client) Events(ctx context.Context, follow bool, since time.Time) iter.Seq2[Event, error] {
	q := url.Values{}
	if follow {
		q.Set("follow", "1")
	}
	if !since.IsZero() {
		q.Set("since", since.UTC().Format(time.RFC3339Nano))
	}
	return stream[Event](ctx, c, "/v1/events", q)
}

// Tokens lists the join tokens; their secrets are not in it.
func (c *Client) Tokens(ctx context.Context) (*List[Token], error) {
	return get[List[Token]](ctx, c, "/v1/tokens", nil)
}

// NewToken makes a join token. Its secret is in this answer and never again.
func (c *Client) NewToken(ctx context.Context, ask TokenAsk) (*Token, error) {
	return post[Token](ctx, c, "/v1/tokens", ask)
}

// RevokeToken makes a token worthless.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/v1/tokens/"+url.PathEscape(id), nil, nil, nil)
}

// Evict puts a node out of the cluster for good.
func (c *Client) Evict(ctx context.Context, ask EvictAsk) error {
	return c.call(ctx, http.MethodPost, "/v1/evict", nil, ask, nil)
}

// Leave takes this node out of the cluster: it hands over what it holds, says good-bye and stops.
func (c *Client) Leave(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/leave", nil, nil, nil)
}

// Stop ends the daemon; it stays a member and its running jobs go on under their shims.
func (c *Client) Stop(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/stop", nil, nil, nil)
}
