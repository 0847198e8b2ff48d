// Package label is the 32-bit key that every frame between nodes carries: which gateway it entered the network at, which
// it is for, and how often it may still be forwarded. It is the GRE key (RFC 2890) of frames on GRE links, and stands in
// front of frames on other links. A transit gateway decides by the key alone, and every forwarding lowers the budget, so
// that no frame can go round in a loop whatever the nodes believe of each other.
//
//	 31 30   29 28    27         14 13          0
//	version budget   source gateway  destination
package label

import "fmt"

// Label is the number of a gateway, unique in the cluster by claim.
type Label uint16

// Labels with a meaning of their own.
const (
	Site      Label = 0         // as destination: the frame stays in the site of the gateway that it came from
	First     Label = 1         // the first that a gateway may have
	Last      Label = 1<<14 - 2 // the last
	Broadcast Label = 1<<14 - 1 // as destination: one copy for every site
)

// Version is the layout of the key and of what it implies; frames of another are dropped.
const Version = 1

// MaxTransit is how many gateways may lie between the first and the last: what the two bits of the budget can say.
const MaxTransit = 3

// Key is a packed label.
type Key struct {
	Budget   uint8 // how often the frame may still be forwarded, 0 to MaxTransit
	Src, Dst Label
}

// Valid reports whether l can be a gateway's.
func (l Label) Valid() bool { return l >= First && l <= Last }

func (l Label) String() string { return fmt.Sprintf("g%d", uint16(l)) }

// Pack returns the key as it travels. Bits that do not fit are cut off.
func (k Key) Pack() uint32 {
	return Version<<30 | uint32(k.Budget&3)<<28 | uint32(k.Src&0x3fff)<<14 | uint32(k.Dst&0x3fff)
}

// Unpack reads a key; false: it is of another version.
func Unpack(v uint32) (Key, bool) {
	return Key{Budget: uint8(v >> 28 & 3), Src: Label(v >> 14 & 0x3fff), Dst: Label(v & 0x3fff)}, v>>30 == Version
}
