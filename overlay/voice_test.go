package overlay

import (
	"testing"
	"time"

	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
)

func rowOf(links ...path.Link) saying { return saying{row: path.Row{From: 1, Links: links}} }

func TestVoice(t *testing.T) {
	up := path.Link{To: 2, RTT: 10 * time.Millisecond, Up: true}
	slow, down := up, up
	slow.RTT, down.Up = 30*time.Millisecond, false
	for _, tt := range []struct {
		name      string
		old, next saying
		want      time.Duration
	}{
		{"a failure", rowOf(up), rowOf(down), 0},
		{"a link is back", rowOf(down), rowOf(up), sayShapes},
		{"a link is new", rowOf(), rowOf(up), sayShapes},
		{"another wish", rowOf(up), saying{row: rowOf(up).row, watch: []label.Label{2}}, sayShapes},
		{"another RTT", rowOf(up), rowOf(slow), sayRTTs},
		{"nothing", rowOf(up), rowOf(up), sayAgain},
	} {
		var v voice
		now := time.Unix(1000, 0)
		if !v.due(tt.old, now) {
			t.Fatalf("%s: the first saying waits", tt.name)
		}
		if tt.want > 0 && v.due(tt.next, now.Add(tt.want-1)) {
			t.Errorf("%s is said too early", tt.name)
		}
		if !v.due(tt.next, now.Add(tt.want)) {
			t.Errorf("%s is not said", tt.name)
		}
	}
}

// A link that comes and goes all the time is told of at once the first times and then seldom, and at once again later.
func TestVoiceSlowsDown(t *testing.T) {
	links := []saying{rowOf(path.Link{To: 2, Up: true}), rowOf(path.Link{To: 2})}
	var v voice
	now := time.Unix(1000, 0)
	said := func(d time.Duration) (n int) {
		for end, i := now.Add(d), 0; now.Before(end); now = now.Add(250 * time.Millisecond) {
			if v.due(links[i], now) {
				n++
				i = 1 - i
			}
		}
		return n
	}
	if n := said(5 * time.Second); n < mostSpare || n > mostSpare+4 {
		t.Errorf("%d sayings in the first seconds", n)
	}
	if n := said(time.Minute); n > 30 {
		t.Errorf("%d sayings in the minute that follows", n)
	}
	now = now.Add(mostSpare * spareEvery)
	v.due(links[0], now)
	if !v.due(links[1], now.Add(time.Millisecond)) {
		t.Error("after a pause a failure waits")
	}
}

// How good links are is told the more seldom the more there are, once they have been measured for a while.
func TestVoiceOfMany(t *testing.T) {
	row := func(links int, rtt time.Duration) saying {
		out := path.Row{From: 1}
		for i := range links {
			out.Links = append(out.Links, path.Link{To: label.Label(i + 2), RTT: rtt, Up: true})
		}
		return saying{row: out}
	}
	for links, want := range map[int]time.Duration{3: sayRTTs, 8: sayRTTs, 16: 2 * sayRTTs, 1000: sayAgain} {
		var v voice
		now := time.Unix(1000, 0)
		v.due(row(links, 10*time.Millisecond), now)
		if !v.due(row(links, 30*time.Millisecond), now.Add(sayRTTs)) {
			t.Errorf("%d links: the first measurements wait", links)
		}
		now = now.Add(2 * sayAgain)
		v.due(row(links, 10*time.Millisecond), now)
		if next := row(links, 30*time.Millisecond); v.due(next, now.Add(want-1)) || !v.due(next, now.Add(want)) {
			t.Errorf("%d links: not after %v", links, want)
		}
	}
}
