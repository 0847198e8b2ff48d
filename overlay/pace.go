package overlay

import "time"

// pace says how long rounds rest, so that they leave time for others: when many sites start at once, wishes follow one
// another faster than they can be fulfilled, and the newest is all that counts. Time that was not used is saved up for the
// rounds that follow one another when a site joins. The zero value is ready.
type pace struct {
	spent time.Duration // more than was to be had, down to -maxSaved
	last  time.Time     // zero: there was no round yet
}

const (
	restShare = 8               // of a round's time
	maxSaved  = 1 * time.Second // of rounds that need not rest
	leastRest = 20 * time.Millisecond
	mostRest  = 2 * time.Second
)

// rest returns how long to rest after a round that took so long and ended now.
func (p *pace) rest(took time.Duration, now time.Time) time.Duration {
	p.spent = max(p.spent-now.Sub(p.last)/restShare, -maxSaved) // the first time that is all there can be
	p.last = now
	p.spent = min(p.spent+took, mostRest/restShare)
	return max(leastRest, p.spent*restShare)
}
