package fabric

import (
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"vcpeer/crdt"
)

// Session is a direct QUIC connection with a member, as far as it concerns who sends packets of its own beside it (see
// [Packets]): where the peer is, and what only the two of them know. A new connection is a new session with new keys.
//
// Both ends may call themselves the one that dialled (they did, through their NATs), so what differs between the two
// directions is told by the node IDs: the lower is one, the higher the other, whoever dialled.
type Session struct {
	Peer   crdt.NodeID
	ID     [8]byte        // the same on both ends, different for each connection; no secret
	Local  netip.AddrPort // for SendPackets; its address is unspecified where the socket has none of its own
	Remote netip.AddrPort // where packets for the peer go; changes when the peer's NAT gives it another address
	Opened time.Time      // here; the other end's clock tells another
	Lower  bool           // this node's ID is lower than the peer's

	tls tls.ConnectionState
}

// Export returns n bytes that only the two ends know, the same on both, for a label (RFC 8446 section 7.5). They say
// nothing of those for another label or of another session.
func (s Session) Export(label string, n int) ([]byte, error) {
	return s.tls.ExportKeyingMaterial(label, nil, n)
}

// sessionLabel derives Session.ID.
const sessionLabel = "EXPERIMENTAL vcpeer session"

// newSession describes an open QUIC connection.
func (f *Fabric) newSession(peer crdt.NodeID, q *quic.Conn) (Session, error) {
	s := Session{Peer: peer, Opened: time.Now(), Lower: slices.Compare(f.self[:], peer[:]) < 0, tls: q.ConnectionState().TLS}
	id, err := s.Export(sessionLabel, len(s.ID))
	if err != nil {
		return s, err
	}
	copy(s.ID[:], id)
	s.at(q)
	return s, nil
}

// at sets the addresses to those of now.
func (s *Session) at(q *quic.Conn) {
	s.Local, s.Remote = addrPortOf(q.LocalAddr()), addrPortOf(q.RemoteAddr())
}

func addrPortOf(a net.Addr) netip.AddrPort { return socketOf(a).at }

// Sessions lists the sessions with a member, the one to send on first: that which is newest and alive. Packets may come
// with the keys of any of them, since the other end may prefer another. Empty: there is no direct QUIC connection; the
// peer is reached by TCP, through a relay, or not at all.
func (f *Fabric) Sessions(id crdt.NodeID) []Session {
	l := f.peek(id)
	if l == nil || f.cfg.Standing(id) != Member {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Session
	for _, c := range l.byWorth() {
		if c.session != nil && c.quic.Context().Err() == nil {
			s := *c.session
			s.at(c.quic)
			out = append(out, s)
		}
	}
	return out
}

// Session returns the first of [Fabric.Sessions].
func (f *Fabric) Session(id crdt.NodeID) (Session, bool) {
	all := f.Sessions(id)
	if len(all) == 0 {
		return Session{}, false
	}
	return all[0], true
}

// AllSessions lists the first session of every member that has any, by member.
func (f *Fabric) AllSessions() []Session {
	var out []Session
	for _, id := range f.peers() {
		if s, ok := f.Session(id); ok {
			out = append(out, s)
		}
	}
	return out
}

// WatchSessions returns a channel that holds something after the sessions of any member have changed: one came or went, its
// address is another, or another is to be preferred. Changes while nobody looks are one change. An address that
// changed is noticed within a second.
func (f *Fabric) WatchSessions() (changed <-chan struct{}, stop func()) { return f.sessionWatch.add() }

// watchers wake whoever wants to know of a change, without waiting for them.
type watchers struct {
	mu  sync.Mutex
	all []chan struct{}
}

func (w *watchers) add() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, c)
	return c, sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.all = slices.DeleteFunc(w.all, func(o chan struct{}) bool { return o == c })
	})
}

func (w *watchers) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.all {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// watchAddresses wakes those who watch when a session's peer has moved.
func (f *Fabric) watchAddresses() {
	moved := false
	for _, id := range f.peers() {
		l := f.peek(id)
		if l == nil {
			continue
		}
		l.mu.Lock()
		for _, c := range l.conns {
			if c.session != nil && addrPortOf(c.quic.RemoteAddr()) != c.session.Remote {
				c.session.at(c.quic)
				moved = true
			}
		}
		l.mu.Unlock()
	}
	if moved {
		f.sessionWatch.wake()
	}
}

// peers lists whom the fabric has a link with, in order.
func (f *Fabric) peers() []crdt.NodeID {
	f.mu.Lock()
	defer f.mu.Unlock()
	ids := make([]crdt.NodeID, 0, len(f.links))
	for id := range f.links {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b crdt.NodeID) int { return slices.Compare(a[:], b[:]) })
	return ids
}
