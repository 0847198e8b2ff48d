package crdt

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// AccountSpec asks for an account. Empty Home and Shell have defaults when they are read (/home/NAME, /bin/bash).
type AccountSpec struct {
	Name     string
	UID      uint32 // 0: choose a free one from this node's site
	FullName string
	Home     string
	Shell    string
	Keys     []string
}

// AddAccount makes an account. Errors wrap ErrInvalid, or ErrTaken if the name or the uid is held by an account or a
// group; a uid stays taken for ever.
func (tx *Tx) AddAccount(a AccountSpec) (AccountID, error) {
	if err := a.check(); err != nil {
		return AccountID{}, err
	}
	var id AccountID
	if err := tx.draw(id[:]); err != nil {
		return id, err
	}
	key := string(id[:])
	uid, err := tx.number(ClaimUID, a.UID, id.String())
	if err != nil {
		return AccountID{}, err
	}
	if err := tx.claimName(ClaimAccountName, a.Name, id.String()); err != nil {
		return AccountID{}, err
	}
	tx.set(kindAccount, key, fieldName, a.Name)
	tx.giveNumber(kindAccount, key, fieldUID, uid)
	tx.add(kindAccount, key, fieldEnabled, true, true)
	for _, t := range []struct{ field, value string }{{fieldFullName, a.FullName}, {fieldHome, a.Home}, {fieldShell, a.Shell}} {
		if t.value != "" {
			tx.set(kindAccount, key, t.field, t.value)
		}
	}
	if site := tx.ownSite(); !site.IsZero() {
		tx.set(kindAccount, key, fieldSite, site[:])
	}
	for _, k := range a.Keys {
		tx.add(kindAccount, key, fieldKeys, k, false)
	}
	return id, nil
}

func (a *AccountSpec) check() error {
	if err := CheckAccountName("account name", a.Name); err != nil {
		return err
	}
	if err := checkField("full name", a.FullName); err != nil {
		return err
	}
	for what, path := range map[string]string{"home": a.Home, "shell": a.Shell} {
		if path == "" {
			continue
		}
		if err := checkPath(what, path); err != nil {
			return err
		}
	}
	return checkKeys(a.Keys)
}

func checkKeys(keys []string) error {
	for _, k := range keys {
		if err := CheckKey(k); err != nil {
			return err
		}
	}
	return nil
}

// RemoveAccount disables an account; its record and number stay. It wins over a concurrent EnableAccount.
func (tx *Tx) RemoveAccount(id AccountID) error {
	return tx.switchOff(kindAccount, string(id[:]), "account "+id.String())
}

// EnableAccount brings a removed account back. ErrTaken: another account has the name now.
func (tx *Tx) EnableAccount(id AccountID) error {
	a, ok := tx.v.Account(id)
	if !ok {
		return fmt.Errorf("account %s: %w", id, ErrNotFound)
	}
	if err := tx.claimName(ClaimAccountName, a.Name, id.String()); err != nil {
		return err
	}
	tx.add(kindAccount, string(id[:]), fieldEnabled, true, true)
	return nil
}

// SetKeys makes keys the ssh keys of an account. Keys that another site adds meanwhile stay.
func (tx *Tx) SetKeys(id AccountID, keys []string) error {
	if err := checkKeys(keys); err != nil {
		return err
	}
	key := string(id[:])
	if !tx.exists(kindAccount, key) {
		return fmt.Errorf("account %s: %w", id, ErrNotFound)
	}
	for _, e := range elements(tx.facts(fieldKey{kindAccount, key, fieldKeys}), false) {
		if k := readText(e); !slices.Contains(keys, k) {
			tx.remove(kindAccount, key, fieldKeys, k, false)
		}
	}
	for _, k := range keys {
		tx.add(kindAccount, key, fieldKeys, k, false)
	}
	return nil
}

// RevokeKey makes an ssh key useless for an account, for good, wherever it is added again.
func (tx *Tx) RevokeKey(id AccountID, key string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if !tx.exists(kindAccount, string(id[:])) {
		return fmt.Errorf("account %s: %w", id, ErrNotFound)
	}
	tx.grow(kindAccount, string(id[:]), fieldRevoked, keyBody(key))
	return nil
}

// keyBody is the type and the key without the comment, by which a key is revoked.
func keyBody(key string) string {
	f := strings.Fields(key)
	return strings.Join(f[:min(2, len(f))], " ")
}

// RenumberAccount gives an account another uid (0: a free one), as the loser of a conflict needs. The old one is never used again.
// Files keep the old number.
func (tx *Tx) RenumberAccount(id AccountID, uid uint32) (uint32, error) {
	if !tx.exists(kindAccount, string(id[:])) {
		return 0, fmt.Errorf("account %s: %w", id, ErrNotFound)
	}
	uid, err := tx.number(ClaimUID, uid, id.String())
	if err != nil {
		return 0, err
	}
	tx.giveNumber(kindAccount, string(id[:]), fieldUID, uid)
	return uid, nil
}

// AddGroup makes a group; gid 0 chooses a free one. Errors as for AddAccount.
func (tx *Tx) AddGroup(name string, gid uint32) (GroupID, error) {
	var id GroupID
	if err := CheckAccountName("group name", name); err != nil {
		return id, err
	}
	if err := tx.draw(id[:]); err != nil {
		return id, err
	}
	gid, err := tx.number(ClaimGID, gid, id.String())
	if err != nil {
		return GroupID{}, err
	}
	if err := tx.claimName(ClaimGroupName, name, id.String()); err != nil {
		return GroupID{}, err
	}
	tx.set(kindGroup, string(id[:]), fieldName, name)
	tx.giveNumber(kindGroup, string(id[:]), fieldGID, gid)
	tx.add(kindGroup, string(id[:]), fieldEnabled, true, true)
	return id, nil
}

// RemoveGroup disables a group; its record and number stay.
func (tx *Tx) RemoveGroup(id GroupID) error {
	return tx.switchOff(kindGroup, string(id[:]), "group "+id.String())
}

// AddToGroup makes an account a member of a group.
func (tx *Tx) AddToGroup(group GroupID, account AccountID) error {
	if err := tx.bothExist(group, account); err != nil {
		return err
	}
	tx.add(kindGroup, string(group[:]), fieldMembers, account[:], true)
	return nil
}

// RemoveFromGroup takes an account out of a group. It wins over a concurrent AddToGroup.
func (tx *Tx) RemoveFromGroup(group GroupID, account AccountID) error {
	if err := tx.bothExist(group, account); err != nil {
		return err
	}
	tx.remove(kindGroup, string(group[:]), fieldMembers, account[:], true)
	return nil
}

func (tx *Tx) bothExist(group GroupID, account AccountID) error {
	if !tx.exists(kindGroup, string(group[:])) {
		return fmt.Errorf("group %s: %w", group, ErrNotFound)
	}
	if !tx.exists(kindAccount, string(account[:])) {
		return fmt.Errorf("account %s: %w", account, ErrNotFound)
	}
	return nil
}

// Settle decides a conflict: the claimant with that ID (as text) wins the value, whatever was claimed when. A later Settle
// that has seen this one replaces it. ErrNotFound: nobody with that ID claims the value.
func (tx *Tx) Settle(kind, value, winner string) error {
	for _, b := range []book{tx.v.places.book, tx.v.people.book} {
		if slices.ContainsFunc(b[claimKey{kind, value}], func(c claim) bool { return c.id == winner }) {
			tx.set(kindClaim, kind+"\x00"+value, fieldWinner, winner)
			if own := map[string]string{ClaimAccountName: ClaimGroupName, ClaimUID: ClaimGID}[kind]; own != "" {
				tx.set(kindClaim, own+"\x00"+value, fieldWinner, winner) // an account's own group goes with it
			}
			return nil
		}
	}
	return fmt.Errorf("settle %s %s: claimant %s: %w", kind, value, winner, ErrNotFound)
}

func (tx *Tx) switchOff(kind Kind, id, what string) error {
	if !tx.exists(kind, id) {
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	tx.remove(kind, id, fieldEnabled, true, true)
	return nil
}

// claimName claims a name for an account or a group: an account has a group of its own name, so neither may meet the other.
func (tx *Tx) claimName(kind, name, id string) error {
	if err := tx.claim(tx.v.people.book, ClaimGroupName, name, id); err != nil {
		return err
	}
	if kind == ClaimGroupName {
		return nil
	}
	return tx.claim(tx.v.people.book, kind, name, id)
}

// number returns a free number, or checks and claims a chosen one. Accounts and groups share the numbers.
func (tx *Tx) number(kind string, want uint32, id string) (uint32, error) {
	book := tx.v.people.book
	held := func(n uint32) bool {
		v := strconv.FormatUint(uint64(n), 10)
		return book.holder(ClaimUID, v) != "" || book.holder(ClaimGID, v) != "" || tx.taken[claimKey{ClaimGID, v}] != ""
	}
	if want == 0 {
		var ok bool
		if want, ok = freeID(tx.ownSite(), tx.self, held); !ok {
			return 0, fmt.Errorf("%s: %w: no number is free", kind, ErrTaken)
		}
	} else if err := CheckID(kind, want); err != nil {
		return 0, err
	} else if held(want) {
		return 0, fmt.Errorf("%s %d: %w, now or before", kind, want, ErrTaken)
	}
	tx.taken[claimKey{ClaimGID, strconv.FormatUint(uint64(want), 10)}] = id
	return want, nil
}

func (tx *Tx) giveNumber(kind Kind, id, field string, n uint32) {
	tx.set(kind, id, field, uint64(n))
	tx.grow(kind, id, fieldRetired, uint64(n))
}

// ownSite is the site of this node's host.
func (tx *Tx) ownSite() SiteID {
	if !tx.site.IsZero() {
		return tx.site
	}
	h, _ := tx.v.Host(tx.self)
	return h.Site
}
