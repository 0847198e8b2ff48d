package crdt

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Guest is a machine on the overlay that is no node: a virtual machine behind a tap, a container behind a veth. It keeps its
// name and address wherever it is attached.
type Guest struct {
	ID       GuestID
	Asked    string    // the name it was given; may be empty
	Name     string    // the name in force: Asked, unless a host or another guest holds that
	Node     NodeID    // where it is attached; zero: nowhere. The node may have left or been evicted: see [View.Standing]
	Since    time.Time // when it was attached there or detached, by the clock of who did
	Address  netip.Addr
	Address6 netip.Addr
}

// MAC returns the guest's Ethernet address; zero while it has no address.
func (g Guest) MAC() MAC { return MACOf(g.Address) }

// guestRecord is what one object says of a guest.
type guestRecord struct {
	there   bool
	guest   Guest
	text    string // the ID
	addr    netip.Addr
	slot    string // addr as text
	name    fact
	address fact
}

// guest reads a guest. It is there while it is attached, or detached with a name or address: what is left of one that was
// forgotten while somebody renamed or detached it claims nothing.
func (r *reader) guest(id string) *guestRecord {
	g := &guestRecord{}
	node, ok := r.set(kindGuest, id, fieldNode)
	if !ok || len(id) != len(GuestID{}) || !readBytes(g.guest.Node[:], node.value) {
		return g
	}
	g.guest.ID, g.guest.Since = GuestID([]byte(id)), node.stamp.Time()
	g.text = g.guest.ID.String()
	g.name, _ = r.set(kindGuest, id, fieldName)
	if name := readText(g.name.value); CheckLabel("", name) == nil {
		g.guest.Asked = name
	}
	g.address, _ = r.set(kindGuest, id, fieldAddress)
	if addr, ok := slotAddr(r.s.founding.Range, readNumber(g.address.value)); ok {
		g.addr, g.slot = addr, addr.String()
	}
	g.there = !g.guest.Node.IsZero() || g.guest.Asked != "" || g.slot != ""
	return g
}

// guest reads one guest and books its claims; nil if it is not there. A guest has gone with its node; a detached one waits.
func (s *State) guest(id string, v *View, r *reader, b book) *guestRecord {
	g := record(r, kindGuest, id, func() *guestRecord { return r.guest(id) })
	if !g.there {
		return nil
	}
	rank := rankLive
	if !g.guest.Node.IsZero() && v.Standing(g.guest.Node) != Joined {
		rank = rankGone
	}
	b.add(ClaimHostName, g.guest.Asked, claim{id: g.text, label: g.guest.Asked, f: g.name, rank: rank})
	b.add(ClaimAddress, g.slot, claim{id: g.text, label: g.guest.Asked, f: g.address, rank: rank})
	return g
}

// putGuests lists the guests by what they are called.
func (p *places) putGuests(range6 netip.Prefix, records []*guestRecord) {
	p.guests, p.guestByID = make([]Guest, len(records)), make(map[GuestID]int, len(records))
	for i, r := range records {
		g := &p.guests[i]
		*g = r.guest
		g.Name = p.book.name(ClaimHostName, g.Asked, r.text, "guest")
		if r.slot != "" && p.book.holder(ClaimAddress, r.slot) == r.text {
			g.Address, g.Address6 = r.addr, Address6(range6, r.addr)
		}
	}
	slices.SortFunc(p.guests, func(a, b Guest) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), bytes.Compare(a.ID[:], b.ID[:]))
	})
	for i := range p.guests {
		p.guestByID[p.guests[i].ID] = i
	}
}

// AttachGuest makes a guest that is attached to this node, with an address; or brings the guest that goes by that name here,
// with its name and address. An empty name makes a guest that is named by a hash. ErrTaken: a host holds the name; or a guest
// does that is attached to another member, and takeOver is not set; or the range is full. Attached here already: nothing
// changes. Of two nodes that attach one guest at the same time the later wins, and the other finds it gone from there.
func (tx *Tx) AttachGuest(name string, takeOver bool) (GuestID, netip.Addr, error) {
	if g, ok := tx.v.GuestNamed(name); ok {
		return tx.moveGuest(g, takeOver)
	}
	var id GuestID
	if name != "" {
		if err := CheckLabel("guest name", name); err != nil {
			return id, netip.Addr{}, err
		}
	}
	if err := tx.draw(id[:]); err != nil {
		return id, netip.Addr{}, err
	}
	if name != "" {
		if err := tx.claim(tx.v.places.book, ClaimHostName, name, id.String()); err != nil {
			return GuestID{}, netip.Addr{}, err
		}
	}
	addr, err := tx.claimAddress(kindGuest, string(id[:]), id.String())
	if err != nil {
		return GuestID{}, netip.Addr{}, err
	}
	if name != "" {
		tx.set(kindGuest, string(id[:]), fieldName, name)
	}
	tx.set(kindGuest, string(id[:]), fieldNode, tx.self[:])
	return id, addr, nil
}

func (tx *Tx) moveGuest(g Guest, takeOver bool) (GuestID, netip.Addr, error) {
	if !takeOver && g.Node != tx.self && tx.v.Standing(g.Node) == Joined {
		return GuestID{}, netip.Addr{}, fmt.Errorf("guest %s: %w: attached to %s", g.Name, ErrTaken, tx.v.NameOf(g.Node))
	}
	addr, err := tx.ClaimGuestAddress(g.ID)
	if err != nil {
		return GuestID{}, netip.Addr{}, err
	}
	tx.set(kindGuest, string(g.ID[:]), fieldNode, tx.self[:])
	return g.ID, addr, nil
}

// DetachGuest notes that a guest is attached nowhere. It keeps its name and address, for where it is attached next.
func (tx *Tx) DetachGuest(id GuestID) error {
	if !tx.hasGuest(id) {
		return fmt.Errorf("guest %s: %w", id, ErrNotFound)
	}
	tx.set(kindGuest, string(id[:]), fieldNode, make([]byte, len(NodeID{})))
	return nil
}

// ForgetGuest takes a guest off the records; its name and address are free again, and nothing of it is left. Attaching it at
// the same time elsewhere wins, since there the machine is running: it is then attached there without name and address,
// which RenameGuest and ClaimGuestAddress give back, the address being chosen by its ID and so the same if it is still free.
func (tx *Tx) ForgetGuest(id GuestID) error {
	if !tx.hasGuest(id) {
		return fmt.Errorf("guest %s: %w", id, ErrNotFound)
	}
	tx.clearAll(kindGuest, string(id[:]))
	return nil
}

// RenameGuest gives a guest another name. ErrTaken: a live host or another guest holds it.
func (tx *Tx) RenameGuest(id GuestID, name string) error {
	if err := CheckLabel("guest name", name); err != nil {
		return err
	}
	if !tx.hasGuest(id) {
		return fmt.Errorf("guest %s: %w", id, ErrNotFound)
	}
	if err := tx.claim(tx.v.places.book, ClaimHostName, name, id.String()); err != nil {
		return err
	}
	tx.set(kindGuest, string(id[:]), fieldName, name)
	return nil
}

// ClaimGuestAddress gives a guest an address: the one it holds, or the next free one from the hash of its ID on. The node that
// a guest is attached to calls it when [Guest.Address] is not valid. ErrTaken: the range is full.
func (tx *Tx) ClaimGuestAddress(id GuestID) (netip.Addr, error) {
	if !tx.hasGuest(id) {
		return netip.Addr{}, fmt.Errorf("guest %s: %w", id, ErrNotFound)
	}
	if g, ok := tx.v.Guest(id); ok && g.Address.IsValid() {
		return g.Address, nil
	}
	return tx.claimAddress(kindGuest, string(id[:]), id.String())
}

// reclaimGuests gives guests of this node names and addresses in place of those that went to others while it was away.
func (tx *Tx) reclaimGuests() error {
	for _, g := range tx.v.Guests() {
		if g.Node != tx.self {
			continue
		}
		if g.Asked != "" && g.Name != g.Asked {
			tx.force(kindGuest, string(g.ID[:]), fieldName, g.Asked)
		}
		if _, err := tx.ClaimGuestAddress(g.ID); err != nil {
			return err
		}
	}
	return nil
}

// hasGuest reports whether there is such a guest, counting this transaction.
func (tx *Tx) hasGuest(id GuestID) bool {
	if f, written := tx.over[fieldKey{kindGuest, string(id[:]), fieldNode}]; written {
		return len(f) > 0
	}
	_, ok := tx.v.Guest(id)
	return ok
}
