// Package peer is the daemon: it joins the parts of vcpeer into a node of a cluster. Identity and network come from
// [vcpeer/peer/fabric], admission from [vcpeer/peer/admit], records from [vcpeer/crdt/replica], who is there from
// [vcpeer/gossip], the site's jobs from [vcpeer/queue/site]; this package starts them in order, translates between them,
// serves the local API and stops them in order. The command line calls it:
//
//	err := peer.Run(ctx, cfg, version, log)
//
// Start: records, fabric, cluster (found, join, or go on), membership, dissemination, queue, host integration.
// Stop: refuse new work, hand back leases, say good-bye, close stores; each step has a deadline of its own.
package peer
