package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"vcpeer/crdt"
	"vcpeer/overlay"
	"vcpeer/peer/api"
	"vcpeer/peer/server"
)

// startGuests puts the guests of an earlier daemon back on the network. What cannot be read is told, and stops nothing.
func (d *Daemon) startGuests(n *node) {
	book, err := openGuests(filepath.Join(d.cfg.State, "guests.json"))
	if err != nil {
		n.log.Error("no guest is attached", "err", err)
		n.events.Add("guest.book", err.Error())
	}
	n.guests = book
	if net := n.network(); net != nil {
		net.SetGuests(book.list())
	}
}

// detachTime bounds how long a guest that has gone is waited for; the network takes it off in any case.
const detachTime = 2 * time.Second

// reconcileGuests takes guests off the network that the records have elsewhere by now, and gives those that are here an
// address when theirs went to another.
func (n *node) reconcileGuests(ctx context.Context) {
	n.guests.turn.Lock()
	view := n.replica.View() // as of now, and not as of when somebody was woken: a guest may have come since
	gone := goneGuests(n.guests.list(), view, n.self)
	err := n.guests.remove(gone...)
	n.guests.turn.Unlock()
	if err != nil {
		n.log.Warn("guests that have gone are not forgotten", "err", err)
	}
	for _, id := range gone {
		text := "a guest is not attached here any more"
		if key, err := crdt.ParseGuestID(id); err == nil {
			if g, ok := view.Guest(key); ok {
				text = guestNews(view, g)
			}
		}
		n.events.Add("guest.gone", text, "guest", id)
		if net := n.network(); net != nil {
			ctx, cancel := context.WithTimeout(ctx, detachTime)
			if err := net.Detach(ctx, id); err != nil {
				n.log.Debug("a guest that has gone is still being taken off", "guest", id, "err", err)
			}
			cancel()
		}
	}
	for _, g := range view.Guests() {
		if g.Node == n.self && !g.Address.IsValid() {
			err := n.write(ctx, func(tx *crdt.Tx) error {
				_, err := tx.ClaimGuestAddress(g.ID)
				return err
			})
			if err != nil && ctx.Err() == nil {
				n.log.Warn("a guest has no address", "guest", g.Name, "err", err)
			}
		}
	}
}

func guestNews(view *crdt.View, g crdt.Guest) string {
	if g.Node.IsZero() {
		return fmt.Sprintf("guest %s was detached", g.Name)
	}
	return fmt.Sprintf("guest %s has moved to %s", g.Name, nodeName(view, g.Node))
}

// registerGuests adds what concerns guests.
func (d *Daemon) registerGuests(s *server.Server) {
	s.Handle("GET /v1/guests", d.reading(func(n *node, _ *http.Request) (any, error) {
		view, st, book := n.replica.View(), n.overlayStatus(), n.guests.list()
		return list(n, "GuestList", each(view.Guests(), func(g crdt.Guest) api.Guest { return n.guestRow(view, st, book, g) })), nil
	}))
	s.Handle("POST /v1/guests", d.changing(attachGuest))
	s.Handle("DELETE /v1/guests/{name}", d.changing(detachGuest))
	s.Handle("POST /v1/guests/{name}/rename", d.changing(func(n *node, r *http.Request) (any, error) {
		g, err := n.findGuest(r.PathValue("name"))
		if err != nil {
			return nil, err
		}
		return nil, n.rename(r, func(tx *crdt.Tx, name string) error { return tx.RenameGuest(g.ID, name) })
	}))
}

// findGuest takes a name in force, an ID, or an interface of this machine.
func (n *node) findGuest(typed string) (crdt.Guest, error) {
	view := n.replica.View()
	if g, ok := view.GuestNamed(typed); ok {
		return g, nil
	}
	for _, text := range []string{typed, n.guests.holder(typed)} {
		if id, err := crdt.ParseGuestID(text); err == nil {
			if g, ok := view.Guest(id); ok {
				return g, nil
			}
		}
	}
	return crdt.Guest{}, server.Problem(api.CodeNotFound, "`vcpeer guests` shows the guests", "no guest is called %q, and none is attached here by that interface", typed)
}

// States of api.Guest.
const (
	guestAttached = "attached"
	guestDetached = "detached"
	guestWaiting  = "waiting"
	guestFailed   = "failed"
	guestLost     = "lost"
)

func (n *node) guestRow(view *crdt.View, st overlay.Status, book map[string]string, g crdt.Guest) api.Guest {
	out := api.Guest{
		ID: g.ID.String(), Name: g.Name, Asked: g.Asked, Address: addrText(g.Address), Address6: addrText(g.Address6), Since: g.Since, State: guestAttached,
	}
	if g.Address.IsValid() {
		out.MAC = g.MAC().String()
	}
	h, known := view.Host(g.Node)
	switch {
	case g.Node.IsZero():
		out.State = guestDetached
		return out
	case !known || h.Standing != crdt.Joined:
		out.State, out.Node = guestLost, nodeName(view, g.Node)
		out.Detail = "the node that it is attached to has left the cluster"
		return out
	}
	out.Node, out.Site = h.Name, siteName(view, h.Site)
	if g.Node != n.self {
		return out
	}
	out.Here, out.Iface = true, book[out.ID]
	out.State, out.Detail = hereState(st, out)
	for _, s := range st.Guests {
		if s.ID == out.ID {
			out.Inner = s.Inner
		}
	}
	return out
}

// hereState says how a guest of this node is.
func hereState(st overlay.Status, g api.Guest) (state, detail string) {
	if g.Iface == "" {
		return guestFailed, "which interface is its is not known any more: vcpeer attach IFACE --name " + g.Name
	}
	for _, s := range st.Guests {
		switch {
		case s.ID != g.ID:
		case s.Err != nil:
			return guestFailed, s.Err.Error()
		case s.Ready:
			return guestAttached, ""
		}
	}
	if !st.Up {
		return guestWaiting, st.Why
	}
	return guestWaiting, ""
}

// attachGuest puts an interface on the network: first into the records and the book, then onto the bridge. What fails is
// taken back.
func attachGuest(n *node, r *http.Request) (any, error) {
	var ask api.AttachAsk
	if err := server.Decode(r, &ask); err != nil {
		return nil, err
	}
	network, _, err := n.running()
	if err != nil {
		return nil, err
	}
	if err := n.attachable(ask.Iface); err != nil {
		return nil, err
	}
	earlier := n.replica.View()
	id, err := n.recordGuest(r.Context(), ask)
	if err != nil {
		return nil, err
	}
	st, err := network.Attach(r.Context(), id.String(), ask.Iface)
	if err != nil {
		n.undoAttach(context.WithoutCancel(r.Context()), id, earlier)
		network.SetGuests(n.guests.list())
		return nil, server.Problem(api.CodeUnavailable, "`vcpeer overlay` shows what else does not work", "%s could not be attached: %v", ask.Iface, err)
	}
	view := n.replica.View()
	g, ok := view.Guest(id)
	if !ok {
		return nil, server.Problem(api.CodeNotFound, "", "the guest was forgotten elsewhere meanwhile")
	}
	now := n.overlayStatus()
	out := api.Attached{Guest: n.guestRow(view, now, n.guests.list(), g), PrefixLen: view.Cluster().Range.Bits(), PrefixLen6: view.Cluster().Range6.Bits(), MTU: now.MTU}
	out.Inner = st.Inner
	if st.Inner == "" {
		out.Commands = guestCommands(out)
	}
	n.events.Add("guest.attached", fmt.Sprintf("guest %s is attached to %s by %s", g.Name, out.Node, ask.Iface), "guest", out.ID)
	return out, nil
}

// attachable refuses what is surely a mistake, above all an interface that this machine itself lives by.
func (n *node) attachable(iface string) error {
	if err := checkIface(iface); err != nil {
		return server.Problem(api.CodeBadRequest, "`ip link` shows the interfaces", "%v", err)
	}
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return server.Problem(api.CodeNotFound, "`ip link` shows the interfaces of this machine; it must be this side's end of a veth, or a tap",
			"this machine has no interface %s", iface)
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return err
	}
	if ifi.Flags&net.FlagLoopback != 0 {
		return server.Problem(api.CodeRefused, "want this side's end of a veth, or a tap", "%s is the loopback interface", iface)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
			return server.Problem(api.CodeRefused, "want this side's end of a veth, or a tap; neither has an address on this side",
				"%s has the address %s: this machine itself uses it", iface, p.Addr())
		}
	}
	return nil
}

// recordGuest writes into records and book that a guest is here by an interface. The same again finds the same guest.
func (n *node) recordGuest(ctx context.Context, ask api.AttachAsk) (id crdt.GuestID, err error) {
	n.guests.turn.Lock()
	defer n.guests.turn.Unlock()
	view := n.replica.View()
	if holder := n.guests.holder(ask.Iface); holder != "" {
		key, _ := crdt.ParseGuestID(holder) // the book holds no others
		g, ok := view.Guest(key)
		switch {
		case !ok || g.Node != n.self: // reconcileGuests has yet to come by
		case ask.Name == "" || ask.Name == g.Name:
			return key, nil
		default:
			return id, server.Problem(api.CodeRefused, "vcpeer detach "+ask.Iface+", or vcpeer guest rename "+g.Name+" "+ask.Name,
				"%s is the interface of guest %s already", ask.Iface, g.Name)
		}
		if err := n.guests.remove(holder); err != nil {
			return id, err
		}
	}
	if n.guests.broken != nil {
		return id, server.Problem(api.CodeRefused, "put the file right or remove it, and attach its guests again", "%v", n.guests.broken)
	}
	err = n.replica.Update(ctx, func(tx *crdt.Tx) error {
		id, _, err = tx.AttachGuest(ask.Name, ask.Move)
		return err
	})
	if errors.Is(err, crdt.ErrTaken) {
		return id, takenProblem(view, ask, err)
	}
	if err != nil {
		return id, recordProblem(err)
	}
	return id, n.guests.put(id.String(), ask.Iface)
}

func takenProblem(view *crdt.View, ask api.AttachAsk, err error) error {
	if g, ok := view.GuestNamed(ask.Name); ok {
		return server.Problem(api.CodeRefused, "--move takes it away from there, with its address", "guest %s is attached to %s", g.Name, nodeName(view, g.Node))
	}
	if _, ok := view.HostNamed(ask.Name); ok {
		return server.Problem(api.CodeRefused, "choose another --name", "%s is the name of a node", ask.Name)
	}
	return recordProblem(err)
}

// undoAttach leaves a guest as it was, but for one that was attached elsewhere: it has gone from there already.
func (n *node) undoAttach(ctx context.Context, id crdt.GuestID, earlier *crdt.View) {
	before, existed := earlier.Guest(id)
	if existed && before.Node == n.self {
		return // it goes on being tried
	}
	n.guests.turn.Lock()
	defer n.guests.turn.Unlock()
	err := n.write(ctx, func(tx *crdt.Tx) error {
		if existed {
			return tx.DetachGuest(id)
		}
		return tx.ForgetGuest(id)
	})
	if err := errors.Join(err, n.guests.remove(id.String())); err != nil {
		n.log.Warn("a guest that could not be attached is still in the records", "guest", id.String(), "err", err)
	}
}

// guestCommands are what to type in a guest whose own end was not found. Its name of the interface is not known here.
func guestCommands(a api.Attached) []string {
	out := []string{
		"ip link set dev eth0 address " + a.MAC + " mtu " + fmt.Sprint(a.MTU),
		fmt.Sprintf("ip addr add %s/%d dev eth0", a.Address, a.PrefixLen),
	}
	if a.Address6 != "" {
		out = append(out, fmt.Sprintf("ip addr add %s/%d dev eth0 nodad", a.Address6, a.PrefixLen6))
	}
	return append(out, "ip link set dev eth0 up")
}

// detachGuest takes a guest off the network. One of another node is only forgotten, and only if it is not attached there.
func detachGuest(n *node, r *http.Request) (any, error) {
	g, err := n.findGuest(r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	forget, view := r.URL.Query().Get("forget") == "1", n.replica.View()
	elsewhere := !g.Node.IsZero() && g.Node != n.self && view.Standing(g.Node) == crdt.Joined
	switch {
	case elsewhere:
		return nil, server.Problem(api.CodeRefused, "type it there, or bring it here first with vcpeer attach IFACE --name "+g.Name+" --move",
			"guest %s is attached to %s", g.Name, nodeName(view, g.Node))
	case g.Node != n.self && !forget:
		return nil, server.Problem(api.CodeRefused, "--forget frees its name and address", "guest %s is attached nowhere", g.Name)
	}
	if network := n.network(); network != nil && g.Node == n.self {
		if err := network.Detach(r.Context(), g.ID.String()); err != nil && network.Status().Up {
			return nil, server.Problem(api.CodeUnavailable, "`vcpeer overlay` shows what does not work", "guest %s is not off the network yet: %v", g.Name, err)
		}
	}
	n.guests.turn.Lock()
	defer n.guests.turn.Unlock()
	err = n.update(r, func(tx *crdt.Tx) error {
		if forget {
			return tx.ForgetGuest(g.ID)
		}
		return tx.DetachGuest(g.ID)
	})
	if err != nil {
		return nil, err
	}
	n.events.Add("guest.detached", fmt.Sprintf("guest %s was detached%s", g.Name, map[bool]string{true: " and forgotten"}[forget]), "guest", g.ID.String())
	return nil, n.guests.remove(g.ID.String())
}

// guestHosts are the guests as rows of the list of hosts.
func (n *node) guestHosts(view *crdt.View) []api.Host {
	st, book := n.overlayStatus(), n.guests.list()
	rows := each(view.Guests(), func(g crdt.Guest) api.Host {
		row := n.guestRow(view, st, book, g)
		return api.Host{ID: row.ID, Name: row.Name, Asked: row.Asked, Site: row.Site, Address: row.Address, State: row.State, Guest: true, On: row.Node}
	})
	slices.SortStableFunc(rows, func(a, b api.Host) int { return strings.Compare(a.Name, b.Name) })
	return rows
}
