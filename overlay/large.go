package overlay

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"vcpeer/overlay/flow"
	"vcpeer/overlay/toobig"
)

// tooLarge answers packets that the flows handed over because they are larger than their path takes.
type tooLarge struct {
	mtu   atomic.Pointer[map[flow.Slot]int] // of the path to each host whose path takes less than somebody here may send
	limit *rate.Limiter
	sent  atomic.Uint64
}

// Answers a second, as routers limit them (RFC 1812, 4.3.2.8): a sender needs one for each destination in ten minutes.
const (
	answerRate  = 200
	answerBurst = 50
)

func newTooLarge() *tooLarge {
	t := &tooLarge{limit: rate.NewLimiter(answerRate, answerBurst)}
	t.set(nil)
	return t
}

// set says what the paths take from now on.
func (t *tooLarge) set(mtu map[flow.Slot]int) { t.mtu.Store(&mtu) }

// answer returns the frame to put in; false: none is due.
func (t *tooLarge) answer(frame []byte, now time.Time) ([]byte, bool) {
	if len(frame) < 14 {
		return nil, false
	}
	mtu := (*t.mtu.Load())[flow.Slot(binary.BigEndian.Uint16(frame[4:]))]
	if mtu == 0 || len(frame)-14 <= mtu || !t.limit.AllowN(now, 1) {
		return nil, false
	}
	out, ok := toobig.Answer(frame, mtu)
	if ok {
		t.sent.Add(1)
	}
	return out, ok
}

// takes lists what the path to each host takes, where it is less than somebody here may send.
func takes(w flow.Want) map[flow.Slot]int {
	out := map[flow.Slot]int{}
	paths, near := pathMTUs(w), map[string]int{}
	for _, n := range w.Nodes {
		near[n.Dst.String()] = n.MTU
	}
	for _, h := range w.Hosts {
		mtu := paths[h.Far]
		if h.Near.IsValid() {
			mtu = near[h.Near.String()]
		}
		if mtu > 0 && mtu < w.CheckBelow {
			out[h.Slot] = mtu
		}
	}
	return out
}
