package path

import (
	"slices"
	"testing"

	"vcpeer/overlay/label"
)

// TestStories tells when the path from g1 to g2 changes, and to what.
func TestStories(t *testing.T) {
	const diamond = "1-2=100; 1-3=20; 3-2=20; 1-4=30; 4-2=30;"
	for _, tt := range []struct{ name, events, want string }{
		{"direct where nothing is shorter", "1-2=10; 1-3=8; 3-2=8", "0s direct"},
		{"over one", diamond, "0s g3"},
		{"over three", "1-2=100; 1-3=10; 3-4=10; 4-5=10; 5-2=10", "0s g3>g4>g5"},
		{"never over four", "1-2=100; 1-3=10; 3-4=10; 4-5=10; 5-6=10; 6-2=10", "0s direct"},
		{"a detour must be worth its price", "1-2=10; 1-3=4.8; 3-2=4.8", "0s direct"},
		{"no transit through who does not want it", diamond + "3 notransit", "0s g4"},
		{"a link that one end calls down is down", diamond + "3>1 down", "0s g4"},
		{"one word is enough while the other end is silent", "1>2=10", "0s direct"},
		{"no link, no path", "1-3=10; 2", "0s none"},
		{"links that are up count before they are measured", "1-2 up", "0s direct"},
		{"but are the last choice", "1-2 up; 1-3=20; 3-2=20", "0s g3"},

		{"measurements are followed in the first seconds",
			"1-2=100; wait 1s; 1-3=20; 3-2=20; wait 1s; 1-4=15; 4-2=15; wait 5s", "0s direct; 1s g3; 2s g4"},
		{"later a large gain is confirmed twice", diamond + "wait 20s; 1-4=5; 4-2=5; wait 20s", "0s g3; 20.6s g4"},
		{"and forgotten if it was one plan's", diamond + "wait 20s; 1-4=5; 4-2=5; wait 400ms; 1-4=30; 4-2=30; wait 1m", "0s g3"},
		{"a small gain must last", diamond + "wait 20s; 1-4=19; 4-2=19; wait 2m", "0s g3; 50s g4"},
		{"a tiny one is nothing", diamond + "wait 20s; 1-4=19.9; 4-2=19.9; wait 1h", "0s g3"},
		{"after a switch the path is kept", diamond + "wait 20s; 1-4=5; 4-2=5; wait 20s; 1-3=2; 3-2=2; wait 5m",
			"0s g3; 20.6s g4; 2m20.6s g3"},
		{"the hold doubles", diamond + "wait 20s; 1-4=5; 4-2=5; wait 20s; 1-3=4; 3-2=4; wait 3m; 1-4=3; 4-2=3; wait 10m",
			"0s g3; 20.6s g4; 2m20.6s g3; 6m20.6s g4"},
		{"but a gain of more than half waits only half of it",
			diamond + "wait 20s; 1-4=5; 4-2=5; wait 20s; 1-3=2; 3-2=2; wait 3m; 1-3=50; 3-2=50; wait 10m",
			"0s g3; 20.6s g4; 2m20.6s g3; 4m20.6s g4"},

		{"a failure is left at once", diamond + "wait 20s; 1-3 down; wait 1s", "0s g3; 20s g4"},
		{"also far away, and when held", diamond + "wait 20s; 1-4=5; 4-2=5; wait 5s; 4-2 down; wait 1s", "0s g3; 20.6s g4; 25s g3"},
		{"also a gateway's", diamond + "wait 20s; 3 gone; wait 1s", "0s g3; 20s g4"},
		{"also a will", diamond + "wait 20s; 3 notransit; wait 1s", "0s g3; 20s g4"},
		{"what failed is taken again when it has been up for a while",
			diamond + "wait 20s; 1-3 down; wait 5s; 1-3 up; wait 1m", "0s g3; 20s g4; 27s g3"},
		{"longer the second time",
			diamond + "wait 20s; 1-3 down; wait 5s; 1-3 up; wait 10s; 1-3 down; wait 5s; 1-3 up; wait 1m",
			"0s g3; 20s g4; 27s g3; 35s g4; 44s g3"},
		{"also when another was taken meanwhile",
			diamond + "1-2=10; wait 20s; 1-2 down; 1-3 down; wait 3s; 1-3 up; wait 20s; 1-2 up; wait 1m",
			"0s direct; 20s g4; 25s g3; 44.6s direct"},
		{"a link that flaps is better than none",
			"1-2=10; wait 20s; 1-2 down; wait 1s; 1-2 up; wait 1s; 1-2 down; wait 1s; 1-2 up; wait 1s",
			"0s direct; 20s none; 21s direct; 22s none; 23s direct"},
		{"one-way loss is seen", diamond + "wait 20s; 3>1 loss=25; wait 1m", "0s g3; 20.6s g4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Default(), 1)
			w.dst = 2
			if got := w.play(tt.events).history.String(); got != tt.want {
				t.Errorf("%s\n got %q\nwant %q", tt.events, got, tt.want)
			}
		})
	}
}

func TestBothEndsChooseOnePath(t *testing.T) {
	const many = "1-2=100; 1-3=20; 3-2=20; 1-4=20; 4-2=20; 1-5=20; 5-2=20; 1-6=10; 6-4=10; 4-7=10; 7-2=10"
	there, _ := newWorld(t, Default(), 1).play(many).table.To(2)
	back, _ := newWorld(t, Default(), 2).play(many).table.To(1)
	if words(there.Path) != words(back.Path) {
		t.Errorf("there over %s, back over %s", words(there.Path), words(back.Path))
	}
}

func TestPathFigures(t *testing.T) {
	w := newWorld(t, Default(), 1).play(`1-2=100; 1-3=20; 3-2=20; 1-4=30; 4-2=30;
		1-3 mtu=1458; 3>2 mtu=1400; 2>3 mtu=1300; 1>2 mtu=1458`)
	c, _ := w.table.To(2)
	if got, want := c.String()+"; "+c.Backup.String(), "g3>g2 40ms; g4>g2 60ms"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if c.MTU != 1300 || c.Backup.MTU != 0 {
		t.Errorf("MTU %d, of the backup %d, want 1300 and 0, since nobody knows", c.MTU, c.Backup.MTU)
	}
	if c.Direct.Milliseconds() != 100 {
		t.Errorf("direct %v, want 100 ms", c.Direct)
	}
}

func TestAround(t *testing.T) {
	for _, tt := range []struct {
		name, events string
		want         []label.Label
	}{
		{"the cheapest", "1-3=20; 3-2=20; 1-4=10; 4-2=10", []label.Label{4}},
		{"what is chosen, though another has become better", "1-3=20; 3-2=20; wait 20s; 1-4=19; 4-2=19", []label.Label{3}},
		{"not with two between where one is enough", "1-3=1; 3-4=1; 4-2=1; 1-5=90; 5-2=90", []label.Label{5}},
		{"nor through who forwards for nobody", "1-3=1; 3-2=1; 3 notransit; 1-5=90; 5-2=90", []label.Label{5}},
		{"two", "1-3=1; 3-4=1; 4-2=1", []label.Label{3, 4}},
		{"three", "1-3=1; 3-4=1; 4-5=1; 5-2=1", []label.Label{3, 4, 5}},
		{"none", "1-3=1; 3-4=1; 4-5=1; 5-6=1; 6-2=1", nil},
		{"not itself", "1-2=1", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := newWorld(t, Default(), 1).play(tt.events).p.Around(2); !slices.Equal(got, tt.want) {
				t.Errorf("%s: around by %v, want %v", tt.events, got, tt.want)
			}
		})
	}
}

func TestSites(t *testing.T) {
	const two = "1 site=home; 2 site=a; 3 site=a; 1-2=20; 1-3=20; 2-3=1; 4 site=b; 1-4=5; 4-2=10; 4-3=10;"
	for _, tt := range []struct{ name, events, want string }{
		{"the lowest label of equals", "1 site=home; 2 site=a; 3 site=a; 1-2=20; 1-3=20; 2-3=1", "g2 20ms"},
		{"of equals over another site too", two, "g4>g2 15ms"},
		{"the other when the first is gone", two + "wait 20s; 2 gone", "g4>g3 15ms"},
		{"and back only for a gain",
			two + "wait 20s; 4-2 down; 1-2 down; wait 5s; 4-2 up; 1-2 up; wait 1h", "g4>g3 15ms"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Default(), 1).play(tt.events)
			c, _ := w.table.Site("a")
			if got := c.Path.String(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if _, ok := w.table.Site("home"); ok {
				t.Error("a path to the own site")
			}
		})
	}
}

func TestSealedOnly(t *testing.T) {
	w := newWorld(t, Default(), 1)
	w.in.SealedOnly = true
	w.play("1-2=10; 1-3=20; 3-2=20; 1-3 sealed; 3-2 sealed; 4; 1 site=a; 4 site=a; 1-4=1")
	for dst, want := range map[label.Label]string{2: "g3", 4: "direct"} {
		if c, _ := w.table.To(dst); words(c.Path) != want {
			t.Errorf("to %v: %s, want %s", dst, words(c.Path), want)
		}
	}
	w.in.SealedOnly = false
	w.wait(3e9)
	if c, _ := w.table.To(2); words(c.Path) != "direct" {
		t.Errorf("in clear text: %s", words(c.Path))
	}
}

func TestSelfIsNoGateway(t *testing.T) {
	if w := newWorld(t, Default(), 9).play("1-2=10"); len(w.table.Choices)+len(w.table.Sites) > 0 {
		t.Errorf("a table for nobody: %v", w.table)
	}
}
