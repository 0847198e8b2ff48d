package probe

import (
	"errors"
	"time"
)

// Config sets how often links are probed and when what is measured counts.
type Config struct {
	Fast, Near, Spare, Rest time.Duration // between probes of a class; each is shortened by up to a tenth at random
	Suspect                 time.Duration // between probes of a link of which one was missed, or that begins to answer again

	Missed  int           // so many unanswered in a row, and a link is down
	Answers int           // so many answers, and it is up again; for the first time one does
	Timeout time.Duration // no answer for so long, or for three times the RTT where that is longer: missed

	Window, ShortWindow time.Duration // of which the least RTT is taken, at least 6 samples

	// StepAfter is for how long all samples must be above the least of the window, and steady, to count as another route.
	StepAfter time.Duration

	Verify     time.Duration // between probes of full size on a link
	VerifyRest time.Duration // the same for links of classes Spare and Rest
	SearchUp   time.Duration // a link that carries less than it could is tried again with more

	Forget time.Duration // what is known of a target that is not wanted any more is kept for so long

	slack time.Duration // of a Core whose machine is busy: answers may take so much longer
}

// Default suits links all over the world. A cut link is known to be down within a second: 0.3 till the next probe and
// 0.15 till the third, and 0.25 without answer twice. What it costs: Cost.
func Default() Config {
	return Config{
		Fast: 300 * time.Millisecond, Near: time.Second, Spare: 5 * time.Second, Rest: time.Minute, Suspect: 150 * time.Millisecond,
		Missed: 3, Answers: 2, Timeout: 250 * time.Millisecond,
		Window: time.Minute, ShortWindow: 10 * time.Second, StepAfter: 7 * time.Second,
		Verify: 30 * time.Second, VerifyRest: 30 * time.Minute, SearchUp: 10 * time.Minute,
		Forget: 2 * time.Minute,
	}
}

// Validate names the first field that cannot work.
func (c Config) Validate() error {
	switch {
	case c.Suspect < 20*time.Millisecond || c.Fast < c.Suspect || c.Near < c.Fast || c.Spare < c.Near || c.Rest < c.Spare:
		return errors.New("probe: Suspect must be at least 20 ms, and Fast, Near, Spare and Rest each at least the one before")
	case c.Missed < 1 || c.Missed > 16 || c.Answers < 1 || c.Answers > 16:
		return errors.New("probe: Missed and Answers must lie between 1 and 16")
	case c.Timeout < time.Millisecond || c.Timeout > time.Minute:
		return errors.New("probe: Timeout must lie between a millisecond and a minute")
	case c.ShortWindow < time.Second || c.Window < c.ShortWindow || c.Window > time.Hour:
		return errors.New("probe: ShortWindow must be at least a second, Window no less than that and at most an hour")
	case c.StepAfter < time.Second:
		return errors.New("probe: StepAfter must be at least a second")
	case c.Verify < time.Second || c.VerifyRest < c.Verify || c.SearchUp < c.Verify:
		return errors.New("probe: Verify must be at least a second, VerifyRest and SearchUp no less than that")
	case c.Forget < 0:
		return errors.New("probe: Forget must not be negative")
	}
	return nil
}

func (c *Config) interval(class Class) time.Duration {
	return [classes]time.Duration{c.Fast, c.Near, c.Spare, c.Rest}[class]
}

func (c *Config) verify(class Class) time.Duration {
	if class >= Spare {
		return c.VerifyRest
	}
	return c.Verify
}
