package overlay

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
	"vcpeer/overlay/probe"
	"vcpeer/overlay/solicit"
	"vcpeer/overlay/underlay"
)

// measured is what is known of the way to one other node: a gateway of another site, or one of the own for a node that is
// none itself.
type measured struct {
	node    Node
	id      probe.ID
	kind    path.Kind
	to      netip.Addr
	ever    bool // an answer has come
	known   bool // the same, or none for long enough to say so
	told    bool // others are told of it: it is probed often enough to be good for that
	up      bool
	rtt     time.Duration // 0: not measured
	jitter  time.Duration
	lossOut float64
	lossIn  float64
	mtu     int
	since   time.Time
	flaps   int

	answered, missing time.Time // see probe.Link
}

// tellAll is up to how many gateways' links are told of, however seldom they are probed.
const tellAll = 64

// startProber measures through the bridge from now on.
func (s *session) startProber(bridge string) {
	s.prober = probe.NewProber(controlPort(bridge))
	s.prober.OnEvent = func(e probe.Event) {
		switch e.Kind {
		case probe.Up, probe.Down, probe.MTU:
			poke(s.urgent)
		case probe.Pong, probe.PingLost:
			s.n.pongs.come(e)
		}
	}
	s.prober.OnFrame = func(frame []byte) {
		answer, ok := solicit.Answer(frame, macOf)
		if !ok {
			answer, ok = s.large.answer(frame, time.Now())
		}
		if ok {
			_ = s.prober.Send(answer) // who gets none asks again
		}
	}
	s.start(s.prober.Run)
	s.aimed = nil
}

// aim has the prober measure what is to be measured, and takes in what it knows.
func (s *session) aim(ctx context.Context, now time.Time) {
	if s.prober == nil {
		s.measured, s.links = nil, nil
		return
	}
	self, targets := s.targets(now)
	if self != s.aimedAs || s.aimed == nil || !reflect.DeepEqual(targets, s.aimed) {
		if err := s.prober.Set(ctx, self, targets); err != nil {
			return // it is starting, or the session ends
		}
		s.aimedAs, s.aimed = self, targets
		s.tellWants(targets)
	}
	report := s.prober.Report()
	s.measured = s.measure(report, now)
	s.links = s.choose(s.measured, now)
	s.suspect(report.Paths, now)
	s.refresh(now)
}

// refresh has the kernel ask anew for the neighbours of links that went down: it may be that only those moved. Until the
// answer comes everything that goes over such a neighbour is lost, so one that some link still works over is left alone, and
// where all fail again and again, as on a machine that is too busy, it is not for this that they do.
func (s *session) refresh(now time.Time) {
	for _, m := range s.measured {
		if m.kind == path.Sealed {
			continue // it has no neighbours
		}
		if s.wasUp[m.id] && !m.up {
			s.lost = true
		}
		s.wasUp[m.id] = m.up
	}
	if !s.lost || now.Sub(s.refreshed) < refreshGap {
		return
	}
	s.lost = false
	var up, down []netip.Addr
	for _, m := range s.measured {
		switch {
		case m.kind == path.Sealed:
		case m.up:
			up = append(up, m.to)
		default:
			down = append(down, m.to)
		}
	}
	if underlay.Forget(down, up) {
		s.refreshed = now
		s.applier.lookAround()
	}
}

// refreshGap is the least time between two askings for neighbours that were known: a good one costs a moment's packets.
const refreshGap = 5 * time.Second

// targets are the nodes to probe: for a gateway those of other sites, for any other node those of its own.
func (s *session) targets(now time.Time) (probe.Self, []probe.Target) {
	t := s.topology
	slot, _ := slotOf(t.self.Address)
	self := probe.Self{Label: t.self.Label, Slot: slot}
	if !t.self.Label.Valid() {
		var out []probe.Target
		for _, g := range t.own.gateways {
			at, _ := slotOf(g.Address)
			if a, ok := s.peers.near[at]; ok {
				out = append(out, probe.Target{ID: probe.Node(at), Addr: a, Class: probe.Fast, MTU: s.linkMTU(a, g.UnderlayMTU)})
			}
		}
		return self, out
	}
	var labels []label.Label
	each(t, func(g Node) { labels = append(labels, g.Label) })
	slices.Sort(labels)
	inUse := s.inUse(now)
	paths := map[label.Label][][]label.Label{}
	for _, c := range s.detours(now) {
		paths[c.Dst] = [][]label.Label{c.Via}
	}
	rtt := map[label.Label]time.Duration{}
	for _, m := range s.links {
		rtt[m.node.Label] = m.rtt
	}
	classes := probe.Classify(self.Label, labels, func(l label.Label) time.Duration { return rtt[l] }, firstLinks(s.table))
	class := map[label.Label]probe.Class{}
	for i, l := range labels {
		class[l] = classes[i]
		if !inUse[l] && rtt[l] > 0 {
			class[l] = max(class[l], probe.Near)
		}
	}
	onPaths := probe.PathClass(len(paths))
	var out []probe.Target
	each(t, func(g Node) {
		put := func(kind path.Kind, a netip.Addr) {
			target := probe.Target{ID: probe.Gateway(g.Label), Kind: kind, Addr: a, Class: class[g.Label], MTU: s.linkMTU(a, g.UnderlayMTU)}
			if a == s.peers.far[g.Label] {
				target.Paths, target.PathClass = paths[g.Label], onPaths
			} else if kind == path.Sealed && !s.missing(g.Label) { // and GRE is taken again as soon as it works
				target.Class = max(target.Class, probe.Spare)
			}
			out = append(out, target)
		}
		if a, ok := s.peers.clear[g.Label]; ok {
			put(path.GRE, a)
		}
		if a, ok := s.peers.sealed[g.Label]; ok && s.wantsSealed(g.Label, class[g.Label], len(labels)) {
			put(path.Sealed, a)
		}
	})
	return self, out
}

// maxDetours bounds how many paths are probed, so that the cost of a large cluster is bounded.
const maxDetours = 24

// detours are the paths over others that are probed from end to end: of those in use the ones with the least RTT. After the
// others look the ends of their links.
func (s *session) detours(now time.Time) []path.Choice {
	choices := slices.DeleteFunc(slices.Clone(s.table.Choices), func(c path.Choice) bool {
		return len(c.Via) == 0 || !s.traffic.lately(c.Dst, len(s.peers.far), now)
	})
	slices.SortStableFunc(choices, func(a, b path.Choice) int { return cmp.Compare(a.RTT, b.RTT) })
	return choices[:min(len(choices), maxDetours)]
}

// firstLinks are the gateways whose direct links paths begin with, those of the most paths first.
func firstLinks(t path.Table) []label.Label {
	paths := map[label.Label]int{}
	for _, c := range t.Choices {
		paths[c.First()]++
	}
	return slices.SortedFunc(maps.Keys(paths), func(a, b label.Label) int {
		return cmp.Or(cmp.Compare(paths[b], paths[a]), cmp.Compare(a, b))
	})
}

// missing reports that the link in use to a gateway does not answer: it is to be known soon whether the other does.
func (s *session) missing(l label.Label) bool {
	return slices.ContainsFunc(s.links, func(m measured) bool { return m.node.Label == l && !m.missing.IsZero() })
}

// wantsSealed reports whether a sealed link is wanted to a gateway among so many: among thousands not to those that are seldom
// probed, as long as there is another link to them that works.
func (s *session) wantsSealed(l label.Label, class probe.Class, gateways int) bool {
	return gateways <= tellAll || class != probe.Rest || s.choices.kind(l) == path.Sealed ||
		!slices.ContainsFunc(s.links, func(m measured) bool { return m.node.Label == l && (m.up || !m.known) })
}

// measure takes in what the prober knows of the targets.
func (s *session) measure(r probe.Report, now time.Time) []measured {
	nodes := map[probe.ID]Node{}
	each(s.topology, func(g Node) { nodes[probe.Gateway(g.Label)] = g })
	if !s.topology.self.Label.Valid() {
		for _, g := range s.topology.own.gateways {
			at, _ := slotOf(g.Address)
			nodes[probe.Node(at)] = g
		}
	}
	out := make([]measured, 0, len(r.Links))
	for _, l := range r.Links {
		n, ok := nodes[l.ID]
		if !ok {
			continue
		}
		m := measured{
			node: n, id: l.ID, kind: l.Kind, ever: l.Measured, known: l.Measured || now.Sub(l.Since) > giveUp, up: l.Up, rtt: l.RTT, jitter: l.Sigma, lossOut: l.LossOut, lossIn: l.LossIn,
			mtu: l.MTU, since: l.Since, flaps: l.Flaps, answered: l.Answered, missing: l.Missing, told: len(nodes) <= tellAll || l.Class != probe.Rest,
		}
		if at, near := l.ID.Slot(); near {
			m.to = s.peers.near[at]
		} else if l.Kind == path.Sealed {
			m.to = s.peers.sealed[n.Label]
		} else {
			m.to = s.peers.clear[n.Label]
		}
		out = append(out, m)
	}
	return out
}

// choose takes of each node the link that is in use. What was watched of a link of another kind says nothing of the new one.
func (s *session) choose(all []measured, now time.Time) []measured {
	out := make([]measured, 0, len(all))
	gateways := map[label.Label]bool{}
	for i := 0; i < len(all); i++ {
		if _, near := all[i].id.Slot(); near {
			out = append(out, all[i])
			continue
		}
		b := s.linksOf(all[i:])
		if b.gre != nil && b.seal != nil {
			i++
		}
		l := all[i].node.Label
		before := s.choices.kind(l)
		out = append(out, *s.choices.choose(l, b, now))
		if s.choices.kind(l) != before {
			s.watch.renew(l, now)
		}
		gateways[l] = true
	}
	s.choices.forget(gateways)
	s.peers.use(s.choices.kind)
	return out
}

// linksOf are the links of the gateway that comes first of those that are measured, which are in order, and what it says.
func (s *session) linksOf(all []measured) (b both) {
	for i := range all[:min(len(all), 2)] {
		switch m := &all[i]; {
		case m.id != all[0].id:
		case m.kind == path.Sealed:
			b.seal = m
		default:
			b.gre = m
		}
	}
	self := s.topology.self.Label
	if all[0].node.Label > self {
		return b
	}
	for _, l := range s.heard.heard[all[0].node.ID].row.Links {
		if l.To == self && l.Up {
			b.led, b.word = true, min(l.Kind, path.Sealed)
		}
	}
	return b
}

// giveUp is when a link that has never answered is taken for down.
const giveUp = 2 * time.Second

// carried is how a link carries frames, as others are told.
func (s *session) carried(m measured) path.Kind {
	if _, direct := s.over[m.to]; m.kind == path.Sealed && !direct {
		return path.Stream
	}
	return m.kind
}

// ownRow is what this gateway says of its links. A row that says nothing new is the same memory again, by which the
// planner knows that.
func (s *session) ownRow(links []measured) path.Row {
	row := path.Row{From: s.topology.self.Label}
	for _, m := range links {
		if m.told && m.known {
			row.Links = append(row.Links, path.Link{To: m.node.Label, RTT: m.rtt, Loss: m.lossOut, MTU: m.mtu, Kind: s.carried(m), Up: m.up})
		}
	}
	slices.SortFunc(row.Links, func(a, b path.Link) int { return int(a.To) - int(b.To) })
	if row.From == s.row.From && slices.Equal(row.Links, s.row.Links) {
		return s.row
	}
	s.row = row
	return row
}
