package crdt

import (
	"fmt"
	"net/netip"
)

// HostFacts is what a node says of its own machine. Zero fields are not written: they stay as they are.
type HostFacts struct {
	Name     string
	Site     SiteID
	Addrs    []string // multiaddrs, at most 64
	OS       string
	Arch     string
	CPUs     int
	MemBytes int64
	Version  string
}

// Limits of what a host says.
const (
	maxAddrs    = 64
	maxUnderlay = 8
	maxOverlay  = 255
	maxMTU      = 65_535
)

// CreateSite makes a site with this node as founder. ErrTaken: a site of that name lives; one without nodes does not count.
func (tx *Tx) CreateSite(name string) (SiteID, error) { return tx.CreateSiteFor(name, tx.self) }

// CreateSiteFor is CreateSite with another founder: a newcomer, whose site is made by the member that lets it in, so that two
// newcomers do not make it twice.
func (tx *Tx) CreateSiteFor(name string, founder NodeID) (SiteID, error) {
	var id SiteID
	if err := CheckLabel("site name", name); err != nil {
		return id, err
	}
	if err := tx.draw(id[:]); err != nil {
		return id, err
	}
	if err := tx.claim(tx.v.places.book, ClaimSiteName, name, id.String()); err != nil {
		return SiteID{}, err
	}
	tx.set(kindSite, string(id[:]), fieldName, name)
	tx.set(kindSite, string(id[:]), fieldFounder, founder[:])
	return id, nil
}

// RenameSite gives a site another name.
func (tx *Tx) RenameSite(id SiteID, name string) error {
	if err := CheckLabel("site name", name); err != nil {
		return err
	}
	if !tx.exists(kindSite, string(id[:])) {
		return fmt.Errorf("site %s: %w", id, ErrNotFound)
	}
	if err := tx.claim(tx.v.places.book, ClaimSiteName, name, id.String()); err != nil {
		return err
	}
	tx.set(kindSite, string(id[:]), fieldName, name)
	return nil
}

// PutHost writes what this node says of its machine, only what differs. The name is a wish: if another host holds it, this one
// goes by a derived name and the conflict is listed, since a machine must come up whatever it is called.
func (tx *Tx) PutHost(f HostFacts) error {
	if len(f.Addrs) > maxAddrs {
		return fmt.Errorf("host: %d addresses: %w: at most %d", len(f.Addrs), ErrInvalid, maxAddrs)
	}
	id := string(tx.self[:])
	if f.Name != "" {
		if err := CheckLabel("host name", f.Name); err != nil {
			return err
		}
		tx.set(kindHost, id, fieldName, f.Name)
	}
	if !f.Site.IsZero() {
		tx.set(kindHost, id, fieldSite, f.Site[:])
		tx.site = f.Site
	}
	if len(f.Addrs) > 0 {
		tx.set(kindHost, id, fieldAddrs, f.Addrs)
	}
	for _, t := range []struct{ field, value string }{{fieldOS, f.OS}, {fieldArch, f.Arch}, {fieldVersion, f.Version}} {
		if t.value != "" {
			tx.set(kindHost, id, t.field, t.value)
		}
	}
	if f.CPUs > 0 {
		tx.set(kindHost, id, fieldCPUs, uint64(f.CPUs))
	}
	if f.MemBytes > 0 {
		tx.set(kindHost, id, fieldMem, uint64(f.MemBytes))
	}
	return nil
}

// RenameHost gives any member's host another name. ErrTaken: another live host holds it.
func (tx *Tx) RenameHost(id NodeID, name string) error {
	if err := CheckLabel("host name", name); err != nil {
		return err
	}
	if !tx.exists(kindHost, string(id[:])) {
		return fmt.Errorf("host %s: %w", id, ErrNotFound)
	}
	if err := tx.claim(tx.v.places.book, ClaimHostName, name, id.String()); err != nil {
		return err
	}
	tx.set(kindHost, string(id[:]), fieldName, name)
	return nil
}

// PutUnderlay writes how this node takes part in the overlay, all of it: what is zero is taken away. Only what differs is
// written, so it may be called whenever something may have changed. ErrInvalid: an address where nobody could be reached.
func (tx *Tx) PutUnderlay(u UnderlayFacts) error {
	if len(u.Underlay) > maxUnderlay {
		return fmt.Errorf("underlay: %d addresses: %w: at most %d", len(u.Underlay), ErrInvalid, maxUnderlay)
	}
	if u.Overlay < 0 || u.Overlay > maxOverlay || u.UnderlayMTU < 0 {
		return fmt.Errorf("underlay: overlay %d, MTU %d: %w", u.Overlay, u.UnderlayMTU, ErrInvalid)
	}
	list := make([][]byte, len(u.Underlay))
	for i, a := range u.Underlay {
		if err := tx.s.checkUnderlay(a); err != nil {
			return err
		}
		list[i] = a.AsSlice()
	}
	id := string(tx.self[:])
	tx.put(kindHost, id, fieldOverlay, uint64(u.Overlay), u.Overlay == 0)
	tx.put(kindHost, id, fieldUnderlay, list, len(list) == 0)
	tx.put(kindHost, id, fieldUnderlayMTU, uint64(min(u.UnderlayMTU, maxMTU)), u.UnderlayMTU == 0)
	tx.put(kindHost, id, fieldNoTransit, true, !u.NoTransit)
	return nil
}

// checkUnderlay refuses what no other machine can send GRE to, and addresses of the overlay, through which it would go round
// in a circle.
func (s *State) checkUnderlay(a netip.Addr) error {
	if !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() ||
		a.Is6() && a.IsLinkLocalUnicast() || s.founding.Range.Contains(a) || s.range6.Contains(a) {
		return fmt.Errorf("underlay: %s: %w: want an address at which other machines reach this one", a, ErrInvalid)
	}
	return nil
}

// ClaimAddress gives this node's host an address in the overlay: the one it holds, or the next free one from the hash of its
// key on. Call it at start and whenever [Host.Address] of this node is not valid. ErrTaken: the range is full.
func (tx *Tx) ClaimAddress() (netip.Addr, error) {
	if h, ok := tx.v.Host(tx.self); ok && h.Address.IsValid() {
		return h.Address, nil
	}
	return tx.claimAddress(kindHost, string(tx.self[:]), tx.self.String())
}

// ClaimLabel gives this node the label of a gateway: the one it holds, or the next free one from the hash of its key on. Call it
// when this node is a gateway and its [Host.Label] is 0. ErrTaken: all are held.
func (tx *Tx) ClaimLabel() (uint16, error) {
	k := fieldKey{kindHost, string(tx.self[:]), fieldLabel}
	if h, ok := tx.v.Host(tx.self); ok && h.Label != 0 {
		if _, written := tx.over[k]; !written {
			return h.Label, nil
		}
	}
	label, err := tx.claimNumber(ClaimLabel, k, tx.self.String(), gatewayLabels, labelText)
	return uint16(label), err
}

// ReleaseLabel makes this node's label free again.
func (tx *Tx) ReleaseLabel() { tx.clear(kindHost, string(tx.self[:]), fieldLabel) }
