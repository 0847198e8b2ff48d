package crdt

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strconv"
)

// What hosts and guests of the overlay claim: an address, of which slot n is the n-th of the cluster's range, and gateways a
// label, the number that frames between sites carry. From 1; the numbers that are left out mean something else there.
const (
	overlaySlots  = 1<<16 - 2
	gatewayLabels = 1<<14 - 2
)

// DefaultRange is the range of a cluster that was founded without another.
func DefaultRange() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, 0, 0}), 16) }

// CheckRange returns an error wrapping ErrInvalid unless p can be a cluster's range: a /16 of private IPv4 addresses (RFC 1918).
func CheckRange(p netip.Prefix) error {
	if !p.IsValid() || !p.Addr().Is4() || p.Bits() != 16 || p != p.Masked() || !p.Addr().IsPrivate() {
		return fmt.Errorf("overlay range %s: %w: want a /16 of private IPv4 addresses, such as %s", p, ErrInvalid, DefaultRange())
	}
	return nil
}

// slotAddr returns the address of a slot in a range; false if there is no such slot.
func slotAddr(in netip.Prefix, slot uint64) (netip.Addr, bool) {
	if slot < 1 || slot > overlaySlots {
		return netip.Addr{}, false
	}
	a := in.Addr().As4()
	a[2], a[3] = byte(slot>>8), byte(slot)
	return netip.AddrFrom4(a), true
}

// OverlayPrefix6 returns the IPv6 range of a cluster's overlay: a /64, subnet 0 of a unique local prefix (RFC 4193) whose
// global ID is a hash of the cluster's ID, so that two clusters on one network do not meet.
func OverlayPrefix6(cluster ClusterID) netip.Prefix {
	sum := sha256.Sum256(append([]byte("vcpeer overlay prefix\x00"), cluster[:]...))
	a := [16]byte{0xfd}
	copy(a[1:6], sum[:])
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// Address6 returns the IPv6 address that goes with an IPv4 address of the overlay: its slot behind the prefix. Not valid if
// addr4 is no IPv4 address.
func Address6(prefix netip.Prefix, addr4 netip.Addr) netip.Addr {
	if !addr4.Is4() {
		return netip.Addr{}
	}
	a, b := prefix.Addr().As16(), addr4.As4()
	a[14], a[15] = b[2], b[3]
	return netip.AddrFrom16(a)
}

// MAC is an Ethernet address.
type MAC [6]byte

// MACOf returns the Ethernet address that goes with an IPv4 address of the overlay: 02:76:00:00 (locally administered) and
// its slot. Bytes 2 and 3 are zero because frames between sites carry labels there. Zero if addr4 is no IPv4 address.
func MACOf(addr4 netip.Addr) MAC {
	if !addr4.Is4() {
		return MAC{}
	}
	b := addr4.As4()
	return MAC{0x02, 0x76, 0, 0, b[2], b[3]}
}

func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// free returns the first number from 1 to n, from the hash of a key on, that fits; false if none does.
func free(what string, key []byte, n uint64, fits func(uint64) bool) (uint64, bool) {
	start := hash64(what, key) % n
	for i := range n {
		if v := (start+i)%n + 1; fits(v) {
			return v, true
		}
	}
	return 0, false
}

// claimNumber claims for an object a number from 1 to n that nobody claims, beginning at the hash of its ID; if there is
// none, one that only what has gone claims. text is how the number is written as a claimed value. ErrTaken: all live.
func (tx *Tx) claimNumber(kind string, of fieldKey, id string, n uint64, text func(uint64) string) (uint64, error) {
	if f, ok := winner(tx.over[of], tx.now); ok {
		return readNumber(f.value), nil // by this transaction
	}
	for _, reuse := range []bool{false, true} {
		number, ok := free(kind, []byte(of.id), n, func(number uint64) bool {
			k := claimKey{kind, text(number)}
			c := tx.v.places.book[k]
			return tx.taken[k] == "" && (len(c) == 0 || reuse && c[0].rank == rankGone)
		})
		if ok {
			tx.taken[claimKey{kind, text(number)}] = id
			tx.force(of.kind, of.id, of.field, number)
			return number, nil
		}
	}
	return 0, fmt.Errorf("overlay %s: %w: all %d", kind, ErrTaken, n)
}

// claimAddress is claimNumber for an address.
func (tx *Tx) claimAddress(kind Kind, key, id string) (netip.Addr, error) {
	in := tx.s.founding.Range
	slot, err := tx.claimNumber(ClaimAddress, fieldKey{kind, key, fieldAddress}, id, overlaySlots, func(slot uint64) string {
		a, _ := slotAddr(in, slot)
		return a.String()
	})
	addr, _ := slotAddr(in, slot)
	return addr, err
}

// labelText is how a label is written as a claimed value; empty if there is no such label.
func labelText(label uint64) string {
	if label < 1 || label > gatewayLabels {
		return ""
	}
	return strconv.FormatUint(label, 10)
}
