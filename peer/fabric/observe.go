package fabric

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"vcpeer/crdt"
	"vcpeer/peer/fabric/portmap"
)

const (
	observeWithin   = 3 * time.Second        // from a member's first answer to its last
	packetGap       = 200 * time.Millisecond // between the repetitions of a packet that may be lost
	packetTries     = 3
	backTimeout     = 1500 * time.Millisecond // for a TCP connection back
	observersPerID  = 2 * time.Second         // a member is dialled back at most this often
	maxObserving    = 16                      // questions answered at once
	maxSeenPerNonce = 4                       // addresses that one question may come from: it has two families
)

// observation is what one member said of this node.
type observation struct {
	by      crdt.NodeID
	rtt     time.Duration // of packets; where none came back of the stream
	stream  netip.AddrPort
	v4, v6  familySeen
	dialled bool // it dialled back
}

// familySeen is what was found of one address family.
type familySeen struct {
	asked bool           // packets were sent there
	near  bool           // the observer is on a network that this machine is on itself: what it sees says nothing of others
	at    netip.AddrPort // where they were seen from; not valid: none came back, UDP does not pass
	also  netip.AddrPort // where the second port saw them from
	back  bool           // a packet from a socket this node had not sent to came in
	tcp   bool           // a TCP connection came in
	tried bool           // that was tried

	mapped mappedSeen // of what the router passes on, of IPv4
}

// mappedSeen is what was found of the ports that the router says to pass on.
type mappedSeen struct {
	tried    bool // the observer sees this node at the address that the router says
	udp, tcp bool // something came in there
}

// family returns what was found of the family of an address.
func (o *observation) family(a netip.Addr) *familySeen {
	if a.Unmap().Is4() {
		return &o.v4
	}
	return &o.v6
}

// observing is one question under way, on the asker's side.
type observing struct {
	second uint16 // the observer's other port; 0: none
	mapped bool   // a UDP port that the router passes on is tried as well
	mu     sync.Mutex
	began  time.Time
	o      *observation
	got    chan struct{} // holds something when anything has come
}

// observers answers others' questions and keeps this node's own.
type observers struct {
	f *Fabric

	mu     sync.Mutex
	mine   map[nonce]*observing
	others map[nonce]*asked
	last   map[crdt.NodeID]time.Time // when a member was last dialled back
	reply  chan reachReply
}

// asked is one question under way, on the observer's side.
type asked struct {
	seen []netip.AddrPort
	more chan netip.AddrPort // new ones of seen
}

type reachReply struct {
	local, to netip.AddrPort
	b         []byte
}

func newObservers(f *Fabric) *observers {
	o := &observers{
		f: f, mine: map[nonce]*observing{}, others: map[nonce]*asked{}, last: map[crdt.NodeID]time.Time{},
		reply: make(chan reachReply, 64),
	}
	return o
}

// start takes part in both roles.
func (o *observers) start() {
	h := o.onPacket
	o.f.sockets.own.Store(&h)
	o.f.Handle(reachProtocol, o.serve)
	o.f.running.Go(func() {
		for {
			select {
			case <-o.f.ctx.Done():
				return
			case r := <-o.reply:
				_ = o.f.SendPackets(r.local, r.to, r.b, len(r.b)) // lost, as any packet may be
			}
		}
	})
}

// onPacket is called by the goroutine that reads the socket.
func (o *observers) onPacket(from, local netip.AddrPort, b []byte) {
	kind, n, at, ok := parseReachPacket(b)
	if !ok {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if kind == kindAsk {
		if a := o.others[n]; a != nil {
			a.takeLocked(from)
			select {
			case o.reply <- reachReply{local, from, reachPacket(kindSeen, n, from)}:
			default:
			}
		}
		return
	}
	q := o.mine[n]
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	f := q.o.family(local.Addr())
	switch {
	case kind == kindBack:
		f.back = true
	case kind == kindMapped:
		f.mapped.udp = true
	case from.Port() == q.second:
		f.also = at
	case !f.at.IsValid():
		f.at = at
		if q.o.rtt == 0 {
			q.o.rtt = time.Since(q.began)
		}
	}
	select {
	case q.got <- struct{}{}:
	default:
	}
}

func (a *asked) takeLocked(from netip.AddrPort) {
	if !slices.Contains(a.seen, from) && len(a.seen) < maxSeenPerNonce {
		a.seen = append(a.seen, from)
		a.more <- from // has room for all
	}
}

// serve answers a question.
func (o *observers) serve(ctx context.Context, from crdt.NodeID, c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(negotiateTimeout))
	var ask reachAsk
	if err := readMessage(c, &ask); err != nil {
		return
	}
	n, err := ask.nonce()
	if err != nil {
		return
	}
	var want wantedBack
	want.port = ask.Port
	if want.udp, want.tcp, err = ask.mapped(); err != nil {
		return
	}
	answer := reachSeen{}
	if at := socketOf(c.RemoteAddr()).at; at.IsValid() {
		answer.Addr, _ = at.MarshalBinary() // cannot fail
	}
	q, dial := o.enter(from, n)
	if q == nil {
		answer.Busy = true
	} else {
		defer o.leave(n)
	}
	answer.Busy = !dial
	if q != nil {
		second, err := net.ListenUDP("udp", nil)
		if err == nil {
			defer second.Close()
			answer.Also = uint16(second.LocalAddr().(*net.UDPAddr).Port)
			o.f.running.Go(func() { answerOn(second, n) })
		}
	}
	if writeMessage(c, answer) != nil || q == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, observeWithin)
	defer cancel()
	go func() { // the asker says when it has heard enough
		_, _ = c.Read(make([]byte, 1))
		cancel()
	}()
	_ = writeMessage(c, o.dialBack(ctx, q, n, dial, socketOf(c.RemoteAddr()), want))
}

// answerOn tells whoever has the nonce where it is seen from, on a port of the occasion, until that closes.
func answerOn(c *net.UDPConn, n nonce) {
	b := make([]byte, reachPacketBytes+1)
	for range packetTries * maxSeenPerNonce {
		size, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if kind, got, _, ok := parseReachPacket(b[:size]); ok && kind == kindAsk && got == n {
			_, _ = c.WriteToUDPAddrPort(reachPacket(kindSeen, n, from), from)
		}
	}
}

// enter notes a question; dial: the member may be dialled back.
func (o *observers) enter(from crdt.NodeID, n nonce) (q *asked, dial bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	for id, t := range o.last {
		if now.Sub(t) > observersPerID {
			delete(o.last, id)
		}
	}
	if len(o.others) >= maxObserving || o.others[n] != nil {
		return nil, false
	}
	_, recently := o.last[from]
	o.last[from] = now
	q = &asked{more: make(chan netip.AddrPort, maxSeenPerNonce)}
	o.others[n] = q
	return q, !recently
}

func (o *observers) leave(n nonce) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.others, n)
}

// wantedBack is where an asker wants to be dialled back.
type wantedBack struct {
	port     uint16         // TCP, at each address it is seen from; 0: none
	udp, tcp netip.AddrPort // that its router passes on
}

// dialBack tries to reach the asker where its packets come from, and where its connection does if that is TCP. Nothing goes
// to an address that it was not seen from.
func (o *observers) dialBack(ctx context.Context, q *asked, n nonce, dial bool, conn socket, want wantedBack) (r reachResult) {
	var mu sync.Mutex
	var all sync.WaitGroup
	note := func(change func()) {
		mu.Lock()
		defer mu.Unlock()
		change()
	}
	tried := map[netip.Addr]bool{}
	try := func(ip netip.Addr) {
		if !dial || tried[ip] {
			return
		}
		tried[ip] = true
		if want.port != 0 {
			all.Go(func() {
				ok := opens(ctx, netip.AddrPortFrom(ip, want.port))
				note(func() {
					if ip.Is4() {
						r.Tried4, r.TCP4 = true, r.TCP4 || ok
					} else {
						r.Tried6, r.TCP6 = true, r.TCP6 || ok
					}
				})
			})
		}
		if want.udp.Addr() == ip {
			note(func() { r.TriedMapped = true })
			all.Go(func() { knock(ctx, want.udp, mappedPacket(n)) })
		}
		if want.tcp.Addr() == ip {
			all.Go(func() {
				ok := opens(ctx, want.tcp)
				note(func() { r.TriedMapped, r.TCPMapped = true, ok })
			})
		}
	}
	if conn.at.IsValid() {
		try(conn.at.Addr())
	}
	for {
		select {
		case at := <-q.more:
			try(at.Addr())
			if dial {
				all.Go(func() { knock(ctx, at, backPacket(n)) })
			}
			continue
		case <-ctx.Done():
		}
		break
	}
	all.Wait()
	return r
}

// opens tries a TCP connection.
func opens(ctx context.Context, at netip.AddrPort) bool {
	d := net.Dialer{Timeout: backTimeout}
	c, err := d.DialContext(context.WithoutCancel(ctx), "tcp", at.String())
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// knock sends a packet some times from a socket of its own.
func knock(ctx context.Context, at netip.AddrPort, b []byte) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
	if err != nil {
		return
	}
	defer c.Close()
	for range packetTries {
		_, _ = c.Write(b) // lost, as any packet may be
		select {
		case <-ctx.Done():
			return
		case <-time.After(packetGap):
		}
	}
}

// observe asks a member how it sees this node.
func (o *observers) observe(ctx context.Context, by crdt.NodeID) (observation, error) {
	ctx, cancel := context.WithTimeout(ctx, observeWithin+negotiateTimeout)
	defer cancel()
	s, err := o.f.openDirect(ctx, by, reachProtocol)
	if err != nil {
		return observation{}, err
	}
	defer s.Reset()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	var n nonce
	_, _ = rand.Read(n[:]) // never fails
	began := time.Now()
	mapped := o.f.mapped()
	if err := writeMessage(s, askAbout(n, uint16(o.f.Port()), mapped)); err != nil {
		return observation{}, err
	}
	var seen reachSeen
	if err := readMessage(s, &seen); err != nil {
		return observation{}, err
	}
	q := &observing{second: seen.Also, mapped: mapped.UDP.IsValid() && !seen.Busy, began: time.Now(), o: &observation{by: by, dialled: !seen.Busy}, got: make(chan struct{}, 1)}
	if err := q.o.stream.UnmarshalBinary(seen.Addr); err != nil && len(seen.Addr) > 0 {
		return observation{}, fmt.Errorf("%w: %w", errReachMessage, err)
	}
	streamRTT := time.Since(began)
	if socketOf(s.RemoteAddr()).udp && q.o.stream.IsValid() {
		o.f.reacher.glimpse(q.o.stream)
	}
	o.mu.Lock()
	o.mine[n] = q
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.mine, n)
	}()
	o.ask(ctx, q, n, by, s)
	var result reachResult
	err = readMessage(s, &result)
	q.mu.Lock()
	defer q.mu.Unlock()
	out := *q.o
	out.v4.tcp, out.v4.tried = result.TCP4, result.Tried4
	out.v6.tcp, out.v6.tried = result.TCP6, result.Tried6
	out.v4.mapped.tried, out.v4.mapped.tcp = result.TriedMapped, result.TCPMapped
	if out.rtt == 0 {
		out.rtt = streamRTT
	}
	return out, err
}

// askAbout is the question of a node that listens on port.
func askAbout(n nonce, port uint16, mapped portmap.State) reachAsk {
	a := reachAsk{Nonce: n[:], Port: port}
	for _, at := range []netip.AddrPort{mapped.UDP, mapped.TCP} {
		if at.Addr().Is4() {
			a.Mapped = at.Addr().AsSlice()
		}
	}
	a.MappedUDP, a.MappedTCP = mapped.UDP.Port(), mapped.TCP.Port()
	return a
}

// ask sends the packets of a question until all is known or it is time.
func (o *observers) ask(ctx context.Context, q *observing, n nonce, by crdt.NodeID, s *stream) {
	defer s.CloseWrite()
	targets := o.packetAddrs(by)
	local := localPrefixes(o.f.cfg.Hidden)
	q.mu.Lock()
	for _, to := range targets {
		f := q.o.family(to.Addr())
		f.asked, f.near = true, onLink(local, to.Addr())
	}
	if at := socketOf(s.RemoteAddr()).at; at.IsValid() && onLink(local, at.Addr()) {
		q.o.family(at.Addr()).near = true
	}
	q.mu.Unlock()
	end := time.NewTimer(packetTries*packetGap + backTimeout)
	defer end.Stop()
	again := time.NewTicker(packetGap)
	defer again.Stop()
	sent := 0
	send := func() {
		if sent++; sent <= packetTries {
			for _, to := range targets {
				_ = o.f.SendPackets(netip.AddrPort{}, to, askPacket(n), reachPacketBytes) // its family may not work here
				if q.second != 0 {
					_ = o.f.SendPackets(netip.AddrPort{}, netip.AddrPortFrom(to.Addr(), q.second), askPacket(n), reachPacketBytes)
				}
			}
		}
	}
	send()
	for {
		select {
		case <-ctx.Done():
			return
		case <-end.C:
			return
		case <-again.C:
			send()
		case <-q.got:
		}
		if q.complete() {
			return
		}
	}
}

// complete reports whether nothing more can come that would tell something new.
func (q *observing) complete() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, f := range []familySeen{q.o.v4, q.o.v6} {
		if f.asked && (!f.at.IsValid() || !f.back) {
			return false
		}
	}
	return !q.mapped || q.o.v4.mapped.udp || !q.o.v4.asked
}

// packetAddrs are a member's UDP addresses to which packets can be sent: where it is connected, and one of each family of
// its record.
func (o *observers) packetAddrs(id crdt.NodeID) (out []netip.AddrPort) {
	l := o.f.peek(id)
	if l == nil || o.f.cfg.NoQUIC {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []ma.Multiaddr
	for _, c := range l.byWorth() {
		all = append(all, c.RemoteMultiaddr())
	}
	for _, a := range slices.Concat(all, l.learned) {
		na, err := manet.ToNetAddr(withoutQUIC(a))
		if err != nil {
			continue
		}
		at := socketOf(na)
		family := func(o netip.AddrPort) bool { return o.Addr().Is4() == at.at.Addr().Is4() }
		if at.udp && !slices.ContainsFunc(out, family) {
			out = append(out, at.at)
		}
	}
	return out
}
