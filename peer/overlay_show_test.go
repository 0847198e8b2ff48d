package peer

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"vcpeer/crdt"
	"vcpeer/overlay"
	"vcpeer/overlay/label"
	"vcpeer/peer/api"
)

func TestOverlayInWords(t *testing.T) {
	for _, tt := range []struct {
		o      api.Overlay
		line   string
		checks string
	}{
		{api.Overlay{Why: "Open vSwitch is not installed"}, "off: Open vSwitch is not installed", "OVERLAY_OFF:note"},
		{api.Overlay{Up: true, Address: "10.77.0.1", MTU: 1434}, "on: 10.77.0.1, MTU 1434, no other site takes part", ""},
		{api.Overlay{Up: true, Address: "10.77.0.1", MTU: 1434, Label: "g1", Sites: 1, SitesOf: 2, ClearText: true},
			"on: 10.77.0.1, MTU 1434, reaches 1 of 2 other sites", "OVERLAY_CLEAR_TEXT:note"},
		{api.Overlay{Up: true, Address: "a", MTU: 1, SitesOf: 2}, "on: a, MTU 1, reaches no other site: this site has no gateway", ""},
		{api.Overlay{Up: true, Address: "a", MTU: 1, SitesOf: 2, Uplink: "k", LinksOf: 1}, "on: a, MTU 1, reaches no other site: the gateway k does not answer", ""},
		{api.Overlay{Up: true, Address: "a", MTU: 1, SitesOf: 2, Uplink: "k", Links: 1, LinksOf: 1, Encrypt: true},
			"on: a, MTU 1, other sites by way of k", ""},
		{api.Overlay{Up: true, Address: "a", MTU: 1, Faults: []api.OverlayFault{{Part: "guard", Message: "no nft"}}},
			"on: a, MTU 1, no other site takes part", "OVERLAY_FAULT:warn"},
	} {
		if got := overlayDetail(tt.o); got != tt.line {
			t.Errorf("%+v:\n got %s\nwant %s", tt.o, got, tt.line)
		}
		var checks []string
		checkOverlay(tt.o, func(code, level, _, _ string, _ ...any) { checks = append(checks, code+":"+level) })
		if got := strings.Join(checks, " "); got != tt.checks {
			t.Errorf("%+v: checks %s, want %s", tt.o, got, tt.checks)
		}
	}
}

func TestPlannersWordsNameNodes(t *testing.T) {
	names := map[label.Label]crdt.Host{1: {Name: "kyoto"}, 12: {Name: "osaka"}}
	for text, want := range map[string]string{
		"link g1>g12 is down, says g12": "link kyoto>osaka is down, says osaka",
		"no transit through g3":         "no transit through g3",
		"held for 12s more":             "held for 12s more",
		"worse by 1.2 ms, g121":         "worse by 1.2 ms, g121",
	} {
		if got := nameLabels(names, text); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestWaysAreWhole(t *testing.T) {
	view := crdt.EmptyView()
	node := func(i byte) crdt.NodeID { return crdt.NodeID{31: i} }
	a, b := nodeName(view, node(1)), nodeName(view, node(2))
	guest := target{name: "vm", node: node(2), guest: crdt.GuestID{1}}
	for _, tt := range []struct {
		between  []string
		from, to target
		want     string
	}{
		{nil, target{node: node(1)}, target{node: node(1)}, a},
		{nil, target{node: node(1)}, target{node: node(2)}, a + " " + b},
		{nil, target{node: node(1)}, guest, a + " " + b + " vm"},
		{nil, guest, guest, "vm " + b + " vm"},
		{[]string{}, target{node: node(1)}, guest, ""},
		{[]string{a, "g"}, target{node: node(1)}, guest, a + " g " + b + " vm"},
		{[]string{"f", "g"}, target{}, target{}, "f g"},
		{[]string{"f", b}, target{node: node(1)}, target{node: node(2)}, a + " f " + b},
	} {
		if got := strings.Join(complete(view, tt.between, tt.from, tt.to), " "); got != tt.want {
			t.Errorf("%v from %s to %s: got %q, want %q", tt.between, tt.from.node.Short(), tt.to.name, got, tt.want)
		}
	}
}

func TestHowAGuestIs(t *testing.T) {
	g := api.Guest{ID: "x", Name: "vm", Iface: "tap0"}
	here := func(s overlay.GuestStatus) overlay.Status {
		s.ID = "x"
		return overlay.Status{Up: true, Guests: []overlay.GuestStatus{{ID: "other", Ready: true}, s}}
	}
	for _, tt := range []struct {
		st   overlay.Status
		g    api.Guest
		want string
	}{
		{here(overlay.GuestStatus{Ready: true}), g, "attached "},
		{here(overlay.GuestStatus{}), g, "waiting "},
		{here(overlay.GuestStatus{Err: errors.New("no such interface")}), g, "failed no such interface"},
		{overlay.Status{Why: "no Open vSwitch"}, g, "waiting no Open vSwitch"},
		{here(overlay.GuestStatus{Ready: true}), api.Guest{ID: "x", Name: "vm"}, "failed which interface is its is not known any more: vcpeer attach IFACE --name vm"},
	} {
		state, detail := hereState(tt.st, tt.g)
		if got := fmt.Sprint(state, " ", detail); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
