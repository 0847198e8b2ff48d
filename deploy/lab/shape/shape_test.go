package shape

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestWith(t *testing.T) {
	old := Shape{Delay: 20 * time.Millisecond, Rate: 1e7}
	for _, tt := range []struct {
		word, want, problem string
	}{
		{"loss=5%", "delay=20ms loss=5% rate=10mbit", ""},
		{"loss=0.05", "delay=20ms loss=5% rate=10mbit", ""},
		{"delay=0s", "rate=10mbit", ""},
		{"rate=1.5gbit", "delay=20ms rate=1.5gbit", ""},
		{"rate=0", "delay=20ms", ""},
		{"mtu=1400", "delay=20ms rate=10mbit mtu=1400", ""},
		{"delay", "", `"delay": want key=value, for instance delay=20ms`},
		{"dely=5ms", "", `dely=5ms: unknown key "dely"; did you mean "delay"?`},
		{"colour=red", "", `colour=red: unknown key "colour"; known are delay, jitter, loss, mtu, queue, rate`},
		{"loss=200%", "", "loss: want 0% to 100%"},
		{"loss=NaN", "", "loss: want 0% to 100%"},
		{"rate=fast", "", "rate=fast: want bits per second, as 20mbit or 500kbit"},
		{"jitter=-1ms", "", "delay and jitter: want a time from 0s to 1m0s"},
		{"mtu=100", "", "mtu: want 576 to 65535 bytes, or 0 for none"},
	} {
		t.Run(tt.word, func(t *testing.T) {
			got, err := old.With(tt.word)
			switch {
			case err != nil && err.Error() != tt.problem:
				t.Errorf("got error %q, want %q", err, tt.problem)
			case err == nil && (tt.problem != "" || got.String() != tt.want):
				t.Errorf("got %q, want %q %s", got, tt.want, tt.problem)
			}
		})
	}
}

func TestJSONRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Shape{
			Delay: time.Duration(rapid.IntRange(0, 60e6).Draw(t, "delay")) * time.Microsecond,
			Loss:  rapid.Float64Range(0, 1).Draw(t, "loss"),
			Rate:  rapid.Float64Range(0, 1e12).Draw(t, "rate"),
			Cut:   rapid.Bool().Draw(t, "cut"),
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back Shape
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if d := (back.Delay - s.Delay).Abs(); d > time.Nanosecond {
			t.Fatalf("%v came back as %v", s, back)
		}
		if back.Delay = s.Delay; back != s {
			t.Fatalf("%v came back as %v", s, back)
		}
	})
}

func TestPairs(t *testing.T) {
	for _, tt := range []struct {
		pair, has, hasNot string
	}{
		{"a<>b", "a>b b>a", "a>c c>a a>a"},
		{"a>b", "a>b", "b>a"},
		{"a", "a>b b>a a>c", "b>c a>a"},
		{"*", "a>b b>c", "a>a"},
		{"*>b", "a>b c>b", "b>a b>b"},
	} {
		p, err := ParsePair(tt.pair)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range []struct {
			list string
			want bool
		}{{tt.has, true}, {tt.hasNot, false}} {
			for i := 0; i+2 < len(w.list)+1; i += 4 {
				if from, to := w.list[i:i+1], w.list[i+2:i+3]; p.Has(from, to) != w.want {
					t.Errorf("%s has %s>%s: %v, want %v", tt.pair, from, to, !w.want, w.want)
				}
			}
		}
	}
	for _, bad := range []string{"", "a<>", ">b", "a>b>c", "a<>a", "a b"} {
		if p, err := ParsePair(bad); err == nil {
			t.Errorf("%q was read as %v", bad, p)
		}
	}
}
