package path

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"vcpeer/overlay/label"
)

func TestExplain(t *testing.T) {
	const diamond = "1-2=100; 1-3=20; 3-2=20; 1-4=30; 4-2=30;"
	for _, tt := range []struct{ name, events, want string }{
		{"worse", diamond, "g3>g2 40ms | g4>g2 60ms: worse by 20.2 ms | g2 100ms: worse by 59.1 ms"},
		{"down", diamond + "3>2 down", "g4>g2 60ms | g3>g2 40ms: link g3>g2 is down, says g3 | g2 100ms: worse by 38.9 ms"},
		{"no transit", diamond + "3 notransit",
			"g4>g2 60ms | g3>g2 40ms: no transit through g3 | g2 100ms: worse by 38.9 ms"},
		{"margin", diamond + "wait 20s; 1-4=19.8; 4-2=19.8",
			"g3>g2 40ms | g4>g2 39.6ms: gain of 0.4 ms (1 %) is below the margin of 0.8 ms | g2 100ms: worse by 59.1 ms"},
		{"must last", diamond + "wait 20s; 1-4=19; 4-2=19; wait 10s",
			"g3>g2 40ms | g4>g2 38ms: gain of 2.0 ms (5 %), below the margin of 4.1 ms, must last 20s more" +
				" | g2 100ms: worse by 59.1 ms"},
		{"held", diamond + "wait 20s; 1-4=5; 4-2=5; wait 20s; 1-3=2; 3-2=2; wait 20.6s",
			"g4>g2 10ms | g3>g2 4ms: held for 1m20s more after a switch | g2 100ms: worse by 89.4 ms"},
		{"flaps", diamond + "wait 20s; 1-3 down; wait 1s; 1-3 up; wait 100ms; 1-3 down; wait 1s; 1-3 up",
			"g4>g2 60ms | g2 100ms: worse by 38.9 ms" +
				" | g3>g2 40ms: worse by 787.8 ms, link g1>g3 was down 2 times, a last resort for 2s more"},
		{"none", "1-2 down; 1-3=5; 3-2=5; 3-2 down",
			"none | g3>g2 10ms: link g3>g2 is down | g2 unmeasured: link g1>g2 is down"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Default(), 1).play(tt.events)
			e, ok := w.p.Explain(2, 5, w.now)
			if !ok {
				t.Fatal("nothing to explain")
			}
			got := e.Chosen.Path.String()
			for _, l := range e.Losers {
				got += " | " + l.Path.String() + ": " + strings.Join(l.Why, ", ")
			}
			if got != tt.want {
				t.Errorf("%s\n got %s\nwant %s", tt.events, got, tt.want)
			}
		})
	}
	w := newWorld(t, Default(), 1).play(diamond)
	if _, ok := w.p.Explain(1, 5, w.now); ok {
		t.Error("explained the way to itself")
	}
}

// TestStreamIsTheLastOfEquals: of a stream through a relay and the way over the relay's own gateway, which takes as long, the
// latter is taken; the explanation names the kinds of links.
func TestStreamIsTheLastOfEquals(t *testing.T) {
	const ms = time.Millisecond
	link := func(to label.Label, rtt time.Duration, k Kind) Link { return Link{To: to, RTT: rtt, Kind: k, Up: true} }
	for _, tt := range []struct {
		relayed time.Duration
		want    string
	}{{40 * ms, "g3>g2 40ms [GRE sealed]"}, {300 * ms, "g3>g2 40ms [GRE sealed]"}, {33 * ms, "g2 33ms [sealed stream]"}} {
		p := New(Default())
		p.Plan(Input{Self: 1, Gateways: []Gateway{{Label: 1, Site: "a"}, {Label: 2, Site: "b"}, {Label: 3, Site: "c"}}, Rows: []Row{
			{From: 1, Links: []Link{link(2, tt.relayed, Stream), link(3, 20*ms, GRE)}},
			{From: 2, Links: []Link{link(1, tt.relayed, Stream), link(3, 20*ms, Sealed)}},
			{From: 3, Links: []Link{link(1, 20*ms, GRE), link(2, 20*ms, Sealed)}},
		}}, time.Unix(1000, 0))
		e, _ := p.Explain(2, 5, time.Unix(1000, 0))
		if got := fmt.Sprint(e.Chosen.Path, " ", e.Kinds); got != tt.want {
			t.Errorf("stream of %v: %s, want %s", tt.relayed, got, tt.want)
		}
	}
}
