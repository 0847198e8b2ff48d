package peer

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"vcpeer/crdt"
	"vcpeer/overlay"
	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
	"vcpeer/peer/api"
)

// milli is a duration as the API tells it.
func milli(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// addrText is an address as text; empty if it is none.
func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// labelNames are the names of gateways.
func labelNames(view *crdt.View) map[label.Label]crdt.Host {
	out := map[label.Label]crdt.Host{}
	for _, h := range view.Hosts() {
		if h.Label != 0 && h.Standing == crdt.Joined {
			out[label.Label(h.Label)] = h
		}
	}
	return out
}

// namesOf names gateways; never nil.
func namesOf(names map[label.Label]crdt.Host, via []label.Label) []string {
	out := make([]string, 0, len(via))
	for _, l := range via {
		out = append(out, gatewayName(names, l))
	}
	return out
}

func gatewayName(names map[label.Label]crdt.Host, l label.Label) string {
	if h, ok := names[l]; ok {
		return h.Name
	}
	return l.String()
}

var labelWord = regexp.MustCompile(`\bg[0-9]+\b`)

// nameLabels puts names in place of labels in what the planner says.
func nameLabels(names map[label.Label]crdt.Host, text string) string {
	byText := map[string]string{}
	for l, h := range names {
		byText[l.String()] = h.Name
	}
	return labelWord.ReplaceAllStringFunc(text, func(word string) string {
		if name := byText[word]; name != "" {
			return name
		}
		return word
	})
}

// otherSites counts the sites besides one that take part in the network.
func otherSites(view *crdt.View, own crdt.SiteID) int {
	sites := map[crdt.SiteID]bool{}
	for _, h := range view.Hosts() {
		if h.Standing == crdt.Joined && h.Site != own && h.Overlay == label.Version && h.Address.IsValid() {
			sites[h.Site] = true
		}
	}
	return len(sites)
}

// apiOverlay tells of this node's part of the network.
func apiOverlay(view *crdt.View, st overlay.Status, seen api.Place, own crdt.SiteID, now time.Time) api.Overlay {
	c := view.Cluster()
	out := api.Overlay{
		APIVersion: api.Version, Kind: "Overlay", AsOf: now, SeenFrom: seen,
		Up: st.Up, Why: st.Why, Hint: st.Hint, Bridge: st.Bridge, Datapath: st.Datapath, Version: st.Version, Range: c.Range.String(), Range6: c.Range6.String(),
		Address: addrText(st.Address), Address6: addrText(st.Address6), MTU: st.MTU, Uplink: st.Uplink, Encrypt: c.Encrypt,
		Flows: st.Flows, Groups: st.Groups, Written: st.Written, SitesOf: otherSites(view, own), LinksOf: len(st.Links), Overrun: st.Overrun, Guests: len(st.Guests),
		Faults: []api.OverlayFault{},
	}
	if st.Address.Is4() {
		out.MAC = crdt.MACOf(st.Address).String()
	}
	if st.Label.Valid() {
		out.Label = st.Label.String()
	}
	sites := map[string]bool{}
	for _, p := range st.Paths {
		sites[p.Site] = true
	}
	out.Sites = len(sites)
	for _, l := range st.Links {
		if l.Up {
			out.Links++
		}
	}
	for _, f := range st.Wrong {
		out.Faults = append(out.Faults, api.OverlayFault{Part: f.Part, Message: f.Err.Error()})
	}
	out.ClearText = st.Up && out.SitesOf > 0 && !c.Encrypt
	return out
}

func apiLink(l overlay.LinkStatus) api.Link {
	out := api.Link{
		Node: l.Name, Site: l.Site, Kind: l.Kind, Stream: l.Stream, To: addrText(l.To), Up: l.Up, Measured: l.Measured, RTTMilli: milli(l.RTT), JitterMilli: milli(l.Jitter),
		LossOut: l.LossOut, LossIn: l.LossIn, MTU: l.MTU, Since: l.Since, Flaps: l.Flaps, Protected: l.Protected, BFD: l.BFD,
	}
	if l.Label.Valid() {
		out.Label = l.Label.String()
	}
	if f := l.Frames; f != nil {
		out.Frames = &api.Frames{Sent: f.Sent.Packets, Received: f.Received.Packets, Waiting: f.Waiting, Drops: api.Drops(f.Drops)}
	}
	return out
}

func apiPath(p overlay.PathStatus, from api.Place) api.Path {
	out := api.Path{
		From: from.Node, FromSite: from.Site, To: p.Name, ToSite: p.Site, Via: some(p.Via), RTTMilli: milli(p.RTT), DirectMilli: milli(p.Direct),
		MTU: p.MTU, Since: p.Since, Switches: p.Switches, Cause: p.Cause, Backup: some(p.Backup), HasBackup: p.HasBackup,
	}
	out.GainPercent = gain(p.RTT, p.Direct)
	return out
}

// gain is what a path saves of the direct RTT, in percent; 0: nothing, or it is not known.
func gain(rtt, direct time.Duration) float64 {
	if rtt <= 0 || direct <= rtt {
		return 0
	}
	return 100 * float64(direct-rtt) / float64(direct)
}

// some makes an empty list out of none: JSON tells them apart.
func some(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// apiWhy puts the planner's explanation in the words of people. seen is who chose, or computed; from is whose path it is.
func apiWhy(view *crdt.View, e path.Explanation, from crdt.Host, seen api.Place, now time.Time) api.PathWhy {
	names := labelNames(view)
	to := names[e.Dst]
	out := api.PathWhy{
		APIVersion: api.Version, Kind: "PathWhy", AsOf: now, SeenFrom: seen, From: from.Name, FromSite: siteName(view, from.Site),
		To: gatewayName(names, e.Dst), ToSite: siteName(view, to.Site), Way: []string{}, Losers: []api.Loser{},
	}
	if c := e.Chosen; c.Exists() {
		p := overlay.PathStatus{
			Name: out.To, Site: out.ToSite, Via: namesOf(names, c.Via), RTT: c.RTT, Direct: c.Direct, MTU: c.MTU, Since: c.Since,
			Switches: c.Switches, Cause: c.Cause.String(), HasBackup: c.Backup.Exists(), Backup: namesOf(names, c.Backup.Via),
		}
		row := apiPath(p, api.Place{Node: out.From, Site: out.FromSite})
		out.Path = &row
		out.Way = append(append([]string{out.From}, p.Via...), out.To)
	}
	for _, k := range e.Kinds {
		out.Kinds = append(out.Kinds, k.String())
	}
	for _, l := range e.Losers {
		row := api.Loser{Via: namesOf(names, l.Via), RTTMilli: milli(l.RTT), MTU: l.MTU, Why: []string{}}
		for _, w := range l.Why {
			row.Why = append(row.Why, nameLabels(names, w))
		}
		out.Losers = append(out.Losers, row)
	}
	return out
}

// overlayLine is what status tells of the network over all sites.
func (n *node) overlayLine() api.OverlayStatus {
	o := apiOverlay(n.replica.View(), n.overlayStatus(), n.place(), n.site, time.Now())
	return api.OverlayStatus{
		Up: o.Up, Detail: overlayDetail(o), Address: o.Address, MTU: o.MTU, Uplink: o.Uplink, Sites: o.Sites, SitesOf: o.SitesOf,
		Links: o.Links, LinksOf: o.LinksOf, Encrypt: o.Encrypt,
	}
}

// overlayDetail is that in words.
func overlayDetail(o api.Overlay) string {
	if !o.Up {
		return "off: " + o.Why
	}
	parts := []string{"on: " + o.Address, fmt.Sprintf("MTU %d", o.MTU)}
	switch {
	case o.SitesOf == 0:
		parts = append(parts, "no other site takes part")
	case o.Label != "":
		parts = append(parts, fmt.Sprintf("reaches %d of %d other sites", o.Sites, o.SitesOf))
	case o.Uplink == "":
		parts = append(parts, "reaches no other site: this site has no gateway")
	case o.LinksOf > 0 && o.Links == 0:
		parts = append(parts, "reaches no other site: the gateway "+o.Uplink+" does not answer")
	default:
		parts = append(parts, "other sites by way of "+o.Uplink)
	}
	return strings.Join(parts, ", ")
}

// checkOverlay adds what is to be said of the network over all sites. None of it keeps the node from its work.
func checkOverlay(o api.Overlay, add adder) {
	if !o.Up {
		add("OVERLAY_OFF", levelNote, o.Hint, "this node is not on the network over all sites: %s; records and jobs do not need it", o.Why)
		return
	}
	for _, f := range o.Faults {
		add("OVERLAY_FAULT", levelWarn, "it is tried again; `vcpeer overlay` shows the whole", "network over all sites: %s: %s", f.Part, f.Message)
	}
	if o.ClearText {
		add("OVERLAY_CLEAR_TEXT", levelNote, "vcpeer overlay encrypt on", clearText)
	}
}

// clearText is what there is to say of GRE.
const clearText = "site-to-site traffic over GRE is clear text: whoever is on its way can read and change it"
