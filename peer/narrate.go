package peer

import (
	"fmt"
	"strings"
	"time"

	"vcpeer/peer/api"
)

// tellAgainAfter is how long a wait goes on before the log repeats what it waits for.
const tellAgainAfter = 30 * time.Second

// narrator keeps the log of a waiting node readable: each step is told at once, and again only after a while, even when
// it comes back every second with another number of tries. The zero value is ready. Not for concurrent use.
type narrator struct {
	told map[string]time.Time // when each step was told last
}

// tells reports whether the step is worth a line now. Time and number of the next try do not make a step another one.
func (t *narrator) tells(step string, now time.Time) bool {
	what, _, _ := strings.Cut(step, "; next try in ")
	if last, ok := t.told[what]; ok && now.Sub(last) < tellAgainAfter {
		return false
	}
	if t.told == nil || len(t.told) >= 64 { // errors may hold numbers that never come again
		t.told = make(map[string]time.Time)
	}
	t.told[what] = now
	return true
}

// greet tells who started a node what it is now and what to type next.
func (d *Daemon) greet(n *node) {
	place, c := n.place(), n.clusterStatus()
	addrs := api.HostPorts(n.fabric.Addrs())
	d.log.Info(fmt.Sprintf("running: this is %s at site %s, one of %d in the cluster", place.Node, place.Site, c.Members),
		"listen", strings.Join(addrs, ","), "cluster", c.ID[:min(len(c.ID), 16)])
	command := vcpeerFor(d.cfg.Dir)
	d.log.Info("next, in another terminal: `" + command + " status`; `" + command + " token` prints what to type on the next machine")
}

// vcpeerFor is the command that reaches a node: one below a directory of its own is found by it.
func vcpeerFor(dir string) string {
	if dir == "" {
		return "vcpeer"
	}
	return "vcpeer --dir " + shellWord(dir)
}

// shellWord quotes a word where a shell would take it apart (POSIX shell, 2.2.2).
func shellWord(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@%,=") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
