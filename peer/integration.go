package peer

import (
	"context"
	"fmt"
	"os"

	"vcpeer/crdt"
	"vcpeer/overlay/hosts"
	"vcpeer/overlay/label"
	"vcpeer/overlay/userdb"
	"vcpeer/peer/config"
)

// instance names what this daemon writes into files of the machine. There is one daemon that integrates a machine.
const instance = "vcpeer"

// integration shows the cluster's hosts and accounts to the programs of this machine. It is empty where the daemon may
// not, or shall not, do that.
type integration struct {
	hosts *hosts.Keeper
	users *userdb.DB
	off   string // why nothing is shown
}

func (d *Daemon) startIntegration(ctx context.Context, n *node) (*integration, error) {
	i := new(integration)
	switch {
	case d.cfg.Integrate == config.IntegrateOff:
		i.off = "switched off (integrate: off)"
		return i, nil
	case os.Geteuid() != 0:
		i.off = "only a daemon of root writes /etc/hosts and serves accounts"
		return i, nil
	}
	var err error
	if i.hosts, err = hosts.NewKeeper(hosts.Config{Instance: instance, Log: n.log}); err != nil {
		return nil, fmt.Errorf("host names: %w", err)
	}
	if i.users, err = userdb.New(userdb.Config{Instance: instance, Log: n.log}); err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	n.tasks.Go(func() { n.fail("host names", i.hosts.Run(ctx)) })
	n.tasks.Go(func() { n.fail("accounts", i.users.Run(ctx)) })
	return i, nil
}

// show hands what the records say to those who write it down on self's machine. It never waits.
func (i *integration) show(view *crdt.View, self crdt.NodeID) {
	if i.hosts == nil {
		return
	}
	i.hosts.Set(hostEntries(view, self))
	i.users.Set(osAccounts(view), osGroups(view))
}

// hostEntries are the names of all hosts and guests. self's own means its address in the network as long as it takes part.
func hostEntries(view *crdt.View, self crdt.NodeID) []hosts.Entry {
	var out []hosts.Entry
	for _, h := range view.Hosts() {
		if !h.Address.IsValid() || h.Standing != crdt.Joined {
			continue
		}
		e := hosts.Entry{Addr: h.Address, Six: h.Address6, Host: h.Name, Site: siteName(view, h.Site), Self: h.ID == self && h.Overlay == label.Version}
		if h.Asked != h.Name {
			e.Note = fmt.Sprintf("%s asked for the name %s, which another host holds; see `vcpeer conflicts`", h.Name, h.Asked)
		}
		out = append(out, e)
	}
	for _, g := range view.Guests() {
		if at, ok := view.Host(g.Node); ok && g.Address.IsValid() && at.Standing == crdt.Joined {
			out = append(out, hosts.Entry{Addr: g.Address, Six: g.Address6, Host: g.Name, Site: siteName(view, at.Site)})
		}
	}
	return out
}

// osAccounts are the accounts in force, and the removed ones as disabled, so that their files still show whose they were.
// One that lost its name or number to another is left out: on this machine both mean the other.
func osAccounts(view *crdt.View) []userdb.Account {
	var out []userdb.Account
	for _, a := range view.Accounts() {
		if a.Disabled && !a.Removed {
			continue
		}
		out = append(out, userdb.Account{
			Name: a.Name, UID: a.UID, GID: a.UID, FullName: a.FullName, Home: a.Home, Shell: a.Shell, Disabled: a.Removed,
		})
	}
	return out
}

func osGroups(view *crdt.View) []userdb.Group {
	var out []userdb.Group
	for _, g := range view.Groups() {
		if g.Disabled {
			continue
		}
		group := userdb.Group{Name: g.Name, GID: g.GID}
		for _, id := range g.Members {
			if a, ok := view.Account(id); ok && !a.Disabled {
				group.Members = append(group.Members, a.Name)
			}
		}
		out = append(out, group)
	}
	return out
}
