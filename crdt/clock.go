package crdt

import "time"

// MaxAhead is how far ahead of the local clock a remote stamp may be and still be followed, and still win a tie.
const MaxAhead = 5 * time.Second

// Stamp is a hybrid logical time: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16. Stamps only
// break true ties; causality decides first. After Kulkarni et al., Logical Physical Clocks (2014).
type Stamp uint64

const counterBits = 16

// StampOf is the first stamp of the millisecond of t; zero for a time before 1970.
func StampOf(t time.Time) Stamp { return Stamp(max(0, t.UnixMilli())) << counterBits }

// Time is the wall-clock part.
func (s Stamp) Time() time.Time { return time.UnixMilli(int64(s >> counterBits)) }

// ahead reports whether s lies more than MaxAhead after now: such a stamp is kept, but does not win before its time.
func (s Stamp) ahead(now time.Time) bool { return s > StampOf(now.Add(MaxAhead)) }

// Clock gives stamps that only grow. The zero value is ready. Not for concurrent use.
type Clock struct {
	last Stamp // the highest stamp given or followed
}

// Next returns a stamp above all before it, as near to now as that allows.
func (c *Clock) Next(now time.Time) Stamp {
	c.last = max(c.last+1, StampOf(now))
	return c.last
}

// Observe follows a remote stamp, so that what is written later is stamped later. A stamp more than MaxAhead ahead of
// now is not followed: one wrong clock must not drag the cluster into the future. It returns whether s was followed.
func (c *Clock) Observe(s Stamp, now time.Time) bool {
	if s.ahead(now) {
		return false
	}
	c.last = max(c.last, s)
	return true
}

// Restore follows a stamp of our own from before a restart, however far ahead: own stamps never go back.
func (c *Clock) Restore(s Stamp) { c.last = max(c.last, s) }
