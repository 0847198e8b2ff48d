package overlay

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"vcpeer/overlay/label"
	"vcpeer/overlay/ovs"
	"vcpeer/overlay/path"
	"vcpeer/overlay/probe"
	"vcpeer/overlay/sealed"
)

// show publishes what is known now. The words are made when somebody asks.
func (s *session) show(links []measured) {
	v := view{
		records: s.records, topology: s.topology, table: s.table, links: links, done: s.done, info: s.info, mtu: s.mtu(),
		uplink: s.uplink.current, guests: s.desired.guests, prober: s.prober, sealing: s.n.sealing,
		watched: map[label.Label]string{},
	}
	for l := range s.watch.ports {
		v.watched[l] = s.watch.bfd[l].text
	}
	s.n.view.Store(&v)
	s.n.publish(v.status)
}

// view is what a status is made of. It is never changed.
type view struct {
	records  Records
	topology topology
	table    path.Table
	links    []measured
	watched  map[label.Label]string // BFD's word
	done     applied
	info     ovs.Info
	mtu      int
	uplink   label.Label
	guests   []guestWant
	prober   *probe.Prober // nil: there is none yet
	sealing  *sealing      // nil: there are no sealed links
}

func (v view) status() Status {
	self := v.topology.self
	st := Status{
		Up: v.done.up, Bridge: v.done.name, Datapath: v.info.Datapath, Version: v.info.Version, Address: self.Address, MTU: v.mtu,
		Label: self.Label, Encrypt: v.records.Encrypt, Flows: v.done.flows, Groups: v.done.groups, Written: v.done.written, Wrong: v.done.faults,
	}
	if st.Up && st.Datapath == inUserSpace {
		b, _ := os.ReadFile("/proc/sys/net/core/rmem_default") // what cannot be read says nothing
		st.Hint = bufferHint(string(b))
	}
	if slot, ok := slotOf(self.Address); ok && v.records.Net6.IsValid() {
		st.Address6 = slot.Addr6(v.records.Net6)
	}
	if len(st.Wrong) > 0 {
		st.Why = fmt.Sprintf("%s: %v", st.Wrong[0].Part, st.Wrong[0].Err)
	} else if !st.Up {
		st.Why = "the bridge is being made"
	}
	names := map[label.Label]Node{}
	each(v.topology, func(n Node) { names[n.Label] = n })
	for _, g := range v.topology.own.gateways {
		names[g.Label] = g
	}
	if !self.Label.Valid() {
		st.Uplink = names[v.uplink].Name
	}
	stats := map[label.Label]sealed.PeerStats{}
	if v.sealing != nil {
		stats, st.Overrun = v.sealing.stats()
	}
	for _, m := range v.links {
		l := v.link(m)
		if m.kind == path.Sealed {
			at := stats[m.node.Label]
			l.To, l.Stream, l.Frames = at.Remote.Addr(), at.Via == "stream", &at
		}
		st.Links = append(st.Links, l)
	}
	for _, c := range v.table.Choices {
		st.Paths = append(st.Paths, pathStatus(c, names))
	}
	for _, g := range v.guests {
		st.Guests = append(st.Guests, v.guest(g))
	}
	for id := range v.done.inner {
		if !slices.ContainsFunc(v.guests, func(g guestWant) bool { return g.id == id }) {
			st.leaving = append(st.leaving, id)
		}
	}
	return st
}

// enoughBuffer is a receive buffer, in bytes, that takes a window of TCP that comes in one burst.
const enoughBuffer = 1 << 20

// bufferHint says what to do about the receive buffers of a datapath in user space, whose sockets have the system's default, which is given
// as the system tells it.
func bufferHint(sysctl string) string {
	n, err := strconv.Atoi(strings.TrimSpace(sysctl))
	if err != nil || n >= enoughBuffer {
		return ""
	}
	return fmt.Sprintf("Open vSwitch in user space loses bursts with receive buffers of %d KiB: sysctl -w net.core.rmem_default=4194304, and restart Open vSwitch", n>>10)
}

func (v view) link(m measured) LinkStatus {
	bfd, watched := v.watched[m.node.Label]
	return LinkStatus{
		Node: m.node.ID, Name: m.node.Name, Site: m.node.SiteName, Label: m.node.Label, Kind: m.kind.String(), To: m.to,
		Up: m.up, Measured: m.known, RTT: m.rtt, Jitter: m.jitter, LossOut: m.lossOut, LossIn: m.lossIn, MTU: m.mtu, Since: m.since, Flaps: m.flaps,
		Protected: watched && m.node.Site != v.topology.self.Site, BFD: bfd,
	}
}

func pathStatus(c path.Choice, names map[label.Label]Node) PathStatus {
	n := names[c.Dst]
	p := PathStatus{
		Node: n.ID, Name: n.Name, Site: n.SiteName, Label: c.Dst, RTT: c.RTT, Direct: c.Direct, MTU: c.MTU, Since: c.Since,
		Switches: c.Switches, Cause: c.Cause.String(), Via: namesOf(c.Via, names),
	}
	if p.HasBackup = c.Backup.Exists(); p.HasBackup {
		p.Backup = namesOf(c.Backup.Via, names)
	}
	return p
}

func namesOf(via []label.Label, names map[label.Label]Node) []string {
	var out []string
	for _, l := range via {
		name := names[l].Name
		if name == "" {
			name = l.String()
		}
		out = append(out, name)
	}
	return out
}

func (v view) guest(g guestWant) GuestStatus {
	inner, done := v.done.inner[g.id]
	st := GuestStatus{ID: g.id, Iface: g.iface, Port: g.port, Inner: inner.Name, Err: v.done.failed[g.id], Ready: done && v.done.up}
	for _, r := range v.records.Guests {
		if r.ID == g.id {
			st.Name = r.Name
		}
	}
	return st
}
