// Package replica keeps the records of package crdt on this node's disk and is the one place that writes them: it signs
// what the node changes, verifies what others send, makes both durable before anybody hears of them, and publishes typed
// views. It knows no network: whoever moves batches between nodes asks for [Replica.Heads] and [Replica.Since] and gives
// what it gets to [Replica.Receive].
//
//	r, err := replica.Open(replica.Options{Dir: dir, Key: key, Now: time.Now, Log: log})
//	...
//	err = r.Update(ctx, func(tx *crdt.Tx) error { return tx.PutHost(facts) })
//	for _, h := range r.View().Hosts() { ... }
//
// # Durability
//
// One goroutine owns the state. It takes what waits, up to 512 KiB, into one synced transaction, so that many writers share
// one disk flush; a batch is visible, acknowledged and passed on only after that. The node's own log is the high-water mark
// of its sequence numbers and stamps: nobody has seen a number that is not on disk. A failed write takes back what was
// not written and is returned to every writer of the group.
//
// # Memory and disk
//
// Badger runs with two memtables of 8 MiB, tables of 2 MiB, a block cache of 4 MiB and no value log to speak of (values are
// below its threshold), checksums verified when a table is opened and a block is read. With 10,000 batches a
// process that holds nothing else stays below 50 MiB resident (BenchmarkReopen). Badger maps its files into memory and dies of SIGBUS if the file system fills; so all writing stops with
// [ErrNoSpace] below 64 MiB or 2% (at most 1 GiB) of free space.
package replica
