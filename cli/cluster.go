package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

func newMembers(e *env) *cobra.Command {
	return listing(e, "members", "List the nodes of the cluster and how they are", "  vcpeer members\n  vcpeer members --json | jq -r '.items[].name'",
		listOf((*api.Client).Members), func(l *api.List[api.Member]) {
			t := newTable("NODE", "SITE", "STATE", ">RTT", "VERSION", "~ADDRESS", "ID")
			for _, m := range l.Items {
				name, rtt, addr := m.Name, "-", "-"
				if m.Self {
					name += " (this)"
				}
				if m.RTTMilli > 0 {
					rtt = fmt.Sprintf("%.1f ms", m.RTTMilli)
				}
				if all := api.HostPorts(m.Addrs); len(all) > 0 {
					addr = all[0]
				}
				t.add(name, m.Site, state(m.State), rtt, dash(m.Version), addr, m.ID)
			}
			e.table(t, "no members")
		})
}

func newSites(e *env) *cobra.Command {
	return withRename(e, listing(e, "sites", "List the sites and the state of their queues", "", listOf((*api.Client).Sites), func(l *api.List[api.Site]) {
		t := newTable("SITE", ">ALIVE", ">NODES", "LEADER", ">VOTERS", ">SLOTS", ">FREE", ">RUNNING", ">WAITING", ">AGE", "~NOTES")
		for _, s := range l.Items {
			t.add(s.Name, s.Alive, s.Nodes, dash(s.Leader), s.Voters, s.Slots, s.Free, s.Running, s.Backlog, fmt.Sprintf("%.0fs", s.AgeSec), strings.Join(s.Notes, "; "))
		}
		e.table(t, "no sites")
	}), "site", (*api.Client).RenameSite)
}

func newHosts(e *env) *cobra.Command {
	return withRename(e, listing(e, "hosts", "List the machines: names, addresses, what they have; guests of the network too", "", listOf((*api.Client).HostsAndGuests), func(l *api.List[api.Host]) {
		t := newTable("HOST", "SITE", "ADDRESS", ">CPUS", ">MEMORY", "SYSTEM", "STATE")
		for _, h := range l.Items {
			name := h.Name
			if h.Asked != "" && h.Asked != h.Name {
				name += " (asked for " + h.Asked + ")"
			}
			if h.Guest {
				t.add(name, dash(h.Site), dash(h.Address), "-", "-", guestOn(h), state(h.State))
				continue
			}
			t.add(name, h.Site, dash(h.Address), h.CPUs, size(h.MemBytes), h.OS+"/"+h.Arch, state(h.State))
		}
		e.table(t, "no hosts")
	}), "host", (*api.Client).RenameHost)
}

// guestOn tells what a guest has in place of a system.
func guestOn(h api.Host) string {
	if h.On == "" {
		return "guest"
	}
	return "guest on " + h.On
}
