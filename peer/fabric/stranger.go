package fabric

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/peerstore"

	"vcpeer/crdt"
)

// ConnectStranger connects to a node that is not in the records (yet), at an address as the user gave it, "host[:port]".
// Until release is called the gate lets that node be talked to, in either direction; after it, whether the connection
// may stay is for Standing to say (it has some seconds to come round). release may be called more than once.
//
// The connection proves that the peer has id's key, and nothing else.
func (f *Fabric) ConnectStranger(ctx context.Context, id crdt.NodeID, hostport string) (release func(), err error) {
	ips, port, err := f.lookUp(ctx, hostport)
	if err != nil {
		return nil, err
	}
	allow := f.gate.permit(id)
	p := peerIDOf(id)
	for _, ip := range ips {
		for _, kind := range f.transports() {
			f.host.Peerstore().AddAddr(p, multiaddr(ip, kind, port), peerstore.TempAddrTTL)
		}
	}
	f.host.Backoff().Clear(p) // the user asked now
	if _, err := f.host.DialPeer(ctx, p); err != nil {
		allow()
		return nil, fmt.Errorf("fabric: connect to %s at %s: %w", id.Short(), hostport, oneLine(ctx, err))
	}
	return allow, nil
}

// lookUp resolves a host to at most four addresses, as many of each family as there are.
func (f *Fabric) lookUp(ctx context.Context, hostport string) ([]netip.Addr, int, error) {
	host, port, err := SplitAddr(hostport)
	if err == nil && (host == "" || port == 0) {
		err = fmt.Errorf("address %q: a seed needs a host, and a port other than 0", hostport)
	}
	if err != nil {
		return nil, 0, &ProbeError{Addr: hostport, Reason: BadAddress, Err: err}
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, port, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err == nil && len(ips) == 0 {
		err = errors.New("the name has no address")
	}
	if err != nil {
		return nil, 0, &ProbeError{Addr: hostport, Reason: NoSuchName, Err: err}
	}
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	return ips[:min(len(ips), maxProbeIPs)], port, nil
}

const (
	lookUpTimeout = 10 * time.Second
	maxProbeIPs   = 4
)
