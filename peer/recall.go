package peer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"time"

	"vcpeer/crdt"
	"vcpeer/peer/fabric"
)

// recall keeps in a file how this node is connected with others: where they are, or by which relay. A node that is started
// again dials them at once: its NAT and theirs still know of the connections of before, so it needs no new holes, and the links
// between sites that it carries the frames of work again after a round trip or two.
type recall struct {
	file string
	kept []recalled
}

// recalled is how a member was last reached: by UDP, or through another one.
type recalled struct {
	ID  crdt.NodeID    `json:"id"`
	At  netip.AddrPort `json:"at,omitzero"`
	Via crdt.NodeID    `json:"via,omitzero"`
}

const (
	maxRecalled   = 32              // the nearest; the others are dialled when something is to be said to them
	recallEvery   = 2 * time.Second // the file is written at most so often
	recallTimeout = 5 * time.Second // for one dial
)

// read returns what was kept; nothing is there, or nothing that makes sense: none.
func (r *recall) read() ([]recalled, error) {
	b, err := os.ReadFile(r.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []recalled
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("where members were last: %w", err)
	}
	return all[:min(len(all), maxRecalled)], nil
}

// keep writes the file, if it says something else than before. It need not survive more than the end of the process: it is
// about holes in NATs, which do not survive more either.
func (r *recall) keep(all []recalled) error {
	if slices.Equal(all, r.kept) {
		return nil
	}
	b, err := json.Marshal(all)
	if err == nil {
		err = replaceFile(r.file, b, 0o600)
	}
	if err == nil {
		r.kept = all
	}
	return err
}

// redial connects with the members that this node was last connected with.
func (n *node) redial(ctx context.Context, all []recalled) {
	for _, m := range all {
		n.fabric.Recall(m.ID, m.At)
		if !m.Via.IsZero() {
			n.fabric.LearnRelays(m.ID, []crdt.NodeID{m.Via}) // until it is heard what the member says
		}
		n.tasks.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, recallTimeout)
			defer cancel()
			if err := n.fabric.Try(ctx, m.ID); err != nil {
				n.log.Debug("not where it was", "peer", m.ID, "addr", m.At, "err", err)
			}
		})
	}
}

// keepRecalled keeps the file until ctx ends.
func (n *node) keepRecalled(ctx context.Context, r *recall) {
	changed, stop := n.fabric.WatchSessions()
	defer stop()
	tick := time.NewTicker(recallEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case <-changed:
		default:
			continue
		}
		if err := r.keep(n.connected()); err != nil {
			n.log.Warn("where members are is not kept for the next start", "err", err)
		}
	}
}

// connected lists how this node is connected with the nearest members, in order.
func (n *node) connected() []recalled {
	var out []recalled
	rtt := map[crdt.NodeID]time.Duration{}
	for _, l := range n.fabric.Links() {
		if l.Standing != fabric.Member || slices.ContainsFunc(out, func(m recalled) bool { return m.ID == l.Peer }) {
			continue
		}
		m := recalled{ID: l.Peer, Via: l.Relay}
		if s, direct := n.fabric.Session(l.Peer); direct {
			m = recalled{ID: l.Peer, At: s.Remote}
		} else if l.Relay.IsZero() {
			continue // by TCP: its own addresses do
		}
		out = append(out, m)
		rtt[l.Peer] = l.RTT
	}
	slices.SortStableFunc(out, func(a, b recalled) int { return cmp.Compare(rtt[a.ID], rtt[b.ID]) })
	out = out[:min(len(out), maxRecalled)]
	slices.SortFunc(out, func(a, b recalled) int { return a.ID.Compare(b.ID) }) // what is equal is to look so
	return out
}
