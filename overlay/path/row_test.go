package path

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"vcpeer/overlay/label"
)

func drawRow(t *rapid.T) Row {
	r := Row{From: label.Label(rapid.IntRange(int(label.First), int(label.Last)).Draw(t, "from"))}
	to := rapid.SliceOfNDistinct(rapid.IntRange(int(label.First), int(label.Last)), 0, 40, rapid.ID).Draw(t, "to")
	slices.Sort(to)
	for _, l := range to {
		if label.Label(l) != r.From {
			r.Links = append(r.Links, Link{
				To:  label.Label(l),
				RTT: time.Duration(rapid.IntRange(0, int(rttMax)).Draw(t, "RTT")), Loss: rapid.Float64Range(0, 1).Draw(t, "loss"),
				MTU:  rapid.SampledFrom([]int{0, 1280, 1458, 8958, 65535}).Draw(t, "MTU"),
				Kind: Kind(rapid.IntRange(0, 2).Draw(t, "kind")), Up: rapid.Bool().Draw(t, "up"),
			})
		}
	}
	return r
}

func TestRowsTravel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRow(t)
		b, left := EncodeRow(r)
		got, err := DecodeRow(b)
		if err != nil || left != 0 || got.From != r.From || len(got.Links) != len(r.Links) {
			t.Fatalf("%v became %v, %d left out, %v", r, got, left, err)
		}
		for i, want := range r.Links {
			l := got.Links[i]
			if d := (l.RTT - want.RTT).Abs(); d > tick/2+want.RTT/2048 && want.RTT > tick || (l.RTT == 0) != (want.RTT == 0) {
				t.Fatalf("RTT %v became %v", want.RTT, l.RTT)
			}
			if halfOf(&l) != halfOf(&want) {
				t.Fatalf("the planner sees %x in %v and %x in %v", halfOf(&want), want, halfOf(&l), l)
			}
			want.RTT, want.Loss = l.RTT, l.Loss
			if l != want {
				t.Fatalf("%v became %v", want, l)
			}
		}
		if again, _ := EncodeRow(got); !bytes.Equal(b, again) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func TestRowSizes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	full := plane(rng, 1000).row(0, exact)
	few := Row{From: 1}
	for l := range 32 {
		few.Links = append(few.Links, Link{To: label.Label(500*l + 7), RTT: 20 * time.Millisecond, MTU: 1458, Up: true})
	}
	mixed := Row{From: 1}
	for l := range 3000 {
		l := Link{To: label.Label(5*l + 7), RTT: time.Duration(rng.IntN(1e9)), MTU: 1000 + rng.IntN(1000), Up: true}
		mixed.Links = append(mixed.Links, l)
	}
	mixed.Links[77].RTT = 0
	for _, tt := range []struct {
		name  string
		row   Row
		bytes int // a link, at most
		left  bool
	}{{"1,000 in a full mesh", full, 3, false}, {"32 of 16,000", few, 4, false}, {"3,000 of all MTUs", mixed, 7, true}} {
		t.Run(tt.name, func(t *testing.T) {
			b, left := EncodeRow(tt.row)
			r, err := DecodeRow(b)
			if err != nil || len(b) > RowMax || len(r.Links)+left != len(tt.row.Links) || left > 0 != tt.left {
				t.Fatalf("%d bytes, %d links, %d left out, %v", len(b), len(r.Links), left, err)
			}
			if len(b) > 8+tt.bytes*len(r.Links) {
				t.Errorf("%d bytes for %d links", len(b), len(r.Links))
			}
			if left > 0 && (len(b) < RowMax-maxLinkBytes || slices.ContainsFunc(r.Links, func(l Link) bool { return l.RTT == 0 })) {
				t.Errorf("%d bytes, of %d possible", len(b), RowMax)
			}
			t.Logf("%d links, %d bytes, %d left out", len(r.Links), len(b), left)
		})
	}
}

func TestRowsAreSortedAndCleaned(t *testing.T) {
	b, left := EncodeRow(Row{From: 3, Links: []Link{{To: 9, Up: true}, {To: 3}, {To: label.Broadcast}, {To: 2}, {To: 9}, {To: 0}}})
	r, err := DecodeRow(b)
	if want := (Row{From: 3, Links: []Link{{To: 2}, {To: 9, Up: true}}}); err != nil || left != 0 || !reflect.DeepEqual(r, want) {
		t.Errorf("%v, %d left out, %v", r, left, err)
	}
}

func TestDecodeRowRefuses(t *testing.T) {
	good, _ := EncodeRow(Row{From: 3, Links: []Link{{To: 9, RTT: time.Second, MTU: 1458, Up: true}}})
	for _, tt := range []struct {
		name string
		b    []byte
		want string
	}{
		{"nothing", nil, "cut short"},
		{"another version", append([]byte{2}, good[1:]...), "version 2"},
		{"half a link", good[:len(good)-1], "cut short"},
		{"too much", make([]byte, RowMax+1), "at most 3500"},
		{"from nobody", []byte{1, 0, 0, 0}, "cannot be"},
		{"from all", []byte{1, 0xff, 0x7f, 0, 0}, "cannot be"},
		{"a long form of a number", []byte{1, 0x83, 0, 0, 0}, "cannot be"},
		{"a link to itself", []byte{1, 3, 0, 0, 6, 0, 0}, "cannot be"},
		{"a link to no gateway", []byte{1, 3, 0, 0, 0, 0, 0}, "cannot be"},
		{"an RTT of hours", []byte{1, 3, 0, 0, 2, 0xff, 0xff}, "cannot be"},
		{"flags of a later time", []byte{1, 3, 0x80, 0}, "cannot be"},
	} {
		if _, err := DecodeRow(tt.b); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

func FuzzDecodeRow(f *testing.F) {
	links := []Link{{To: 9, RTT: time.Second, MTU: 1458, Up: true}, {To: 10, Loss: .5, Kind: Sealed}}
	b, _ := EncodeRow(Row{From: 3, Links: links})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRow(b)
		if err != nil {
			return
		}
		again, left := EncodeRow(r)
		r2, err := DecodeRow(again)
		same := left == 0 && r.From == r2.From && slices.Equal(r.Links, r2.Links)
		if err != nil || !same && len(b) <= RowMax/2 { // what was not made by EncodeRow may need more than it took
			t.Fatalf("%v became %v, %d left out, %v", r, r2, left, err)
		}
		p := New(Default())
		in := Input{Self: r.From, Rows: []Row{r}, Gateways: []Gateway{{Label: r.From}}}
		for i, l := range r.Links {
			if i < 20 {
				in.Gateways = append(in.Gateways, Gateway{Label: l.To, Site: "s"})
			}
		}
		table, _ := p.Plan(in, time.Unix(0, 0))
		checkTable(t, in, table)
	})
}

func TestSignificant(t *testing.T) {
	base := Link{To: 2, RTT: 40 * time.Millisecond, MTU: 1458, Up: true}
	with := func(change func(*Link)) Link { l := base; change(&l); return l }
	rtt := func(d time.Duration) Link { return with(func(l *Link) { l.RTT = d }) }
	for _, tt := range []struct {
		name     string
		old, new Link
		want     bool
	}{
		{"nothing", base, base, false},
		{"a millisecond of 40", base, rtt(41 * time.Millisecond), false},
		{"more than two of 40", base, rtt(37900 * time.Microsecond), true},
		{"more than a tenth", rtt(10 * time.Millisecond), rtt(11100 * time.Microsecond), true},
		{"less than chance", rtt(500 * time.Microsecond), rtt(750 * time.Microsecond), false},
		{"measured for the first time", rtt(0), rtt(time.Microsecond), true},
		{"down", base, with(func(l *Link) { l.Up = false }), true},
		{"sealed", base, with(func(l *Link) { l.Kind = Sealed }), true},
		{"MTU", base, with(func(l *Link) { l.MTU = 1400 }), true},
		{"some loss", base, with(func(l *Link) { l.Loss = 0.1 }), true},
		{"loss of the same class", with(func(l *Link) { l.Loss = 0.06 }), with(func(l *Link) { l.Loss = 0.12 }), false},
		{"another gateway", base, with(func(l *Link) { l.To = 3 }), true},
	} {
		if got := Significant(Row{1, []Link{tt.old}}, Row{1, []Link{tt.new}}); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if !Significant(Row{From: 1}, Row{1, []Link{base}}) {
		t.Error("a new link is not significant")
	}
}

func ExampleEncodeRow() {
	b, left := EncodeRow(Row{From: 1, Links: []Link{{To: 2, RTT: 12 * time.Millisecond, MTU: 1458, Up: true}}})
	r, err := DecodeRow(b)
	fmt.Println(len(b), left, r.Links[0].RTT, err)
	// Output: 8 0 12ms <nil>
}

func BenchmarkEncodeRow1000(b *testing.B) {
	r := plane(rand.New(rand.NewPCG(1, 1)), 1000).row(0, exact)
	for b.Loop() {
		EncodeRow(r)
	}
}

func BenchmarkDecodeRow1000(b *testing.B) {
	r, _ := EncodeRow(plane(rand.New(rand.NewPCG(1, 1)), 1000).row(0, exact))
	for b.Loop() {
		DecodeRow(r)
	}
}
