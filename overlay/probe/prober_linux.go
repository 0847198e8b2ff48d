package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Prober runs a Core over an interface. All methods are for concurrent use.
type Prober struct {
	// Interface is the control port of the bridge. It may come and go: the Prober opens it again.
	Interface string
	Config    Config
	// OnEvent is told of events, in order, by the goroutine that probes: it must return at once. nil: nobody is.
	OnEvent func(Event)
	// OnFrame is handed frames that are no probes, whole, with their Ethernet header, cut after 9,216 bytes. It owns the
	// memory and must return at once. nil: they are dropped.
	OnFrame func(frame []byte)

	in     chan func(*Core, time.Time) // to the goroutine that owns the Core
	done   chan struct{}               // closed when Run has ended
	socket atomic.Pointer[socket]      // nil: the interface is not there
	report atomic.Pointer[Report]
	stats  stats
}

// Bounds of a Prober.
const (
	inMax       = 16                     // calls under way; more wait
	reportEvery = 300 * time.Millisecond // as often as paths are planned
	reportSoon  = 20 * time.Millisecond  // the least between two, when links go up and down
	reopenEvery = 100 * time.Millisecond
	roundsMax   = 8 // of reading before what is due has its turn
)

// Stats counts since the start.
type Stats struct {
	Sent, Received uint64 // frames of any kind
	Unsent         uint64 // frames that the interface did not take
	Refused        uint64 // frames that were no message, for another, or from no target
	Opened         uint64 // times that the interface was opened
}

type stats struct{ sent, received, unsent, refused, opened atomic.Uint64 }

// NewProber returns a Prober of the interface, with the default configuration. Its fields may be set before Run.
func NewProber(iface string) *Prober {
	p := &Prober{Interface: iface, Config: Default(), in: make(chan func(*Core, time.Time), inMax), done: make(chan struct{})}
	p.report.Store(&Report{})
	return p
}

// ErrStopped says that Run has ended.
var ErrStopped = errors.New("probe: not running")

// errNoInterface says that a frame was not sent because the interface is not there.
var errNoInterface = errors.New("probe: interface is not there")

// Report returns what was known at most 300 ms ago, and no more than 20 ms before the last link went up or down: usually it
// has what OnEvent tells. It is shared: nobody writes to it.
func (p *Prober) Report() Report { return *p.report.Load() }

// Stats returns what was counted.
func (p *Prober) Stats() Stats {
	s := &p.stats
	return Stats{s.sent.Load(), s.received.Load(), s.unsent.Load(), s.refused.Load(), s.opened.Load()}
}

// Send puts a frame out on the interface as it is.
func (p *Prober) Send(frame []byte) error {
	s := p.socket.Load()
	if s == nil {
		p.stats.unsent.Add(1)
		return errNoInterface
	}
	if err := s.write(frame); err != nil {
		p.stats.unsent.Add(1)
		return err
	}
	p.stats.sent.Add(1)
	return nil
}

// Set is Core.Set. It keeps targets, and returns when they are in force. ErrStopped: Run has ended.
func (p *Prober) Set(ctx context.Context, self Self, targets []Target) error {
	return p.do(ctx, func(c *Core, now time.Time) { c.Set(now, self, targets) })
}

// Ping is Core.Ping. Its first event may come before it returns.
func (p *Prober) Ping(ctx context.Context, ping Ping) (id PingID, err error) {
	if e := p.do(ctx, func(c *Core, now time.Time) { id, err = c.Ping(now, ping) }); e != nil {
		return 0, e
	}
	return id, err
}

// do has the owner of the Core call f, and waits for it.
func (p *Prober) do(ctx context.Context, f func(*Core, time.Time)) error {
	called := make(chan struct{})
	g := func(c *Core, now time.Time) {
		f(c, now)
		close(called)
	}
	select {
	case p.in <- g:
	case <-p.done:
		return ErrStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if s := p.socket.Load(); s != nil {
		s.wake()
	}
	select {
	case <-called:
		return nil
	case <-p.done:
		return ErrStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Run probes until ctx is over. It is called once. An interface that is missing is waited for.
func (p *Prober) Run(ctx context.Context) error {
	defer close(p.done)
	if err := p.Config.Validate(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		if s := p.socket.Load(); s != nil {
			s.wake()
		}
	})
	defer stop()
	r := &run{Prober: p, core: New(p.Config, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), time.Now())}
	defer r.drop()
	for ctx.Err() == nil {
		if err := r.turn(ctx); err != nil { // of the interface: it went away, or is not there
			r.drop()
		}
	}
	return context.Cause(ctx)
}

// run is what the goroutine of Run owns.
type run struct {
	*Prober
	core      *Core
	gone      bool // the interface of the socket is
	reopen    time.Time
	published time.Time
	reportAt  time.Time
}

func (r *run) drop() {
	r.gone = false
	if s := r.socket.Swap(nil); s != nil {
		s.close()
	}
}

// turn takes in all that has come, then does what is due: so that after a pause of this process an answer that waits
// counts before its lateness does. Then it waits.
func (r *run) turn(ctx context.Context) error {
	s := r.socket.Load()
	if s == nil {
		s = r.openAgain()
	}
	for rounds := 0; s != nil && rounds < roundsMax; rounds++ {
		n, err := s.poll()
		if err != nil {
			return err
		}
		r.take(s, n)
		if n < inboxFrames {
			break
		}
	}
	now := time.Now()
	out, _ := r.core.Tick(now)
	r.perform(s, out)
	if !now.Before(r.reportAt) {
		r.publish(now)
	}
	if r.gone {
		return errNoInterface
	}
	next := r.core.Next(now)
	if r.reportAt.Before(next) {
		next = r.reportAt
	}
	if s == nil {
		return r.waitWithout(ctx, next)
	}
	if err := s.waitTill(next); err != nil {
		return err
	}
	if called := r.calls(); called || ctx.Err() != nil { // after waitTill: see there
		return nil
	}
	n, err := s.wait()
	r.take(s, n)
	return err
}

func (r *run) openAgain() *socket {
	now := time.Now()
	if now.Before(r.reopen) {
		return nil
	}
	r.reopen = now.Add(reopenEvery)
	s, err := open(r.Interface)
	if err != nil {
		return nil
	}
	r.stats.opened.Add(1)
	r.socket.Store(s)
	return s
}

// waitWithout is the wait of a turn while there is no interface.
func (r *run) waitWithout(ctx context.Context, next time.Time) error {
	if r.reopen.Before(next) {
		next = r.reopen
	}
	timer := time.NewTimer(time.Until(next))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case f := <-r.in:
		f(r.core, time.Now())
	}
	return nil
}

// calls makes the calls that wait; false: there was none.
func (r *run) calls() (any bool) {
	for {
		select {
		case f := <-r.in:
			f(r.core, time.Now())
			any = true
		default:
			return any
		}
	}
}

// take takes in the frames of the inbox.
func (r *run) take(s *socket, n int) {
	for i := range n {
		now := time.Now()
		frame := s.box.frame(i)
		r.stats.received.Add(1)
		switch {
		case len(frame) < etherBytes:
		case binary.BigEndian.Uint16(frame[12:]) == EtherType:
			r.perform(s, r.core.Receive(now, now.Add(-s.box.age(i, now)), frame[etherBytes:]))
		case r.OnFrame != nil:
			r.OnFrame(append([]byte(nil), frame...))
		}
	}
	r.stats.refused.Store(r.core.Refused())
}

func (r *run) perform(s *socket, out Out) {
	for _, f := range out.Frames {
		err := errNoInterface
		if s != nil {
			err = s.writeOwn(f)
			r.gone = r.gone || gone(err)
		}
		if err != nil {
			r.stats.unsent.Add(1)
		} else {
			r.stats.sent.Add(1)
		}
	}
	changed := false
	for _, e := range out.Events {
		changed = changed || e.Kind == Up || e.Kind == Down
	}
	if changed {
		if now := time.Now(); now.Sub(r.published) >= reportSoon {
			r.publish(now)
		} else {
			r.reportAt = r.published.Add(reportSoon)
		}
	}
	for _, e := range out.Events {
		if r.OnEvent != nil {
			r.OnEvent(e)
		}
	}
}

func (r *run) publish(now time.Time) {
	report := r.core.Report(now)
	r.report.Store(&report)
	r.published, r.reportAt = now, now.Add(reportEvery)
}
