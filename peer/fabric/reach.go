package fabric

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"vcpeer/crdt"
	"vcpeer/peer/fabric/portmap"
	"vcpeer/peer/fabric/relay"
)

// Neighbour is a member as far as it concerns how this node is reached: one that can be asked, or can relay.
type Neighbour struct {
	ID    crdt.NodeID
	Site  crdt.SiteID
	Known bool // it has said whether it can be dialled
	Open  bool // it can
}

// Answer is what is known of a question.
type Answer uint8

// The answers.
const (
	Unknown Answer = iota
	No
	Yes
)

func (a Answer) String() string { return [...]string{"unknown", "no", "yes"}[a] }

// Mapping is how a NAT chooses the address that others see.
type Mapping uint8

// Mappings. SamePort is what hole punching needs on at least one side.
const (
	MappingUnknown Mapping = iota
	NotMapped              // the address is this machine's own
	SamePort               // one address for all others
	PortEach               // another for each ("symmetric")
)

func (m Mapping) String() string {
	return [...]string{"unknown", "none", "same for all", "another for each"}[m]
}

// FamilyReach is what is known of one address family.
type FamilyReach struct {
	Out     Answer           // this node gets out by UDP
	Seen    []netip.AddrPort // as others see it, each once
	Mapping Mapping
	UDP     Answer // it can be dialled by UDP without having sent anything there
	TCP     Answer // by TCP
}

// Open reports whether anybody can open a connection to this node by this family.
func (r FamilyReach) Open() bool { return r.UDP == Yes || r.TCP == Yes }

// Natted reports whether a NAT is known to be before this node.
func (r FamilyReach) Natted() bool { return len(r.Seen) > 0 && r.Mapping != NotMapped }

// RouterReach is what the router before this machine passes on to it, of IPv4, and whether that is so.
type RouterReach struct {
	portmap.State
	Off       bool   // it must not be asked (Config.NoPortMapping)
	MappedUDP Answer // somebody who was not sent to gets in at State.UDP; Unknown: nobody has tried, since others see another address
	MappedTCP Answer // at State.TCP
}

// Place is a relay in use.
type Place struct {
	Relay crdt.NodeID
	RTT   time.Duration
	Since time.Time
}

// Reach says how this node is reached.
type Reach struct {
	Asked  int // members that have told how they see it
	V4, V6 FamilyReach
	Router RouterReach
	Places []Place  // at relays; the nearest first
	Addrs  []string // multiaddrs beside those of Addrs that were found to work
}

// Open reports whether others can dial this node: Unknown until somebody has tried.
func (r Reach) Open() Answer {
	switch {
	case r.V4.Open() || r.V6.Open():
		return Yes
	case r.Asked == 0:
		return Unknown
	}
	return No
}

const (
	wantPlaces    = 2
	maxObservers  = 4                // asked in one round
	observeEvery  = 2 * time.Minute  // while all is well
	observeSoon   = 5 * time.Second  // while fewer than two have answered
	observationOK = 10 * time.Minute // an observation that was not repeated is old after this
	placeRetry    = 2 * time.Second  // after a relay was lost or refused; then longer
	placeRetryMax = time.Minute
)

// reacher finds out how this node is reached, and keeps places at relays while others cannot dial it. What run uses is
// run's own.
type reacher struct {
	f       *Fabric
	ask     *observers
	wake    chan struct{} // holds something when there is news
	results chan []observation
	places  chan placeNews

	mu         sync.Mutex
	neighbours []Neighbour
	reach      Reach
	early      []netip.AddrPort // where this node was seen from, before the round of questions has ended
	watch      watchers
	mapped     portmap.State // what the router says to pass on
	remapped   bool          // that is new, and nobody has tried it

	seen      map[crdt.NodeID]observation
	seenAt    map[crdt.NodeID]time.Time
	held      map[crdt.NodeID]*held
	failed    map[crdt.NodeID]failure
	observing bool
	due       time.Time
	local     []netip.Addr
}

type held struct {
	cancel  context.CancelFunc
	rtt     time.Duration
	seen    netip.AddrPort
	granted time.Time
}

type failure struct {
	times int
	until time.Time
}

type placeNews struct {
	relay crdt.NodeID
	rtt   time.Duration
	seen  netip.AddrPort // where the relay sees this node; not valid: it cannot tell
	err   error          // the place is lost
}

func newReacher(f *Fabric) *reacher {
	return &reacher{
		f: f, ask: newObservers(f), wake: make(chan struct{}, 1), results: make(chan []observation, 1), places: make(chan placeNews, 16),
		seen: map[crdt.NodeID]observation{}, seenAt: map[crdt.NodeID]time.Time{}, held: map[crdt.NodeID]*held{}, failed: map[crdt.NodeID]failure{},
	}
}

// SetNeighbours says which members there are, this node among them for its site. Without it this node asks nobody and has no relays.
func (f *Fabric) SetNeighbours(n []Neighbour) {
	r := f.reacher
	r.mu.Lock()
	changed := !slices.Equal(r.neighbours, n)
	r.neighbours = slices.Clone(n)
	r.mu.Unlock()
	if changed {
		r.poke()
	}
}

// Reach returns how this node is reached, as far as is known.
func (f *Fabric) Reach() Reach {
	f.reacher.mu.Lock()
	defer f.reacher.mu.Unlock()
	return f.reacher.reach
}

// WatchReach returns a channel that holds something after Reach has changed, other than by a round trip time.
func (f *Fabric) WatchReach() (changed <-chan struct{}, stop func()) { return f.reacher.watch.add() }

// heldRelays lists the relays at which this node has places.
func (f *Fabric) heldRelays() (ids []crdt.NodeID) {
	for _, p := range f.Reach().Places {
		ids = append(ids, p.Relay)
	}
	return ids
}

func (r *reacher) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run looks after it all until the fabric closes.
func (r *reacher) run() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-r.f.ctx.Done():
			return
		case <-tick.C:
		case <-r.wake:
		case obs := <-r.results:
			r.observing = false
			for _, o := range obs {
				r.seen[o.by], r.seenAt[o.by] = o, time.Now()
			}
		case p := <-r.places:
			r.place(p)
		}
		r.round(time.Now())
	}
}

func (r *reacher) round(now time.Time) {
	if local := localAddrs(r.f.cfg.Hidden); !slices.Equal(local, r.local) {
		if r.local != nil {
			r.f.log.Info("this machine has other addresses now", "was", r.local, "is", local)
			r.moved()
		}
		r.local = local
	}
	r.mu.Lock()
	neighbours := r.neighbours
	r.mu.Unlock()
	for id, t := range r.seenAt {
		if now.Sub(t) > observationOK || !slices.ContainsFunc(neighbours, func(n Neighbour) bool { return n.ID == id }) {
			delete(r.seen, id)
			delete(r.seenAt, id)
		}
	}
	r.forgetMapped()
	r.publish()
	r.choose(neighbours, now)
	r.observe(neighbours, now)
}

// moved forgets what others saw, which is not true any more, and has holes made anew.
func (r *reacher) moved() {
	clear(r.seen)
	clear(r.seenAt)
	clear(r.failed)
	r.due = time.Time{}
	r.f.mapper.Again()
	r.mu.Lock()
	r.early = nil
	r.reach.V4.Seen, r.reach.V6.Seen, r.reach.Asked = nil, nil, 0
	r.mu.Unlock()
	r.f.punchAnew()
}

// tellMapped takes what the router says; it is tried at once.
func (r *reacher) tellMapped(s portmap.State) {
	r.mu.Lock()
	r.mapped = s
	r.remapped = true
	r.mu.Unlock()
	r.poke()
}

// forgetMapped forgets what was found of another mapping.
func (r *reacher) forgetMapped() {
	r.mu.Lock()
	changed := r.remapped
	r.remapped = false
	r.mu.Unlock()
	if !changed {
		return
	}
	r.due = time.Time{}
	for id, o := range r.seen {
		o.v4.mapped = mappedSeen{}
		r.seen[id] = o
	}
}

// observe starts a round of questions when it is time.
func (r *reacher) observe(neighbours []Neighbour, now time.Time) {
	if r.observing || now.Before(r.due) {
		return
	}
	ids := r.observersOf(neighbours)
	if len(ids) == 0 {
		return
	}
	r.observing = true
	r.due = now.Add(observeEvery)
	if len(r.seen) < 2 {
		r.due = now.Add(observeSoon)
	}
	r.f.running.Go(func() {
		out := make([]observation, len(ids))
		var all sync.WaitGroup
		for i, id := range ids {
			all.Go(func() {
				if o, err := r.ask.observe(r.f.ctx, id); err == nil {
					out[i] = o
				} else {
					r.f.log.Debug("nothing observed", "peer", id, "err", err)
				}
			})
		}
		all.Wait()
		select {
		case r.results <- slices.DeleteFunc(out, func(o observation) bool { return o.by.IsZero() }):
		case <-r.f.ctx.Done():
		}
	})
}

// observersOf picks whom to ask: first those that can be relays, then those that are connected, not of this site if there
// are others, and those asked longest ago first.
func (r *reacher) observersOf(neighbours []Neighbour) (ids []crdt.NodeID) {
	own := r.ownSite(neighbours)
	rank := func(n Neighbour) int {
		w := 0
		if n.Site == own {
			w += 4
		}
		if !n.Open && !r.dialled(n.ID) {
			w += 2
		}
		if _, ok := r.seen[n.ID]; ok {
			w++
		}
		return w
	}
	all := slices.Clone(neighbours)
	slices.SortStableFunc(all, func(a, b Neighbour) int { return rank(a) - rank(b) })
	for _, n := range all {
		if n.ID == r.f.self {
			continue
		}
		l := r.f.peek(n.ID)
		if n.Open || l != nil && len(l.usable(true)) > 0 {
			ids = append(ids, n.ID)
		}
		if len(ids) == maxObservers {
			break
		}
	}
	return ids
}

// dialled reports whether this node has dialled the member at an address of its record, so that others can do so as well.
func (r *reacher) dialled(id crdt.NodeID) bool {
	l := r.f.peek(id)
	if l == nil {
		return false
	}
	for _, c := range l.usable(true) {
		l.mu.Lock()
		ok := c.Stat().Direction == network.DirOutbound && l.knows(c.RemoteMultiaddr())
		l.mu.Unlock()
		if ok {
			return true
		}
	}
	return false
}

// choose starts and ends places.
func (r *reacher) choose(neighbours []Neighbour, now time.Time) {
	want := map[crdt.NodeID]bool{}
	if r.Reach().Open() != Yes {
		var near, same []relay.Candidate
		own := r.ownSite(neighbours)
		for _, n := range neighbours {
			if n.ID == r.f.self || !(n.Open || !n.Known && r.dialled(n.ID)) || now.Before(r.failed[n.ID].until) {
				continue
			}
			c := relay.Candidate{ID: n.ID, Site: n.Site, RTT: r.seen[n.ID].rtt}
			if h := r.held[n.ID]; h != nil {
				c.Held = true
				if h.rtt > 0 {
					c.RTT = h.rtt
				}
			}
			if n.Site == own && !own.IsZero() {
				same = append(same, c) // shares this site's fate, and its NAT
			} else {
				near = append(near, c)
			}
		}
		if len(near) == 0 {
			near = same
		}
		for _, id := range relay.Choose(near, wantPlaces) {
			want[id] = true
		}
	}
	for id, h := range r.held {
		if !want[id] {
			h.cancel()
			delete(r.held, id)
			r.f.Keep(id, "relay", false)
		}
	}
	for id := range want {
		if r.held[id] == nil {
			r.hold(id)
		}
	}
}

func (r *reacher) hold(id crdt.NodeID) {
	ctx, cancel := context.WithCancel(r.f.ctx)
	r.held[id] = &held{cancel: cancel}
	r.f.Keep(id, "relay", true)
	tell := func(n placeNews) {
		select {
		case r.places <- n:
		case <-ctx.Done():
		}
	}
	r.f.running.Go(func() {
		dial, done := context.WithTimeout(ctx, backgroundDialTime)
		s, err := r.f.openDirect(dial, id, relay.Protocol)
		done()
		if err == nil {
			err = relay.Hold(ctx, s, func(rtt time.Duration, seen netip.AddrPort) {
				tell(placeNews{relay: id, rtt: rtt, seen: seen})
			})
			if ctx.Err() == nil && err != nil {
				r.f.closeSilent(s.Conn())
			}
		}
		tell(placeNews{relay: id, err: err})
	})
}

// place takes note of a place.
func (r *reacher) place(p placeNews) {
	h := r.held[p.relay]
	if h == nil {
		return
	}
	if p.err == nil {
		h.rtt = p.rtt
		if p.seen.IsValid() && p.seen != h.seen {
			if h.seen.IsValid() {
				r.f.log.Info("the NAT gave this node another address", "was", h.seen, "is", p.seen, "relay", p.relay)
				r.moved()
			}
			h.seen = p.seen
			r.glimpse(p.seen)
		}
		if h.granted.IsZero() {
			h.granted = time.Now()
			delete(r.failed, p.relay)
			r.f.log.Debug("a place at a relay", "relay", p.relay, "rtt", p.rtt)
		}
		return
	}
	h.cancel()
	delete(r.held, p.relay)
	r.f.Keep(p.relay, "relay", false)
	delete(r.seen, p.relay) // so that it goes behind all others until it has answered again
	fail := r.failed[p.relay]
	fail.until = time.Now().Add(min(placeRetry<<min(fail.times, 8), placeRetryMax))
	fail.times++
	r.failed[p.relay] = fail
	r.due = time.Time{} // the network may be another
	r.f.log.Info("a relay is lost", "relay", p.relay, "err", p.err)
}

// ownSite is the site of this node, which is among the neighbours; zero: it is not known.
func (r *reacher) ownSite(neighbours []Neighbour) crdt.SiteID {
	for _, n := range neighbours {
		if n.ID == r.f.self {
			return n.Site
		}
	}
	return crdt.SiteID{}
}

// glimpse takes note of an address that this node was seen from by UDP.
func (r *reacher) glimpse(at netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Contains(r.early, at) || len(r.early) >= 2*maxObservers {
		return
	}
	r.early = append(r.early, at)
	r.watch.wake()
}

// seenAs lists the addresses that this node is seen from by UDP, waiting a moment when nobody has told yet.
func (r *reacher) seenAs(ctx context.Context) (out []netip.AddrPort) {
	changed, stop := r.watch.add()
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for {
		r.mu.Lock()
		out = slices.Concat(r.reach.V6.Seen, r.reach.V4.Seen)
		if len(out) == 0 {
			out = slices.Clone(r.early)
		}
		asked := r.reach.Asked
		r.mu.Unlock()
		if len(out) > 0 || asked > 0 {
			return out
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// Reach returns what was last published.
func (r *reacher) Reach() Reach {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reach
}

// publish draws the conclusions.
func (r *reacher) publish() {
	next := r.conclude()
	r.mu.Lock()
	old := r.reach
	r.reach = next
	r.mu.Unlock()
	if next.Open() != Unknown { // while it is asked anew it is as it was
		r.f.closed.Store(next.Open() == No)
		r.f.natted.Store(next.V4.Natted() || next.V6.Natted())
		r.f.mapper.Want(r.f.mayMap() && next.V4.Natted())
	}
	r.f.relay.Accept(next.Open() != No)
	if next.rank() < old.rank() || len(next.Addrs) > len(old.Addrs) {
		r.f.punchSoon()
	}
	if !alike(old, next) {
		r.watch.wake()
	}
}

// alike compares what concerns others.
func alike(a, b Reach) bool {
	same := func(p, q Place) bool { return p.Relay == q.Relay }
	family := func(f, g FamilyReach) bool {
		return f.Out == g.Out && f.UDP == g.UDP && f.TCP == g.TCP && f.Mapping == g.Mapping && slices.Equal(f.Seen, g.Seen)
	}
	return slices.EqualFunc(a.Places, b.Places, same) && family(a.V4, b.V4) && family(a.V6, b.V6) && a.Open() == b.Open() && a.Router == b.Router && slices.Equal(a.Addrs, b.Addrs)
}

// localPrefixes lists the addresses of this machine with the networks they are in, in order.
func localPrefixes(hidden func(netip.Addr) bool) (out []netip.Prefix) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() && !hidden(p.Addr()) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return slices.Compact(out)
}

// localAddrs lists the addresses of this machine, in order.
func localAddrs(hidden func(netip.Addr) bool) (out []netip.Addr) {
	for _, p := range localPrefixes(hidden) {
		out = append(out, p.Addr())
	}
	return out
}

// onLink reports whether an address is on a network that this machine is on.
func onLink(local []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(local, func(p netip.Prefix) bool { return p.Contains(a) })
}
