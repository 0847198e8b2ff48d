package sealed

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"vcpeer/crdt"
	"vcpeer/overlay/label"
)

// roster is who the peers are. It is never changed once published.
type roster struct {
	self    label.Label
	byLabel map[label.Label]*peer
	all     []*peer // in the order given
}

// peer is what the link has of one. The rosters that name it share it.
type peer struct {
	id    crdt.NodeID
	since time.Time

	label    atomic.Uint32
	sessions atomic.Pointer[[]*session] // the one to send on first
	stream   atomic.Pointer[streamLink]

	retired []*session // that are not used any more, and may come back; owned by Run

	queue queue // guarded by Link.mu

	sent, got counter
	drops     drops
}

func (p *peer) labelNow() label.Label { return label.Label(p.label.Load()) }

// session is one connection with a peer, for both directions.
type session struct {
	id   [8]byte
	peer *peer

	told route // by SetPeers; owned by Run

	route   atomic.Pointer[route]
	epoch   atomic.Uint32 // of the keys to send with
	proven  atomic.Bool   // something came with its keys: the other end has them
	arrived atomic.Uint32 // epochs of our keys of which the other says that something came, as a number of epochs
	heard   atomic.Uint32 // the same of the other's keys, here
	owes    atomic.Bool   // the other is to be told heard

	out outgoing // owned by the sender
	in  incoming // owned by the receiver
}

// route is between two sockets.
type route struct{ local, remote netip.AddrPort }

// outgoing seals.
type outgoing struct {
	chain   chain
	key     epochKey
	since   time.Time // of the key
	counter uint64    // of the next datagram
	spoke   time.Time // last control datagram
	nonce   [nonceBytes]byte
}

// incoming opens: with the keys of three epochs, so that a late datagram and one with the next key are both opened.
type incoming struct {
	chain chain
	keys  [3]*openKey // before, now, next; nil: there is none
}

// openKey opens the datagrams of one epoch.
type openKey struct {
	epochKey
	window  window
	session *session
	also    *openKey // another with the same id
	shared  bool     // it is such another
}

func newSession(self crdt.NodeID, p *peer, s Session, now time.Time) *session {
	n := &session{id: s.ID, peer: p}
	n.out.chain = newChain(s.Secret, self, p.id)
	n.out.key, n.out.since = n.out.chain.next(), now
	n.in.chain = newChain(s.Secret, p.id, self)
	n.in.keys[1] = n.nextIn()
	n.in.keys[2] = n.nextIn()
	n.told = route{s.Local, s.Remote}
	first := n.told
	n.route.Store(&first)
	return n
}

func (s *session) nextIn() *openKey { return &openKey{epochKey: s.in.chain.next(), session: s} }

// move follows what SetPeers says of where the peer is, if that has changed.
func (s *session) move(to Session) {
	r := route{to.Local, to.Remote}
	if s.told != r {
		s.told = r
		s.route.Store(&r)
	}
}

// best is the session to send on: the first whose keys the other end is known to have.
func (p *peer) best() *session {
	all := p.sessions.Load()
	if all == nil || len(*all) == 0 {
		return nil
	}
	for _, s := range *all {
		if s.proven.Load() {
			return s
		}
	}
	return (*all)[0]
}

// update makes a peer what SetPeers says of it.
func (p *peer) update(self crdt.NodeID, want Peer, now time.Time) {
	p.label.Store(uint32(want.Label))
	var have, next []*session
	if old := p.sessions.Load(); old != nil {
		have = slices.Clone(*old)
	}
	for _, w := range want.Sessions {
		if len(w.Secret) != SecretBytes || len(next) == MaxSessions || slices.ContainsFunc(next, func(s *session) bool { return s.id == w.ID }) {
			continue
		}
		i := slices.IndexFunc(have, func(s *session) bool { return s.id == w.ID })
		if i < 0 {
			if i = slices.IndexFunc(p.retired, func(s *session) bool { return s.id == w.ID }); i >= 0 {
				have, p.retired = append(have, p.retired[i]), slices.Delete(p.retired, i, i+1)
				i = len(have) - 1
			}
		}
		if i >= 0 {
			have[i].move(w)
			next = append(next, have[i])
		} else {
			next = append(next, newSession(self, p, w, now))
		}
	}
	for _, s := range have {
		if !slices.Contains(next, s) {
			p.retired = append(p.retired, s)
		}
	}
	p.retired = slices.Delete(p.retired, 0, max(0, len(p.retired)-maxRetired))
	p.sessions.Store(&next)
}

// maxRetired is how many sessions are remembered: twice as many as there can be connections with a peer.
const maxRetired = 16
