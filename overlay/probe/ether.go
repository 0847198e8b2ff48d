package probe

import (
	"encoding/binary"
	"net/netip"
)

// EtherType is that of probes: IEEE 802 local experimental 1.
const EtherType = 0x88b5

// etherBytes is the length of an Ethernet header.
const etherBytes = 14

// header writes the Ethernet header by which the flows of this node's bridge and of transit gateways send a frame on w.
// Labels are 14 bits, those of the second and third transit gateway stand where the flows keep them on every path:
//
//	                            eth_dst                    eth_src
//	node of the own site        02:7f:00:00 slot           02:76:00:00 own slot
//	gateway at an IPv4 address  02:7a:00:00 label          02:76 address
//	gateway at an IPv6 address  02:7b:00:00 label          02:76:00:00 label
//	gateway by its link's flow  02:76:00:00 label          02:76:00:00 label
//	over 1 transit gateway      02:77:00:00 label          02:76:00:00 via 1
//	over 2                      02:78 via 2 label          02:76:00:00 via 1
//	over 3                      02:79 via 3 label          02:76 via 2 via 1
func header(b []byte, w way, addr netip.Addr, self Self) {
	clear(b[:etherBytes])
	b[0], b[6] = 0x02, 0x02
	b[7] = 0x76
	binary.BigEndian.PutUint16(b[4:], w.id.num)
	binary.BigEndian.PutUint16(b[12:], EtherType)
	switch {
	case w.id.near:
		b[1] = 0x7f
		binary.BigEndian.PutUint16(b[10:], uint16(self.Slot))
	case w.n == 0 && addr.Is4():
		b[1] = 0x7a
		a := addr.As4()
		copy(b[8:], a[:])
	default:
		b[1] = 0x76 + w.n
		if w.n == 0 && addr.Is6() {
			b[1] = 0x7b
		}
		binary.BigEndian.PutUint16(b[10:], uint16(w.first()))
		if w.n >= 2 {
			binary.BigEndian.PutUint16(b[2:], uint16(w.via[w.n-1]))
		}
		if w.n == 3 {
			binary.BigEndian.PutUint16(b[8:], uint16(w.via[1]))
		}
	}
}
