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
	"vcpeer/overlay/underlay"
)

// measured is what is known of the way to one other node: a gateway of another site, or one of the own for a node that is
// none itself.
type measured struct {
	node    Node
	id      probe.ID
	to      netip.Addr
	known   bool // an answer has come, or none for long enough to say so
	told    bool // others are told of it: it is probed often enough to be good for that
	up      bool
	rtt     time.Duration // 0: not measured
	jitter  time.Duration
	lossOut float64
	lossIn  float64
	mtu     int
	since   time.Time
	flaps   int
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
		if answer, ok := s.large.answer(frame, time.Now()); ok {
			_ = s.prober.Send(answer) // the next packet that is too large asks again
		}
	}
	s.start(s.prober.Run)
	s.aimed = nil
}

// aim has the prober measure what is to be measured, and takes in what it knows.
func (s *session) aim(ctx context.Context, now time.Time) {
	if s.prober == nil {
		s.links = nil
		return
	}
	self, targets := s.targets(now)
	if self != s.aimedAs || s.aimed == nil || !reflect.DeepEqual(targets, s.aimed) {
		if err := s.prober.Set(ctx, self, targets); err != nil {
			return // it is starting, or the session ends
		}
		s.aimedAs, s.aimed = self, targets
	}
	report := s.prober.Report()
	s.links = s.measure(report, now)
	s.suspect(report.Paths, now)
	s.refresh(now)
}

// refresh has the kernel ask anew for the neighbours of links that went down: it may be that only those moved. Until the
// answer comes everything that goes over such a neighbour is lost, so one that some link still works over is left alone, and
// where all fail again and again, as on a machine that is too busy, it is not for this that they do.
func (s *session) refresh(now time.Time) {
	for _, m := range s.links {
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
	for _, m := range s.links {
		if m.up {
			up = append(up, m.to)
		} else {
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
	paths := map[label.Label][][]label.Label{}
	for _, via := range s.detours() {
		paths[via.to] = [][]label.Label{via.over}
	}
	rtt := map[label.Label]time.Duration{}
	for _, m := range s.links {
		rtt[m.node.Label] = m.rtt
	}
	idle := s.idle(now)
	classes := probe.Classify(self.Label, labels, func(l label.Label) time.Duration { return rtt[l] }, firstLinks(s.table))
	class := map[label.Label]probe.Class{}
	for i, l := range labels {
		class[l] = classes[i]
		if idle && rtt[l] > 0 {
			class[l] = max(class[l], probe.Near)
		}
	}
	onPaths := probe.PathClass(len(paths))
	if idle {
		onPaths = probe.Near
	}
	var out []probe.Target
	each(t, func(g Node) {
		if a, ok := s.peers.far[g.Label]; ok && !s.records.Encrypt {
			out = append(out, probe.Target{
				ID: probe.Gateway(g.Label), Addr: a, Class: class[g.Label], MTU: s.linkMTU(a, g.UnderlayMTU),
				Paths: paths[g.Label], PathClass: onPaths,
			})
		}
	})
	return self, out
}

// detour is a path over others that is probed from end to end.
type detour struct {
	to   label.Label
	over []label.Label
}

// maxDetours bounds how many are, so that the cost of a large cluster is bounded: those with the least RTT.
const maxDetours = 24

func (s *session) detours() []detour {
	choices := slices.DeleteFunc(slices.Clone(s.table.Choices), func(c path.Choice) bool { return len(c.Via) == 0 })
	slices.SortStableFunc(choices, func(a, b path.Choice) int { return cmp.Compare(a.RTT, b.RTT) })
	var out []detour
	for _, c := range choices[:min(len(choices), maxDetours)] {
		out = append(out, detour{c.Dst, c.Via})
	}
	return out
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
			node: n, id: l.ID, known: l.Measured || now.Sub(l.Since) > giveUp, up: l.Up, rtt: l.RTT, jitter: l.Sigma, lossOut: l.LossOut, lossIn: l.LossIn,
			mtu: l.MTU, since: l.Since, flaps: l.Flaps, told: len(r.Links) <= tellAll || l.Class != probe.Rest,
		}
		if at, near := l.ID.Slot(); near {
			m.to = s.peers.near[at]
		} else {
			m.to = s.peers.far[n.Label]
		}
		out = append(out, m)
	}
	return out
}

// giveUp is when a link that has never answered is taken for down.
const giveUp = 2 * time.Second

// ownRow is what this gateway says of its links. A row that says nothing new is the same memory again, by which the
// planner knows that.
func (s *session) ownRow(links []measured) path.Row {
	row := path.Row{From: s.topology.self.Label}
	for _, m := range links {
		if m.told && m.known {
			row.Links = append(row.Links, path.Link{To: m.node.Label, RTT: m.rtt, Loss: m.lossOut, MTU: m.mtu, Kind: path.GRE, Up: m.up})
		}
	}
	slices.SortFunc(row.Links, func(a, b path.Link) int { return int(a.To) - int(b.To) })
	if row.From == s.row.From && slices.Equal(row.Links, s.row.Links) {
		return s.row
	}
	s.row = row
	return row
}
