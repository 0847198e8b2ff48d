package probe

import (
	"slices"
	"time"
)

// A step is an RTT that rose because the underlay's route changed, and not because a queue did. A queue grows and drains
// with the traffic in it, and loses packets when it is full; another route has another RTT from one moment to the next,
// with no more noise than the old one, and keeps it. So samples make a step when
//
//   - all of the last StepAfter lie clearly above the least of the window, at least stepSamples of them,
//   - three quarters of them lie within the noise of this link above their least (the rest may be tails),
//   - and next to no probe was lost.
//
// A queue that is kept full by a sender that nothing slows down looks the same. It gives itself away when it drains: an
// RTT that comes back to what it was says that the step was none, and the next has to last twice as long, and so on, up
// to where the window is as fast. Trust returns with time.
type stepper struct {
	recent   [stepKeep]uint32 // microseconds; a ring, of which the last above count
	at       int
	above    int           // samples in a row that were clearly above the least
	since    time.Duration // of the first of them
	noise    uint32        // usual distance of a sample from the least of the short window, microseconds
	missed   int           // probes lost while above
	old      uint32        // the least before the last step; 0: there was none lately
	stepAt   time.Duration
	distrust uint8 // steps that were none
	doubtAt  time.Duration
}

const (
	stepKeep     = 32
	stepSamples  = 10
	stepLost     = 1
	stepAboveMin = 2000 // microseconds; what a loaded datapath in user space adds over seconds is no route
	noiseMax     = 5000
	noiseLeast   = 1000
	distrustMax  = 3
	stepMemory   = 2 * time.Minute
	trustAfter   = 10 * time.Minute
)

// clearlyAbove is how far above the least a sample must be not to be of the same route.
func clearlyAbove(least uint32) uint32 { return least + max(stepAboveMin, least/8) }

// sample takes a sample when the least of the window is base and that of the short one short. It returns the RTT of the
// new route when the samples make a step, else 0.
func (s *stepper) sample(now time.Duration, rtt, base, short uint32, after time.Duration) uint32 {
	s.recent[s.at] = rtt
	s.at = (s.at + 1) % stepKeep
	s.doubt(now, rtt)
	if rtt <= clearlyAbove(base) {
		s.above, s.missed = 0, 0
		d := min(rtt-min(rtt, short), noiseMax)
		s.noise = uint32((int64(s.noise)*15 + int64(d)) / 16)
		return 0
	}
	if s.above == 0 {
		s.since = now
	}
	s.above++
	if s.above < stepSamples || now-s.since < after<<s.distrust || s.missed > stepLost {
		return 0
	}
	least, steady := s.steady()
	if !steady {
		return 0
	}
	s.old, s.stepAt = base, now
	s.above, s.missed = 0, 0
	return least
}

// lost takes in a probe that was missed. Losses end a wait for a step; if they end, it begins anew.
func (s *stepper) lost() {
	if s.missed++; s.missed > stepLost {
		s.above, s.missed = 0, 0
	}
}

// steady returns the least of the samples that were above, and whether the others stay close to it.
func (s *stepper) steady() (least uint32, ok bool) {
	var sorted [stepKeep]uint32
	n := min(s.above, stepKeep)
	for i := range n {
		sorted[i] = s.recent[(s.at+stepKeep-1-i)%stepKeep]
	}
	slices.Sort(sorted[:n])
	return sorted[0], sorted[n*3/4]-sorted[0] <= max(noiseLeast, 2*s.noise)
}

// doubt notices that the RTT is back at what it was before the last step.
func (s *stepper) doubt(now time.Duration, rtt uint32) {
	if s.old != 0 && now-s.stepAt > stepMemory {
		s.old = 0
	}
	if s.old != 0 && rtt <= clearlyAbove(s.old) {
		s.old, s.distrust, s.doubtAt = 0, min(s.distrust+1, distrustMax), now
	}
	if s.distrust > 0 && now-s.doubtAt > trustAfter {
		s.distrust, s.doubtAt = s.distrust-1, now
	}
}
