package overlay

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"vcpeer/overlay/flow"
	"vcpeer/overlay/label"
	"vcpeer/overlay/path"
)

func TestTraffic(t *testing.T) {
	began := time.Unix(1000, 0)
	tr := traffic{began: began, sent: map[label.Label]time.Time{}}
	for _, tt := range []struct {
		what  string
		of    int
		after time.Duration
		sent  bool
		want  bool
	}{
		{"a small cluster at first", small, time.Second, false, true},
		{"and later", small, idleAfter + 1, false, false},
		{"a large one at first", small + 1, time.Second, false, false},
		{"a frame", small + 1, 2 * time.Second, true, true},
		{"not long after it", small + 1, 2*time.Second + idleAfter, false, true},
		{"long after it", small + 1, 3*time.Second + idleAfter, false, false},
	} {
		now := began.Add(tt.after)
		if tt.sent {
			tr.note([]label.Label{7}, now)
		}
		if got := tr.lately(7, tt.of, now); got != tt.want {
			t.Errorf("%s: %v", tt.what, got)
		}
	}
	tr.note(nil, began.Add(3*idleAfter))
	if len(tr.sent) > 0 {
		t.Errorf("what is long ago is kept: %v", tr.sent)
	}
}

// A link is in use that the path begins with to where frames go, whichever gateway they are for.
func TestLinksInUse(t *testing.T) {
	now := time.Unix(1000, 0)
	want := flow.Want{Hosts: []flow.Host{{Slot: 1, Port: portLocal}, {Slot: 2, Far: 5}, {Slot: 3, Far: 6}, {Slot: 4, Far: 6}, {Slot: 5, Far: 7}}}
	s := &session{
		traffic: traffic{began: now, sent: map[label.Label]time.Time{}},
		table:   path.Table{Choices: []path.Choice{pathTo(5), pathTo(6, 9, 8), pathTo(7)}},
		peers:   peers{far: map[label.Label]netip.Addr{}},
	}
	for l := range label.Label(small + 4) {
		s.peers.far[l+1] = netip.Addr{}
	}
	to := behindWhich(want, []flow.Slot{1, 2, 3, 4})
	if !slices.Equal(to, []label.Label{5, 6}) {
		t.Fatalf("frames go to %v", to)
	}
	s.traffic.note(to, now)
	got := s.inUse(now)
	if len(got) != 2 || !got[5] || !got[9] {
		t.Errorf("in use are %v", got)
	}
	if d := s.detours(now); len(d) != 1 || d[0].Dst != 6 {
		t.Errorf("paths that are probed: %v", d)
	}
}

func pathTo(to label.Label, via ...label.Label) path.Choice {
	return path.Choice{Path: path.Path{Dst: to, Via: via}}
}
