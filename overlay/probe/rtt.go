package probe

import "time"

// rtts is what the samples of one way say.
type rtts struct {
	win    window
	step   stepper
	smooth time.Duration // RFC 6298: what a timeout is made of
	vary   time.Duration
	count  uint64
}

// slowSamples is how many samples a window has at least: one alone may be a tail.
const slowSamples = 6

// sample takes a sample. It returns what the RTT was and is where the sample completes a step, else zeros.
func (r *rtts) sample(now, rtt time.Duration, c *Config, every time.Duration) (from, to time.Duration) {
	rtt = min(max(rtt, time.Microsecond), time.Minute)
	if r.count++; r.count == 1 {
		r.smooth, r.vary = rtt, rtt/2
	} else {
		r.vary += ((rtt - r.smooth).Abs() - r.vary) / 4
		r.smooth += (rtt - r.smooth) / 8
	}
	us := uint32(rtt / time.Microsecond)
	span := max(c.Window, slowSamples*every)
	r.win.add(now, span, us)
	base := r.win.least(now, span)
	if stepped := r.step.sample(now, us, base, r.win.least(now, c.ShortWindow), c.StepAfter); stepped != 0 {
		r.win.reset()
		r.win.add(now, span, stepped)
		return micros(base), micros(stepped)
	}
	return 0, 0
}

// least is the RTT without queues and noise; 0: unknown.
func (r *rtts) least(now time.Duration, c *Config, every time.Duration) time.Duration {
	return micros(r.win.least(now, max(c.Window, slowSamples*every)))
}

// recent is the same of the short window.
func (r *rtts) recent(now time.Duration, c *Config, every time.Duration) time.Duration {
	return micros(r.win.least(now, max(c.ShortWindow, slowSamples*every)))
}

// sigma is the smoothed deviation, made a standard deviation as if it were normal.
func (r *rtts) sigma() time.Duration { return r.vary * 5 / 4 }

// timeout is how long an answer may take.
func (r *rtts) timeout(c *Config) time.Duration {
	if r.count == 0 {
		return max(time.Second, c.Timeout)
	}
	return min(max(3*r.smooth, c.Timeout), 10*time.Second)
}

// reset forgets the RTT: the link leads elsewhere.
func (r *rtts) reset() { *r = rtts{win: window{r.win.kept[:0]}} }

func micros(us uint32) time.Duration { return time.Duration(us) * time.Microsecond }
