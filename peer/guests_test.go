package peer

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vcpeer/crdt"
)

const (
	guestA = "000102030405060708090a0b0c0d0e0f"
	guestB = "100102030405060708090a0b0c0d0e0f"
)

func TestGuestBookOutlivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "guests.json")
	b, err := openGuests(path)
	if err != nil || len(b.list()) != 0 {
		t.Fatalf("no file: %v, %v", b.list(), err)
	}
	for _, step := range []struct {
		what string
		do   func() error
		want string // of the error
		book map[string]string
	}{
		{"put", func() error { return b.put(guestA, "tap0") }, "", map[string]string{guestA: "tap0"}},
		{"again", func() error { return b.put(guestA, "tap0") }, "", map[string]string{guestA: "tap0"}},
		{"another", func() error { return b.put(guestB, "veth1") }, "", map[string]string{guestA: "tap0", guestB: "veth1"}},
		{"taken", func() error { return b.put(guestB, "tap0") }, "another guest's", map[string]string{guestA: "tap0", guestB: "veth1"}},
		{"other interface", func() error { return b.put(guestB, "veth2") }, "", map[string]string{guestA: "tap0", guestB: "veth2"}},
		{"no interface", func() error { return b.put(guestB, "a/b") }, "no name of an interface", map[string]string{guestA: "tap0", guestB: "veth2"}},
		{"remove", func() error { return b.remove(guestA, "stranger") }, "", map[string]string{guestB: "veth2"}},
		{"all", func() error { return b.remove(guestB) }, "", map[string]string{}},
	} {
		err := step.do()
		if (err == nil) != (step.want == "") || err != nil && !strings.Contains(err.Error(), step.want) {
			t.Errorf("%s: %v, want %q", step.what, err, step.want)
		}
		again, err := openGuests(path)
		if err != nil || !maps.Equal(again.list(), step.book) || !maps.Equal(b.list(), step.book) {
			t.Errorf("%s: book %v, after a restart %v (%v), want %v", step.what, b.list(), again.list(), err, step.book)
		}
	}
}

func TestGuestBookRefusesGarbage(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{``, "EOF"},
		{`[]`, "cannot unmarshal array"},
		{`{"version":1,"guests":[]} {}`, "more than one value"},
		{`{"version":1,"guests":[],"more":1}`, `unknown field "more"`},
		{`{"guests":[]}`, "version 0: want 1"},
		{`{"version":2,"guests":[]}`, "version 2: want 1"},
		{`{"version":1,"guests":[{"id":"x","iface":"tap0"}]}`, "not an ID"},
		{`{"version":1,"guests":[{"id":"00000000000000000000000000000000","iface":"tap0"}]}`, "is no guest's ID"},
		{`{"version":1,"guests":[{"id":"` + guestA + `","iface":"a b"}]}`, "no name of an interface"},
		{`{"version":1,"guests":[{"id":"` + guestA + `","iface":"sixteen-letters-"}]}`, "no name of an interface"},
		{`{"version":1,"guests":[{"id":"` + guestA + `","iface":"a"},{"id":"` + guestA + `","iface":"b"}]}`, "is there twice"},
		{`{"version":1,"guests":[{"id":"` + guestA + `","iface":"a"},{"id":"` + guestB + `","iface":"a"}]}`, "interface a is there twice"},
	} {
		path := filepath.Join(t.TempDir(), "guests.json")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := openGuests(path)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", tt.text, err, tt.want)
		}
		if err := b.put(guestA, "tap0"); !errors.Is(err, b.broken) || len(b.list()) != 0 {
			t.Errorf("%s: put over it: %v", tt.text, err)
		}
		if left, _ := os.ReadFile(path); string(left) != tt.text {
			t.Errorf("%s was written over: %s", tt.text, left)
		}
	}
}

func TestGuestsThatAreNotInTheRecordsAreGone(t *testing.T) {
	gone := goneGuests(map[string]string{guestB: "b", guestA: "a"}, crdt.EmptyView(), crdt.NodeID{1})
	if strings.Join(gone, " ") != guestA+" "+guestB {
		t.Errorf("gone: %v", gone)
	}
}

func FuzzParseGuests(f *testing.F) {
	f.Add([]byte(`{"version":1,"guests":[{"id":"` + guestA + `","iface":"tap0"}]}`))
	f.Add([]byte(`{"version":1,"guests":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		ifaces, err := parseGuests(text)
		if err != nil {
			return
		}
		again, err := parseGuests(formatGuests(ifaces))
		if err != nil || !maps.Equal(again, ifaces) {
			t.Errorf("%q: %v, again %v (%v)", text, ifaces, again, err)
		}
	})
}
