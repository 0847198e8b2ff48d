package fabric

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"vcpeer/crdt"
)

// peerIDOf is libp2p's name of a node.
func peerIDOf(id crdt.NodeID) peer.ID { return peer.ID(id.Bytes()) }

// nodeIDOf is the node that libp2p calls p; ok is false for keys that are not Ed25519, which no node has.
func nodeIDOf(p peer.ID) (id crdt.NodeID, ok bool) {
	if len(p) < len(id) {
		return crdt.NodeID{}, false
	}
	id = crdt.NodeID([]byte(p[len(p)-len(id):]))
	return id, peerIDOf(id) == p
}
