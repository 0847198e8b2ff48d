package overlay

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
)

// TestGREOrSealed tells stories of a pair of links, a step of five seconds: "10/20" are RTTs in milliseconds of GRE and of the sealed
// link, "x" is down, "-" is none, and "%" behind an RTT is a loss of a third. "/g" and "/s" are what the other end says that it uses, where it decides.
func TestGREOrSealed(t *testing.T) {
	for _, tt := range []struct{ name, links, want string }{
		{"GRE while both work", "10/10 10/10 10/10", "g g g"},
		{"a little slower is no reason", "12/10 12/10", "g g"},
		{"GRE that never answers is waited for", "x/10 x/10 x/10", "g s s"},
		{"and taken when it has worked for a while", "x/10 x/10 10/10 10/10 10/10", "g s s g g"},
		{"GRE is filtered", "10/10 x/10 x/10 10/10 10/10", "g s s s g"},
		{"later it has to work for longer", "10/10 x/10 10/10 10/10 x/10 10/10 10/10 x/10 10/10 10/10 10/10", "g s s g s s s s s s g"},
		{"both fail: no change", "10/10 x/x x/x 10/10", "g g g g"},
		{"the sealed one fails while GRE is new", "10/10 x/10 10/x", "g s g"},
		{"GRE that loses", "10/10 10/10 10/10 10/10 10/10 10/10 10/10 10%/10 10%/10 10/10", "g g g g g g g s s g"},
		{"what it lost while it was down is no loss", "10/10 x/10 10%/10 10%/10 10/10", "g s s g g"},
		{"GRE that takes another way", "10/10 30/10 30/10 10/10 10/10", "g s s g g"},
		{"both are cut, which shows of the sealed one later", "10/10 x/10~ x/x 10/10", "g g g g"},
		{"both are cut, which shows of GRE later", "x/10 x/10 x/10 10/10~ 10~/x x/x", "g s s s s s"},
		{"encrypted links only", "-/10 -/x -/10", "s s s"},
		{"no sealed link", "10/- x/- 10/-", "g g g"},
		{"nothing works at the start", "x/x x/x x/x", "g g g"},
		{"the other end decides", "10/10/g 10/10/s 10/10/s 10/10/g", "g s s g"},
		{"but what fails here is left", "10/10/g x/10/g 10/10/s 10/x/s", "g s s g"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, now := choices{}, time.Unix(1000, 0)
			var last [2]*measured
			got := ""
			for _, step := range strings.Fields(tt.links) {
				words := strings.Split(step, "/")
				for k := range last {
					last[k] = after(last[k], words[k], now)
				}
				b := both{gre: last[path.GRE], seal: last[path.Sealed], led: len(words) > 2}
				if b.led && words[2] == "s" {
					b.word = path.Sealed
				}
				got += map[bool]string{true: " g", false: " s"}[c.choose(7, b, now) == b.gre]
				now = now.Add(5 * time.Second)
			}
			if got = got[1:]; got != tt.want {
				t.Errorf("%s: %s, want %s", tt.links, got, tt.want)
			}
			c.forget(map[label.Label]bool{})
			if len(c) > 0 {
				t.Error("a gateway that is none any more is remembered")
			}
		})
	}
}

// after is a link after a step.
func after(m *measured, word string, now time.Time) *measured {
	if word == "-" {
		return nil
	}
	next := measured{since: now}
	if m != nil {
		next.ever, next.since, next.up = m.ever, m.since, m.up
	}
	up := word != "x"
	if m != nil && up != next.up {
		next.since = now
	}
	if m != nil {
		next.answered, next.missing = m.answered, m.missing
	}
	switch {
	case !up && (m == nil || m.up):
		next.missing = now.Add(-time.Second)
	case up && !strings.HasSuffix(word, "~"):
		next.answered, next.missing = now, time.Time{}
	}
	word = strings.TrimSuffix(word, "~")
	if next.up = up; up {
		next.ever = true
		if rest, lossy := strings.CutSuffix(word, "%"); lossy {
			word, next.lossOut = rest, 0.33
		}
		var ms int
		fmt.Sscan(word, &ms)
		next.rtt = time.Duration(ms) * time.Millisecond
	}
	return &next
}
