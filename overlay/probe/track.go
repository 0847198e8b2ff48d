package probe

import (
	"math/bits"
	"net/netip"
	"time"

	"vcpeer/overlay/label"
)

// never is later than any time there is.
const never = time.Duration(1<<63 - 1)

// ring is how many of the last probes are remembered.
const ring = 32

// track is what is known of one way. Probes are numbered; those not yet judged are still waited for.
//
// Invariants: judged <= next; count <= ring; bit i of answered, of arrived and of void is about the probe next-1-i, and
// those at and above count are zero; answered is a subset of arrived.
type track struct {
	way    way
	via    []label.Label // way.via[:way.n]; never written to
	addr   netip.Addr
	class  Class
	wanted bool
	unused time.Duration // since when it is not wanted

	next     uint32 // number of the next probe
	judged   uint32 // all before are answered or missed
	count    uint8
	sent     [ring]time.Duration // by number modulo ring
	answered uint32
	arrived  uint32 // by what the other says
	void     uint32 // sent while the link was down, which is not the loss of a link that is up
	highest  uint32 // that the other has said to have got; before judged-ring: of no use

	sendAt   time.Duration
	lastSent time.Duration // when the newest probe was sent that was answered
	heardAt  time.Duration // when anything came by this way
	rtt      rtts
	mtu      mtuSearch

	known   bool // an answer ever came
	up      bool
	missed  int           // in a row …
	missing time.Duration // … since this one was sent
	fell    time.Duration // the same of those that took the link down last
	replies int           // in a row while down
	since   time.Duration
	flaps   int
}

func newTrack(w way, now time.Duration, seq uint32) *track {
	t := &track{way: w, next: seq, judged: seq, highest: seq - 1, since: now, lastSent: -1, heardAt: -1, sendAt: never}
	t.via = append([]label.Label(nil), w.via[:w.n]...)
	if w.n == 0 {
		t.via = nil
	}
	t.mtu.due = never
	return t
}

// send numbers a probe that goes now.
func (t *track) send(now time.Duration) uint32 {
	seq := t.next
	t.sent[seq%ring] = now
	t.next++
	t.answered, t.arrived, t.void = t.answered<<1, t.arrived<<1, t.void<<1
	t.count = min(t.count+1, ring)
	return seq
}

// index is where the bits of a number are; false: it is not remembered, or was never sent.
func (t *track) index(seq uint32) (int, bool) {
	i := t.next - 1 - seq
	return int(i), i < uint32(t.count)
}

// interval is the time till the next probe.
func (t *track) interval(now time.Duration, c *Config) time.Duration {
	every := c.interval(t.class)
	switch quiet := now - t.since; {
	case t.up && t.missed > 0, !t.up && t.replies > 0:
		return min(every, c.Suspect)
	case t.up || quiet < 30*time.Second:
		return every
	case quiet < 10*time.Minute: // whoever comes back asks, and is then asked at once; see nudge
		return max(every, time.Second)
	default:
		return max(every, 5*time.Second)
	}
}

// judge counts probes as missed that had their time; true: the link went down. A probe has had its time also when the
// third after it is sent and an RTT has passed twice: where that is long, waiting for three times as long would be late.
func (t *track) judge(now time.Duration, c *Config) bool {
	for t.judged != t.next {
		i, ok := t.index(t.judged)
		if ok && t.answered&(1<<i) == 0 {
			age := now - t.sent[t.judged%ring]
			if age < t.patience(t.judged, c) {
				return false
			}
			if t.missed++; t.missed == 1 {
				t.missing = t.sent[t.judged%ring]
				t.sendAt = min(t.sendAt, now)
			}
			t.replies = 0
			t.rtt.step.lost()
		}
		t.judged++
		if t.up && t.missed >= c.Missed {
			t.up, t.since, t.fell = false, now, t.missing
			t.flaps++
			return true
		}
	}
	return false
}

func (t *track) patience(seq uint32, c *Config) time.Duration {
	all := t.rtt.timeout(c)
	if t.next-seq > 3 && t.rtt.count > 0 {
		all = min(all, max(2*t.rtt.smooth, c.Timeout))
	}
	return all + c.slack
}

// expiry is when judge has something to do.
func (t *track) expiry(c *Config) time.Duration {
	if t.judged == t.next {
		return never
	}
	return t.sent[t.judged%ring] + t.patience(t.judged, c)
}

// result is what an answer did.
type result struct {
	fresh    bool // it was waited for, or late
	up       bool // the link came up
	rtt      time.Duration
	from, to time.Duration // RTT before and after a step; zeros: there was none
}

// answer takes in that a probe was answered: at is when the answer came, after the other had held it for hold.
func (t *track) answer(now, at time.Duration, seq uint32, hold time.Duration, c *Config) (r result) {
	i, ok := t.index(seq)
	if !ok || t.answered&(1<<i) != 0 {
		return r
	}
	t.answered |= 1 << i
	t.arrived |= 1 << i
	sent := t.sent[seq%ring]
	t.lastSent = max(t.lastSent, sent)
	r.fresh, r.rtt = true, max(at-sent, 0)
	if hold < r.rtt {
		r.rtt -= hold
	}
	r.from, r.to = t.rtt.sample(now, r.rtt, c, c.interval(t.class))
	if int32(seq-t.judged) >= 0 {
		t.judged = seq + 1
	}
	wasMissed := t.missed > 0
	t.missed = 0
	switch {
	case t.up:
		if wasMissed {
			t.sendAt = min(t.sendAt, now+t.interval(now, c))
		}
	case !t.known || t.replies+1 >= c.Answers:
		t.forgive()
		r.up = true
		t.known, t.up, t.replies, t.since = true, true, 0, now
		t.mtu.due = min(t.mtu.due, now)
	default:
		t.replies++
		t.sendAt = min(t.sendAt, now+c.Suspect)
	}
	return r
}

// forgive has what was sent while the link was down, or before the other was there, say nothing of how it is now.
func (t *track) forgive() {
	for i := range uint32(t.count) {
		if !t.known || t.sent[(t.next-1-i)%ring] >= t.fell {
			t.void |= 1 << i
		}
	}
}

// confirm takes in what the other says that it got.
func (t *track) confirm(a ack) {
	i := t.next - 1 - a.high // so many were sent after
	if a.bits == 0 || i >= ring || i >= uint32(t.count) {
		return
	}
	t.arrived |= a.bits << i & ones(uint32(t.count))
	if int32(a.high-t.highest) > 0 {
		t.highest = a.high
	}
}

// nudge brings the next probe forward when a link that is not up shows life.
func (t *track) nudge(now time.Duration, c *Config) {
	if !t.up && t.wanted && (t.count == 0 || now-t.sent[(t.next-1)%ring] >= c.Suspect) {
		t.sendAt = min(t.sendAt, now)
	}
}

func ones(n uint32) uint32 { return uint32(uint64(1)<<n - 1) }

const (
	// unheard is how many probes in a row the other has not confirmed before it counts that it did not.
	unheard = 3
	// fewest is how many probes a share is of, at least: of the first few that a link carries one lost is not a third.
	fewest = 12
)

// loss is the share of the last probes lost on the way there, and of those that arrived, of answers lost on the way back.
// Nothing is known of the newest which the other has not spoken of since. If it has gone silent they are lost on the way
// back, for that is what is seen; if it still talks they are lost on the way there.
func (t *track) loss(h *heard, c *Config) (out, in float64) {
	judged := ones(uint32(t.count)) &^ ones(min(t.next-t.judged, ring)) &^ t.void
	newer := ones(min(t.next-1-t.highest, ring)) // than what the other spoke of
	known, unknown := judged&^newer, judged&newer&^t.arrived
	known |= judged & t.arrived
	lostOut, outOf := bits.OnesCount32(known&^t.arrived), bits.OnesCount32(known)
	lostIn, inOf := bits.OnesCount32(judged&t.arrived&^t.answered), bits.OnesCount32(judged&t.arrived)
	if n := bits.OnesCount32(unknown); n >= unheard {
		oldest := t.next - uint32(bits.Len32(unknown))
		if t.heardAt > t.sent[oldest%ring]+t.rtt.timeout(c) {
			lostOut, outOf = lostOut+n, outOf+n
		} else {
			lostIn, inOf = lostIn+n, inOf+n
		}
	}
	switch {
	case inOf > 0:
		in = float64(lostIn) / float64(max(inOf, fewest))
	case h != nil && outOf > 0:
		in = h.loss()
	}
	if outOf > 0 {
		out = float64(lostOut) / float64(max(outOf, fewest))
	}
	return out, in
}
