package path

import (
	"fmt"
	"time"
)

// steady keeps a choice from changing with every measurement: what to do with a gain depends on how large it is, how long
// it has been seen, and what happened before. It knows nothing of what is chosen.
type steady struct {
	begun    time.Time // of the time in which the best is followed
	since    time.Time // of the present choice
	cause    Cause
	switches int

	seen      int       // plans in a row that saw a large gain, Interval apart
	seenAt    time.Time // the last of them
	largeFrom time.Time // since when a large gain is seen; zero: it is not
	smallFrom time.Time // or at least a small one

	held  time.Time // no change for gain before
	level int       // how often Hold is to be doubled

	fails    int // that are not forgotten
	failedAt time.Time
	failing  bool // the last change was for a failure
}

// begin starts anew with a first choice.
func (s *steady) begin(now time.Time) {
	*s = steady{begun: now, since: now, switches: s.switches, fails: s.fails, failedAt: s.failedAt}
}

// weigh says whether to leave a choice that costs have, in units, for one that costs best, and at which time to ask again
// if nothing else changes (zero: never).
func (s *steady) weigh(c *Config, now time.Time, have, best int) (leave bool, again time.Time) {
	large, small := c.gain(have, best)
	if !large {
		s.seen, s.seenAt, s.largeFrom = 0, time.Time{}, time.Time{}
	}
	if !small {
		s.smallFrom = time.Time{}
		return false, time.Time{}
	}
	if now.Before(s.begun.Add(c.Startup)) {
		return true, time.Time{}
	}
	if s.smallFrom.IsZero() {
		s.smallFrom = now
	}
	if large {
		if s.largeFrom.IsZero() {
			s.largeFrom = now
		}
		if s.seen < c.Confirm && (s.seen == 0 || !now.Before(s.seenAt.Add(c.Interval))) {
			s.seen, s.seenAt = s.seen+1, now
		}
	}
	ready, held := s.ready(c), s.heldUntil(c, have, best)
	switch {
	case now.Before(held):
		return false, held
	case now.Before(ready):
		if large && s.seen < c.Confirm {
			return false, soonest(s.seenAt.Add(c.Interval), ready)
		}
		return false, ready
	}
	return true, time.Time{}
}

// gain tells how large the gain from have to best is: large implies small.
func (c *Config) gain(have, best int) (large, small bool) {
	gain := float64(have - best)
	large = gain > max(float64(have)*c.Margin, float64(c.MarginMin/unit))
	small = large || gain > max(float64(have)*c.SmallMargin, float64(c.SmallMin/unit))
	return large, small
}

// ready is when the gain that is seen now will have been seen for long enough.
func (s *steady) ready(c *Config) time.Time {
	var after time.Duration
	if s.failing {
		after = c.damped(s.fails)
	}
	at := s.smallFrom.Add(max(c.SmallFor, after))
	if !s.largeFrom.IsZero() {
		missing := time.Duration(max(0, c.Confirm-s.seen))
		at = soonest(at, latest(s.largeFrom.Add(after), s.seenAt.Add(missing*c.Interval)))
	}
	return at
}

// heldUntil is when the hold after the last change ends for such a gain: one of more than half waits only half of what
// repeated changes have made of Hold.
func (s *steady) heldUntil(c *Config, have, best int) time.Time {
	if s.held.IsZero() || 2*best >= have {
		return s.held
	}
	hold := s.held.Sub(s.since)
	return s.since.Add(max(min(hold, c.Hold), hold/2))
}

// gained is the cause of a change for a gain.
func (s *steady) gained(c *Config, now time.Time) Cause {
	if now.Before(s.begun.Add(c.Startup)) {
		return Settled
	}
	return Better
}

// took notes a change of the choice.
func (s *steady) took(c *Config, now time.Time, cause Cause) {
	switch cause {
	case Failed:
		s.fails = 1 + max(0, s.fails-int(now.Sub(s.failedAt)/c.DampForget))
		s.failedAt, s.failing, s.held = now, true, time.Time{}
	case Better:
		if !s.failing {
			s.level = max(0, s.level-int(now.Sub(s.since)/(2*c.HoldMax)))
			s.held = now.Add(backoff(c.Hold, s.level, c.HoldMax))
			s.level = min(s.level+1, 30)
		} else { // back from a failure: what came before is not the choice's fault, and what is best changes while all heals
			s.held = now.Add(min(c.Hold, max(c.Startup, now.Sub(s.failedAt))))
		}
		s.failing = false
	}
	s.since, s.cause = now, cause
	s.switches++
	s.seen, s.seenAt, s.largeFrom, s.smallFrom = 0, time.Time{}, time.Time{}, time.Time{}
}

// why says in words why a choice that costs have stays although another costs best.
func (s *steady) why(c *Config, now time.Time, have, best int) string {
	large, small := c.gain(have, best)
	if !small {
		return fmt.Sprintf("gain of %s is below the margin of %s", share(have-best, have), margin(have, c.SmallMargin, c.SmallMin))
	}
	if held := s.heldUntil(c, have, best); now.Before(held) {
		return fmt.Sprintf("held for %v more after a switch", held.Sub(now).Round(time.Second))
	}
	gain := share(have-best, have)
	if !large {
		gain += ", below the margin of " + margin(have, c.Margin, c.MarginMin) + ","
	}
	return fmt.Sprintf("gain of %s must last %v more", gain, max(0, s.ready(c).Sub(now)).Round(100*time.Millisecond))
}

func margin(have int, share float64, least time.Duration) string {
	return fmt.Sprintf("%.1f ms", max(float64(have)*share/10, least.Seconds()*1000))
}

func share(part, whole int) string {
	return fmt.Sprintf("%.1f ms (%.0f %%)", float64(part)/10, 100*float64(part)/float64(max(whole, 1)))
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
