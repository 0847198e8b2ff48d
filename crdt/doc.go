// Package crdt is the data model of a cluster that has no master: who is a member, which sites, hosts, accounts,
// groups, guests and join tokens there are, and who holds which name, number, address and label. It is pure: it opens nothing, starts
// nothing, reads no clock (the time is passed in) and draws random numbers only from a source handed to it. Package
// crdt/replica keeps it on disk; other packages move its batches between nodes.
//
// # Model
//
// Every node is an author with an append-only log of signed batches ([Batch]); a batch holds changes ([Change]), each
// identified by its dot ([Dot]: author and sequence number). A change sets a register, adds to or removes from a set,
// or grows a set of which nothing is ever removed, and names the dots that it replaces. Hence removal leaves no
// tombstone: a value is there as long as a dot that holds it up has not been replaced. [State] is the merge of any
// number of logs; batches of different authors may come in any order, and equal sets of batches give equal states.
// After Almeida, Shoker and Baquero, Delta State Replicated Data Types (2018); the hash-linked logs follow Kleppmann,
// Making CRDTs Byzantine Fault Tolerant (2022).
//
// # Names are claims
//
// An object has a generated, immutable ID: a node its key, everything else 128 random bits. What people choose (a
// name, a uid, an address) is a claim on it. Two sites that are cut apart can claim one value; then the winner is a
// pure function of the merged logs (see [View.Conflicts]), and the loser goes on under a derived value where that is
// harmless (host name, site name), waits for a new one (address, label), or is disabled with a reason (account).
//
// # Use
//
// The rest of the program writes through the typed helpers of [Tx] and reads a [View], an immutable typed snapshot:
//
//	err := replica.Update(ctx, func(tx *crdt.Tx) error {
//		site, err := tx.CreateSite("kyoto")
//		if err != nil {
//			return err
//		}
//		return tx.PutHost(crdt.HostFacts{Name: "n1", Site: site, CPUs: 8})
//	})
//	for _, h := range replica.View().Hosts() { ... }
package crdt
