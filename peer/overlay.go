package peer

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"vcpeer/crdt"
	"vcpeer/overlay"
	"vcpeer/overlay/label"
	"vcpeer/overlay/sealed"
	"vcpeer/peer/api"
	"vcpeer/peer/config"
)

// linksKind is the ephemeral kind under which a gateway says what it measured of its links. It is urgent: a link that went
// down concerns everybody at once. What is older than linksTTL is of a gateway that is gone.
const (
	linksKind = "links"
	linksTTL  = 5 * time.Minute
)

// inOverlay tells the addresses of the network over all sites, which the fabric is below and must not run over, and those that
// sealed links have on this machine.
func inOverlay(view *crdt.View, a netip.Addr) bool {
	c := view.Cluster()
	return sealed.DefaultNet.Contains(a) || c.Range.IsValid() && (c.Range.Contains(a) || c.Range6.Contains(a))
}

// startOverlay starts this node's part of the network over all sites. A machine that cannot take part has a node all the
// same: the Network says what is missing, and comes up when it is there.
// What carries frames ends with carry.
func (d *Daemon) startOverlay(ctx, carry context.Context, n *node) error {
	if d.cfg.Overlay != config.OverlayOn {
		return nil
	}
	sealer := newSealer(n)
	network, err := overlay.New(overlay.Config{
		Self: n.self, Protect: d.cfg.Protect, Underlay: underlayFilter(n.replica.View, d.cfg.Underlay), Log: n.log,
		Publish: n.publishLinks,
		Facts: func(f overlay.Facts) {
			n.carriers.Go(func() { n.putFacts(carry, f, d.cfg.Transit == config.TransitOff) })
		},
		Tell: func(code, text string) { n.events.Add(code, text) },
		Send: n.fabric.SendPackets, Wants: sealer.want,
	})
	if err != nil {
		return err
	}
	n.overlay = network
	n.carriers.Go(func() { n.fail("network", network.Run(carry)) })
	n.carriers.Go(func() { sealer.run(carry) })
	n.tasks.Go(func() { n.followLinks(ctx) })
	return nil
}

// underlayFilter says which addresses of the machine tunnels may use: those named, by address or interface, else all but
// the network's own.
func underlayFilter(view func() *crdt.View, named []string) func(netip.Addr, string) bool {
	return func(a netip.Addr, link string) bool {
		if inOverlay(view(), a) {
			return false
		}
		return len(named) == 0 || slices.Contains(named, a.String()) || slices.Contains(named, link)
	}
}

// publishLinks tells all nodes what this gateway says of its links.
func (n *node) publishLinks(value []byte) {
	if err := n.replica.SetEphemeral(linksKind, "", value, linksTTL); err != nil {
		n.log.Warn("this gateway's links are not published", "err", err)
	}
}

// putFacts writes how this node takes part into its host record.
func (n *node) putFacts(ctx context.Context, f overlay.Facts, noTransit bool) {
	facts := crdt.UnderlayFacts{Underlay: f.Underlay, UnderlayMTU: f.MTU, NoTransit: noTransit}
	if f.Takes {
		facts.Overlay = label.Version
	}
	if err := n.write(ctx, func(tx *crdt.Tx) error { return tx.PutUnderlay(facts) }); err != nil && ctx.Err() == nil {
		n.log.Warn("how this node takes part in the network is not recorded", "err", err)
	}
}

// write updates the records for the node itself.
func (n *node) write(ctx context.Context, f func(*crdt.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return n.replica.Update(ctx, f)
}

// followLinks hands the network what other gateways say of their links.
func (n *node) followLinks(ctx context.Context) {
	changed, stop := n.replica.WatchEphemeral(linksKind)
	defer stop()
	for {
		entries := n.replica.Ephemeral(linksKind)
		heard := make([]overlay.Heard, 0, len(entries))
		for _, e := range entries {
			heard = append(heard, overlay.Heard{From: e.Author, Version: e.Version, Value: e.Value})
		}
		n.overlay.SetLinks(heard)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(linksTTL / 4): // some may have expired
		}
	}
}

// overlayRecords are the records as the network sees them.
func overlayRecords(view *crdt.View, self crdt.NodeID) overlay.Records {
	c := view.Cluster()
	r := overlay.Records{Self: self, Net4: c.Range, Net6: c.Range6, Encrypt: c.Encrypt}
	for _, h := range view.Hosts() {
		if h.Standing != crdt.Joined {
			continue
		}
		r.Nodes = append(r.Nodes, overlay.Node{
			ID: h.ID, Name: h.Name, Site: h.Site, SiteName: siteName(view, h.Site), Address: h.Address, Label: label.Label(h.Label),
			Underlay: h.Underlay, UnderlayMTU: h.UnderlayMTU, Takes: h.Overlay == label.Version, NoTransit: h.NoTransit,
		})
	}
	for _, g := range view.Guests() {
		r.Guests = append(r.Guests, overlay.Guest{ID: g.ID.String(), Name: g.Name, Address: g.Address, At: g.Node})
	}
	return r
}

// steerOverlay hands the records to the network and keeps this node's own part of them right.
func (n *node) steerOverlay(ctx context.Context, view *crdt.View, labels *labelKeeper) {
	if n.overlay == nil {
		return
	}
	r := overlayRecords(view, n.self)
	n.overlay.SetRecords(r)
	if err := labels.keep(ctx, r, time.Now()); err != nil && ctx.Err() == nil {
		n.log.Warn("this node's label is not as it should be", "err", err)
	}
}

// overlayUp reports whether programs of this machine reach the network over all sites.
func (n *node) overlayUp() bool { return n.overlay != nil && n.overlay.Status().Up }

// jobAddress is where programs of jobs reach a host: its address in the network, if this node and that one take part,
// else the first at which the fabric reaches it; empty: none is known.
func (n *node) jobAddress(h crdt.Host) string {
	if h.Address.IsValid() && h.Overlay == label.Version && n.overlayUp() {
		return h.Address.String()
	}
	for _, hp := range api.HostPorts(h.Addrs) {
		if host, _, err := net.SplitHostPort(hp); err == nil {
			return host
		}
	}
	return ""
}

// labelRest is how long a gateway that is one too many keeps its label: one that comes and goes would cost everybody a round.
const labelRest = 30 * time.Second

// labelKeeper holds a label while its node ought to be a gateway of its site.
type labelKeeper struct {
	node  *node
	spare time.Time // since when it need not be one; zero: it ought to
}

func (k *labelKeeper) keep(ctx context.Context, r overlay.Records, now time.Time) error {
	n := k.node
	h, ok := n.replica.View().Host(n.self)
	if !ok {
		return nil
	}
	alive := n.directory.alive()
	wanted := len(h.Underlay) > 0 && overlay.ShallBeGateway(r, func(id crdt.NodeID) bool { return alive[id] })
	switch {
	case wanted || h.Label == 0:
		k.spare = time.Time{}
	case k.spare.IsZero():
		k.spare = now
	}
	switch {
	case wanted && h.Label == 0:
		return n.write(ctx, func(tx *crdt.Tx) error {
			_, err := tx.ClaimLabel()
			return err
		})
	case !k.spare.IsZero() && now.Sub(k.spare) >= labelRest:
		return n.write(ctx, func(tx *crdt.Tx) error {
			tx.ReleaseLabel()
			return nil
		})
	}
	return nil
}
