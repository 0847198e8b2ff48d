package peer

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"vcpeer/crdt"
	"vcpeer/crdt/replica"
	"vcpeer/peer/api"
	"vcpeer/peer/config"
	"vcpeer/peer/fabric"
	"vcpeer/peer/server"
)

// standing is what the fabric lets a node do.
func standing(records *replica.Replica, id crdt.NodeID) fabric.Standing {
	return fabric.StandingOf(records.View().Standing(id))
}

// openFabric opens the one port of the node.
func (d *Daemon) openFabric(records *replica.Replica) (*fabric.Fabric, error) {
	return fabric.New(fabric.Config{
		Key: d.key, Listen: d.cfg.Listen, Advertise: d.cfg.Advertise, Log: d.log,
		Standing:      func(id crdt.NodeID) fabric.Standing { return standing(records, id) },
		NoPortMapping: d.cfg.PortMapping == config.PortMappingOff,
		Hidden:        func(a netip.Addr) bool { return inOverlay(records.View(), a) },
		Refused: func(id crdt.NodeID, why error) {
			d.events.Add("peer.refused", fmt.Sprintf("%s was refused: %v", id.Short(), why), "node", id.String())
		},
	})
}

// belong makes the node part of a cluster: of the one in its records, of the one its seeds are in, or of a new one.
func (d *Daemon) belong(ctx context.Context, records *replica.Replica, net *fabric.Fabric) error {
	if cluster := records.View().Cluster(); !cluster.ID.IsZero() {
		return d.goOn(ctx, records, net, cluster)
	}
	if len(d.cfg.Seeds) > 0 || d.cfg.Token != "" {
		return d.join(ctx, records, net)
	}
	addresses := crdt.DefaultRange()
	if d.cfg.Network != "" {
		addresses = netip.MustParsePrefix(d.cfg.Network) // the configuration has passed its checks
	}
	id, err := records.FoundIn(addresses, d.siteName())
	if err != nil {
		return fmt.Errorf("found a cluster: %w", err)
	}
	d.events.Add("cluster.founded", "this node founded a cluster", "cluster", id.String())
	d.log.Info("made a new cluster", "cluster", id.String()[:16])
	return nil
}

// goOn resumes a membership. A node that was stopped between its admission and its first session has no host record yet
// and knows no addresses: it asks the seeds once more, who welcome it again.
func (d *Daemon) goOn(ctx context.Context, records *replica.Replica, net *fabric.Fabric, cluster crdt.Cluster) error {
	if records.View().Standing(net.Self()) == crdt.Evicted {
		d.events.Add("member.evicted", "this node was evicted; it has to join anew with another key")
		return d.outForGood()
	}
	if _, settled := records.View().Host(net.Self()); !settled && cluster.Founder != net.Self() {
		return d.join(ctx, records, net)
	}
	d.log.Info("going on as a member", "cluster", cluster.ID.String()[:16])
	return nil
}

// settle puts the node's own host record in order and returns its site: the one it was in, the one it was told, or a new
// one of that name. A site made here is this node's to found a queue group for (see startJobs).
func (d *Daemon) settle(ctx context.Context, n *node) (crdt.SiteID, error) {
	site := crdt.SiteID{}
	err := n.replica.Update(ctx, func(tx *crdt.Tx) (err error) {
		if err := tx.MarkBack(); err != nil {
			return err
		}
		if site, err = d.chooseSite(tx, n.self); err != nil {
			return err
		}
		if err := tx.PutHost(crdt.HostFacts{
			Name: d.hostName(), Site: site, Addrs: n.fabric.Addrs(), OS: runtime.GOOS, Arch: runtime.GOARCH,
			CPUs: runtime.NumCPU(), MemBytes: memoryBytes(), Version: d.version,
		}); err != nil {
			return err
		}
		_, err = tx.ClaimAddress()
		return err
	})
	if refused := new(api.Problem); errors.As(err, &refused) {
		return site, refused
	}
	if err != nil {
		return site, fmt.Errorf("write this host's record: %w", err)
	}
	return site, nil
}

func (d *Daemon) chooseSite(tx *crdt.Tx, self crdt.NodeID) (crdt.SiteID, error) {
	view := tx.View()
	if h, ok := view.Host(self); ok && !h.Site.IsZero() {
		if s, known := view.Site(h.Site); known && d.cfg.Site != "" && s.Name != d.cfg.Site && s.Asked != d.cfg.Site {
			return h.Site, server.Problem(api.CodeRefused, "start it without --site, or rename the site: vcpeer site rename "+s.Name+" "+d.cfg.Site,
				"this node is in site %s; a node does not change its site", s.Name)
		}
		return h.Site, nil
	}
	if s, ok := view.SiteInUse(d.siteName()); ok || s.Founder == self && !s.ID.IsZero() {
		return s.ID, nil
	}
	return tx.CreateSite(d.siteName())
}

// siteName is the site this node was told to be in; without a word it makes one named after the machine.
func (d *Daemon) siteName() string {
	if d.cfg.Site != "" {
		return d.cfg.Site
	}
	return d.hostName()
}

var notLabel = regexp.MustCompile(`[^a-z0-9-]+`)

// hostName is the name this node was told, else the machine's without its domain, made to fit a host name's form.
func (d *Daemon) hostName() string {
	if d.cfg.Name != "" {
		return d.cfg.Name
	}
	name, _ := os.Hostname() // without one there is a default
	return hostLabel(name)
}

// hostLabel makes a machine's name one label of a host name (RFC 1123) in lower case.
func hostLabel(name string) string {
	name, _, _ = strings.Cut(strings.ToLower(name), ".")
	name = strings.Trim(notLabel.ReplaceAllString(name, "-"), "-")
	if name == "" {
		return "node"
	}
	return strings.TrimRight(name[:min(len(name), 63)], "-")
}

// memoryBytes is the machine's memory, as the kernel counts it (sysinfo(2)).
func memoryBytes() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit)
}

// mark makes a file whose presence is a fact: synced at once, and never changed.
func mark(path, content string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Sync(), f.Close(), syncDir(filepath.Dir(path)))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
