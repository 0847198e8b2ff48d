package queue

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// everyCommand is an entry with all commands and all fields, in a fixed order.
func everyCommand() Entry {
	spec := specOf("key")
	h := strings.Repeat("ab", 32)
	spec.Script, spec.Shell, spec.Env = &File{Path: "job.sh", Hash: h, Size: 7, Mode: 0o755}, "/bin/sh", map[string]string{"B": "2", "A": "1"}
	spec.MemBytes, spec.Time, spec.Pin, spec.Array, spec.MaxTasks = 1<<30, time.Hour, "s2", &Range{1, 9, 2}, 2
	spec.Inputs, spec.Outputs, spec.After, spec.AfterAny = []File{{"in", h, 3, 0o644}}, []string{"out/*"}, []Seq{1}, true
	spec.Stdout, spec.Stderr, spec.Join, spec.Retries = "o", "e", true, 2
	ref := Ref{7, 3, EpochAt(1, 99)}
	return Entry{At: 1_700_000_000_000_000_000, Commands: []Command{
		{Submit: &Submit{spec}},
		{Grant: &Grant{Job: 7, Of: 1, Task: 3, Node: node(1), Site: "s2"}},
		{Complete: &Complete{Ref: ref, Exit: 3, Reason: "r", Started: 1, Ended: 2, CPU: 3, MaxRSS: 4, Stdout: &File{Hash: h, Size: 1}, Stderr: &File{Hash: h, Size: 2}, Outputs: []File{{"out/x", h, 3, 0o600}}}},
		{Lost: &Lost{ref, true}}, {Release: &Release{ref, "r", true}}, {Cancel: &Cancel{7, &Range{1, 2, 1}, "ann"}},
		{Returned: &Returned{7, []int{3}, "p"}}, {Forget: &Forget{5, 6, 7}},
	}}
}

// TestGolden wants the bytes of entries and snapshots never to change within a version: the log of an older build is
// read by a newer one.
func TestGolden(t *testing.T) {
	e := everyCommand()
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/entry-v1.hex", b)
	back, err := DecodeEntry(b)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := back.Encode(); err != nil || !bytes.Equal(again, b) {
		t.Errorf("encoding what was decoded gives other bytes (%v)", err)
	}
	s := newStory(t)
	s.run("submit a array=1-9:2 max=2, grant +1[3] n1; submit b after=1, grant 1[5] n2 s1; complete 1[3] exit=2; cancel 2; gone 1[5]")
	snapshot, err := s.m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/snapshot-v1.hex", snapshot)
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(hex.EncodeToString(got)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n got %x\nwant %x", file, got, want)
	}
}

func TestUnknownEntriesStop(t *testing.T) {
	good := everyCommand()
	newer := mustEncode(t, map[int]any{1: 2, 2: 0, 3: []any{}})
	for _, tt := range []struct {
		name string
		data []byte
		want error
	}{
		{"newer version", newer, ErrUnknown},
		{"newer command", mustEncode(t, map[int]any{1: 1, 2: 0, 3: []any{map[int]any{99: map[int]any{}}}}), ErrUnknown},
		{"newer field", mustEncode(t, map[int]any{1: 1, 2: 0, 3: []any{map[int]any{8: map[int]any{1: 1, 2: 2, 3: 3, 44: 4}}}}), ErrUnknown},
		{"no command", mustEncode(t, map[int]any{1: 1, 2: 0, 3: []any{map[int]any{}}}), ErrUnknown},
		{"two in one", mustEncode(t, Entry{Version: 1, Commands: []Command{{Lost: &Lost{}, Release: &Release{}}}}), ErrUnknown},
		{"nothing", nil, ErrUnknown},
		{"garbage", []byte("garbage"), ErrUnknown},
		{"trailing bytes", append(mustEncode(t, Entry{Version: 1, Commands: good.Commands}), 0), ErrUnknown},
		{"too large", make([]byte, MaxEntryBytes+1), ErrTooLarge},
	} {
		s := newStory(t)
		s.run("submit a")
		before := hash(t, s.m)
		if _, err := s.m.Apply(9, tt.data); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		if hash(t, s.m) != before {
			t.Errorf("%s: the state changed", tt.name)
		}
	}
	if _, err := (Entry{Commands: make([]Command, MaxCommands+1)}).Encode(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("encoding too many commands: %v", err)
	}
}

func mustEncode(t *testing.T, v any) []byte {
	t.Helper()
	b, err := encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseJobID(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"42", "42"}, {"42.kyoto", "42.kyoto"}, {"42.kyoto[7]", "42.kyoto[7]"}, {"42[0]", "42[0]"},
		{"", ""}, {"0", ""}, {"042", ""}, {"+4", ""}, {"-1", ""}, {"4.", ""}, {"4.a b", ""}, {"4[", ""}, {"4[]", ""}, {"4[1", ""}, {"4[1]x", ""}, {"4[01]", ""},
		{"4[-1]", ""}, {"99999999999999999999", ""}, {"4[9999999999]", ""}, {"x", ""},
	} {
		id, err := ParseJobID(tt.in)
		if (err != nil) != (tt.want == "") || err == nil && id.String() != tt.want {
			t.Errorf("%q: got %q, %v; want %q", tt.in, id.String(), err, tt.want)
		}
	}
}

func FuzzParseJobID(f *testing.F) {
	f.Add("42.kyoto[7]")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseJobID(s); err == nil && id.String() != s {
			t.Errorf("%q reads as %q", s, id.String())
		}
	})
}

// FuzzApply wants any entry that decodes to keep every invariant.
func FuzzApply(f *testing.F) {
	b, err := everyCommand().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newStory(t)
		s.run("submit a array=1-9:2, grant +1[3] n1; submit b after=1; complete 1[3]")
		if _, err := s.m.Apply(9, data); err == nil {
			check(t, s.m)
		}
	})
}

// FuzzRestore wants whatever restores to be a state that snapshots to something that restores, and takes commands.
func FuzzRestore(f *testing.F) {
	s := newStory(&testing.T{})
	s.run("submit a array=1-9:2 max=2, grant +1[3] n1; submit b after=1; complete 1[3] exit=2; submit c; cancel 3")
	b, err := s.m.Snapshot()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		m := New("s1", 0)
		if m.Restore(data) != nil {
			return
		}
		check(t, m)
		for _, s := range m.sortedJobs() {
			m.cancel(&Cancel{Job: s})
			m.Explain(s, View{}, time.Unix(0, 0))
		}
		for _, a := range slices.Collect(m.Attempts()) {
			m.complete(&Complete{Ref: a.Ref})
		}
		check(t, m)
	})
}
