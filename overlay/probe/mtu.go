package probe

import "time"

// sizes are MTUs of IP packets in a tunnel that links usually have, for the first look: jumbo frames less GRE and key
// over IPv4 and IPv6; Ethernet less the same, PPPoE, other tunnels in between; IPv6's least.
var sizes = [...]int{8958, 8938, 4058, 1958, 1458, 1438, 1430, 1400, 1372, 1300, 1258, 1218, 1138, 978, 538}

const (
	refine  = 8 // so close to the true MTU a search ends, bytes
	copies  = 3 // of a size, before it counts as too large
	copyGap = 100 * time.Millisecond
	noneGap = 30 * time.Second // between searches of a link where nothing large passes
)

// mtuSearch finds the largest IP packet that passes a link, which in a tunnel vanishes without a word if it is too large
// (RFC 8899 does the same for datagrams). A size is too large when three copies were lost while small probes passed.
// What was found is verified now and then, and given up after two such rounds, since losses happen.
//
// Invariant while searching: good < size < bad, or size is the largest and was not tried.
type mtuSearch struct {
	largest   int // that the link could carry; 0: nothing is searched
	mtu       int // found; 0: not yet, or nothing passes
	good, bad int // the largest that passed and the least that did not
	size      int // that is being tried; 0: none
	verify    bool
	sent      int // copies of it
	failed    int // rounds of verifying
	seqs      [copies]uint32
	first     time.Duration // when the first copy went
	due       time.Duration // when to act
	upAt      time.Duration // when to try more than mtu
}

// want sets the largest; what was found stays if it can.
func (s *mtuSearch) want(now time.Duration, largest int) {
	if largest > 0 {
		largest = min(max(largest, messageBytes), maxBytes)
	}
	if largest == s.largest {
		return
	}
	*s = mtuSearch{largest: largest, mtu: min(s.mtu, largest), due: now}
	if s.mtu == 0 || s.mtu == largest {
		s.mtu = 0
	}
}

// next returns the size of the probe to send now; 0: none. alive: small probes are answered. answered is when the last
// small one was sent that was.
func (s *mtuSearch) next(now time.Duration, alive bool, answered, timeout time.Duration, c *Config) int {
	if s.largest == 0 || now < s.due {
		return 0
	}
	if s.sent == copies && s.size != 0 {
		switch {
		case !alive || answered < s.first: // the link may be at fault
			s.sent = 0
		case s.verify && s.failed == 0:
			s.failed, s.sent = 1, 0
		default:
			s.refuted(now, c)
		}
	}
	if s.size == 0 && now >= s.due {
		s.begin(now)
	}
	if s.size == 0 {
		return 0
	}
	if !alive && s.sent == 0 {
		s.due = now + time.Second
		return 0
	}
	if s.sent == 0 {
		s.first = now
	}
	if s.due = now + copyGap; s.sent == copies-1 {
		s.due = now + timeout
	}
	return s.size
}

// went notes the number of the probe that next asked for.
func (s *mtuSearch) went(seq uint32) {
	s.seqs[s.sent] = seq
	s.sent++
}

func (s *mtuSearch) begin(now time.Duration) {
	s.sent, s.failed = 0, 0
	s.verify = s.mtu != 0 && (s.mtu == s.largest || now < s.upAt)
	if s.verify {
		s.size = s.mtu
		return
	}
	s.good, s.bad, s.size = s.mtu, s.largest+1, s.largest
}

// answer takes the number of a sized probe that was answered; true: the MTU changed.
func (s *mtuSearch) answer(now time.Duration, seq uint32, every time.Duration, c *Config) bool {
	if s.size == 0 || !s.sentAs(seq) {
		return false
	}
	before := s.mtu
	if s.verify {
		s.end(now, every, c)
		return false
	}
	s.good, s.mtu = s.size, s.size
	s.choose(now, every, c)
	return s.mtu != before
}

func (s *mtuSearch) sentAs(seq uint32) bool {
	for _, q := range s.seqs[:s.sent] {
		if q == seq {
			return true
		}
	}
	return false
}

// refuted takes in that size is too large.
func (s *mtuSearch) refuted(now time.Duration, c *Config) {
	if s.verify {
		s.good, s.verify = 0, false
	}
	s.bad = s.size
	s.choose(now, c.Verify, c)
}

// choose takes the next size to try, or ends the search.
func (s *mtuSearch) choose(now time.Duration, every time.Duration, c *Config) {
	s.size, s.sent, s.due = 0, 0, now
	for _, t := range sizes {
		if t < s.bad && t > s.good {
			s.size = t
			break
		}
	}
	switch {
	case s.size != 0:
	case s.good == 0:
		s.mtu, s.due = 0, now+noneGap
	case s.bad-s.good > refine:
		s.size = (s.good + s.bad) / 2
	default:
		s.end(now, every, c)
	}
}

func (s *mtuSearch) end(now, every time.Duration, c *Config) {
	if !s.verify {
		s.upAt = now + c.SearchUp
	}
	s.size, s.due = 0, now+every
}
