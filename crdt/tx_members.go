package crdt

import (
	"crypto/ed25519"
	"fmt"
	"time"
)

// SetClusterName renames the cluster; its ID stays.
func (tx *Tx) SetClusterName(name string) error {
	if err := CheckLabel("cluster name", name); err != nil {
		return err
	}
	tx.set(kindCluster, string(tx.s.cluster[:]), fieldName, name)
	return nil
}

// SetEncrypt says whether traffic between sites goes over encrypted links only. Turning it on wins over turning it off elsewhere
// at the same time.
func (tx *Tx) SetEncrypt(on bool) {
	tx.put(kindCluster, string(tx.s.cluster[:]), fieldEncrypt, true, !on)
}

// AdmitMember lets a node in, by the token it showed. One that left comes back; one that is a member stays. An evicted
// node is refused with ErrNotMember: eviction is for good, it must come with another key.
func (tx *Tx) AdmitMember(node NodeID, token TokenID) error {
	switch tx.v.Standing(node) {
	case Evicted:
		return fmt.Errorf("admit %s: %w: evicted", node, ErrNotMember)
	case Left:
		tx.set(kindMember, string(node[:]), fieldLeft, false)
	case Stranger:
		tx.grow(kindMember, string(node[:]), fieldAdmitted, admission{Token: token[:]})
	}
	return nil
}

// Evict puts a node out for good. What it wrote and this node has seen stays; what comes later, or was written elsewhere
// at the same time, is void. ErrNotMember for a stranger; nothing happens to one that is out already.
func (tx *Tx) Evict(node NodeID, reason string) error {
	if len(reason) > maxText {
		return fmt.Errorf("evict %s: reason of %d bytes: %w: at most %d", node, len(reason), ErrInvalid, maxText)
	}
	switch tx.v.Standing(node) {
	case Stranger:
		return fmt.Errorf("evict %s: %w", node, ErrNotMember)
	case Evicted:
		return nil
	}
	cutoff, _, _ := tx.s.Head(node)
	if node == tx.self { // what this batch holds counts
		cutoff = tx.first + MaxChanges
	}
	tx.grow(kindMember, string(node[:]), fieldEvicted, eviction{Cutoff: min(cutoff, tx.s.limit(node)), Reason: reason})
	return nil
}

// MarkLeft notes that this node leaves cleanly. It may come back: see MarkBack.
func (tx *Tx) MarkLeft() { tx.set(kindMember, string(tx.self[:]), fieldLeft, true) }

// MarkBack notes that this node is back after MarkLeft. If its host name or address went to another host meanwhile, it
// claims the name anew, and so after the other, and another address; so do its guests. A label that it lost it gives up.
func (tx *Tx) MarkBack() error {
	if tx.v.Standing(tx.self) != Left {
		return nil
	}
	tx.set(kindMember, string(tx.self[:]), fieldLeft, false)
	if err := tx.reclaimGuests(); err != nil {
		return err
	}
	h, ok := tx.v.Host(tx.self)
	if !ok {
		return nil
	}
	if h.Asked != "" && h.Name != h.Asked {
		tx.force(kindHost, string(tx.self[:]), fieldName, h.Asked)
	}
	if h.Label == 0 {
		tx.ReleaseLabel()
	}
	_, err := tx.ClaimAddress()
	return err
}

// AddToken makes a join token known: who proves to hold the secret half of public may be admitted until expires. site is
// proposed to the newcomer and may be empty.
func (tx *Tx) AddToken(public ed25519.PublicKey, expires time.Time, reusable bool, site string) (TokenID, error) {
	var id TokenID
	if err := fixed(id[:], public, "token: public key"); err != nil {
		return id, err
	}
	if site != "" {
		if err := CheckLabel("site name", site); err != nil {
			return id, err
		}
	}
	key := string(id[:])
	tx.set(kindToken, key, fieldExpires, uint64(max(0, expires.Unix())))
	if reusable {
		tx.set(kindToken, key, fieldReusable, true)
	}
	if site != "" {
		tx.set(kindToken, key, fieldSite, site)
	}
	return id, nil
}

// UseToken notes that a node came by a token. ErrNotFound: no such token. Whether it is still usable is for the caller to
// ask (see [Token.Usable]), in the same transaction, by way of View.
func (tx *Tx) UseToken(id TokenID, by NodeID) error {
	if !tx.exists(kindToken, string(id[:])) {
		return fmt.Errorf("token %s: %w", id, ErrNotFound)
	}
	tx.grow(kindToken, string(id[:]), fieldUsedBy, by[:])
	return nil
}

// RevokeToken makes a token useless, for good.
func (tx *Tx) RevokeToken(id TokenID) error {
	if !tx.exists(kindToken, string(id[:])) {
		return fmt.Errorf("token %s: %w", id, ErrNotFound)
	}
	tx.grow(kindToken, string(id[:]), fieldTokenOff, "revoked")
	return nil
}
