package wan

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"vcpeer/deploy/lab/shape"
)

// Switch joins the sites. Run owns all of it; the other methods hand it a question and wait for the answer.
type Switch struct {
	router *router
	lines  [][]*line // from port, to port
	under  flights
	start  time.Time

	asks chan func()
	wake waker
	done chan struct{} // closed when Run has ended
	bufs [][]byte      // of frames that have left, for those that come
}

// Open opens the ports' interfaces, which are those of the calling thread's network namespace, and returns a Switch
// that passes everything at once. Equal seeds give equal losses and jitter. Close frees what it holds.
func Open(ports []Port, seed uint64) (*Switch, error) {
	var own []*Port
	for _, p := range ports {
		own = append(own, &p)
	}
	r, err := newRouter(own)
	if err != nil {
		return nil, err
	}
	s := &Switch{router: r, start: time.Now(), asks: make(chan func(), 16), done: make(chan struct{})} // 16 askers do not wait for each other
	if err := s.wake.open(); err != nil {
		return nil, fmt.Errorf("wan: %w", err)
	}
	for i, p := range own {
		if p.fd, err = openSocket(p.Interface); err != nil {
			own = own[:i]
			s.router.ports = own
			s.close()
			return nil, fmt.Errorf("wan: %s: %w", p.Interface, err)
		}
		row := make([]*line, len(own))
		for j := range row {
			row[j] = &line{rng: rand.New(rand.NewPCG(seed, uint64(i)<<32|uint64(j)))}
		}
		s.lines = append(s.lines, row)
	}
	return s, nil
}

// Run forwards until ctx ends, on a thread of its own, and closes the ports.
func (s *Switch) Run(ctx context.Context) {
	runtime.LockOSThread() // not unlocked: the thread has a priority and ends with this goroutine
	defer close(s.done)
	defer s.close()
	defer context.AfterFunc(ctx, s.wake.nudge)()
	preferThread()
	polled := []unix.PollFd{{Fd: int32(s.wake.fd), Events: unix.POLLIN}}
	for _, p := range s.router.ports {
		polled = append(polled, unix.PollFd{Fd: int32(p.fd), Events: unix.POLLIN})
	}
	buf := make([]byte, maxFrame)
	for ctx.Err() == nil {
		wait := s.sendDue()
		n, err := unix.Ppoll(polled, wait, nil)
		if err != nil || n <= 0 {
			continue // EINTR, or a frame is due
		}
		for i, p := range polled[1:] {
			if p.Revents != 0 {
				s.receive(i, buf)
			}
		}
		if polled[0].Revents != 0 {
			s.answerAsks()
		}
	}
}

// now counts from the start on the monotonic clock.
func (s *Switch) now() time.Duration { return time.Since(s.start) }

// sendDue sends what is due and returns how long to sleep; nil: until something comes.
func (s *Switch) sendDue() *unix.Timespec {
	for {
		f, ok := s.under.pop(s.now())
		if !ok {
			break
		}
		send(s.router.ports[f.to].fd, f.frame)
		s.release(f.frame)
	}
	due, ok := s.under.next()
	if !ok {
		return nil
	}
	ts := unix.NsecToTimespec(int64(max(0, due-s.now())))
	return &ts
}

// atOnce bounds what is read from one port before the others have their turn.
const atOnce = 32

func (s *Switch) receive(in int, buf []byte) {
	for range atOnce {
		n, err := receive(s.router.ports[in].fd, buf)
		if err != nil {
			s.problem(in, err)
			return
		}
		if n == 0 {
			return
		}
		m := s.router.handle(in, buf[:n])
		s.forward(in, m)
	}
}

func (s *Switch) forward(in int, m move) {
	switch {
	case m.to < 0:
		return
	case m.direct:
		send(s.router.ports[m.to].fd, m.frame)
		return
	}
	l := s.lines[in][m.to]
	now := s.now()
	due, v := l.admit(m.size, now)
	switch {
	case v == tooBig:
		if a := s.router.answer(in, m.frame[etherLen:], tooLarge, l.shape.MTUBytes); a.to >= 0 {
			send(s.router.ports[a.to].fd, a.frame)
		}
	case v == pass && due <= now:
		send(s.router.ports[m.to].fd, m.frame)
	case v == pass:
		s.under.push(due, m.to, s.keep(m.frame))
	}
}

// problem tells once of a port that cannot be read; its site has gone.
func (s *Switch) problem(in int, err error) {
	p := s.router.ports[in]
	if !p.unreadable {
		p.unreadable = true
		slog.Warn("the network between the sites cannot read a port", "site", p.Site, "error", err)
	}
}

// frameBytes is the size of kept buffers; larger frames, which are rare, have their own.
const frameBytes = 2048

func (s *Switch) keep(f []byte) []byte {
	if len(f) > frameBytes {
		return append([]byte(nil), f...)
	}
	if n := len(s.bufs); n > 0 {
		b := s.bufs[n-1]
		s.bufs = s.bufs[:n-1]
		return append(b[:0], f...)
	}
	return append(make([]byte, 0, frameBytes), f...)
}

func (s *Switch) release(f []byte) {
	if cap(f) == frameBytes && len(s.bufs) < 4096 { // 8 MB
		s.bufs = append(s.bufs, f)
	}
}

// Set changes all directions of a pair by words as delay=20ms; none changes when a word is wrong.
func (s *Switch) Set(p shape.Pair, words ...string) error {
	return s.change(p, func(old shape.Shape) (shape.Shape, error) { return old.With(words...) })
}

// SetAll gives every direction its shape, by the order of the ports: from, then to.
func (s *Switch) SetAll(shapes [][]shape.Shape) error {
	return s.ask(func() {
		for i, row := range s.lines {
			for j, l := range row {
				l.reshape(shapes[i][j])
			}
		}
	})
}

// Cut lets nothing pass in the directions of a pair; with no it ends a cut.
func (s *Switch) Cut(p shape.Pair, cut bool) error {
	return s.change(p, func(old shape.Shape) (shape.Shape, error) {
		old.Cut = cut
		return old, nil
	})
}

func (s *Switch) change(p shape.Pair, change func(shape.Shape) (shape.Shape, error)) error {
	var problem error
	if err := s.ask(func() { problem = s.apply(p, change) }); err != nil {
		return err
	}
	return problem
}

func (s *Switch) apply(p shape.Pair, change func(shape.Shape) (shape.Shape, error)) error {
	var sites []string
	for _, port := range s.router.ports {
		sites = append(sites, port.Site)
	}
	if err := p.Check(sites); err != nil {
		return err
	}
	after := map[*line]shape.Shape{}
	for i, row := range s.lines {
		for j, l := range row {
			if !p.Has(sites[i], sites[j]) {
				continue
			}
			sh, err := change(l.shape)
			if err != nil {
				return err
			}
			after[l] = sh
		}
	}
	for l, sh := range after {
		l.reshape(sh)
	}
	return nil
}

// Lines returns every direction between two sites as it is now, in the order of the ports.
func (s *Switch) Lines() ([]Line, error) {
	var all []Line
	err := s.ask(func() {
		for i, row := range s.lines {
			for j, l := range row {
				if i != j {
					all = append(all, Line{s.router.ports[i].Site, s.router.ports[j].Site, l.shape, l.count})
				}
			}
		}
	})
	return all, err
}

// ask has Run do something between two packets, and waits for it.
func (s *Switch) ask(do func()) error {
	answered := make(chan struct{})
	ask := func() { do(); close(answered) }
	select {
	case s.asks <- ask:
	case <-s.done:
		return errEnded
	}
	s.wake.nudge()
	select {
	case <-answered:
		return nil
	case <-s.done:
		return errEnded
	}
}

func (s *Switch) answerAsks() {
	s.wake.drain()
	for {
		select {
		case do := <-s.asks:
			do()
		default:
			return
		}
	}
}
