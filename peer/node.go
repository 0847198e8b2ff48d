package peer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"vcpeer/crdt"
	"vcpeer/crdt/replica"
	"vcpeer/gossip"
	"vcpeer/gossip/spread"
	"vcpeer/overlay"
	"vcpeer/peer/config"
	"vcpeer/peer/events"
	"vcpeer/peer/fabric"
)

// node is a running member of a cluster: the parts, and what is fixed while it runs.
type node struct {
	self    crdt.NodeID
	site    crdt.SiteID
	log     *slog.Logger
	events  *events.Log
	replica *replica.Replica
	fabric  *fabric.Fabric
	members *gossip.Membership
	spread  *spread.Spread
	jobs    *jobs
	host    *integration
	overlay *overlay.Network // nil: this node takes no part in the network over all sites
	guests  *guestBook       // set before anything asks

	asAccounts bool // jobs run as the accounts of their owners

	directory *directory
	closers   []func() error // of stores that outlive what runs on them

	stop   func(ending)   // asks the daemon to end
	failed chan error     // holds the first failure of a part that the node cannot do without
	cancel func()         // ends what run started
	tasks  sync.WaitGroup // what run started

	// What carries frames between sites in this process ends after everything else: until then traffic goes on.
	hangUp   func()
	carriers sync.WaitGroup
}

// startNode starts the parts of a node that belongs to a cluster. On an error all that was started has ended.
func (d *Daemon) startNode(ctx context.Context, records *replica.Replica, net *fabric.Fabric) (_ *node, err error) {
	d.enter(phaseStarting, "starting membership and queue")
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // both ended by shutdown, in its order
	carryCtx, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	n := &node{
		self: net.Self(), log: d.log, events: d.events, replica: records, fabric: net,
		stop: d.stop, failed: make(chan error, 1), cancel: cancel, hangUp: hangUp, asAccounts: d.cfg.JobsAs == config.JobsAsAccount,
	}
	defer func() {
		if err != nil {
			n.shutdown(context.WithoutCancel(ctx), stopping)
		}
	}()
	n.learnAddresses()
	last := &recall{file: filepath.Join(d.cfg.State, "last-seen.json")}
	before, err := last.read()
	if err != nil {
		n.log.Info("members are dialled only when they are needed", "err", err)
	}
	n.redial(runCtx, before)
	if err := n.startGossip(d); err != nil {
		return nil, err
	}
	if err := d.catchUp(ctx, n); err != nil {
		return nil, err
	}
	n.startAdmitting()
	if n.site, err = d.settle(ctx, n); err != nil {
		return nil, err
	}
	if n.jobs, err = d.startJobs(runCtx, n); err != nil {
		return nil, err
	}
	if n.host, err = d.startIntegration(runCtx, n); err != nil {
		return nil, err
	}
	if err := d.startOverlay(runCtx, carryCtx, n); err != nil {
		return nil, err
	}
	d.startGuests(n)
	n.serveOverlayAsks()
	n.tasks.Go(func() { d.keepHostFile(runCtx, n) })
	n.tasks.Go(func() { n.keepRecalled(runCtx, last) })
	n.tasks.Go(func() { n.directory.run(runCtx) })
	n.tasks.Go(func() { n.followRecords(runCtx) })
	n.tasks.Go(func() { n.followMembers(runCtx) })
	n.tasks.Go(func() { n.watchStanding(runCtx) })
	n.tasks.Go(func() { n.keepReach(runCtx) })
	return n, nil
}

func (n *node) startGossip(d *Daemon) (err error) {
	view := n.replica.View()
	n.members, err = gossip.Start(gossip.Config{
		Fabric: n.fabric, Cluster: view.Cluster().ID.String()[:16], Name: d.hostName(),
		Tags: map[string]string{"version": d.version}, Log: n.log,
		Allowed: func(id crdt.NodeID) bool { return standing(n.replica, id) == fabric.Member },
		Rejoin:  n.expected,
	})
	if err != nil {
		return err
	}
	n.directory = &directory{
		self: n.self, replica: n.replica, members: n.members, rtt: n.fabric.RTT, log: n.log, changed: make(chan struct{}, 1),
	}
	n.spread, err = spread.Start(spread.Config{
		Fabric: n.fabric, Store: listeningStore{n.replica, n.directory.touch}, Peers: n.members.Alive, Near: n.sameSite, Log: n.log,
		Urgent: func(entry []byte) bool { return urgentKind(crdt.EphemeralKind(entry)) },
		Linked: n.fabric.Connected,
	})
	return err
}

// expected returns the members that ought to be there: not evicted, and not gone on purpose.
func (n *node) expected() []crdt.NodeID {
	var ids []crdt.NodeID
	for _, m := range n.replica.View().Members() {
		if m.Standing == crdt.Joined {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

func (n *node) sameSite(id crdt.NodeID) bool {
	view := n.replica.View() // and not n.site, which a newcomer does not know yet
	other, ok := view.Host(id)
	self, settled := view.Host(n.self)
	return ok && settled && other.Site == self.Site
}

// learnAddresses tells the fabric where the records say that members are.
func (n *node) learnAddresses() {
	for _, h := range n.replica.View().Hosts() {
		if h.ID != n.self && len(h.Addrs) > 0 {
			n.fabric.Learn(h.ID, h.Addrs)
		}
	}
}

// followRecords acts on changed records: addresses, evictions, our own address and name, and what the machine shows.
func (n *node) followRecords(ctx context.Context) {
	changed, stop := n.replica.Watch()
	defer stop()
	members, stopMembers := n.members.Watch()
	defer stopMembers()
	tick := time.NewTicker(labelRest / 3)
	defer tick.Stop()
	out := make(map[crdt.NodeID]bool)
	keeper := labelKeeper{node: n}
	for {
		n.learnAddresses()
		n.applyEvictions(out)
		view := n.replica.View()
		n.host.show(view, n.self)
		n.steerOverlay(ctx, view, &keeper)
		n.reconcileGuests(ctx)
		if err := n.keepAddress(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("no overlay address", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-members:
		case <-tick.C:
		}
	}
}

// applyEvictions closes what ties us to members that were put out; out remembers whom it has dealt with.
func (n *node) applyEvictions(out map[crdt.NodeID]bool) {
	view := n.replica.View()
	for _, m := range view.Members() {
		if m.Standing != crdt.Evicted || out[m.ID] {
			continue
		}
		out[m.ID] = true
		if m.ID == n.self {
			n.events.Add("member.evicted", "this node was evicted by "+nodeName(view, m.EvictedBy), "reason", m.Reason)
			n.log.Error("this node was evicted from the cluster", "by", nodeName(view, m.EvictedBy), "reason", m.Reason)
			n.stop(evicted)
			continue
		}
		n.members.Remove(m.ID)
		n.fabric.Disconnect(m.ID)
		n.events.Add("member.out", fmt.Sprintf("%s is out of the cluster", nodeName(view, m.ID)), "node", m.ID.String(), "by", m.EvictedBy.String(), "reason", m.Reason)
	}
}

// standingEvery is how often a node that hears nobody asks whether it is still wanted.
const standingEvery = 5 * time.Second

// watchStanding finds out that this node was evicted: nobody sends the records that say so to a node that is out. It asks
// only while it hears no other member, and believes it when most of those it knows refuse its key.
func (n *node) watchStanding(ctx context.Context) {
	tick := time.NewTicker(standingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		others := slices.DeleteFunc(n.expected(), func(id crdt.NodeID) bool { return id == n.self })
		if len(others) == 0 || len(n.members.Alive()) > 0 {
			continue
		}
		if refused := n.refusedBy(ctx, others); 2*refused > len(others) {
			n.events.Add("member.evicted", fmt.Sprintf("%d of %d members refuse this node: it was evicted", refused, len(others)))
			n.stop(evicted)
			return
		}
	}
}

// refusedBy counts the members that refuse this node's key.
func (n *node) refusedBy(ctx context.Context, others []crdt.NodeID) int {
	ctx, cancel := context.WithTimeout(ctx, standingEvery)
	defer cancel()
	refused := 0
	for _, id := range others {
		c, err := n.fabric.Open(ctx, id, spread.Protocol)
		if err == nil {
			_ = c.SetReadDeadline(time.Now().Add(time.Second)) // a refusal may come only with the first read
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if errors.Is(err, fabric.ErrShutOut) {
			refused++
		}
	}
	return refused
}

// keepAddress claims another overlay address when ours was lost to an earlier claim.
func (n *node) keepAddress(ctx context.Context) error {
	if h, ok := n.replica.View().Host(n.self); !ok || h.Address.IsValid() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return n.replica.Update(ctx, func(tx *crdt.Tx) error {
		_, err := tx.ClaimAddress()
		return err
	})
}

// followMembers turns what gossip sees into events for people.
func (n *node) followMembers(ctx context.Context) {
	feed, stop := n.members.Events()
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-feed:
			if !ok {
				return
			}
			if e.Lost > 0 {
				n.events.Add("events.missed", fmt.Sprintf("%d changes of members were not noted", e.Lost))
			}
			if e.Was == e.Member.State {
				continue // it only says more of itself
			}
			view := n.replica.View()
			n.events.Add("member."+e.Member.State.String(), memberNews(memberName(view, e.Member), e.Member.State, view.Standing(e.Member.ID)), "node", e.Member.ID.String())
		}
	}
}

// memberName is what the records call a member, else what it calls itself: a newcomer's record comes after it.
func memberName(view *crdt.View, m gossip.Member) string {
	if name := view.NameOf(m.ID); name != "" {
		return name
	}
	return cmp.Or(m.Name(), m.ID.Short())
}

// memberNews says in a sentence how a member is now.
func memberNews(name string, now gossip.State, standing crdt.Standing) string {
	switch {
	case now == gossip.Alive:
		return name + " is there"
	case now == gossip.Failed:
		return name + " does not answer any more"
	case standing == crdt.Joined:
		return name + " was stopped"
	}
	return name + " has left the cluster"
}

// fail notes that a part has stopped which the node cannot do without.
func (n *node) fail(part string, err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	select {
	case n.failed <- fmt.Errorf("%s: %w", part, err):
	default:
	}
}

// shutdown stops the parts in order, each within its own time: jobs first, so that leases are handed back while the
// others are still reached; the word to the others last.
func (n *node) shutdown(ctx context.Context, why ending) {
	step := func(what string, limit time.Duration, f func(context.Context) error) {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		if err := f(ctx); err != nil {
			n.log.Warn("not stopped cleanly", "part", what, "err", err)
		}
	}
	if n.jobs != nil {
		step("queue", 5*time.Second, n.jobs.drain)
	}
	if n.members != nil && why != evicted {
		step("membership", 5*time.Second, n.members.Leave)
	}
	n.cancel()
	n.tasks.Wait()
	if why != stopping { // the traffic of one that comes back goes on meanwhile, as long as it can
		n.endTraffic()
		if n.overlay != nil {
			step("network", 5*time.Second, n.overlay.Remove)
		}
	}
	if n.spread != nil {
		n.spread.Close()
	}
	if n.members != nil {
		step("membership", time.Second, func(context.Context) error { return n.members.Close() })
	}
	for _, c := range n.closers {
		step("store", time.Second, func(context.Context) error { return c() })
	}
	n.endTraffic()
}

// endTraffic ends what carries frames between sites. Any number of times.
func (n *node) endTraffic() {
	n.hangUp()
	n.carriers.Wait()
}
