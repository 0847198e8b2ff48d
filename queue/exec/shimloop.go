package exec

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	watchEvery  = 500 * time.Millisecond // longest time between looks at the clock: Go's timers stand still in suspend
	pollEvery   = time.Second            // memory, number of processes, size of output
	sweepEvery  = 10 * time.Millisecond
	noteAfter   = 100 * time.Millisecond
	replyWithin = 5 * time.Second // a daemon that does not read is let go
)

// shim is the state of the process. All but in, orders and signals belongs to run.
type shim struct {
	codec    codec
	me       identity
	group    group
	groupDir *os.File // nil: no group
	stained  bool     // the group was killed as a whole and must be made anew
	linger   time.Duration

	in      chan any // connUp, *message, connDown, kept…
	orders  chan *launch
	signals chan os.Signal

	conn    net.Conn // nil: no daemon
	cur     *running // nil: idle
	leaving bool     // end when idle
}

// running is the attempt under way.
type running struct {
	key    string
	order  *order
	first  startedRecord // zero until started
	until  BootTime
	limit  BootTime // 0: none
	harden BootTime // SIGKILL from then on; 0: not yet
	polled BootTime
	note   BootTime // noteStart is due; 0: done, or not yet started
	ooms   int      // of the group, before
	capped bool     // the group enforces the memory limit
	cause  Cause
	reason string
	lost   bool
}

// run is the shim's loop; it returns when the shim has nothing more to do.
func (s *shim) run() {
	idle := NowBoot()
	timer := time.NewTimer(s.linger)
	defer timer.Stop()
	for !s.leaving || s.cur != nil {
		select {
		case ev := <-s.in:
			s.handle(ev)
		case sig := <-s.signals:
			if sig == unix.SIGTERM {
				s.leaving = true
				s.stop(CauseNode, "the node was going down", true)
			}
		case <-timer.C:
		}
		if s.cur != nil || s.conn != nil {
			idle = NowBoot()
		} else if NowBoot().Sub(idle) >= s.linger {
			return
		}
		timer.Reset(s.watch())
	}
}

func (s *shim) handle(ev any) {
	switch ev := ev.(type) {
	case connUp:
		s.conn = ev.conn
		hello := &message{Kind: kindHello, Hello: &s.me}
		if s.cur != nil {
			hello.Key, hello.Until, hello.Started = s.cur.key, s.cur.until, &s.cur.first
		}
		s.tell(hello)
	case connDown:
		if s.conn != nil {
			s.conn.Close()
			s.conn = nil
		}
	case *message:
		s.obey(ev)
	case keptStart:
		s.started(ev)
	case keptFirst:
		s.cur.harden = NowBoot() // the job is over: what it left behind goes
	case keptEnd:
		s.ended(ev)
	}
}

func (s *shim) tell(m *message) {
	if s.conn == nil {
		return
	}
	s.conn.SetWriteDeadline(time.Now().Add(replyWithin))
	if err := s.codec.writeMessage(s.conn, m); err != nil {
		s.conn.Close() // its reader sends connDown; the daemon, if any, comes again and hears hello
	}
}

func (s *shim) obey(m *message) {
	switch {
	case m.Kind == kindRun && s.cur == nil:
		s.begin(m)
	case m.Kind == kindExit:
		s.leaving = true
	case s.cur == nil || m.Key != s.cur.key:
		// of an attempt that has ended meanwhile
	case m.Kind == kindRenew && s.cur.cause == "":
		s.cur.until = max(s.cur.until, m.Until)
	case m.Kind == kindKill:
		s.stop(CauseKill, m.Reason, false)
	}
}

func (s *shim) begin(m *message) {
	now := NowBoot()
	s.cur = &running{key: m.Key, order: m.Run, until: m.Until, polled: now}
	if m.Until <= now {
		s.stop(CauseLease, "the lease was over before the start", false)
		s.finish(&endRecord{Exit: 128 + int(unix.SIGKILL), Started: time.Now()})
		return
	}
	if d := m.Run.TimeLimit; d > 0 {
		s.cur.limit = now.Add(d)
	}
	if s.stained {
		if err := s.renewGroup(); err != nil {
			s.leaving = true // the next shim has a group of its own
			s.finish(&endRecord{Exit: -1, Lost: true, Started: time.Now(), Reason: fmt.Sprintf("cannot start: control group: %v", err)})
			return
		}
	}
	s.cur.capped = s.group.limit(m.Run.MemBytes) && m.Run.MemBytes > 0
	s.cur.ooms = s.group.oomKills()
	s.orders <- &launch{m.Run}
}

func (s *shim) started(ev keptStart) {
	if ev.err != nil {
		s.finish(notStarted(ev.err))
		return
	}
	s.cur.first = ev.first
	s.cur.note = NowBoot().Add(noteAfter)
	s.tell(&message{Kind: kindStarted, Key: s.cur.key, Started: &ev.first})
	if s.cur.cause != "" { // stopped while it was being started
		s.signalAll(unix.SIGTERM)
	}
}

// noteStart writes down the first process, by whose session remnants are found should the shim be killed. Attempts that
// are over before do without: a file costs more than the rest of a short attempt's records.
func (s *shim) noteStart() {
	s.cur.note = 0
	if err := s.codec.writeRecord(filepath.Join(s.cur.order.Dir, fileStarted), s.cur.first); err != nil {
		fmt.Fprintf(os.Stderr, "vcpeer shim: %s: %v\n", s.cur.key, err) // the mark still finds them
	}
}

// notStarted tells apart whose fault it is that the command does not run: a shell's 126 and 127 for the job's, lost for the node's.
func notStarted(err error) *endRecord {
	now := time.Now()
	end := &endRecord{Exit: 126, Reason: fmt.Sprintf("cannot start: %v", err), Started: now}
	switch {
	case errors.Is(err, unix.ENOENT):
		end.Exit = 127
	case errors.Is(err, unix.ENOEXEC):
		end.Reason += " (is the #! line missing?)"
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE),
		errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EIO), errors.Is(err, unix.EPERM):
		end.Exit, end.Lost = -1, true
	}
	return end
}

func (s *shim) ended(ev keptEnd) {
	end := &endRecord{Started: s.cur.first.At, CPU: ev.cpu, MaxRSS: ev.maxRSS}
	if end.Exit = ev.status.ExitStatus(); ev.status.Signaled() {
		end.Exit = 128 + int(ev.status.Signal())
		end.Reason = "killed by " + signalName(ev.status.Signal())
	}
	if s.cur.capped && s.cur.cause == "" && s.group.oomKills() > s.cur.ooms {
		s.cur.cause, s.cur.reason = CauseMemory, memoryReason(s.cur.order.MemBytes)
	}
	s.finish(end)
}

// signalName is SIGKILL and so on; signals without a name (real-time ones) are numbered.
func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(sig))
}

// finish writes the end down, then tells it, then is idle.
func (s *shim) finish(end *endRecord) {
	r := s.cur
	s.cur = nil
	end.Ended = time.Now()
	if r.cause != "" {
		end.Cause, end.Reason = r.cause, r.reason
	}
	if r.lost {
		end.Lost, end.Exit = true, -1
	}
	path := filepath.Join(r.order.Dir, fileEnd)
	if err := s.codec.writeRecord(path, end); err != nil {
		// The disk is full, or the directory is gone. The daemon still hears it; without one it will call it lost.
		fmt.Fprintf(os.Stderr, "vcpeer shim: %s: end is not recorded: %v\n", r.key, err)
	}
	s.tell(&message{Kind: kindEnded, Key: r.key, End: end})
}

// stop ends the attempt for a cause; the first cause is kept. Lease and memory give no time to tidy up.
func (s *shim) stop(c Cause, reason string, lost bool) {
	r := s.cur
	if r == nil || r.cause != "" {
		return
	}
	r.cause, r.reason, r.lost = c, reason, lost
	now := NowBoot()
	if c == CauseLease || c == CauseMemory || c == CauseProcs {
		r.harden = now
		return
	}
	r.harden = now.Add(r.order.Grace)
	if r.first.PID != 0 {
		s.signalAll(unix.SIGTERM)
		s.signalAll(unix.SIGCONT) // a stopped process hears nothing else
	}
}

func (s *shim) signalAll(sig syscall.Signal) {
	for _, p := range descendants(s.me.PID) {
		p.signal(sig) // gone meanwhile is what we want
	}
}

// watch enforces what is due and returns when to look again.
func (s *shim) watch() time.Duration {
	r := s.cur
	if r == nil {
		return s.linger
	}
	now := NowBoot()
	if now >= r.until {
		if r.cause == "" {
			s.stop(CauseLease, "its lease was not renewed in time", false)
		}
		r.harden = now // also when it was given time to end
	}
	if r.limit != 0 && now >= r.limit {
		s.stop(CauseTime, fmt.Sprintf("time limit of %v reached", r.order.TimeLimit), false)
	}
	if now.Sub(r.polled) >= pollEvery && r.harden == 0 {
		r.polled = now
		s.poll()
	}
	if r.harden != 0 && now >= r.harden && r.first.PID != 0 {
		s.sweep()
		return sweepEvery
	}
	if r.note != 0 && now >= r.note {
		s.noteStart()
	}
	next := watchEvery
	for _, t := range []BootTime{r.until, r.limit, r.harden, r.note} {
		if t > now {
			next = min(next, t.Sub(now))
		}
	}
	return next
}

// sweep kills all that is left, the group at once where there is one. It is repeated until the keeper finds nothing more.
func (s *shim) sweep() {
	if s.group != "" {
		s.stained = true
		if s.group.kill() == nil {
			return
		}
	}
	s.signalAll(unix.SIGKILL)
}

func (s *shim) openGroup() (err error) {
	if s.group != "" {
		s.groupDir, err = os.Open(string(s.group))
	}
	return err
}

// renewGroup replaces a group after cgroup.kill: Linux since 6.14 compares the kill count of the new group with that of
// the parent's at CLONE_INTO_CGROUP, and so kills at once whatever is started in a group that was ever killed.
func (s *shim) renewGroup() error {
	s.groupDir.Close()
	s.groupDir = nil
	ctx, cancel := context.WithTimeout(context.Background(), replyWithin)
	defer cancel()
	if err := s.group.clear(ctx); err != nil {
		return err
	}
	if err := os.Mkdir(string(s.group), 0o755); err != nil {
		return err
	}
	s.stained = false
	return s.openGroup()
}

// poll enforces the limits that nobody enforces for us.
func (s *shim) poll() {
	o := s.cur.order
	if o.MaxProcs > 0 || o.MemBytes > 0 && !s.cur.capped {
		list := descendants(s.me.PID)
		if o.MemBytes > 0 && !s.cur.capped && memory(list, o.MemBytes) > o.MemBytes {
			s.stop(CauseMemory, memoryReason(o.MemBytes), false)
		}
		if o.MaxProcs > 0 && len(list) > o.MaxProcs {
			s.stop(CauseProcs, fmt.Sprintf("more than %d processes at once", o.MaxProcs), false)
		}
	}
	for _, name := range []string{fileStdout, fileStderr} {
		if err := trim(filepath.Join(o.Dir, name), o.OutBytes); err != nil && !errors.Is(err, os.ErrNotExist) {
			fmt.Fprintf(os.Stderr, "vcpeer shim: %s: bound output: %v\n", s.cur.key, err)
		}
	}
}

func memoryReason(limit int64) string {
	return fmt.Sprintf("used more than its %d MiB of memory", limit>>20)
}
