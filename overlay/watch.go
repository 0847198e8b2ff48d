package overlay

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"vcpeer/overlay/label"
)

// watch decides which links have a port of their own with BFD, and whether its word counts. It is pure state of the
// Network's loop.
type watch struct {
	most  int                       // wishes of ours
	used  map[label.Label]time.Time // when a path of ours last began with the link
	ports map[label.Label]uint16
	bfd   map[label.Label]bfdState
	wish  []label.Label
}

// bfdState is what a session was last heard to be.
type bfdState struct {
	up    bool
	once  bool // it has been up
	since time.Time
	text  string
	anew  time.Time // it goes another way since shortly before: until then it says nothing of that

	alarms  int       // for nothing, lately: at most maxAlarms
	alarmed time.Time // when the last of them was, or was forgotten
}

// A session that went down for a moment, and that probes did not even notice, was late and not lost: on a machine that has
// too much to do, over a link that is full. Each such alarm doubles the interval, since all of them cost changes of paths
// and what these bring about; without any they are forgotten one by one.
const (
	maxAlarms   = 3
	momentary   = 2 * time.Second
	alarmForget = 2 * time.Minute
)

// bfdEvery is how often the ends of a watched link say that it lives. Three missed are a failure, so that a path falls over
// within 300 ms together with what was on the way. Where there is no traffic it is asked less often.
const (
	bfdEvery = 70 * time.Millisecond
	bfdIdle  = 8 * bfdEvery
)

// bfdTrust is how long a session that went down is believed against probes that still come through: long enough for these
// to notice, and for a path that BFD alone cannot go to be used without it.
const bfdTrust = 5 * time.Second

// nearness is a gateway and how far it is.
type nearness struct {
	l    label.Label
	rtt  time.Duration // 0: not measured
	used bool          // a path begins with the link to it
}

// unusedFor is how long a link stays watched that no path begins with any more: a path comes back when its link does.
const unusedFor = time.Minute

// choose says which links ought to be watched: those that this node wants, the nearest of those in use (of few links all
// are), and those of which the other end wants it; of all at most most·2, up to maxWatch. A wish is kept while it is among
// the nearest two times as many, so that noise moves no port.
func (w *watch) choose(near []nearness, asked []label.Label, now time.Time) (changed bool) {
	w.use(near, now)
	slices.SortFunc(near, func(a, b nearness) int {
		return cmp.Or(compareKnown(a.rtt, b.rtt), cmp.Compare(a.l, b.l))
	})
	rank := map[label.Label]int{}
	for i, n := range near {
		rank[n.l] = i
	}
	few := len(near) <= w.most
	wish := slices.DeleteFunc(slices.Clone(w.wish), func(l label.Label) bool {
		r, ok := rank[l]
		return !ok || r >= 2*w.most || !few && w.used[l].IsZero()
	})
	for _, n := range near {
		if len(wish) < w.most && (few || n.used) && !slices.Contains(wish, n.l) {
			wish = append(wish, n.l)
		}
	}
	slices.Sort(wish)
	changed = !slices.Equal(wish, w.wish)
	w.wish = wish
	all := slices.Clone(wish)
	for _, l := range asked {
		if _, known := rank[l]; known && len(all) < maxWatch && !slices.Contains(all, l) {
			all = append(all, l)
		}
	}
	return w.assign(all) || changed
}

// use notes which links are in use, and forgets those that have not been for long.
func (w *watch) use(near []nearness, now time.Time) {
	for _, n := range near {
		if n.used {
			w.used[n.l] = now
		}
	}
	maps.DeleteFunc(w.used, func(_ label.Label, at time.Time) bool { return now.Sub(at) > unusedFor })
}

// compareKnown puts what is measured first, the nearest of it foremost.
func compareKnown(a, b time.Duration) int {
	switch {
	case (a == 0) != (b == 0):
		return cmp.Compare(b, a)
	}
	return cmp.Compare(a, b)
}

// assign gives ports to the links of want and takes them from others. A port number is used again only when all are.
func (w *watch) assign(want []label.Label) (changed bool) {
	for l := range w.ports {
		if !slices.Contains(want, l) {
			delete(w.ports, l)
			delete(w.bfd, l)
			changed = true
		}
	}
	used := map[uint16]bool{}
	for _, p := range w.ports {
		used[p] = true
	}
	for _, l := range want {
		if _, ok := w.ports[l]; ok {
			continue
		}
		port := uint16(firstProtected)
		for used[port] {
			port++
		}
		used[port], w.ports[l], changed = true, port, true
	}
	return changed
}

// heard notes the state of a session.
func (w *watch) heard(l label.Label, up bool, text string, now time.Time) (changed bool) {
	if _, ok := w.ports[l]; !ok {
		return false
	}
	s := w.bfd[l]
	changed = s.up != up || s.text != text
	if s.up != up {
		if now.After(s.anew) {
			s.once = s.once || s.up
		}
		if up && s.once && now.Sub(s.since) < momentary {
			s.alarms, s.alarmed = min(s.alarms+1, maxAlarms), now
		}
		s.since = now
	}
	s.up, s.once, s.text = up, s.once || up && now.After(s.anew), text
	w.bfd[l] = s
	return changed
}

// intervals says how often the other end of each watched link is to say that it lives; inUse are those that matter most.
func (w *watch) intervals(inUse map[label.Label]bool, now time.Time) map[label.Label]time.Duration {
	out := map[label.Label]time.Duration{}
	for l := range w.ports {
		s := w.bfd[l]
		if s.alarms > 0 && now.Sub(s.alarmed) > alarmForget {
			s.alarms, s.alarmed = s.alarms-1, now
			w.bfd[l] = s
		}
		out[l] = bfdEvery << s.alarms
		if !inUse[l] {
			out[l] = max(out[l], bfdIdle)
		}
	}
	return out
}

// renew takes note that a session goes another way from now on. What it says counts when both ends have made that so.
func (w *watch) renew(l label.Label, now time.Time) {
	if s, ok := w.bfd[l]; ok {
		s.once, s.anew = false, now.Add(renewTime)
		w.bfd[l] = s
	}
}

// renewTime is how long a session is not believed that goes another way.
const renewTime = 2 * time.Second

// believed are the links whose port decides by itself whether the link is used: the session is up, or went down just now.
func (w *watch) believed(now time.Time) map[label.Label]bool {
	out := map[label.Label]bool{}
	for l, s := range w.bfd {
		if now.After(s.anew) && (s.up || s.once && now.Sub(s.since) < bfdTrust) {
			out[l] = true
		}
	}
	return out
}
