package fabric

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"vcpeer/crdt"
)

// QUIC takes 30 s to give a dead connection up, and a NAT that forgets a connection, or gives it another address, kills it
// without a word. So the fabric looks itself: an acknowledgement, which shows as a new round trip time, proves that both
// directions work. Without one for some time the connection is asked; without an answer it is a suspect, which is used
// only when there is nothing else, and later closed.
const (
	quietWatched = 2500 * time.Millisecond // without proof, a connection that a NAT may forget is asked …
	quietOther   = 10 * time.Second        // … and any other
	answerWithin = 1500 * time.Millisecond // then it is a suspect, …
	closeAfter   = 6 * time.Second         // and after this, counted from the first question, closed, if there is another
	rescueEvery  = 5 * time.Second         // while there is none, one is looked for this often
	lateSweep    = 4 * sweepPeriod         // a look so late says that this machine is too busy to judge others
	askAgain     = time.Second
	idleRelayed  = 10 * time.Second // a relayed connection without streams is closed so long after a direct one came
)

// life is what is known of whether a connection works. Under the lock of its link.
type life struct {
	rtt     time.Duration // the last seen
	proof   time.Time     // when that changed
	asked   time.Time     // when it was first asked since; zero: it was not
	again   time.Time     // when it was last asked
	looked  time.Time     // when it was last looked at
	suspect bool
}

// verdict is what to do with a connection.
type verdict struct{ ask, close, changed bool }

// look judges by the newest round trip time; watched says that a NAT may forget the connection.
func (l *life) look(rtt time.Duration, watched bool, now time.Time) (v verdict) {
	was := l.suspect
	if late := now.Sub(l.looked); !l.looked.IsZero() && late > lateSweep { // what has not been read yet is no silence
		l.proof = l.proof.Add(late)
		if !l.asked.IsZero() {
			l.asked, l.again = l.asked.Add(late), l.again.Add(late)
		}
	}
	l.looked = now
	if l.proof.IsZero() || rtt != l.rtt {
		l.rtt, l.proof, l.asked, l.suspect = rtt, now, time.Time{}, false
		return verdict{changed: was}
	}
	quiet := quietOther
	if watched {
		quiet = quietWatched
	}
	if now.Sub(l.proof) < quiet {
		return verdict{}
	}
	if l.asked.IsZero() {
		l.asked, l.again = now, now
		return verdict{ask: true}
	}
	waited := now.Sub(l.asked)
	l.suspect = waited >= answerWithin+2*l.rtt
	v.changed = l.suspect != was
	v.close = waited >= closeAfter+2*l.rtt
	if now.Sub(l.again) >= askAgain {
		l.again, v.ask = now, true
	}
	return v
}

// watchLife looks at every connection.
func (f *Fabric) watchLife(now time.Time) {
	changed := false
	for _, id := range f.peers() {
		if l := f.peek(id); l != nil && f.watchLink(l, now) {
			changed = true
		}
	}
	if changed {
		f.sessionWatch.wake()
	}
}

func (f *Fabric) watchLink(l *link, now time.Time) (changed bool) {
	var ask, end []*conn
	l.mu.Lock()
	var direct time.Time // since when there is a direct connection that works
	for _, c := range l.conns {
		if c.quic != nil {
			v := c.life.look(c.quic.ConnectionStats().LatestRTT, f.natted.Load() || f.closed.Load() || !l.knows(c.RemoteMultiaddr()), now)
			changed = changed || v.changed
			if v.ask {
				ask = append(ask, c)
			}
			if v.close {
				end = append(end, c)
			}
		}
		if opened := c.Stat().Opened; !c.relayed() && !c.life.suspect && (direct.IsZero() || opened.Before(direct)) {
			direct = opened
		}
	}
	if !direct.IsZero() && now.Sub(direct) > idleRelayed {
		for _, c := range l.conns {
			if c.relayed() && c.Stat().NumStreams == 0 && now.Sub(c.Stat().Opened) > idleRelayed {
				end = append(end, c)
			}
		}
	}
	stuck := len(l.conns) > 0 && !slices.ContainsFunc(l.conns, func(c *conn) bool { return !c.life.suspect })
	if stuck { // nothing better is known, and it may answer again
		end = nil
	}
	l.mu.Unlock()
	if stuck {
		f.rescue(l, now)
	}
	for _, c := range ask {
		f.running.Go(func() { _ = c.quic.SendDatagram(controlMessage(controlNothing, 0)) }) // its acknowledgement is the answer
	}
	for _, c := range end {
		f.log.Debug("closing a connection that is not used or does not answer", "peer", l.id, "addr", c.RemoteMultiaddr())
		f.closeConn(c, network.ConnNoError)
	}
	f.improve(l)
	return changed
}

// silent reports whether a connection does not answer at present.
func (f *Fabric) silent(id crdt.NodeID, nc network.Conn) bool {
	l := f.peek(id)
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		if c.Conn == nc || network.Conn(c) == nc {
			return c.life.suspect
		}
	}
	return false
}

// closeSilent closes a direct connection over which a relay has stopped answering.
func (f *Fabric) closeSilent(nc network.Conn) {
	if _, relayed := relayOf(nc.RemoteMultiaddr()); !relayed {
		f.closeConn(nc, network.ConnNoError)
	}
}
