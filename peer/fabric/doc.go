// Package fabric carries everything that nodes of a cluster say to one another: authenticated streams and small
// unreliable datagrams, addressed by [crdt.NodeID], over libp2p with QUIC first and TCP (TLS or Noise) second, on one
// port number for both.
//
// It knows who may talk, not what is said. [Config.Standing] tells of every peer whether it is a member, a stranger or
// evicted, and is asked again for every connection, stream and datagram:
//
//   - a member may use every protocol;
//   - a stranger may connect from outside, a bounded number at a time and for a bounded time, and finds one thing only:
//     the protocols registered with [Fabric.HandleStrangers] (joining). Not even the names of the others are told, and
//     identify, ping, relay and the other services of a usual libp2p host are not there at all;
//   - an evicted node, or one whose identity is no Ed25519 key, is disconnected as soon as its key is proven.
//
// Two members that cannot dial one another, for NATs or firewalls in between, are connected all the same: through a relay,
// which is a third member and sees ciphertext only, and then directly if a hole can be made. [Fabric.SetNeighbours] names
// who may be asked and relay, [Fabric.Reach] says what was found out, and the file DESIGN.md how.
//
// The host is put together from libp2p's swarm and transports directly rather than by libp2p.New, which would bring
// identify (it tells any stranger addresses, protocols and version) and link every transport there is.
//
//	f, err := fabric.New(fabric.Config{Key: key, Listen: []string{":7475"}, Standing: standing, Log: log})
//	if err != nil {
//		return err
//	}
//	defer f.Close()
//	f.Handle("/vcpeer/echo/1", func(ctx context.Context, from crdt.NodeID, c net.Conn) { defer c.Close(); io.Copy(c, c) })
//	f.Learn(peer, addrs)
//	c, err := f.Open(ctx, peer, "/vcpeer/echo/1")
//
// Joining, membership, records and queue are other packages' work; package peer connects them to the fabric.
package fabric
