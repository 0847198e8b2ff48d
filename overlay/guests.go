package overlay

import (
	"context"
	"fmt"
	"slices"
	"time"

	"vcpeer/overlay/device"
	"vcpeer/overlay/dhcp"
)

// guestPort is an interface of this machine by which a guest is on the network.
type guestPort struct {
	iface string
	port  uint16
}

// guestPorts are those here, by the guest's ID.
type guestPorts map[string]guestPort

// ports are the port numbers alone.
func (g guestPorts) ports() map[string]uint16 {
	out := make(map[string]uint16, len(g))
	for id, p := range g {
		out[id] = p.port
	}
	return out
}

// take brings the guests to those of want, an interface by ID. A port number stays a guest's as long as it is here.
func (g guestPorts) take(want map[string]string) {
	used := map[uint16]bool{}
	for id, p := range g {
		if want[id] != p.iface {
			delete(g, id)
			continue
		}
		used[p.port] = true
	}
	for id, iface := range want {
		if _, ok := g[id]; ok {
			continue
		}
		port := uint16(firstGuest)
		for used[port] {
			port++
		}
		used[port], g[id] = true, guestPort{iface, port}
	}
}

// guestWants are the guests that are to be on the network here: those that have an interface and an address.
func (s *session) guestWants(d decided) []guestWant {
	var out []guestWant
	for _, g := range s.records.Guests { // in the order of the records
		p, here := s.guests[g.ID]
		slot, ok := slotOf(g.Address)
		if !here || !ok || g.At != s.topology.self.ID {
			continue
		}
		inner := device.Guest{Addrs: s.addrs(g.Address), MAC: slot.MAC(), MTU: s.mtu()}
		out = append(out, guestWant{g.ID, p.iface, p.port, inner, s.answers(g, inner)})
	}
	return out
}

// answers are what this node tells a guest that asks what it is.
func (s *session) answers(g Guest, inner device.Guest) dhcp.Guest {
	self := s.topology.self.Address
	slot, _ := slotOf(self)
	out := dhcp.Guest{Name: g.Name, MTU: inner.MTU, Server: dhcp.Node{Addr: self, MAC: dhcp.MAC(slot.MAC())}}
	for _, a := range inner.Addrs {
		if a.Addr().Is4() {
			out.Addr4 = a
		} else {
			out.Addr6 = a
		}
	}
	return out
}

// SetGuests says which interface of this machine is whose: an interface by the guest's ID. Those that a daemon before this
// one had are set again in this way.
func (n *Network) SetGuests(ifaces map[string]string) {
	n.mu.Lock()
	clear(n.guests)
	for id, iface := range ifaces {
		n.guests[id] = iface
	}
	n.mu.Unlock()
	n.touch()
}

func (n *Network) guestsNow() map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make(map[string]string, len(n.guests))
	for id, iface := range n.guests {
		out[id] = iface
	}
	return out
}

// Attach puts a guest of the records, which must say that it is here, on the network by an interface of this machine, and
// returns when it is there. Of an interface that cannot be used it says why, and takes it off again.
func (n *Network) Attach(ctx context.Context, id, iface string) (GuestStatus, error) {
	if _, err := device.MTUOf(iface); err != nil {
		return GuestStatus{}, err
	}
	n.mu.Lock()
	for other, taken := range n.guests {
		if taken == iface && other != id {
			n.mu.Unlock()
			return GuestStatus{}, fmt.Errorf("overlay: %s is another guest's already", iface)
		}
	}
	n.guests[id] = iface
	n.mu.Unlock()
	n.touch()
	var found GuestStatus
	err := n.until(ctx, func(s Status) bool {
		for _, g := range s.Guests {
			if g.ID == id && g.Iface == iface && (g.Ready || g.Err != nil) {
				found = g
				return true
			}
		}
		return false
	})
	if err == nil {
		err = found.Err
	}
	if err != nil {
		_ = n.Detach(context.WithoutCancel(ctx), id)
		return GuestStatus{}, err
	}
	return found, nil
}

// Detach takes a guest off the network here, and its addresses from its own end, and returns when that is done.
func (n *Network) Detach(ctx context.Context, id string) error {
	n.mu.Lock()
	delete(n.guests, id)
	n.mu.Unlock()
	n.touch()
	return n.until(ctx, func(s Status) bool {
		return !slices.Contains(s.leaving, id) && !slices.ContainsFunc(s.Guests, func(g GuestStatus) bool { return g.ID == id })
	})
}

// untilTime bounds how long a guest's attachment may take.
const untilTime = 15 * time.Second

// until waits for a status that is as wanted.
func (n *Network) until(ctx context.Context, ok func(Status) bool) error {
	ctx, cancel := context.WithTimeout(ctx, untilTime)
	defer cancel()
	for {
		news := *n.news.Load()
		s := n.Status()
		switch {
		case ok(s):
			return nil
		case !s.Up && s.Why != "":
			return fmt.Errorf("overlay: the network is off: %s", s.Why)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("overlay: the network has not done it yet: %w", context.Cause(ctx))
		case <-news:
		}
	}
}
