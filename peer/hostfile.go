package peer

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"vcpeer/crdt"
)

// hostFileEvery is how often the host file is compared again: the members that are alive change without a record.
const hostFileEvery = 2 * time.Second

// hostFile is where jobs find the machines of the cluster, for mpirun --hostfile and the like: beside the API's socket.
func (d *Daemon) hostFile() string { return filepath.Join(filepath.Dir(d.cfg.Socket), "hostfile") }

// jobEnviron is what jobs are told of this node beside its name.
func (d *Daemon) jobEnviron(n *node) []string {
	env := []string{"VCPEER_HOSTFILE=" + d.hostFile()}
	if h, ok := n.replica.View().Host(n.self); ok && n.overlayUp() && h.Address.IsValid() {
		env = append(env, "VCPEER_ADDRESS="+h.Address.String())
	}
	return env
}

// keepHostFile writes the host file whenever it would read differently, until ctx ends.
func (d *Daemon) keepHostFile(ctx context.Context, n *node) {
	tick := time.NewTicker(hostFileEvery)
	defer tick.Stop()
	last := ""
	for {
		if text := n.hostFileText(); text != last {
			if err := replaceFile(d.hostFile(), []byte(text), 0o644); err != nil {
				n.log.Warn("jobs see no host file", "err", err)
			} else {
				last = text
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// hostFileText lists the members that are there, the nearest site's first: a line of address and slots for each. The
// address is the one in the network over all sites where this node is on it and the other takes part, else what the
// member is dialled at.
func (n *node) hostFileText() string {
	var b strings.Builder
	b.WriteString("# members of the cluster that answer, written by vcpeer; own site first\n")
	view, alive, slots := n.replica.View(), n.directory.alive(), map[crdt.NodeID]int{}
	for _, l := range n.directory.heard() {
		slots[l.Queue.Node] = l.Slots
	}
	for _, own := range []bool{true, false} {
		for _, h := range view.Hosts() {
			if (h.Site == n.site) != own || !alive[h.ID] || slots[h.ID] == 0 {
				continue
			}
			if a := n.jobAddress(h); a != "" {
				fmt.Fprintf(&b, "%s slots=%d # %s.%s\n", a, slots[h.ID], h.Name, siteName(view, h.Site))
			}
		}
	}
	return b.String()
}

// replaceFile gives a file a new content at once.
func replaceFile(path string, text []byte, mode os.FileMode) error {
	next := path + ".new"
	if err := os.WriteFile(next, text, mode); err != nil {
		return err
	}
	return os.Rename(next, path)
}
