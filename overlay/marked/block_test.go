package marked

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestSet(t *testing.T) {
	const a = "# BEGIN vcpeer a (kept by vcpeer, edits in here are lost)\nx\n# END vcpeer a\n"
	const b = "# BEGIN vcpeer b (kept by vcpeer, edits in here are lost)\ny\n# END vcpeer b\n"
	const joined = "\n# BEGIN vcpeer a (kept by vcpeer, edits in here are lost; the line above had no end)\nx\n# END vcpeer a\n"
	for _, tt := range []struct {
		name, file string
		lines      []string
		want       string
	}{
		{"new", "1\n", []string{"x"}, "1\n" + a},
		{"new in nothing", "", []string{"x"}, a},
		{"new after a line without end", "1", []string{"x"}, "1" + joined},
		{"none wanted, none there", "1\n2", nil, "1\n2"},
		{"replaced where it stands", "1\n" + strings.Replace(a, "x", "old\nold", 1) + "2\n", []string{"x"}, "1\n" + a + "2\n"},
		{"another's block stays", b + "1\n", []string{"x"}, b + "1\n" + a},
		{"removed", "1\n" + a + "2", nil, "1\n2"},
		{"removed with the line end that came with it", "1" + joined, nil, "1"},
		{"line end stays when lines follow", "1" + joined + "2\n", nil, "1\n2\n"},
		{"a copy goes", a + "1\n" + a + "2\n", []string{"x"}, a + "1\n2\n"},
		{"copies go", a + "1\n" + a + b + a, nil, "1\n" + b},
		{"blanks of an editor", "#  BEGIN vcpeer  a\r\nx\n # no\n# END\tvcpeer a \r\n2\r\n", []string{"x"}, a + "2\r\n"},
		{"end without begin is not ours", "# END vcpeer a\n", []string{"x"}, "# END vcpeer a\n" + a},
		{"longer name is another's", strings.ReplaceAll(a, "vcpeer a", "vcpeer aa"), nil, strings.ReplaceAll(a, "vcpeer a", "vcpeer aa")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Set([]byte(tt.file), "a", tt.lines)
			if err != nil || string(got) != tt.want {
				t.Errorf("Set(%q, %q)\n got %q, %v\nwant %q", tt.file, tt.lines, got, err, tt.want)
			}
		})
	}
}

func TestSetInstead(t *testing.T) {
	const begin, end = "# BEGIN vcpeer a (kept by vcpeer, edits in here are lost)\n", "# END vcpeer a\n"
	for _, tt := range []struct {
		name, file string
		n          int
		want       string // empty: refused
		cleared    string
	}{
		{"first line", "1\n2\n", 0, begin + "#- 1\nx\n" + end + "2\n", "1\n2\n"},
		{"last line", "1\n2\n", 1, "1\n" + begin + "#- 2\nx\n" + end, "1\n2\n"},
		{"a block that was elsewhere", begin + "y\n" + end + "1\n2\n", 1, "1\n" + begin + "#- 2\nx\n" + end, "1\n2\n"},
		{"a block that stood for another line", begin + "#- 1\ny\n" + end + "2\n", 1, "1\n" + begin + "#- 2\nx\n" + end, "1\n2\n"},
		{"a line without end", "1\n2", 1, "", ""},
		{"no line", "1\n2\n", 2, "", ""},
		{"nothing", "", 0, "", ""},
		{"carriage return", "1\r\n", 0, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := SetInstead([]byte(tt.file), "a", tt.n, []string{"x"})
			if string(got) != tt.want || (err != nil) != (tt.want == "") {
				t.Fatalf("got %q, %v\nwant %q", got, err, tt.want)
			}
			if err != nil {
				return
			}
			if again, err := SetInstead(got, "a", tt.n, []string{"x"}); err != nil || string(again) != tt.want {
				t.Errorf("and again: %q, %v", again, err)
			}
			if cleared, err := Clear(got, "a"); err != nil || string(cleared) != tt.cleared {
				t.Errorf("cleared: %q, %v; want %q", cleared, err, tt.cleared)
			}
			if set, err := Set(got, "a", []string{"z"}); err != nil || string(set) != tt.cleared+begin+"z\n"+end {
				t.Errorf("set: %q, %v", set, err)
			}
		})
	}
}

func TestSetRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, file, owner, line string
		damaged                 bool
	}{
		{"no end marker", "1\n# BEGIN vcpeer a\n2\n", "a", "x", true},
		{"begin twice", "# BEGIN vcpeer a\n# BEGIN vcpeer a\n# END vcpeer a\n", "a", "x", true},
		{"another's block within", "# BEGIN vcpeer a\n# BEGIN vcpeer b\n# END vcpeer b\n# END vcpeer a\n", "a", "x", true},
		{"line with a line end", "", "a", "x\ny", false},
		{"line that is a marker", "", "a", "# END vcpeer a", false},
		{"owner with a blank", "", "a b", "x", false},
		{"no owner", "", "", "x", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Set([]byte(tt.file), tt.owner, []string{tt.line})
			if err == nil || errors.Is(err, ErrDamaged) != tt.damaged {
				t.Errorf("got %q, %v; want an error, ErrDamaged: %v", got, err, tt.damaged)
			}
		})
	}
}

// foreign draws what people and other programs may have in a file: any bytes, but no marker of owner.
func foreign(owner string) *rapid.Generator[[]byte] {
	piece := rapid.OneOf(
		rapid.SliceOfN(rapid.Byte(), 0, 30),
		rapid.SampledFrom([][]byte{
			[]byte("127.0.0.1 localhost\n"), []byte("\r\n"), []byte("# BEGIN vcpeer other\n"), []byte("# END vcpeer other\n"),
			[]byte("# BEGIN something\n"), []byte("\n\n"), {0}, []byte("no line end"),
		}),
	)
	return rapid.Custom(func(t *rapid.T) []byte {
		return bytes.Join(rapid.SliceOfN(piece, 0, 8).Draw(t, "pieces"), nil)
	}).Filter(func(b []byte) bool {
		spans, err := find(b, owner)
		return err == nil && len(spans) == 0
	})
}

// TestForeignSurvives: whatever is done to our block, the bytes around it stay, and taking it out restores the file.
func TestForeignSurvives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOfN(rapid.StringMatching(`[0-9a-z. #\t]{0,20}`), 1, 5)
		original := foreign("a").Draw(t, "file")
		file := original
		for _, l := range rapid.SliceOfN(lines, 1, 5).Draw(t, "updates") {
			set := Set
			if n := strings.IndexByte(string(original), '\n'); n >= 0 && !bytes.ContainsAny(original[:n], "\r\x00") && rapid.Bool().Draw(t, "instead") {
				set = func(file []byte, owner string, lines []string) ([]byte, error) {
					return SetInstead(file, owner, 0, lines)
				}
			}
			next, err := set(file, "a", l)
			if err != nil {
				t.Fatalf("Set(%q): %v", file, err)
			}
			if again, err := set(next, "a", l); err != nil || !bytes.Equal(again, next) {
				t.Fatalf("Set is not idempotent: %q, then %q, %v", next, again, err)
			}
			if cleared, err := Clear(next, "a"); err != nil || !bytes.Equal(cleared, original) {
				t.Fatalf("Clear(%q) = %q, %v; want %q", next, cleared, err, original)
			}
			file = next
		}

		// Others go on editing around the block.
		before, after := foreign("a").Draw(t, "before"), foreign("a").Draw(t, "after")
		if len(before) > 0 && before[len(before)-1] != '\n' {
			before = append(before, '\n')
		}
		around := bytes.Join([][]byte{before, file, after}, nil)
		if _, err := find(around, "a"); err != nil { // what was put before or after may have broken nothing of ours
			t.Fatalf("find(%q): %v", around, err)
		}
		next, err := Set(around, "a", []string{"new"})
		if err != nil {
			t.Fatalf("Set(%q): %v", around, err)
		}
		old, _ := find(around, "a")
		now, _ := find(next, "a")
		if len(old) == 1 && old[0].kept != nil { // a line comes back, so the block has moved
			was, _ := Clear(around, "a")
			if is, err := Clear(next, "a"); err != nil || !bytes.Equal(was, is) {
				t.Fatalf("bytes outside the block changed:\n%q\n%q", was, is)
			}
			return
		}
		if len(old) != 1 || len(now) != 1 || !bytes.Equal(around[:old[0].start], next[:now[0].start]) || !bytes.Equal(around[old[0].end:], next[now[0].end:]) {
			t.Fatalf("bytes outside the block changed:\n%q\n%q", around, next)
		}
	})
}

// TestOwnersDoNotMeet: blocks of several owners are independent, in whatever order they come and go.
func TestOwnersDoNotMeet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		original := foreign("a").Filter(func(b []byte) bool {
			s, err := find(b, "b")
			return err == nil && len(s) == 0 && (len(b) == 0 || b[len(b)-1] == '\n')
		}).Draw(t, "file")
		a, err := Set(original, "a", []string{"of a"})
		if err != nil {
			t.Fatal(err)
		}
		ab, err := Set(a, "b", []string{"of b"})
		if err != nil {
			t.Fatal(err)
		}
		onlyB, err := Set(original, "b", []string{"of b"})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Clear(ab, "a"); err != nil || !bytes.Equal(got, onlyB) {
			t.Fatalf("a's end: %q, %v; want %q", got, err, onlyB)
		}
		if got, err := Clear(ab, "b"); err != nil || !bytes.Equal(got, a) {
			t.Fatalf("b's end: %q, %v; want %q", got, err, a)
		}
	})
}

// FuzzSet: any file is either refused or edited so that a second edit changes nothing and Clear undoes both.
func FuzzSet(f *testing.F) {
	f.Add([]byte("127.0.0.1 localhost\n"), "x")
	f.Add([]byte("no end"), "x")
	f.Add([]byte("# BEGIN vcpeer a\n1\n# END vcpeer a\n2\n# BEGIN vcpeer a\n"), "x")
	f.Add([]byte("# BEGIN vcpeer a (kept by vcpeer, edits in here are lost; the line above had no end)\n# END vcpeer a"), "# END vcpeer a")
	f.Fuzz(func(t *testing.T, file []byte, line string) {
		kept := bytes.Clone(file)
		once, err := Set(file, "a", []string{line})
		if !bytes.Equal(file, kept) {
			t.Fatalf("Set changed its input")
		}
		if err != nil {
			return
		}
		twice, err := Set(once, "a", []string{line})
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("second Set: %q, %v; want %q", twice, err, once)
		}
		bare, err := Clear(file, "a")
		if err != nil {
			t.Fatalf("Clear(%q): %v", file, err)
		}
		if got, err := Clear(once, "a"); err != nil || !bytes.Equal(got, bare) {
			t.Fatalf("Clear(%q) = %q, %v; want %q", once, got, err, bare)
		}
	})
}
