package fabric

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	netmgr "github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/quic-go/quic-go"
)

// host is libp2p as the fabric uses it: a swarm with its peer store, limits and transports, and nothing above.
type host struct {
	*swarm.Swarm
	conns    *netmgr.BasicConnMgr
	limits   network.ResourceManager
	upgrader transport.Upgrader // for connections through relays
	closers  []io.Closer        // in order of closing, after the swarm
}

// newHost assembles a host that listens nowhere yet.
func newHost(cfg Config, gater connmgr.ConnectionGater, pending *pending, sockets *packetSockets) (_ *host, err error) {
	h := &host{}
	defer func() {
		if err != nil {
			h.Close()
		}
	}()
	key, id, err := libp2pKey(cfg.Key)
	if err != nil {
		return nil, err
	}
	peers, err := newPeerstore(key, id)
	if err != nil {
		return nil, err
	}
	h.closers = append(h.closers, peers)
	limits, err := newLimits()
	if err != nil {
		return nil, err
	}
	h.closers = append([]io.Closer{limits}, h.closers...)
	h.limits = limits
	h.conns, err = netmgr.NewConnManager(cfg.ConnLow, cfg.ConnHigh, netmgr.WithGracePeriod(cfg.Grace))
	if err != nil {
		return nil, err
	}
	h.closers = append([]io.Closer{h.conns}, h.closers...)
	h.Swarm, err = swarm.NewSwarm(id, peers, eventbus.NewBus(),
		swarm.WithConnectionGater(gater),
		swarm.WithResourceManager(limits),
		// The black hole detectors stop dialling UDP or IPv6 when few dials succeed. Here a row of failed dials means
		// that nodes are down, not that a protocol is.
		swarm.WithUDPBlackHoleSuccessCounter(nil),
		swarm.WithIPv6BlackHoleSuccessCounter(nil),
		swarm.WithDialRanker(rankDials),
	)
	if err != nil {
		return nil, err
	}
	h.Notify(h.conns.Notifee())
	return h, h.addTransports(cfg, key, limits, gater, pending, sockets)
}

func libp2pKey(key ed25519.PrivateKey) (crypto.PrivKey, peer.ID, error) {
	k, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return nil, "", err
	}
	id, err := peer.IDFromPrivateKey(k)
	return k, id, err
}

func newPeerstore(key crypto.PrivKey, id peer.ID) (peerstore.Peerstore, error) {
	peers, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, err
	}
	return peers, errors.Join(peers.AddPrivKey(id, key), peers.AddPubKey(id, key.GetPublic()))
}

func (h *host) addTransports(cfg Config, key crypto.PrivKey, limits network.ResourceManager, gater connmgr.ConnectionGater, pending *pending, sockets *packetSockets) error {
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	tls, err := libp2ptls.New(libp2ptls.ID, key, muxers)
	if err != nil {
		return err
	}
	nse, err := noise.New(noise.ID, key, muxers)
	if err != nil {
		return err
	}
	up, err := upgrader.New([]sec.SecureTransport{tls, nse}, muxers, nil, limits, gater, upgrader.WithAcceptTimeout(handshakeTimeout))
	if err != nil {
		return err
	}
	h.upgrader = up
	// Without SO_REUSEPORT an address in use is an error, and not a second daemon that shares the connections.
	overTCP, err := tcp.NewTCPTransport(guardedUpgrader{up, pending}, limits, nil, tcp.DisableReuseport())
	if err != nil {
		return err
	}
	if err := h.AddTransport(overTCP); err != nil || cfg.NoQUIC {
		return err
	}
	socks, err := newQUICSockets(cfg.Key, limits, pending, sockets)
	if err != nil {
		return err
	}
	h.closers = append([]io.Closer{socks}, h.closers...)
	overQUIC, err := libp2pquic.NewTransport(key, socks, nil, gater, limits)
	if err != nil {
		return err
	}
	return h.AddTransport(overQUIC)
}

// newQUICSockets makes the UDP side: one socket for listening and dialling alike, so that a NAT sees one mapping.
func newQUICSockets(key ed25519.PrivateKey, limits network.ResourceManager, pending *pending, sockets *packetSockets) (*quicreuse.ConnManager, error) {
	var reset quic.StatelessResetKey
	var token quic.TokenGeneratorKey
	for _, k := range []struct {
		name string
		out  []byte
	}{{"vcpeer quic stateless reset", reset[:]}, {"vcpeer quic retry token", token[:]}} {
		b, err := hkdf.Key(sha256.New, key.Seed(), nil, k.name, len(k.out))
		if err != nil {
			return nil, err
		}
		copy(k.out, b)
	}
	return quicreuse.NewConnManager(reset, token,
		quicreuse.OverrideListenUDP(sockets.listen),
		quicreuse.VerifySourceAddress(func(from net.Addr) bool { return pending.busy() || limits.VerifySourceAddress(from) }),
		quicreuse.ConnContext(func(ctx context.Context, client *quic.ClientInfo) (context.Context, error) {
			return accountFor(ctx, client.RemoteAddr, limits, pending)
		}),
	)
}

// accountFor counts an incoming QUIC connection from its first packet on, before any key is proven.
func accountFor(ctx context.Context, from net.Addr, limits network.ResourceManager, pending *pending) (context.Context, error) {
	addr, err := quicreuse.ToQuicMultiaddr(from, quic.Version1)
	if err != nil {
		return ctx, err
	}
	at := pending.enter(from)
	if at == nil {
		return ctx, ErrBusy
	}
	scope, err := limits.OpenConnection(network.DirInbound, false, addr)
	if err != nil {
		at.leave()
		return ctx, err
	}
	context.AfterFunc(ctx, func() {
		at.leave()
		scope.Done()
	})
	return network.WithConnManagementScope(ctx, scope), nil
}

func (h *host) Close() error {
	var errs []error
	if h.Swarm != nil {
		errs = append(errs, h.Swarm.Close())
	}
	for _, c := range h.closers {
		errs = append(errs, c.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("fabric: close: %w", err)
	}
	return nil
}
