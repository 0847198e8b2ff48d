package cli

import (
	"fmt"
	"time"
)

// progress is one line on a terminal that is written over; without a terminal it says nothing.
type progress struct {
	e     *env
	last  time.Time
	shown bool
}

func (e *env) progress() *progress { return &progress{e: e} }

// progressEvery keeps a line that changes often from costing more than the work it tells of.
const progressEvery = 100 * time.Millisecond

func (p *progress) show(format string, args ...any) {
	now := p.e.Now()
	if !p.e.ErrTTY || p.e.json || (p.shown && now.Sub(p.last) < progressEvery) {
		return
	}
	p.last, p.shown = now, true
	fmt.Fprintf(p.e.Err, "\r\x1b[K%s", clean(fmt.Sprintf(format, args...)))
}

// clear takes the line away before something else is printed.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.e.Err, "\r\x1b[K")
		p.shown = false
	}
}
