package parse

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"vcpeer/peer/api"
)

func TestRange(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want api.Range
		err  string
	}{
		{"1-10", api.Range{First: 1, Last: 10, Step: 1}, ""},
		{"5", api.Range{First: 5, Last: 5, Step: 1}, ""},
		{"0-9:3", api.Range{First: 0, Last: 9, Step: 3}, ""},
		{"9-1", api.Range{}, "below the first"},
		{"1-9:0", api.Range{}, "at least 1"},
		{"", api.Range{}, "want FIRST-LAST"},
		{"5:2", api.Range{}, "want FIRST-LAST"},
		{"+1-2", api.Range{}, "want FIRST-LAST"},
		{"1-2-3", api.Range{}, "want FIRST-LAST"},
		{"1-99999999999", api.Range{}, "want FIRST-LAST"},
	} {
		got, err := Range(tt.in)
		if got != tt.want || (err == nil) != (tt.err == "") || (err != nil && !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%q: %v %v", tt.in, got, err)
		}
	}
}

func TestAmounts(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "1": 1, "1K": 1024, "1.5G": 3 << 29, "2GiB": 2 << 30, "3mb": 3 << 20, "1T": 1 << 40} {
		if got, err := Size(in); err != nil || got != want {
			t.Errorf("size %q: %d %v", in, got, err)
		}
	}
	for _, in := range []string{"", "G", "-1", "1GG", "1e9", "NaN", "0x1", "9999999999T", "1 G"} {
		if got, err := Size(in); err == nil {
			t.Errorf("size %q: %d", in, got)
		}
	}
	for in, want := range map[string]time.Duration{"90": 90 * time.Second, "1:30": 90 * time.Second, "01:00:00": time.Hour,
		"1h30m": 90 * time.Minute, "2d": 48 * time.Hour, "0.5h": 30 * time.Minute} {
		if got, err := Time(in); err != nil || got != want {
			t.Errorf("time %q: %v %v", in, got, err)
		}
	}
	for _, in := range []string{"", ":", "1:2:3:4", "h", "1x", "-5", "1h5", "9999999999999", "1..5h"} {
		if got, err := Time(in); err == nil {
			t.Errorf("time %q: %v", in, got)
		}
	}
}

func TestSelect(t *testing.T) {
	for in, want := range map[string]string{
		"42": "42 ", "last": " ", "42.kyoto": "42.kyoto ", "42.kyoto[7]": "42.kyoto 7", "42[7]": "42 7", "42.7": "42 7", "42.kyoto.7": "42.kyoto 7",
		"last[3]": " 3", "7.lab-2": "7.lab-2 ",
	} {
		s, err := Select(in)
		task := ""
		if s.Task != nil {
			task = fmt.Sprint(*s.Task)
		}
		if got := s.ID() + " " + task; err != nil || got != want {
			t.Errorf("%q: got %q %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0", "last.kyoto", "42.", "42[", "42[x]", "42.KYOTO", "x", "-1", "42[1][2]", "42 ", "99999999999999999999"} {
		if s, err := Select(in); err == nil {
			t.Errorf("%q gave %v", in, s)
		}
	}
}

func TestDirectives(t *testing.T) {
	for _, tt := range []struct{ name, script, want, err string }{
		{"header", "#!/bin/sh\n#VCPEER --name a --env 'X=1 2'\n\n# a note\n#VCPEER --slots 2 # why\necho\n", `2:["--name" "a" "--env" "X=1 2"] 5:["--slots" "2"]`, ""},
		{"no newline", "#VCPEER --name a", `1:["--name" "a"]`, ""},
		{"crlf", "#VCPEER --name a\r\n", `1:["--name" "a"]`, ""},
		{"other word", "#VCPEERING x\n#VCPEER\n", "", ""},
		{"late", "echo\n#VCPEER --slots 2\n", "", "line 2: #VCPEER after the first command"},
		{"quote", "#!/bin/sh\n#VCPEER --name 'a\n", "", "line 2: a ' without its partner"},
		{"long", "#" + strings.Repeat("x", 200<<10) + "\n#VCPEER -x\n", "", "line 2: #VCPEER after"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ds, err := Directives(strings.NewReader(tt.script), "#VCPEER", true)
			var got []string
			for _, d := range ds {
				got = append(got, fmt.Sprintf("%d:%q", d.Line, d.Words))
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got %s, want %s", s, tt.want)
			}
			if (err == nil) != (tt.err == "") || (err != nil && !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

func TestWords(t *testing.T) {
	for in, want := range map[string]string{
		"": "[]", "  a\tb ": `["a" "b"]`, `a"b c"d`: `["ab cd"]`, `'' "x"`: `["" "x"]`, `a\ b`: `["a b"]`, `'a\b'`: `["a\\b"]`, "a#b #c": `["a#b"]`,
	} {
		if got, err := Words(in); err != nil || fmt.Sprintf("%q", got) != want {
			t.Errorf("%q: got %q %v, want %s", in, got, err, want)
		}
	}
}

func FuzzRange(f *testing.F) {
	f.Add("1-10:2")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Range(s)
		if err != nil {
			return
		}
		if again, err := Range(FormatRange(r)); err != nil || again != r || Len(r) < 1 {
			t.Errorf("%q: %v, then %v %v", s, r, again, err)
		}
	})
}

func FuzzSelect(f *testing.F) {
	for _, s := range []string{"last", "42.kyoto[7]", "42.7"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		sel, err := Select(s)
		if err != nil {
			return
		}
		if again, err := Select(sel.String()); err != nil || again.String() != sel.String() {
			t.Errorf("%q: %v, then %v %v", s, sel, again, err)
		}
	})
}

func FuzzAmounts(f *testing.F) {
	f.Add("1.5G")
	f.Add("1h30m")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := Size(s); err == nil && n < 0 {
			t.Errorf("size %q: %d", s, n)
		}
		if d, err := Time(s); err == nil && d < 0 {
			t.Errorf("time %q: %v", s, d)
		}
	})
}

func FuzzDirectives(f *testing.F) {
	f.Add("#!/bin/sh\n#VCPEER --name a\n")
	f.Fuzz(func(t *testing.T, s string) {
		for _, header := range []bool{true, false} {
			ds, _ := Directives(strings.NewReader(s), "#VCPEER", header)
			for _, d := range ds {
				if d.Line < 1 || len(d.Words) == 0 {
					t.Errorf("%q: %v", s, d)
				}
			}
		}
	})
}
