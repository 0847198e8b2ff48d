package fabric

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"vcpeer/crdt"
)

// Way is how a member is reached just now.
type Way struct {
	Link    Link
	Punched bool          // direct, through a hole that both sides made
	RTT     time.Duration // 0: not measured
}

// Way returns the connection that new streams to a member use; false: there is none.
func (f *Fabric) Way(id crdt.NodeID) (Way, bool) {
	l := f.peek(id)
	if l == nil {
		return Way{}, false
	}
	best := l.usable(false)
	if len(best) == 0 {
		return Way{}, false
	}
	w := Way{Link: f.describe(best[0])}
	l.mu.Lock()
	// Where either side turned out to let anybody in, punching only came before a plain dial.
	w.Punched = !best[0].relayed() && !l.knows(best[0].RemoteMultiaddr()) && (f.closed.Load() || best[0].punched && f.punchRank() != rankOpen)
	l.mu.Unlock()
	w.RTT = w.Link.RTT
	return w, true
}

// pingProtocol returns what it is sent, once.
const (
	pingProtocol = "/vcpeer/ping/1"
	pingBytes    = 8
)

func servePing(_ context.Context, _ crdt.NodeID, c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(negotiateTimeout))
	b := make([]byte, pingBytes)
	if _, err := io.ReadFull(c, b); err == nil {
		_, _ = c.Write(b)
	}
}

// Try makes sure that a member answers now, connecting first if need be.
func (f *Fabric) Try(ctx context.Context, id crdt.NodeID) error {
	c, err := f.Open(ctx, id, pingProtocol)
	if err != nil {
		return err
	}
	defer reset(c)
	stop := context.AfterFunc(ctx, func() { reset(c) })
	defer stop()
	b := make([]byte, pingBytes)
	if _, err = c.Write(b); err == nil {
		_, err = io.ReadFull(c, b)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("fabric: ask %s: %w", id.Short(), err)
	}
	return nil
}
