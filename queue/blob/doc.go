// Package blob keeps content by its SHA-256 on one node's disk, and moves it between nodes.
//
// Scripts, inputs, outputs and standard output of tasks are blobs: named by content, they are stored once, may be
// fetched from anyone who has them, and are proved right by their own name. The package knows no jobs: what is
// still needed is told to it (GC), and who may connect is decided below it (Fabric).
//
//	s, err := blob.Open(blob.Options{Dir: "/var/lib/vcpeer/blobs"})
//	hash, size, err := s.Put(ctx, file)        // durable when it returns
//	x := blob.NewExchange(s, fabric, blob.Limits{})
//	err = x.Fetch(ctx, hash, nodeA, nodeB)     // from whoever answers, resumed after a cut
//
// # Durability and its cost
//
// A Put returns after the content, its name and its directory are on disk. Concurrent Puts share their flushes: one
// of the callers commits for all that wait (group commit), so many small blobs cost far less than one flush each.
// Empty content has a hash but never a file. A content already held costs no write at all.
package blob
