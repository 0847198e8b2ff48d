// Package wal is the durable memory of one raft member: what it must still know after a crash or a power cut.
//
// A log is a directory with one lock, segment files, snapshot files and a ballast. Segments hold checksummed records:
// the member's identity, its hard state (term, vote, commit), its entries, and markers that name the snapshot which
// replaces the entries before it. Save appends one batch and returns when it is durable; batches are atomic. The log
// keeps no entries in memory: Open returns what is there, and the caller keeps it.
//
// # What it promises
//
//   - A batch whose Save returned nil is there at the next Open, or Open fails. It never returns wrong data silently:
//     every record and snapshot carries a CRC32C (Castagnoli) over its whole content.
//   - ErrNoSpace: the batch was not written, everything before it is intact, and the log works again once there is
//     space. A ballast is given up first, so that small batches still fit for a while on a full disk.
//   - ErrFailed: a write or an fsync failed. It is final: after a failed fsync Linux forgets the dirty pages, and the
//     next fsync would report success for data that is gone (Rebello et al., Can Applications Recover from fsync
//     Failures?, USENIX ATC 2020). The caller must stop and open the directory anew; Open writes again what may be in
//     memory only.
//   - ErrCorrupt: a record that had been synced is damaged. Nothing is truncated or repaired.
//
// # How a torn tail is told from damage
//
// A crash may leave any part of the unsynced tail: the end without the middle, too. So each record says up to which
// offset of its segment all was durable when it was written. A bad record at offset x followed by a valid record that
// says synced > x is damage; without such a witness it is the torn tail of a batch that nobody was told about, and is
// dropped. Close leaves a witness for the last batch; after a crash, damage that hits the very last batch alone cannot
// be told from a torn write, by this or any other log.
//
// # Use
//
//	log, state, err := wal.Open(dir, wal.Options{})
//	if state.Identity == nil { err = log.Save(wal.Batch{Identity: &wal.Identity{ID: id}, Sync: true}) }
//	err = log.Save(wal.Batch{Hard: &hard, Entries: entries, Sync: true})
//
// A Log belongs to one goroutine, except WriteSnapshot, ReadSnapshot and Space, which any goroutine may call.
package wal
