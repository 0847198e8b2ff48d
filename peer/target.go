package peer

import (
	"net/netip"
	"slices"
	"strings"

	"vcpeer/crdt"
	"vcpeer/peer/api"
	"vcpeer/peer/server"
)

// target is what a name stands for that people type where a place in the network is meant.
type target struct {
	name  string      // in force
	node  crdt.NodeID // the node, or the one that the guest is attached to; zero: a site, or a guest that is nowhere
	site  crdt.SiteID
	guest crdt.GuestID // zero: no guest
	addr  netip.Addr   // in the network; not valid: none
}

// sitePrefix says that a site is meant, of a name that is also a node's.
const sitePrefix = "site:"

// findTarget takes the name of a node, a guest or a site, in that order, name.site, an ID, or an address in the network.
func findTarget(view *crdt.View, typed string) (target, error) {
	if a, err := netip.ParseAddr(typed); err == nil {
		return targetAt(view, a)
	}
	if name, ok := strings.CutPrefix(typed, sitePrefix); ok {
		if s, ok := view.SiteNamed(name); ok {
			return target{name: s.Name, site: s.ID}, nil
		}
		return target{}, server.Problem(api.CodeNotFound, "`vcpeer sites` shows the sites", "no site is called %q", name)
	}
	if id, err := findNode(view, typed); err == nil {
		return targetOf(view, id), nil
	}
	if g, ok := view.GuestNamed(typed); ok {
		return guestTarget(view, g), nil
	}
	if id, err := crdt.ParseGuestID(typed); err == nil {
		if g, ok := view.Guest(id); ok {
			return guestTarget(view, g), nil
		}
	}
	if s, ok := view.SiteNamed(typed); ok {
		return target{name: s.Name, site: s.ID}, nil
	}
	if name, at, ok := strings.Cut(typed, "."); ok {
		if t, err := findTarget(view, name); err == nil && siteName(view, t.site) == at {
			return t, nil
		}
	}
	return target{}, server.Problem(api.CodeNotFound, "`vcpeer hosts` shows nodes and guests, `vcpeer sites` the sites",
		"no node, guest or site is called %q", typed)
}

func targetAt(view *crdt.View, a netip.Addr) (target, error) {
	for _, h := range view.Hosts() {
		if h.Address == a || h.Address6 == a {
			return targetOf(view, h.ID), nil
		}
	}
	for _, g := range view.Guests() {
		if g.Address == a || g.Address6 == a {
			return guestTarget(view, g), nil
		}
	}
	return target{}, server.Problem(api.CodeNotFound, "`vcpeer hosts` shows who has which address", "no node or guest of the network has the address %s", a)
}

func targetOf(view *crdt.View, id crdt.NodeID) target {
	t := target{name: nodeName(view, id), node: id}
	if h, ok := view.Host(id); ok {
		t.site, t.addr = h.Site, h.Address
	}
	return t
}

func guestTarget(view *crdt.View, g crdt.Guest) target {
	t := target{name: g.Name, guest: g.ID, addr: g.Address}
	if h, ok := view.Host(g.Node); ok && h.Standing == crdt.Joined {
		t.node, t.site = g.Node, h.Site
	}
	return t
}

// gatewaysOf are the members of a site that hold a label, by label.
func gatewaysOf(view *crdt.View, site crdt.SiteID) []crdt.Host {
	var out []crdt.Host
	for _, h := range view.Hosts() {
		if h.Site == site && h.Label != 0 && h.Standing == crdt.Joined {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(a, b crdt.Host) int { return int(a.Label) - int(b.Label) })
	return out
}
