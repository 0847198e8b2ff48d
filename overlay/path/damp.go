package path

import (
	"time"

	"vcpeer/overlay/label"
)

// dampers remembers links that were down. One that is up again counts as a last resort for a time that doubles with every
// failure, so that a link that flaps does not take paths with it each time.
type dampers struct {
	config *Config
	of     map[pair]*damper
	next   time.Time // when the first of them is due; zero: none
	resort int       // how many are a last resort
}

// pair is a link by its ends, the lower first.
type pair struct{ a, b label.Label }

type damper struct {
	level  int  // failures that are not forgotten, at least 1
	down   bool // till recovered
	active bool // up again, a last resort
	due    time.Time
}

func newDampers(c *Config) dampers { return dampers{config: c, of: map[pair]*damper{}} }

func (d *dampers) failed(a, b label.Label, now time.Time) {
	p := pair{min(a, b), max(a, b)}
	e := d.of[p]
	if e == nil {
		e = &damper{}
		d.of[p] = e
	}
	d.use(e, false)
	e.level, e.down = min(e.level+1, 30), true
	d.schedule(e, now.Add(d.config.DampForget))
}

func (d *dampers) recovered(a, b label.Label, now time.Time) {
	if len(d.of) == 0 {
		return
	}
	if e := d.of[pair{min(a, b), max(a, b)}]; e != nil && e.down {
		e.down = false
		d.use(e, true)
		d.schedule(e, now.Add(d.config.damped(e.level)))
	}
}

// damped is how long a link is a last resort after it failed level times.
func (c *Config) damped(level int) time.Duration { return backoff(c.Damp, level-1, c.DampMax) }

func (d *dampers) schedule(e *damper, due time.Time) {
	e.due = due
	if d.next.IsZero() || due.Before(d.next) {
		d.next = due
	}
}

func (d *dampers) active(a, b label.Label) bool {
	if len(d.of) == 0 {
		return false
	}
	e := d.of[pair{min(a, b), max(a, b)}]
	return e != nil && e.active
}

// expire lets go of what is due. It calls changed for links that are no last resort any more, and drops those of which
// changed says that their gateways are gone. The order of calls has no meaning.
func (d *dampers) expire(now time.Time, changed func(a, b label.Label) bool) {
	if d.next.IsZero() || now.Before(d.next) {
		return
	}
	d.next = time.Time{}
	for p, e := range d.of {
		if now.Before(e.due) {
			d.schedule(e, e.due)
			continue
		}
		if e.active {
			d.use(e, false)
		} else if !e.down {
			e.level--
		}
		if !changed(p.a, p.b) || e.level == 0 {
			delete(d.of, p)
			continue
		}
		d.schedule(e, now.Add(d.config.DampForget))
	}
}

// use makes a link a last resort or not.
func (d *dampers) use(e *damper, lastResort bool) {
	switch {
	case lastResort && !e.active:
		d.resort++
	case !lastResort && e.active:
		d.resort--
	}
	e.active = lastResort
}

// wake is when to look again for links that stop being a last resort; zero: none is one.
func (d *dampers) wake() time.Time {
	if d.resort == 0 {
		return time.Time{}
	}
	return d.next
}

// soonest returns the earlier of two times of which zero means never.
func soonest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
