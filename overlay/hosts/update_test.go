package hosts

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"vcpeer/overlay/marked"
)

// entries reads "ADDR[,ADDR6] HOST[.SITE][; note], ..."
func entries(t *testing.T, text string) []Entry {
	t.Helper()
	var out []Entry
	for item := range strings.SplitSeq(text, ", ") {
		item, note, _ := strings.Cut(item, "; ")
		var addr, name string
		if n, _ := fmt.Sscan(item, &addr, &name); n == 0 {
			continue
		}
		host, site, _ := strings.Cut(name, ".")
		addr, six, both := strings.Cut(addr, ",")
		e := Entry{Addr: netip.MustParseAddr(addr), Host: host, Site: site, Note: note}
		if both {
			e.Six = netip.MustParseAddr(six)
		}
		out = append(out, e)
	}
	return out
}

func TestUpdate(t *testing.T) {
	const machine = "127.0.0.1\tlocalhost\n127.0.1.1 box.example.org box # me\n"
	for _, tt := range []struct {
		name, file, want string
		lines            string // of the block, without markers
	}{
		{"full and short", machine, "10.77.0.2 n1.kyoto, 10.77.0.1 n1.aachen, 10.77.0.3 n2.kyoto",
			"# n1 is not 10.77.0.1 here: also the name of 10.77.0.2\n10.77.0.1\tn1.aachen\n" +
				"# n1 is not 10.77.0.2 here: also the name of 10.77.0.1\n10.77.0.2\tn1.kyoto\n10.77.0.3\tn2.kyoto\tn2\n"},
		{"no site", machine, "10.77.0.2 n1", "10.77.0.2\tn1\n"},
		{"folded", machine, "10.77.0.2 N1.Kyoto", "10.77.0.2\tn1.kyoto\tn1\n"},
		{"same thing twice", machine, "10.77.0.2 n1.kyoto, 10.77.0.2 N1.kyoto", "10.77.0.2\tn1.kyoto\tn1\n"},
		{"the machine's own name stays its own", machine, "10.77.0.2 box.kyoto",
			"# box is not 10.77.0.2 here: another line of this file gives it to 127.0.1.1\n10.77.0.2\tbox.kyoto\n"},
		{"another block's names too", "# BEGIN vcpeer other\n10.99.0.1 n1.kyoto n1\n# END vcpeer other\n", "10.77.0.2 n1.kyoto",
			"# n1.kyoto is not 10.77.0.2 here: another line of this file gives it to 10.99.0.1\n" +
				"# n1 is not 10.77.0.2 here: another line of this file gives it to 10.99.0.1\n"},
		{"same name and address elsewhere is no conflict", "10.77.0.2 n1 n1.kyoto\n", "10.77.0.2 n1.kyoto", "10.77.0.2\tn1.kyoto\tn1\n"},
		{"commented lines give nothing", "# 10.1.1.1 n1\nrubbish n1\n", "10.77.0.2 n1.kyoto", "10.77.0.2\tn1.kyoto\tn1\n"},
		{"note", machine, "10.77.0.2 n1-2.kyoto; asked for n1 that 12D3 holds\nfoo", "# CONFLICT n1-2.kyoto: asked for n1 that 12D3 holds foo\n10.77.0.2\tn1-2.kyoto\tn1-2\n"},
		{"v6", machine, "fd00::1 n1.kyoto", "fd00::1\tn1.kyoto\tn1\n"},
		{"both", machine, "10.77.0.2,fd00::2 n1.kyoto; was n2", "# CONFLICT n1.kyoto: was n2\n10.77.0.2\tn1.kyoto\tn1\nfd00::2\tip6-n1.kyoto\tip6-n1\n"},
		{"both, of two sites", machine, "10.77.0.2,fd00::2 n1.kyoto, 10.77.0.1,fd00::1 n1.aachen",
			"# n1 is not 10.77.0.1 here: also the name of 10.77.0.2\n10.77.0.1\tn1.aachen\n" +
				"# ip6-n1 is not fd00::1 here: also the name of fd00::2\nfd00::1\tip6-n1.aachen\n" +
				"# n1 is not 10.77.0.2 here: also the name of 10.77.0.1\n10.77.0.2\tn1.kyoto\n" +
				"# ip6-n1 is not fd00::2 here: also the name of fd00::1\nfd00::2\tip6-n1.kyoto\n"},
		{"4 in 6", machine, "::ffff:10.77.0.2 n1.kyoto", "10.77.0.2\tn1.kyoto\tn1\n"},
		{"public domains", machine, "10.77.0.2 google.com, 10.77.0.3 n1.de",
			"# google.com is not 10.77.0.2 here: it would hide names of the Internet's domain .com\n10.77.0.2\tgoogle\n" +
				"# n1.de is not 10.77.0.3 here: it would hide names of the Internet's domain .de\n10.77.0.3\tn1\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := Update([]byte(tt.file), "a", entries(t, tt.want))
			if err != nil {
				t.Fatal(err)
			}
			want := tt.file + "# BEGIN vcpeer a (kept by vcpeer, edits in here are lost)\n" + tt.lines + "# END vcpeer a\n"
			if string(r.File) != want {
				t.Errorf("got\n%s\nwant\n%s", r.File, want)
			}
			if got := strings.Count(tt.lines, " here: "); len(r.Left) != got {
				t.Errorf("%d names left out: %v, want %d", len(r.Left), r.Left, got)
			}
		})
	}
}

func TestTheMachineItself(t *testing.T) {
	const (
		begin = "# BEGIN vcpeer a (kept by vcpeer, edits in here are lost)\n"
		end   = "# END vcpeer a\n"
		line  = "10.77.0.2\tbox.kyoto\tbox\n"
	)
	self := Entry{Addr: netip.MustParseAddr("10.77.0.2"), Host: "Box", Site: "kyoto", Self: true}
	other := Entry{Addr: netip.MustParseAddr("10.77.0.3"), Host: "box", Site: "osaka"}
	for _, tt := range []struct {
		name, file string
		more       []Entry
		want       string
	}{
		{"instead of its line", "127.0.0.1 localhost\n127.0.1.1 box # me\n1.1.1.1 dns\n", nil,
			"127.0.0.1 localhost\n" + begin + "#- 127.0.1.1 box # me\n" + line + end + "1.1.1.1 dns\n"},
		{"other names of the line stay where they were", "127.0.1.1 box.example.org BOX box.kyoto\n", nil,
			begin + "#- 127.0.1.1 box.example.org BOX box.kyoto\n127.0.1.1\tbox.example.org\n" + line + end},
		{"at the end where nothing is in the way", "127.0.0.1 localhost\n", nil, "127.0.0.1 localhost\n" + begin + line + end},
		{"not where another site has the name too", "127.0.1.1 box\n", []Entry{other}, "127.0.1.1 box\n" + begin +
			"# box is not 10.77.0.2 here: another line of this file gives it to 127.0.1.1\n10.77.0.2\tbox.kyoto\n" +
			"# box is not 10.77.0.3 here: another line of this file gives it to 127.0.1.1\n10.77.0.3\tbox.osaka\n" + end},
		{"not where another line has it too", "127.0.1.1 box\n192.0.2.9 box\n", nil, "127.0.1.1 box\n192.0.2.9 box\n" + begin +
			"# box is not 10.77.0.2 here: another line of this file gives it to 127.0.1.1, 192.0.2.9\n10.77.0.2\tbox.kyoto\n" + end},
		{"not instead of a line without end", "127.0.1.1 box", nil, "127.0.1.1 box\n" + strings.Replace(begin, "lost)", "lost; the line above had no end)", 1) +
			"# box is not 10.77.0.2 here: another line of this file gives it to 127.0.1.1\n10.77.0.2\tbox.kyoto\n" + end},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := append([]Entry{self}, tt.more...)
			r, err := Update([]byte(tt.file), "a", want)
			if err != nil || string(r.File) != tt.want {
				t.Fatalf("got\n%s%v\nwant\n%s", r.File, err, tt.want)
			}
			if again, err := Update(r.File, "a", want); err != nil || string(again.File) != tt.want {
				t.Errorf("and again:\n%s%v", again.File, err)
			}
			want[0].Self = false // it takes part no more
			fresh, _ := Update([]byte(tt.file), "a", want)
			if again, err := Update(r.File, "a", want); err != nil || string(again.File) != string(fresh.File) {
				t.Errorf("and as any other's name:\n%s%v\nwant\n%s", again.File, err, fresh.File)
			}
			if r, err = Update(r.File, "a", nil); err != nil || string(r.File) != tt.file {
				t.Errorf("and without a block: %q, %v", r.File, err)
			}
		})
	}
}

func TestUpdateRefusesEntries(t *testing.T) {
	for _, e := range []Entry{
		{Host: "n1"},
		{Addr: netip.MustParseAddr("127.0.0.5"), Host: "n1"},
		{Addr: netip.MustParseAddr("0.0.0.0"), Host: "n1"},
		{Addr: netip.MustParseAddr("224.0.0.1"), Host: "n1"},
		{Addr: netip.MustParseAddr("fe80::1%eth0"), Host: "n1"},
		{Addr: netip.MustParseAddr("10.77.0.1"), Host: ""},
		{Addr: netip.MustParseAddr("10.77.0.1"), Host: "n1 evil"},
		{Addr: netip.MustParseAddr("10.77.0.1"), Host: "n1\n10.0.0.1 bank"},
		{Addr: netip.MustParseAddr("10.77.0.1"), Host: "bank.example"},
		{Addr: netip.MustParseAddr("10.77.0.1"), Host: "localhost"},
		{Addr: netip.MustParseAddr("10.77.0.1"), Host: "ip6-allnodes", Site: "kyoto"},
		{Addr: netip.MustParseAddr("10.77.0.1"), Host: "n1", Site: "LocalDomain"},
		{Addr: netip.MustParseAddr("10.77.0.1"), Host: strings.Repeat("n", 64)},
		{Addr: netip.MustParseAddr("10.77.0.1"), Host: "n1", Site: "-"},
		{Addr: netip.MustParseAddr("10.77.0.1"), Host: "ip6-localhost"},
	} {
		r, err := Update([]byte("1\n"), "a", []Entry{e})
		if err != nil || string(r.File) != "1\n" || len(r.Left) != 1 || r.Names != 0 {
			t.Errorf("%+v: %q, left %v, %v; want the file unchanged and one left out", e, r.File, r.Left, err)
		}
	}
}

func TestUpdateDamagedBlock(t *testing.T) {
	_, err := Update([]byte("# BEGIN vcpeer a\n1.2.3.4 x\n"), "a", entries(t, "10.77.0.1 n1.kyoto"))
	if !errors.Is(err, marked.ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
}

func anyEntry() *rapid.Generator[Entry] {
	return rapid.Custom(func(t *rapid.T) Entry {
		e := Entry{
			Host: rapid.OneOf(rapid.SampledFrom([]string{"n1", "N1", "n2", "box", "localhost"}), rapid.String()).Draw(t, "host"),
			Site: rapid.OneOf(rapid.SampledFrom([]string{"", "kyoto", "osaka", "com"}), rapid.String()).Draw(t, "site"),
			Note: rapid.String().Draw(t, "note"),
		}
		b := rapid.SliceOfN(rapid.ByteMax(3), 4, 4).Draw(t, "addr")
		e.Addr = netip.AddrFrom4([4]byte{10, b[1], b[2], b[3]})
		if rapid.Bool().Draw(t, "both") {
			e.Six = netip.AddrFrom16([16]byte{0: 0xfd, 13: b[1], 14: b[2], 15: b[3]})
		}
		return e
	})
}

// TestUpdateProperties: foreign bytes survive, the order of entries is nothing, twice is once, no name gets two addresses
// by our doing, the machine's own lines keep their meaning, and the end restores the file.
func TestUpdateProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		file := []byte(strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{
			"127.0.0.1 localhost\n", "127.0.1.1 box\n", "10.0.0.1 n1 # hand\n", "\n", "# BEGIN vcpeer b\n10.1.1.1 n2.kyoto\n# END vcpeer b\n", "no end \xff",
		})).Draw(t, "file"), ""))
		want := rapid.SliceOf(anyEntry()).Draw(t, "entries")
		r, err := Update(file, "a", want)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := marked.Clear(r.File, "a"); err != nil || !bytes.Equal(back, file) {
			t.Fatalf("without the block: %q, %v; want %q", back, err, file)
		}
		shuffled, err := Update(r.File, "a", rapid.Permutation(want).Draw(t, "order"))
		if err != nil || !bytes.Equal(shuffled.File, r.File) {
			t.Fatalf("in another order, on top:\n%s\n%v, first\n%s", shuffled.File, err, r.File)
		}
		before, after := parse(file), parse(r.File)
		for name, addrs := range after {
			if was := before[name]; len(was) > 0 && len(addrs) != len(was) {
				t.Fatalf("%s meant %v and now means %v", name, was, addrs)
			}
			if len(before[name]) == 0 && len(addrs) != 1 {
				t.Fatalf("%s has %d addresses: %v", name, len(addrs), addrs)
			}
		}
	})
}

// FuzzUpdate: any file and any record text; nothing of the records may reach a line of its own making.
func FuzzUpdate(f *testing.F) {
	f.Add([]byte("127.0.0.1 localhost\n"), "n1", "kyoto", "note")
	f.Add([]byte("10.0.0.1 n1"), "n1", "", "a\nb")
	f.Add([]byte("# BEGIN vcpeer a\n"), "n1\n0.0.0.0 x", "com", "\x00")
	f.Fuzz(func(t *testing.T, file []byte, host, site, note string) {
		e := Entry{Addr: netip.MustParseAddr("10.77.0.1"), Six: netip.MustParseAddr("fd00::1"), Host: host, Site: site, Note: note}
		r, err := Update(file, "a", []Entry{e})
		if err != nil {
			if !errors.Is(err, marked.ErrDamaged) {
				t.Fatalf("unexpected error: %v", err)
			}
			return
		}
		bare, err := marked.Clear(file, "a")
		if err != nil {
			t.Fatal(err)
		}
		back, err := marked.Clear(r.File, "a")
		if err != nil || !bytes.Equal(back, bare) {
			t.Fatalf("without the block: %q, %v; want %q", back, err, bare)
		}
		if added := bytes.Count(r.File, []byte("\n")) - bytes.Count(bare, []byte("\n")); added > 9 {
			t.Fatalf("one entry added %d lines", added)
		}
	})
}
