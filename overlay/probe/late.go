package probe

import "time"

// lateness judges how busy this machine is by how late it comes to its own work. Where that is late, the switch is too, and
// often the other end, and an answer that is missing says less about the link: what Lifeguard (Dadgar, Phillips, Currey
// 2018) does for members of a cluster. The zero value is a machine with nothing to do.
type lateness struct {
	worst time.Duration // halved each lateHalf
	at    time.Duration // when that was last worked out
}

const (
	onTime    = 10 * time.Millisecond // no later than this is not late
	lateHalf  = 2 * time.Second
	lateHops  = 4 // both switches, the other end, and this one again
	slackMost = time.Second
)

// slack takes in how late something is done and returns for how much longer an answer is to be waited for.
func (l *lateness) slack(now, late time.Duration) time.Duration {
	for ; l.at+lateHalf <= now && l.worst > 0; l.at += lateHalf {
		l.worst /= 2
	}
	if late > onTime && late > l.worst {
		l.worst, l.at = late, now
	}
	if l.worst <= onTime {
		l.worst = 0
	}
	return min(lateHops*l.worst, slackMost)
}
