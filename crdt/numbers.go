package crdt

import (
	"crypto/sha256"
	"encoding/binary"
)

// Numbers that records may hold. An account's or group's number comes from a block of its site, so that sites which
// cannot hear each other do not choose the same; within a block each node starts at a place of its own.
const (
	minID     = 1000    // below are the operating system's
	firstID   = 200_000 // begin of the blocks
	endID     = 1 << 31 // first number too large
	blockSize = 65_536  // numbers of a site
	blocks    = (endID - firstID) / blockSize
	lanes     = 256 // starting places in a block
)

// freeID returns a number nobody has or had, from the site's block, beginning at the node's place in it; if the block is
// full, from the next block. False if there is none at all.
func freeID(site SiteID, n NodeID, taken func(uint32) bool) (uint32, bool) {
	block := hash64("block", site[:]) % blocks
	lane := hash64("lane", n[:]) % lanes * (blockSize / lanes)
	for b := range uint64(blocks) {
		base := firstID + (block+b)%blocks*blockSize
		for i := range uint64(blockSize) {
			if id := uint32(base + (lane+i)%blockSize); !taken(id) {
				return id, true
			}
		}
	}
	return 0, false
}

func hash64(what string, b []byte) uint64 {
	sum := sha256.Sum256(append([]byte("vcpeer "+what+"\x00"), b...))
	return binary.BigEndian.Uint64(sum[:])
}
