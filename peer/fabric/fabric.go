package fabric

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	mss "github.com/multiformats/go-multistream"

	"vcpeer/crdt"
	"vcpeer/peer/fabric/portmap"
	"vcpeer/peer/fabric/relay"
)

// sweepPeriod is how often the connections are compared with the records, so that a missed Disconnect heals.
const sweepPeriod = 500 * time.Millisecond

// closeTimeout bounds how long Close waits for handlers that do not heed their context.
const closeTimeout = 5 * time.Second

// ErrClosed is returned by calls on a closed Fabric.
var ErrClosed = errors.New("fabric is closed")

// Fabric is this node's end of all connections. Safe for concurrent use.
type Fabric struct {
	cfg      Config
	log      *slog.Logger
	self     crdt.NodeID
	host     *host
	gate     *gate
	sockets  packetSockets
	announce []ma.Multiaddr // Config.Advertise, parsed; empty: what is listened on

	members   *mss.MultistreamMuxer[protocol.ID] // what a member may ask for
	strangers *mss.MultistreamMuxer[protocol.ID] // what anybody may ask for: a subset of members
	classes   [256]atomic.Pointer[func(crdt.NodeID, []byte)]

	circuits     *circuits
	relay        *relay.Server
	reacher      *reacher
	mapper       *portmap.Mapper
	closed       atomic.Bool // nobody can dial this node, as far as is known
	natted       atomic.Bool // a NAT is before it, which may forget: every connection is watched closely
	sessionWatch watchers

	mu    sync.Mutex
	links map[crdt.NodeID]*link // every peer that is connected, addressed or sent to

	ctx     context.Context // over when the fabric closes
	cancel  context.CancelFunc
	running sync.WaitGroup // goroutines and handlers
	punches chan struct{}  // one token for each attempt at a direct connection under way
	dials   chan struct{}  // one token for each background dial under way
}

// New starts a fabric: it listens and serves from here on. Close ends it.
func New(cfg Config) (*Fabric, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	f := &Fabric{
		cfg: cfg, log: cfg.Log, self: crdt.NodeIDOf(cfg.Key),
		gate:      newGate(cfg.Standing, cfg.Refused),
		members:   mss.NewMultistreamMuxer[protocol.ID](),
		strangers: mss.NewMultistreamMuxer[protocol.ID](),
		links:     map[crdt.NodeID]*link{},
		dials:     make(chan struct{}, maxBackgroundDials),
		punches:   make(chan struct{}, maxPunches),
	}
	f.gate.walled = cfg.walled
	f.ctx, f.cancel = context.WithCancel(context.Background())
	var err error
	if f.host, err = newHost(cfg, f.gate, f.gate.pending, &f.sockets); err != nil {
		return nil, fmt.Errorf("fabric: start libp2p: %w", err)
	}
	f.reacher = newReacher(f)
	f.host.Notify(&network.NotifyBundle{ConnectedF: f.connected, DisconnectedF: f.disconnected})
	f.host.SetStreamHandler(f.serve)
	f.Handle(datagramProtocol, f.receiveStream)
	if err := errors.Join(f.startRelaying(), f.listenAll()); err != nil {
		f.Close()
		return nil, err
	}
	if f.announce, err = f.advertised(); err != nil {
		f.Close()
		return nil, err
	}
	if f.mapper, err = f.newMapper(); err != nil {
		f.Close()
		return nil, err
	}
	f.running.Go(func() { f.mapper.Run(f.ctx) })
	f.reacher.ask.start()
	f.running.Go(f.reacher.run)
	f.running.Go(f.sweep)
	return f, nil
}

// Close disconnects from everybody and waits for the handlers, at most some seconds. Calls after the first do nothing.
func (f *Fabric) Close() error {
	if f.ctx.Err() != nil {
		return nil
	}
	f.cancel()
	err := f.host.Close()
	done := make(chan struct{})
	go func() { f.running.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(closeTimeout):
		f.log.Warn("handlers still run after the fabric is closed")
	}
	return err
}

// newMapper makes what asks the router. Its nonce stays the same over a restart, without which the router would take this
// node for another and keep the port from it.
func (f *Fabric) newMapper() (*portmap.Mapper, error) {
	nonce, err := hkdf.Key(sha256.New, f.cfg.Key.Seed(), nil, "vcpeer port mapping", len(portmap.Nonce{}))
	if err != nil {
		return nil, err
	}
	return portmap.New(portmap.Config{
		Port: uint16(f.Port()), UDP: !f.cfg.NoQUIC, Nonce: portmap.Nonce(nonce), Told: f.reacher.tellMapped, Log: f.log,
	}), nil
}

// mapped is what the router says to pass on.
func (f *Fabric) mapped() portmap.State {
	f.reacher.mu.Lock()
	defer f.reacher.mu.Unlock()
	return f.reacher.mapped
}

// mayMap reports whether a router may be asked to pass the port on: it would do so to the address that this machine has
// towards it, where a fabric that listens on one address only may not be.
func (f *Fabric) mayMap() bool {
	return !f.cfg.NoPortMapping && len(f.announce) == 0 && slices.ContainsFunc(ownAddrs(f.host.ListenAddresses()), func(a ma.Multiaddr) bool {
		ip, err := manet.ToIP(a)
		return err == nil && ip.IsUnspecified() && ip.To4() != nil
	})
}

// Self returns this node's identity.
func (f *Fabric) Self() crdt.NodeID { return f.self }

// Disconnect closes every connection with id, and with them its streams and the contexts of its handlers. Whether it
// may come back is for Standing to say.
func (f *Fabric) Disconnect(id crdt.NodeID) {
	for _, c := range f.host.ConnsToPeer(peerIDOf(id)) {
		f.closeConn(c, network.ConnGated)
	}
}

// Keep exempts id from being closed for one connection too many while on is true. tag names the reason, so that several
// parts may ask for the same peer.
func (f *Fabric) Keep(id crdt.NodeID, tag string, on bool) {
	if on {
		f.host.conns.Protect(peerIDOf(id), tag)
		return
	}
	f.host.conns.Unprotect(peerIDOf(id), tag)
}

// closeConn closes without waiting for libp2p's bookkeeping. Its error is that of a connection already gone.
func (f *Fabric) closeConn(c network.Conn, code network.ConnErrorCode) { _ = c.CloseWithError(code) }

// sweep compares every connection with the records: it ends those of peers that are no longer members, and gives the
// places of strangers that became members back.
func (f *Fabric) sweep() {
	tick := time.NewTicker(sweepPeriod)
	defer tick.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case now := <-tick.C:
			for _, c := range f.host.Conns() {
				f.sweepConn(c, now)
			}
			f.watchAddresses()
			f.watchLife(now)
		}
	}
}

func (f *Fabric) sweepConn(c network.Conn, now time.Time) {
	id, _ := nodeIDOf(c.RemotePeer()) // the gate let only node IDs through
	switch f.cfg.Standing(id) {
	case Member:
		f.gate.leave(c)
	case Evicted:
		f.log.Info("disconnecting an evicted node", "peer", id)
		f.closeConn(c, network.ConnGated)
	default:
		if now.Sub(c.Stat().Opened) > strangerTime && !f.gate.permitted(id) {
			f.log.Debug("disconnecting a stranger", "peer", id, "addr", c.RemoteMultiaddr())
			f.closeConn(c, network.ConnGated)
		}
	}
}
