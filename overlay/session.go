package overlay

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"vcpeer/crdt"
	"vcpeer/overlay/label"
	"vcpeer/overlay/ovs"
	"vcpeer/overlay/path"
	"vcpeer/overlay/probe"
	"vcpeer/overlay/underlay"
)

// session is the network while Open vSwitch is there. Its fields are run's own; the applier gets copies.
type session struct {
	n    *Network
	sw   *ovs.Switch
	info ovs.Info

	records    Records
	topology   topology
	lookedAt   *Records // that both were taken from
	heard      sayings
	listenedTo *[]Heard // that it was taken from
	local      []underlay.Local
	peers      peers
	choices    choices
	wants      []crdt.NodeID             // whom sealed links are wanted to, as last told
	told       toldPeers                 // of the sealed links
	over       map[netip.Addr]netip.Addr // where the datagrams of the sealed link with an address go
	carriedBy  map[label.Label]any       // what carries the sealed link with each gateway; see Way.first

	uplink   uplink
	watch    watch
	planner  *path.Planner
	input    path.Input // of the last plan
	table    path.Table
	replan   time.Time     // when time alone may change the table; zero: never
	prober   *probe.Prober // nil: the bridge has no port for it yet
	urgent   chan struct{} // holds one: a link came up or went down
	large    *tooLarge
	aimed    []probe.Target // what it was last given …
	aimedAs  probe.Self     // … and as whom
	measured []measured     // all links
	links    []measured     // of them those in use
	row      path.Row

	voice     voice
	facts     Facts
	desired   desired
	applier   *applier
	done      applied // what the applier last reported
	traffic   traffic
	guests    guestPorts
	settled   time.Time                             // from when on what an earlier daemon left is replaced
	looked    time.Time                             // when the machine's addresses were
	start     func(run func(context.Context) error) // starts what ends with the session
	wasUp     map[probe.ID]bool                     // whether each link was up in the last round
	lost      bool                                  // one is not any more, and neighbours are to be asked for …
	refreshed time.Time                             // … as they last were then
	doubts    map[doubtful]time.Time                // links of others, and until when they are not believed
	doubted   map[label.Label][]path.Link           // rows without them
}

// tick is how often a session looks at its measurements and at what time alone changes.
const tick = 300 * time.Millisecond

func newSession(n *Network, sw *ovs.Switch, info ovs.Info) *session {
	s := &session{
		n: n, sw: sw, info: info, planner: path.New(path.Default()), choices: choices{}, carriedBy: map[label.Label]any{},
		traffic: traffic{began: time.Now(), sent: map[label.Label]time.Time{}},
		watch:   watch{most: n.cfg.Protect, used: map[label.Label]time.Time{}, ports: map[label.Label]uint16{}, bfd: map[label.Label]bfdState{}},
		guests:  guestPorts{}, wasUp: map[probe.ID]bool{}, doubts: map[doubtful]time.Time{}, doubted: map[label.Label][]path.Link{},
	}
	s.urgent, s.large = make(chan struct{}, 1), newTooLarge()
	s.applier = newApplier(n, sw, info)
	return s
}

// run takes part until ctx ends, or Open vSwitch has gone for good.
func (s *session) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	s.start = func(run func(context.Context) error) { parts.Go(func() { _ = run(ctx) }) } // it ends with ctx
	s.takeOver(time.Now())
	parts.Go(func() { s.applier.run(ctx) })
	s.start(s.applier.dhcp.Run)
	ticker, late := time.NewTicker(tick), time.NewTimer(0)
	defer ticker.Stop()
	defer late.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.n.wake:
			if wait := gather - time.Since(last); wait > 0 {
				late.Reset(wait)
				continue
			}
		case <-late.C:
		case <-s.urgent:
		case <-s.n.urgent:
		case <-ticker.C:
		case done := <-s.applier.results:
			s.took(done)
		case ask := <-s.n.asks:
			ask(s)
		case ev := <-s.sw.Events():
			s.hear(ev)
		}
		last = time.Now()
		s.round(ctx, last)
	}
}

// gather is how long what is handed over in short order waits to be looked at together: when many sites start at once, each
// of a thousand gateways says something.
const gather = 30 * time.Millisecond

// took takes note of how a round of the applier went.
func (s *session) took(done applied) {
	for _, f := range done.faults {
		if !slices.ContainsFunc(s.done.faults, func(o Fault) bool { return o.Part == f.Part && o.Err.Error() == f.Err.Error() }) {
			s.n.cfg.Log.Warn("the network is not as it should be", "part", f.Part, "err", f.Err)
			s.n.cfg.Tell("overlay.fault", fmt.Sprintf("network: %s: %v", f.Part, f.Err))
		}
	}
	if len(done.faults) == 0 && len(s.done.faults) > 0 {
		s.n.cfg.Log.Info("the network is as it should be again")
	}
	if done.up && !s.done.up {
		s.n.cfg.Log.Info("the network over all sites is up", "bridge", done.name, "address", s.topology.self.Address, "datapath", s.info.Datapath)
		s.n.cfg.Tell("overlay.up", fmt.Sprintf("the network over all sites is up: this node has %s", s.topology.self.Address))
	}
	s.done = done
	if done.name != "" && s.prober == nil {
		s.startProber(done.name)
	}
}

// hear takes note of what Open vSwitch says.
func (s *session) hear(ev ovs.Event) {
	switch ev.Kind {
	case ovs.BFDMoved:
		if l, ok := s.watched(ev.Port); ok {
			s.watch.heard(l, ev.State.BFD.State == "up" && ev.State.BFD.Forwarding, ev.State.BFD.State, time.Now())
		}
	case ovs.Gone:
		s.n.cfg.Log.Warn("a daemon of Open vSwitch has gone", "daemon", ev.Daemon)
		s.n.cfg.Tell("overlay.daemon", ev.Daemon+" of Open vSwitch has gone")
	case ovs.Restarted:
		s.n.cfg.Log.Info("a daemon of Open vSwitch is back", "daemon", ev.Daemon)
		s.applier.again()
	case ovs.Changed:
		s.applier.again()
	case ovs.Busy:
		s.traffic.note(behindWhich(s.desired.want, ev.Hosts), time.Now())
	case ovs.PortMoved: // of our own doing, or the next comparison sees it
	}
}

// round draws the conclusions from all that is known, and hands what follows to whom it concerns. It does nothing slow.
func (s *session) round(ctx context.Context, now time.Time) {
	if !s.look(now) {
		s.n.down("this node has no address in the network yet", "")
		return
	}
	s.aim(ctx, now)
	links := s.links
	if s.topology.self.Label.Valid() {
		s.plan(links, now)
		s.say(links, now)
	} else {
		s.table = path.Table{}
		s.chooseUplink(links)
	}
	s.apply(links, now)
	s.show(links)
}

// look takes in records and what was heard; false: there is nothing to do yet.
func (s *session) look(now time.Time) bool {
	r := s.n.records.Load()
	if r == nil {
		return false
	}
	if r != s.lookedAt {
		s.lookedAt, s.records = r, *r
		s.topology = s.records.topology()
	}
	if h := s.n.heard.Load(); h != nil && h != s.listenedTo {
		s.listenedTo = h
		for _, err := range s.heard.take(*h) {
			s.n.cfg.Log.Debug("what a gateway says of its links is left out", "err", err)
		}
	}
	s.lookBelow(now)
	s.guests.take(s.n.guestsNow())
	if !s.topology.self.Address.IsValid() {
		return false
	}
	s.choosePeers()
	s.sealPeers(now)
	return true
}

// plan chooses the paths of a gateway.
func (s *session) plan(links []measured, now time.Time) {
	in := path.Input{Self: s.topology.self.Label, SealedOnly: s.records.Encrypt, Gateways: s.topology.plan}
	in.Rows = s.doubt(append(s.heard.rows(s.topology), s.ownRow(links)), now)
	if sameInput(in, s.input) && (s.replan.IsZero() || now.Before(s.replan)) {
		return
	}
	s.input = in
	s.table, s.replan = s.planner.Plan(in, now)
}

// sameInput reports that a plan of b is one of a too: what rows say is compared by their memory, which changes with it.
func sameInput(a, b path.Input) bool {
	return a.Self == b.Self && a.SealedOnly == b.SealedOnly && slices.Equal(a.Gateways, b.Gateways) &&
		slices.EqualFunc(a.Rows, b.Rows, func(x, y path.Row) bool {
			return x.From == y.From && len(x.Links) == len(y.Links) && (len(x.Links) == 0 || &x.Links[0] == &y.Links[0])
		})
}

// chooseUplink picks the gateway of a node that is none.
func (s *session) chooseUplink(links []measured) {
	var all []candidate
	for _, g := range s.topology.own.gateways {
		c := candidate{l: g.Label}
		for _, m := range links {
			if m.node.ID == g.ID {
				c.up, c.rtt = m.up, m.rtt
			}
		}
		all = append(all, c)
	}
	if before := s.uplink.current; s.uplink.choose(all) != before {
		s.choosePeers()
	}
}

func (s *session) choosePeers() {
	s.peers = choosePeers(s.records, s.topology, s.local, s.uplink.current, s.n.sealing != nil)
	s.peers.use(s.choices.kind)
}

// say tells the other gateways of this one's links when there is news, and now and then, since what is old is forgotten.
func (s *session) say(links []measured, now time.Time) {
	next := saying{row: s.ownRow(links), watch: s.watch.wish}
	if s.voice.due(next, now) {
		s.n.cfg.Publish(next.encode())
	}
}

// apply has the applier make what follows.
func (s *session) apply(links []measured, now time.Time) {
	if now.Before(s.settled) && !s.ready(links) {
		return // what an earlier daemon left is better than what is known so far
	}
	s.settled = time.Time{}
	s.watch.choose(s.nearest(links), s.heard.watchers(s.topology, s.topology.self.Label), now)
	next := s.desire(decided{
		table: s.table, protected: maps.Clone(s.watch.ports), every: s.watch.intervals(s.inUse(now), now), watched: s.watch.believed(now), offered: s.offered(links),
		guests: s.guests.ports(), linkMTU: s.linkMTU, largest: s.largest(), around: s.around(links),
		askAgent: s.info.Datapath != inUserSpace,
	})
	if reflect.DeepEqual(next, s.desired) {
		return
	}
	if !reflect.DeepEqual(next.want, s.desired.want) {
		s.large.set(takes(next.want))
	}
	s.desired = next
	s.applier.set(next)
}

// nearest are the gateways whose links can be watched.
func (s *session) nearest(links []measured) []nearness {
	if !s.topology.self.Label.Valid() {
		return nil
	}
	rtt := map[label.Label]time.Duration{}
	for _, m := range links {
		rtt[m.node.Label] = m.rtt
	}
	used := firstLinks(s.table)
	var out []nearness
	for l := range s.peers.far {
		out = append(out, nearness{l, rtt[l], slices.Contains(used, l)})
	}
	return out
}

// offered are the links that others may be sent over: those that this gateway tells of, and those that others tell of.
func (s *session) offered(links []measured) map[label.Label]bool {
	out := s.heard.offers(s.topology, s.topology.self.Label)
	for _, l := range s.ownRow(links).Links {
		out[l.To] = true
	}
	return out
}

// largest is the largest packet that a sender behind this bridge may make: a guest may ignore what it was told.
func (s *session) largest() int {
	if len(s.guests) > 0 {
		return 1 << 16
	}
	out := s.mtu()
	for _, n := range s.topology.own.nodes {
		out = max(out, n.UnderlayMTU-underlay.Overhead(netip.IPv4Unspecified()))
	}
	return out
}

// takeOver learns what an earlier daemon of this node left, so that nothing of it is taken down only to be made again: the
// ports of watched links keep their sessions, and paths are replaced when enough is measured to know better.
func (s *session) takeOver(now time.Time) {
	for i := range maxBridges {
		name := fmt.Sprintf("%s%d", s.n.cfg.Name, i)
		ports := s.sw.Ports(name)
		if _, ours := ports[grePort(name)]; !ours || !slices.Contains(s.sw.Owned(), name) {
			continue
		}
		s.applier.name, s.done.name = name, name
		s.startProber(name)
		s.settled = now.Add(settleTime)
		for port, st := range ports {
			if l, ok := watchedLabel(name, port); ok && st.OFPort > 0 {
				s.watch.ports[l] = uint16(st.OFPort)
				s.watch.wish = append(s.watch.wish, l)
				s.watch.heard(l, st.BFD.State == "up" && st.BFD.Forwarding, st.BFD.State, now)
			}
		}
		return
	}
}

// settleTime is how long what an earlier daemon left stays as it is, at most: by then what others say has come, and every
// link has been measured or has had its chance.
const settleTime = 6 * time.Second

// ready reports that enough is known to choose paths: every link is measured or known to be down, and of every gateway
// that answers it is known what it says.
func (s *session) ready(links []measured) bool {
	if !s.topology.self.Label.Valid() {
		return len(links) > 0
	}
	for _, m := range links {
		if _, heard := s.heard.heard[m.node.ID]; !m.known || m.up && !heard {
			return false
		}
	}
	return len(links) == len(s.peers.far)
}

// watched is the gateway of a port of the bridge that has a port of its own.
func (s *session) watched(port string) (label.Label, bool) {
	return watchedLabel(s.applierName(), port)
}

func (s *session) applierName() string { return s.done.name }
