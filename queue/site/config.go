package site

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	"vcpeer/crdt"
	"vcpeer/queue"
	"vcpeer/queue/exec"
	"vcpeer/queue/group"
)

// Proto is the fabric protocol of the service.
const Proto = "/vcpeer/queue/1"

// Fabric opens and accepts authenticated streams between admitted nodes.
type Fabric interface {
	Open(ctx context.Context, to crdt.NodeID, proto string) (net.Conn, error)
	Handle(proto string, h func(ctx context.Context, from crdt.NodeID, c net.Conn))
}

// Group is the site's raft group; *group.Group is one. Its machine must be the service's [Book].
type Group interface {
	Propose(ctx context.Context, command []byte) (any, error)
	ReadIndex(ctx context.Context) error
	Status() group.Status
	LeaderChanges() <-chan group.Leadership
}

// Executor runs attempts; *exec.Executor is one.
type Executor interface {
	Start(ctx context.Context, spec exec.Spec, lease time.Duration) error
	Renew(key string, until exec.BootTime) error
	Kill(key, reason string) error
	Running() []exec.Running
	Results() <-chan exec.Result
	Ack(key string) error
}

// Blobs is the node's content-addressed store with its exchange.
type Blobs interface {
	Has(hash string) bool
	Open(hash string) (io.ReadSeekCloser, int64, error)
	Fetch(ctx context.Context, hash string, from ...crdt.NodeID) error
	Push(ctx context.Context, hash string, to crdt.NodeID) error
}

// Directory is what gossip and records tell of the cluster. All of it may be out of date; nothing unsafe follows from that.
type Directory interface {
	Nodes() []queue.Node                         // all known nodes, this one included; the free counts are as published
	SiteName(id queue.SiteID) string             // empty: unknown
	SiteByName(name string) (queue.SiteID, bool) // a name two sites claim is the winner's
	RTT(id crdt.NodeID) (time.Duration, bool)
	Loads() []Load            // the newest that each node published
	Publish(l Load)           // tells all others soon; must not block
	Changed() <-chan struct{} // receives, coalesced, when something above has changed
}

// Load is what a node publishes of itself, ephemerally.
type Load struct {
	Node      crdt.NodeID   `cbor:"1,keyasint"`
	Site      queue.SiteID  `cbor:"2,keyasint"`
	FreeSlots int           `cbor:"3,keyasint"`
	FreeMem   int64         `cbor:"4,keyasint"`
	Leads     bool          `cbor:"5,keyasint,omitempty"` // the site's group
	Backlog   queue.Backlog `cbor:"6,keyasint"`           // of a leader
}

// Deliver brings the results of ended tasks of a job into its submit directory, on this node. The blobs are in the store.
// An error is tried again later; a problem in words is final.
type Deliver interface {
	Deliver(ctx context.Context, d Delivery) (problem string, err error)
}

// Delivery is the results of one task.
type Delivery struct {
	Spec queue.Spec
	Job  queue.Seq
	Task queue.TaskView
}

// Config of the service. All but Host, Log, Times, Boot and the durations are needed.
type Config struct {
	Self      crdt.NodeID
	Site      queue.SiteID
	Host      string // this node's name: told to jobs as HOSTNAME and VCPEER_NODE; empty: the ID's short form
	Fabric    Fabric
	Group     Group
	Book      *Book
	Executor  Executor
	Blobs     Blobs
	Directory Directory
	Deliver   Deliver
	// Account resolves the owner of a job (queue.Spec.Account) on this node; nil without an error means the daemon's own user.
	Account func(ctx context.Context, id string) (*exec.Account, error)

	// Environ is what jobs are told of this node beside its name, NAME=value each; default nothing. Asked for each attempt.
	Environ func() []string

	Slots    int   // CPUs this node gives to tasks; 0: it runs none
	MemBytes int64 // memory it gives to them

	Times      queue.Times          // default queue.DefaultTimes; must be the same on all nodes of the cluster
	Boot       func() exec.BootTime // default exec.NowBoot
	ClaimWait  time.Duration        // how long a claim is parked; default 20 s
	PullEvery  time.Duration        // least time between two questions to one site that had nothing; default 2 s
	RetryAfter time.Duration        // first pause before something is tried again, doubled up to 16 times; default 100 ms
	Log        *slog.Logger         // nil: discard
}

func (c Config) withDefaults() Config {
	if c.Times == (queue.Times{}) {
		c.Times = queue.DefaultTimes
	}
	if c.Boot == nil {
		c.Boot = exec.NowBoot
	}
	if c.Host == "" {
		c.Host = c.Self.Short()
	}
	if c.Environ == nil {
		c.Environ = func() []string { return nil }
	}
	setDefault(&c.ClaimWait, 20*time.Second)
	setDefault(&c.PullEvery, 2*time.Second)
	setDefault(&c.RetryAfter, 100*time.Millisecond)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func setDefault(d *time.Duration, v time.Duration) {
	if *d == 0 {
		*d = v
	}
}

// electionTimeout is the longest of package group's defaults, which the lease argument needs.
const electionTimeout = 600 * time.Millisecond

// Validate says what is missing or out of range.
func (c Config) Validate() error {
	c = c.withDefaults()
	switch {
	case c.Self.IsZero() || c.Site == "":
		return errors.New("queue/site: Self and Site are needed")
	case c.Fabric == nil || c.Group == nil || c.Book == nil || c.Executor == nil || c.Blobs == nil || c.Directory == nil || c.Deliver == nil || c.Account == nil:
		return errors.New("queue/site: Fabric, Group, Book, Executor, Blobs, Directory, Deliver and Account are needed")
	case c.Slots < 0 || c.MemBytes < 0:
		return errors.New("queue/site: Slots and MemBytes must not be negative")
	}
	return c.Times.Validate(electionTimeout)
}
