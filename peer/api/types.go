// Package api holds what the local API of a node says: the values that travel as JSON over its unix socket, the
// error codes, and a client. The server is in package peer; the command line and other programs use the client.
//
// Every list is wrapped in a [List], which says from where and when it was seen and which sites contributed, so that
// a partial answer never looks like a whole one.
package api

import "time"

// Version names this form of the API; it changes only when a program that reads it would break.
const Version = "vcpeer/v1"

// List is the envelope of every answer with more than one thing in it.
type List[T any] struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	AsOf       time.Time `json:"asOf"`
	SeenFrom   Place     `json:"seenFrom"`
	Heard      Heard     `json:"heard"`
	Items      []T       `json:"items"`
	Hidden     int       `json:"hidden,omitempty"` // how many the question left out: jobs that ended, or those beyond the limit
}

// Place names the node that answered.
type Place struct {
	Node string `json:"node"`
	Site string `json:"site"`
}

// Heard says how many sites contributed to an answer, of how many known, and why the others did not.
type Heard struct {
	Sites   int       `json:"sites"`
	Of      int       `json:"of"`
	Missing []Missing `json:"missing,omitempty"`
}

// Complete reports whether every known site contributed.
func (h Heard) Complete() bool { return h.Sites >= h.Of }

// Missing is a site that did not contribute, with the reason.
type Missing struct {
	Site   string `json:"site"`
	Reason string `json:"reason"`
}

// Health is one check of `vcpeer status`: what is wrong and what to type.
type Health struct {
	Code    string `json:"code"`  // stable, upper case, e.g. NO_LEADER
	Level   string `json:"level"` // "ok", "note", "warn" or "fail"
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Status is this node at a glance.
type Status struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	AsOf       time.Time     `json:"asOf"`
	Well       bool          `json:"well"`
	Node       NodeStatus    `json:"node"`
	Cluster    ClusterStatus `json:"cluster"`
	Queue      QueueStatus   `json:"queue"`
	Overlay    OverlayStatus `json:"overlay"`
	Checks     []Health      `json:"checks"`
}

// NodeStatus is who this node is.
type NodeStatus struct {
	ID      string        `json:"id"`
	Name    string        `json:"name"`
	Site    string        `json:"site"`
	Version string        `json:"version"`
	PID     int           `json:"pid"`
	Up      time.Duration `json:"upNanos"`
	Listen  []string      `json:"listen"`
	State   string        `json:"stateDir"`
	Phase   string        `json:"phase"` // "starting", "joining", "running", "stopping"
	Detail  string        `json:"detail,omitempty"`
}

// ClusterStatus is what this node knows of the cluster.
type ClusterStatus struct {
	ID        string `json:"id"`
	Members   int    `json:"members"`
	Alive     int    `json:"alive"`
	Failed    int    `json:"failed"`
	Sites     int    `json:"sites"`
	Conflicts int    `json:"conflicts"`
}

// QueueStatus is the site's raft group and its work as this node sees it.
type QueueStatus struct {
	Site    string `json:"site"`
	Role    string `json:"role"` // "leader", "follower", "learner", "candidate", "none"
	Leader  string `json:"leader,omitempty"`
	Term    uint64 `json:"term"`
	Commit  uint64 `json:"commit"`
	Voters  int    `json:"voters"`
	Backlog int    `json:"backlog"`
	Running int    `json:"running"`
	Slots   int    `json:"slots"`
	Free    int    `json:"free"`
}

// OverlayStatus is the state of the network over all sites on this node.
type OverlayStatus struct {
	Up      bool   `json:"up"`
	Detail  string `json:"detail"` // in words
	Address string `json:"address,omitempty"`
	MTU     int    `json:"mtu,omitempty"`
	Uplink  string `json:"uplink,omitempty"` // a node that is no gateway reaches other sites over this one
	Sites   int    `json:"sites"`            // other sites that are reached; of no meaning where Uplink is set
	SitesOf int    `json:"sitesOf"`          // other sites that take part
	Links   int    `json:"links"`            // that are up …
	LinksOf int    `json:"linksOf"`          // … of those there are
	Encrypt bool   `json:"encrypt"`
}

// Member is a node of the cluster.
type Member struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Site     string    `json:"site"`
	State    string    `json:"state"` // "alive", "failed", "stopped" (is expected back), "left", "evicted", "unseen"
	Addrs    []string  `json:"addrs"`
	Version  string    `json:"version"`
	RTTMilli float64   `json:"rttMillis,omitempty"` // 0: not measured
	Joined   time.Time `json:"joined"`
	By       string    `json:"admittedBy,omitempty"`
	Self     bool      `json:"self,omitempty"`
}

// Site is one site and the state of its queue.
type Site struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Nodes   int      `json:"nodes"`
	Alive   int      `json:"alive"`
	Leader  string   `json:"leader,omitempty"`
	Voters  int      `json:"voters"`
	Slots   int      `json:"slots"`
	Free    int      `json:"free"`
	Running int      `json:"running"`
	Backlog int      `json:"backlog"`
	AgeSec  float64  `json:"ageSeconds"` // age of the queue figures
	Notes   []string `json:"notes,omitempty"`
}

// Host is a machine as the records describe it.
type Host struct {
	ID       string `json:"id"`
	Name     string `json:"name"` // the name in force; differs from Asked when another host won it
	Asked    string `json:"asked"`
	Site     string `json:"site"`
	Address  string `json:"address"` // overlay IPv4 address by claim
	OS       string `json:"os"`
	Arch     string `json:"arch"`
	CPUs     int    `json:"cpus"`
	MemBytes int64  `json:"memBytes"`
	State    string `json:"state"`
	Guest    bool   `json:"guest,omitempty"` // a guest of the network, and no node; see [Guest]
	On       string `json:"on,omitempty"`    // the node that a guest is attached to
}

// Account is a user of the cluster.
type Account struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	UID      uint32   `json:"uid"`
	GID      uint32   `json:"gid"`
	FullName string   `json:"fullName,omitempty"`
	Home     string   `json:"home"`
	Shell    string   `json:"shell"`
	Keys     []string `json:"sshKeys,omitempty"`
	Groups   []string `json:"groups,omitempty"`
	Disabled bool     `json:"disabled"`
	Why      string   `json:"why,omitempty"` // why it is disabled or not in force
}

// AccountAdd asks for a new account. UID 0 means: choose a free one.
type AccountAdd struct {
	Name     string   `json:"name"`
	UID      uint32   `json:"uid,omitempty"`
	FullName string   `json:"fullName,omitempty"`
	Home     string   `json:"home,omitempty"`
	Shell    string   `json:"shell,omitempty"`
	Keys     []string `json:"sshKeys,omitempty"`
}

// Group is a named set of accounts.
type Group struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	GID     uint32   `json:"gid"`
	Members []string `json:"members"`
}

// GroupAdd asks for a new group. GID 0 means: choose a free one.
type GroupAdd struct {
	Name string `json:"name"`
	GID  uint32 `json:"gid,omitempty"`
}

// Conflict is a value that two objects claim.
type Conflict struct {
	Kind    string    `json:"kind"` // "host name", "site name", "account name", "uid", ...
	Value   string    `json:"value"`
	Winner  string    `json:"winner"`
	Losers  []string  `json:"losers"`
	Authors []string  `json:"authors"`
	Since   time.Time `json:"since"`
	InForce string    `json:"inForce"` // what is materialised now, in words
	Settle  string    `json:"settle"`  // the command that settles it
}

// TokenAsk asks for a join token.
type TokenAsk struct {
	TTL      time.Duration `json:"ttlNanos"`
	Reusable bool          `json:"reusable"`
	Site     string        `json:"site,omitempty"` // proposed in the printed command
}

// Token is a join token and the command to type on the other machine.
type Token struct {
	ID       string    `json:"id"`
	Token    string    `json:"token,omitempty"` // only in the answer to TokenAsk
	Expires  time.Time `json:"expires"`
	Reusable bool      `json:"reusable"`
	Issuer   string    `json:"issuer"`
	UsedBy   []string  `json:"usedBy,omitempty"`
	State    string    `json:"state"` // "open", "used", "expired", "revoked"
	Command  string    `json:"command,omitempty"`
	Seeds    []string  `json:"seeds,omitempty"`
}

// EvictAsk puts a node out, by name or ID.
type EvictAsk struct {
	Node   string `json:"node"`
	Reason string `json:"reason,omitempty"`
}

// Event is one line of `vcpeer events`.
type Event struct {
	Time time.Time         `json:"time"`
	Type string            `json:"type"` // e.g. "member.failed", "job.done", "join.refused"
	Text string            `json:"text"`
	Data map[string]string `json:"data,omitempty"`
}

// Problem is an error as programs read it; Wrap puts it under the key "error".
type Problem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Error gives the message alone; the hint has its own line where it is shown.
func (p *Problem) Error() string { return p.Message }

// Codes of a Problem. The exit code of the command line follows from them (see package cli).
const (
	CodeBadRequest  = "BAD_REQUEST" // the request cannot be right whatever the state: exit 2
	CodeNotFound    = "NOT_FOUND"   // exit 4
	CodeRefused     = "REFUSED"     // not allowed, or impossible in this cluster: exit 5
	CodeUnavailable = "UNAVAILABLE" // no leader, no quorum, site not reachable: exit 1
	CodeBusy        = "BUSY"        // a limit is reached; try later: exit 1
	CodeNoDaemon    = "NO_DAEMON"   // made by the client: exit 6
	CodeDeadline    = "DEADLINE"    // exit 124
	CodeInternal    = "INTERNAL"    // exit 1
)
