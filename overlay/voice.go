package overlay

import (
	"slices"
	"time"

	"vcpeer/overlay/path"
)

// voice decides when what a gateway has to say of its links is said. Each saying costs every node a message, so small news
// wait for more, and who had much to say lately is slower to speak: on a machine that is too busy links seem to come and
// go, and to tell of each made all others busier. The zero value is ready.
type voice struct {
	began time.Time
	said  saying    // last …
	at    time.Time // … and when; zero: nothing yet
	spare float64   // sayings that are not slowed
}

// What a gateway says is repeated before it is forgotten.
const (
	sayAgain = 90 * time.Second

	// sayRTTs lies between news of how good links are. When the first measurements are over, a gateway of more than sayOften
	// links waits longer in proportion, so that what all have to say costs a node no more the more they are.
	sayRTTs  = 5 * time.Second
	sayOften = 8
	sayFirst = 30 * time.Second

	sayShapes     = 500 * time.Millisecond // between news of what links there are …
	sayShapesSlow = 4 * time.Second        // … when there were many
	sayWorseSlow  = time.Second            // between news of links that failed, when there were many; else they are told at once

	mostSpare  = 8
	spareEvery = 4 * time.Second
)

// due reports whether next is to be said now, and takes it as said if so.
func (v *voice) due(next saying, now time.Time) bool {
	spare := min(mostSpare, v.spare+float64(now.Sub(v.at))/float64(spareEvery))
	if v.at.IsZero() {
		spare, v.began = mostSpare, now
	}
	if now.Sub(v.at) < v.gap(next, spare >= 1, now) {
		return false
	}
	v.said, v.at, v.spare = next, now, max(0, spare-1)
	return true
}

// gap is how long after what was last said next is to be said.
func (v *voice) gap(next saying, fresh bool, now time.Time) time.Duration {
	switch {
	case worse(v.said.row, next.row):
		if fresh {
			return 0
		}
		return sayWorseSlow
	case path.Reshaped(v.said.row, next.row) || !slices.Equal(v.said.watch, next.watch):
		if fresh {
			return sayShapes
		}
		return sayShapesSlow
	case path.Significant(v.said.row, next.row):
		if now.Sub(v.began) < sayFirst {
			return sayRTTs
		}
		return min(sayAgain, sayRTTs*time.Duration(max(sayOften, len(next.row.Links)))/sayOften)
	}
	return sayAgain
}

// worse reports that a link that was up is not: news that others wait for.
func worse(old, now path.Row) bool {
	return slices.ContainsFunc(now.Links, func(l path.Link) bool {
		return !l.Up && slices.ContainsFunc(old.Links, func(o path.Link) bool { return o.To == l.To && o.Up })
	})
}
