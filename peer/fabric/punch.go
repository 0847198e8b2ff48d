package fabric

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"

	"vcpeer/crdt"
)

// punchProtocol is how two members that are connected through a relay get a direct connection (after Ford, Srisuresh,
// Kegel: Peer-to-Peer Communication Across Network Address Translators, 2005). Each says where others see it; the one that
// asks says go and waits half a round trip, the other dials when it hears that, so that both dial in the same moment and
// each one's packets open its NAT for the other's. libp2p's own (DCUtR) does the same but refuses private addresses, which
// are all that a campus network or a provider's NAT may have.
const punchProtocol = "/vcpeer/punch/1"

const (
	maxPunchAddrs = 12
	punchTries    = 3
	punchDial     = 1500 * time.Millisecond
	punchTimeout  = 15 * time.Second
	punchRest     = 10 * time.Second // after all tries failed; then twice as long each time
	punchRestMax  = 10 * time.Minute
	maxPunches    = 8 // at once
)

// puncher is the state of that for one peer, under the lock of its link.
type puncher struct {
	busy    bool
	again   bool      // something has changed during the attempt under way
	mine    bool      // this side has moved, so it begins whatever its ID is
	rescued bool      // another way is being looked for
	sought  time.Time // when that began last
	fails   int
	next    time.Time // not before; zero: at once
}

// anew has the next attempt be made at once: what failed before may work now.
func (p *puncher) anew() { p.fails, p.next, p.again = 0, time.Time{}, p.busy }

// punchMessage is what each side says.
type punchMessage struct {
	Addrs []string `cbor:"1,keyasint,omitempty"`
	Rank  uint8    `cbor:"2,keyasint,omitempty"` // see punchRank
}

// Ranks tell who dials and who only opens its NAT: the dialling side is the one that is harder to reach.
const (
	rankOpen = iota // anybody can dial it
	rankEasy        // its NAT shows one address to all
	rankHard        // its NAT shows another to each, or it gets out by TCP only
)

func (f *Fabric) punchRank() uint8 { return f.Reach().rank() }

func (r Reach) rank() uint8 {
	switch {
	case r.Open() == Yes:
		return rankOpen
	case r.V4.Mapping != PortEach && r.V4.Out != No, r.V6.Mapping == NotMapped:
		return rankEasy // or not known
	}
	return rankHard
}

// punchAddrs are where this node might be reached: where others see it, and its own addresses, for whoever is behind the
// same NAT.
func (f *Fabric) punchAddrs(ctx context.Context) (out []string) {
	seen := f.reacher.seenAs(ctx)
	for _, at := range seen[:min(len(seen), 4)] {
		out = append(out, multiaddr(at.Addr(), "quic", int(at.Port())).String())
	}
	for _, s := range slices.Concat(f.Reach().Addrs, f.Addrs()) {
		if !slices.Contains(out, s) && len(out) < maxPunchAddrs {
			out = append(out, s)
		}
	}
	return out
}

// improve gets a direct connection with a peer that is only reached through a relay, if it is time for that and this node's
// part to begin.
func (f *Fabric) improve(l *link) {
	if f.ctx.Err() != nil || f.cfg.Standing(l.id) != Member {
		return
	}
	lower := slices.Compare(f.self[:], l.id[:]) < 0
	l.mu.Lock()
	begin := (lower || l.punch.mine) && l.onlyRelayed() && !l.punch.busy && !time.Now().Before(l.punch.next)
	if begin {
		l.punch.busy = true
	}
	l.mu.Unlock()
	if !begin {
		return
	}
	f.running.Go(func() {
		f.punches <- struct{}{}
		began := time.Now()
		err := f.punch(l)
		took := time.Since(began)
		<-f.punches
		l.mu.Lock()
		l.punch.ended(err, time.Now())
		l.mu.Unlock()
		f.log.Debug("tried for a direct connection", "peer", l.id, "took", took, "err", err)
	})
}

// ended takes note of how an attempt went.
func (p *puncher) ended(err error, now time.Time) {
	p.busy = false
	switch {
	case err == nil:
		*p = puncher{rescued: p.rescued, sought: p.sought}
	case p.again:
		p.anew()
	case errors.Is(err, errHopeless):
		p.mine, p.next = false, now.Add(punchRestMax) // or until something is learned
	default:
		p.mine = false
		p.next = now.Add(min(punchRest<<min(p.fails, 8), punchRestMax))
		p.fails++
	}
}

// punchAnew has direct connections be tried at once with everybody: this node is seen at another address.
func (f *Fabric) punchAnew() {
	for _, id := range f.peers() {
		if l := f.peek(id); l != nil {
			l.mu.Lock()
			l.punch.mine = true
			l.punch.anew()
			l.mu.Unlock()
		}
	}
}

// punchSoon has direct connections be tried at once by this side: it is easier to reach than it was.
func (f *Fabric) punchSoon() {
	for _, id := range f.peers() {
		if l := f.peek(id); l != nil {
			l.mu.Lock()
			l.punch.anew()
			l.mu.Unlock()
		}
	}
}

// rescue looks for another connection with a peer whose only ones do not answer: at its addresses and through relays. The
// swarm would not dial while there is one.
func (f *Fabric) rescue(l *link, now time.Time) {
	l.mu.Lock()
	begin := !l.punch.rescued && now.Sub(l.punch.sought) >= rescueEvery
	if begin {
		l.punch.rescued, l.punch.sought = true, now
	}
	addrs := slices.Concat(l.learned, l.found)
	relays := slices.Clone(l.relays)
	l.mu.Unlock()
	if !begin || f.cfg.Standing(l.id) != Member {
		return
	}
	for _, r := range f.heldRelays() {
		if r != l.id && !slices.Contains(relays, r) {
			relays = append(relays, r)
		}
	}
	addrs = slices.Concat(circuitAddrs(relays), slices.DeleteFunc(addrs, isNamed))
	f.running.Go(func() {
		ctx, cancel := context.WithTimeout(f.ctx, backgroundDialTime)
		defer cancel()
		err := f.dialPast(ctx, l, addrs, 100*time.Millisecond, l.works)
		f.log.Debug("looked for another way", "peer", l.id, "err", err)
		l.mu.Lock()
		l.punch.rescued = false
		l.mu.Unlock()
	})
}

// works reports whether there is a connection that answers, of whatever kind.
func (l *link) works() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.conns, func(c *conn) bool { return !c.life.suspect && !c.IsClosed() })
}

// onlyRelayed reports whether there are connections and all that work go through relays. The caller holds the lock.
func (l *link) onlyRelayed() bool {
	relayed := false
	for _, c := range l.conns {
		if c.relayed() {
			relayed = true
		} else if !c.life.suspect && !c.IsClosed() {
			return false
		}
	}
	return relayed
}

// punch is the part of the side that begins.
func (f *Fabric) punch(l *link) error {
	ctx, cancel := context.WithTimeout(f.ctx, punchTimeout)
	defer cancel()
	s, err := f.open(ctx, l.id, punchProtocol, false)
	if err != nil {
		return err
	}
	defer s.Reset()
	_ = s.SetDeadline(time.Now().Add(punchTimeout))
	for try := range punchTries {
		own := punchMessage{f.punchAddrs(ctx), f.punchRank()}
		began := time.Now()
		if err := writeMessage(s, own); err != nil {
			return err
		}
		var theirs punchMessage
		if err := readMessage(s, &theirs); err != nil {
			return err
		}
		if hopeless(own, theirs) {
			return errHopeless
		}
		rtt := time.Since(began)
		if _, err := s.Write([]byte{byte(try)}); err != nil {
			return err
		}
		wait := time.NewTimer(rtt / 2)
		select {
		case <-ctx.Done():
		case <-wait.C:
		}
		wait.Stop()
		if err = f.meet(ctx, l, theirs, dials(own.Rank, theirs.Rank, try, true)); err == nil {
			return nil
		}
		if own.Rank == rankHard && theirs.Rank == rankHard {
			break // nobody knows where the other will come from
		}
	}
	return err
}

// errHopeless says that trying would cost both sides packets and nothing else.
var errHopeless = errors.New("both NATs show another port to each, and are not one")

// hopeless reports whether nobody knows where the other will come from. Behind one NAT, which both are seen at, they may
// still share a LAN.
func hopeless(own, theirs punchMessage) bool {
	return own.Rank == rankHard && theirs.Rank == rankHard && !slices.ContainsFunc(own.Addrs, func(s string) bool {
		return slices.ContainsFunc(theirs.Addrs, func(o string) bool { return sameHost(s, o) })
	})
}

// sameHost reports whether two multiaddrs have one IP address.
func sameHost(a, b string) bool {
	x, errX := ma.NewMultiaddr(a)
	y, errY := ma.NewMultiaddr(b)
	return errX == nil && errY == nil && len(x) > 0 && len(y) > 0 && x[0].Equal(&y[0])
}

// servePunch is the part of the other side.
func (f *Fabric) servePunch(ctx context.Context, from crdt.NodeID, c net.Conn) {
	defer reset(c)
	l := f.linkTo(from)
	_ = c.SetDeadline(time.Now().Add(punchTimeout))
	for range punchTries {
		var theirs punchMessage
		if err := readMessage(c, &theirs); err != nil {
			return
		}
		own := punchMessage{f.punchAddrs(ctx), f.punchRank()}
		if err := writeMessage(c, own); err != nil {
			return
		}
		var try [1]byte
		if _, err := io.ReadFull(c, try[:]); err != nil {
			return
		}
		if err := f.meet(ctx, l, theirs, dials(own.Rank, theirs.Rank, int(try[0]), false)); err == nil {
			_, _ = c.Read(try[:]) // until the other side has seen it too
			return
		}
	}
}

// dials reports whether this side dials, and the other one opens its NAT: exactly one of the two does.
func dials(own, theirs uint8, try int, began bool) bool {
	if own != theirs {
		return own > theirs == (try != 1) // the second try is the other way round
	}
	return began == (try%2 == 0)
}

// meet dials the peer at its addresses while the peer does the same. TCP is tried only where QUIC did not do and the peer
// can be dialled by anybody.
func (f *Fabric) meet(ctx context.Context, l *link, theirs punchMessage, client bool) error {
	var quic, tcp []ma.Multiaddr
	for _, s := range theirs.Addrs[:min(len(theirs.Addrs), maxPunchAddrs)] {
		a := f.usable(l.id, s)
		switch {
		case a == nil || isNamed(a) || !f.gate.InterceptAddrDial(peerIDOf(l.id), a):
		case isQUIC(a):
			quic = append(quic, a)
		case theirs.Rank == rankOpen && client:
			tcp = append(tcp, a)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, punchDial)
	defer cancel()
	err := f.dialPast(network.WithSimultaneousConnect(ctx, client, "punch"), l, quic, 0, l.isDirect)
	if err != nil && len(tcp) > 0 {
		ctx, cancel := context.WithTimeout(f.ctx, punchDial)
		defer cancel()
		err = f.dialPast(ctx, l, tcp, 0, l.isDirect)
	}
	if err == nil && theirs.Rank != rankOpen && f.punchRank() != rankOpen {
		l.markPunched()
	}
	return err
}

// markPunched notes that the newest direct connection goes through a hole that both sides made.
func (l *link) markPunched() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range slices.Backward(l.conns) {
		if !c.relayed() {
			c.punched = true
			return
		}
	}
}

func isQUIC(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_QUIC_V1)
	return err == nil
}

// dialPast dials the peer at each of addrs, gap after gap, past the swarm, which would not do so while there is another
// connection, and returns when done says so, whichever side made that so.
func (f *Fabric) dialPast(ctx context.Context, l *link, addrs []ma.Multiaddr, gap time.Duration, done func() bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed, stop := f.sessionWatch.add()
	defer stop()
	results := make(chan error, len(addrs))
	var once sync.Mutex // one connection is enough
	have := false
	for i, a := range addrs {
		go func() {
			t := f.host.TransportForDialing(a)
			if t == nil || sleep(ctx, time.Duration(i)*gap) != nil {
				results <- errNoDirect
				return
			}
			c, err := t.Dial(ctx, a, peerIDOf(l.id))
			if err == nil {
				once.Lock()
				if have {
					c.Close()
				} else {
					have = true
					f.circuits.adopt(c)
				}
				once.Unlock()
			}
			results <- err
		}()
	}
	var last error = errNoDirect
	for failed := 0; failed < len(addrs) && !done(); {
		select {
		case <-ctx.Done():
			return oneLine(ctx, last)
		case <-changed:
		case err := <-results:
			if err != nil {
				failed++
				last = err
			}
		}
	}
	if done() {
		return nil
	}
	return last
}

// sleep waits; the error is the context's.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// isDirect reports whether there is a direct connection that works.
func (l *link) isDirect() bool { return len(l.usable(true)) > 0 }
