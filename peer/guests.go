package peer

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"vcpeer/crdt"
)

// guestBook remembers over restarts which interface of this machine is which guest's: the records say which guests are
// here, but an interface's name means nothing anywhere else. It is a small file, replaced as a whole. Safe for concurrent use.
type guestBook struct {
	path string

	// turn is held from writing a guest into the records until it is in the book, and while the book is compared with the
	// records, so that a guest on its way in is not taken for one that has moved away.
	turn sync.Mutex

	mu     sync.Mutex // guards the rest, and the file
	ifaces map[string]string
	broken error // the file cannot be read; nothing is written over it
}

// guestsVersion is the form of the file.
const guestsVersion = 1

// maxGuestsFile bounds what is read: some 60,000 guests, as many as a network has addresses.
const maxGuestsFile = 8 << 20

// errIfaceTaken says that an interface is another guest's.
var errIfaceTaken = errors.New("the interface is another guest's")

type guestsFile struct {
	Version int         `json:"version"`
	Guests  []guestLine `json:"guests"`
}

type guestLine struct {
	ID    string `json:"id"`
	Iface string `json:"iface"`
}

// openGuests reads the book; no file is an empty one. With an error the book is there all the same: empty, and refusing
// changes with that error, so that nothing of what the file may hold is lost.
func openGuests(path string) (*guestBook, error) {
	b := &guestBook{path: path, ifaces: map[string]string{}}
	text, err := readBounded(path, maxGuestsFile)
	if errors.Is(err, os.ErrNotExist) {
		return b, nil
	}
	if err == nil {
		b.ifaces, err = parseGuests(text)
	}
	if err != nil {
		b.ifaces, b.broken = map[string]string{}, fmt.Errorf("the interfaces of guests (%s) cannot be read: %w", path, err)
	}
	return b, b.broken
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	return text, err
}

// parseGuests takes only what formatGuests makes, in any layout: a file that says anything else was not written by us.
func parseGuests(text []byte) (map[string]string, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var f guestsFile
	if err := dec.Decode(&f); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	if f.Version != guestsVersion {
		return nil, fmt.Errorf("version %d: want %d", f.Version, guestsVersion)
	}
	ifaces, owner := make(map[string]string, len(f.Guests)), make(map[string]string, len(f.Guests))
	for _, g := range f.Guests {
		id, err := crdt.ParseGuestID(g.ID)
		switch {
		case err != nil:
			return nil, err
		case id.IsZero() || id.String() != g.ID:
			return nil, fmt.Errorf("%q is no guest's ID", g.ID)
		case checkIface(g.Iface) != nil:
			return nil, fmt.Errorf("guest %s: %w", g.ID, checkIface(g.Iface))
		case ifaces[g.ID] != "":
			return nil, fmt.Errorf("guest %s is there twice", g.ID)
		case owner[g.Iface] != "":
			return nil, fmt.Errorf("interface %s is there twice", g.Iface)
		}
		ifaces[g.ID], owner[g.Iface] = g.Iface, g.ID
	}
	return ifaces, nil
}

// checkIface says whether the kernel would take such a name (dev_valid_name).
func checkIface(name string) error {
	if name == "" || len(name) > 15 || name == "." || name == ".." || strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r == '/' || r == ':' || r >= 0x7f
	}) {
		return fmt.Errorf("%q is no name of an interface", name)
	}
	return nil
}

func formatGuests(ifaces map[string]string) []byte {
	f := guestsFile{Version: guestsVersion, Guests: []guestLine{}}
	for id, iface := range ifaces {
		f.Guests = append(f.Guests, guestLine{id, iface})
	}
	slices.SortFunc(f.Guests, func(a, b guestLine) int { return cmp.Compare(a.ID, b.ID) })
	text, _ := json.MarshalIndent(f, "", "  ") // strings and a number
	return append(text, '\n')
}

// list returns the interfaces by the IDs of their guests.
func (b *guestBook) list() map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.ifaces)
}

// holder is the guest of an interface; empty: nobody's.
func (b *guestBook) holder(iface string) string {
	for id, i := range b.list() {
		if i == iface {
			return id
		}
	}
	return ""
}

// put gives a guest an interface, in place of the one it had. errIfaceTaken: that is another guest's.
func (b *guestBook) put(id, iface string) error {
	return b.change(func(next map[string]string) error {
		for other, i := range next {
			if i == iface && other != id {
				return fmt.Errorf("%s: %w: %s", iface, errIfaceTaken, other)
			}
		}
		next[id] = iface
		return checkIface(iface)
	})
}

// remove takes guests out; those that are not in it are no error.
func (b *guestBook) remove(ids ...string) error {
	return b.change(func(next map[string]string) error {
		for _, id := range ids {
			delete(next, id)
		}
		return nil
	})
}

// change makes a new book and its file, or leaves both as they are.
func (b *guestBook) change(f func(next map[string]string) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken != nil {
		return b.broken
	}
	next := maps.Clone(b.ifaces)
	if err := f(next); err != nil {
		return err
	}
	if maps.Equal(next, b.ifaces) {
		return nil
	}
	if err := replaceDurably(b.path, formatGuests(next)); err != nil {
		return fmt.Errorf("the interfaces of guests: %w", err)
	}
	b.ifaces = next
	return nil
}

// replaceDurably gives a file a new content at once; when it returns, that outlives a crash of the machine.
func replaceDurably(path string, text []byte) error {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// goneGuests are those in the book that the records do not have at this node: they were moved, detached or forgotten elsewhere.
func goneGuests(ifaces map[string]string, view *crdt.View, self crdt.NodeID) []string {
	var gone []string
	for id := range ifaces {
		key, err := crdt.ParseGuestID(id)
		if g, ok := view.Guest(key); err != nil || !ok || g.Node != self {
			gone = append(gone, id)
		}
	}
	slices.Sort(gone)
	return gone
}
