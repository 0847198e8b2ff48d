package crdt

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
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

// overlaySlots is how many host addresses 10.77.0.0/16 has; slot n, from 1, is the n-th.
const overlaySlots = 1<<16 - 2

// OverlayRange is the range that host addresses are claimed from.
func OverlayRange() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, 0, 0}), 16) }

// slotAddr returns the address of a slot; false if there is no such slot.
func slotAddr(slot uint64) (netip.Addr, bool) {
	if slot < 1 || slot > overlaySlots {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte{10, 77, byte(slot >> 8), byte(slot)}), true
}

// freeSlot returns the first slot from the hash of a node's key on whose address nobody holds; false if all are taken.
func freeSlot(n NodeID, taken func(addr string) bool) (uint64, bool) {
	start := hash64("address", n[:]) % overlaySlots
	for i := range uint64(overlaySlots) {
		slot := (start+i)%overlaySlots + 1
		if a, _ := slotAddr(slot); !taken(a.String()) {
			return slot, true
		}
	}
	return 0, false
}

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
