package exec

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Config of an Executor.
type Config struct {
	Dir         string        // attempts and shims; where accounts are used, all users must be able to pass through its parents
	Blobs       Blobs         // scripts and inputs come from there, outputs go there
	Self        string        // this program's path: `Self shim …` must reach ShimMain; "": /proc/self/exe
	Log         *slog.Logger  // nil: slog.Default
	Cgroup      string        // cgroup v2 directory to make groups in; "": below our own if allowed; CgroupOff: none
	Grace       time.Duration // between SIGTERM and SIGKILL; 0: 5 s
	OutputBytes int64         // kept of each standard stream, a quarter from its beginning; 0: 64 MiB
	MaxProcs    int           // processes of one attempt, looked at each second; 0: 8192, negative: no limit
	FloorBytes  int64         // free disk space below which nothing is started; 0: 256 MiB, negative: none
	IdleShim    time.Duration // how long a shim without work is kept; 0: 1 min
	Linger      time.Duration // how long an idle shim outlives its daemon; 0: 10 s
}

func (c Config) withDefaults() Config {
	if c.Self == "" {
		c.Self = "/proc/self/exe"
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	c.Grace = orDefault(c.Grace, 5*time.Second)
	c.OutputBytes = orDefault(c.OutputBytes, 64<<20)
	c.MaxProcs = orDefault(c.MaxProcs, 8192)
	c.FloorBytes = orDefault(c.FloorBytes, 256<<20)
	c.IdleShim = orDefault(c.IdleShim, time.Minute)
	c.Linger = orDefault(c.Linger, 10*time.Second)
	return c
}

func orDefault[T int | int64 | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

// Executor runs attempts on this node. Safe for concurrent use.
type Executor struct {
	cfg     Config
	codec   codec
	boot    string
	groups  groups
	lock    *os.File      // one executor a directory
	ready   chan struct{} // closed when everything left by an earlier daemon is known
	results chan Result
	wake    chan struct{} // out has changed
	collect chan struct{} // semaphore: collections under way
	work    sync.WaitGroup
	life    context.Context // over when Run ends: for work that no caller waits for
	end     context.CancelFunc

	mu       sync.Mutex // guards all below and the fields of attempts and links that say so
	attempts map[string]*attempt
	links    map[string]*link    // by shim ID
	idle     []*link             // newest last: it is used first, the others age
	out      []Result            // not yet received by the caller; at most one an attempt
	spares   map[uint32][]string // directories to use again, by owner
	acked    []string            // the newest keys that are done with, oldest first
	closed   bool
}

const (
	collectors = 8    // collections at once: they mostly wait for flushes, which they share
	ackedKept  = 8192 // acknowledged keys remembered, against late repetitions of a Start
)

// Modes of an attempt's directory and of those in it that are the job's.
const (
	attemptMode = 0o711
	ownMode     = 0o700
)

// phase of an attempt.
type phase uint8

const (
	preparing phase = iota // its directory is being filled; no Result if that fails
	active                 // given to a shim
	over                   // its end is known, its outputs are being collected
	done                   // its Result is in out or with the caller
)

// attempt is what the executor knows of one. rec, token of identity and dir do not change once active.
type attempt struct {
	rec     attemptRecord
	dir     string
	spare   bool          // dir was another attempt's: work/ and tmp/ are in it
	began   chan struct{} // closed when its process runs, or never will
	ended   chan struct{} // closed when its end is known
	phase   phase         // by Executor.mu, as all below
	link    *link         // nil: no shim has it
	first   startedRecord
	until   BootTime
	adopted bool
	kill    string // Kill came while preparing
	killed  bool
	isBegun bool
}

// New opens the directory. Nothing is started or adopted before Run.
func New(cfg Config) (*Executor, error) {
	cfg = cfg.withDefaults()
	if cfg.Dir == "" || cfg.Blobs == nil {
		return nil, errors.New("exec: directory and blob store must be given")
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	cfg.Dir = dir
	e := &Executor{cfg: cfg, codec: newCodec(), ready: make(chan struct{}), results: make(chan Result),
		wake: make(chan struct{}, 1), collect: make(chan struct{}, collectors),
		attempts: map[string]*attempt{}, links: map[string]*link{}, spares: map[uint32][]string{}}
	if e.boot, err = BootID(); err != nil {
		return nil, err
	}
	if err := e.openDir(); err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	if e.groups, err = openGroups(cfg.Cgroup, cfg.Dir); err != nil {
		cfg.Log.Info("jobs run without control groups", "reason", err)
	}
	e.life, e.end = context.WithCancel(context.Background())
	return e, nil
}

func (e *Executor) attemptsDir() string { return filepath.Join(e.cfg.Dir, "attempts") }
func (e *Executor) shimsDir() string    { return filepath.Join(e.cfg.Dir, "shims") }
func (e *Executor) trashDir() string    { return filepath.Join(e.cfg.Dir, "trash") }

func (e *Executor) openDir() error {
	modes := map[string]os.FileMode{e.cfg.Dir: 0o711, e.attemptsDir(): 0o711, e.shimsDir(): 0o700, e.trashDir(): 0o700}
	for _, d := range []string{e.cfg.Dir, e.attemptsDir(), e.shimsDir(), e.trashDir()} {
		if err := os.MkdirAll(d, modes[d]); err != nil {
			return err
		}
		if err := os.Chmod(d, modes[d]); err != nil {
			return err
		}
	}
	lock, err := os.OpenFile(filepath.Join(e.cfg.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return fmt.Errorf("%s is in use by another executor: %w", e.cfg.Dir, err)
	}
	e.lock = lock
	return nil
}

// Run adopts what runs, gives out Results and tends the shims until ctx is over. Running attempts go on without it;
// idle shims end. It is called once, and the Executor cannot be used after it.
func (e *Executor) Run(ctx context.Context) error {
	defer e.close()
	if err := e.adopt(ctx); err != nil {
		return fmt.Errorf("exec: adopt: %w", err)
	}
	close(e.ready)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		next, out := e.nextResult()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case out <- next:
			e.forgetResult(next.Key)
		case <-e.wake:
		case <-tick.C:
			e.tend()
		}
	}
}

func (e *Executor) nextResult() (Result, chan<- Result) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.out) == 0 {
		return Result{}, nil
	}
	return e.out[0], e.results
}

func (e *Executor) forgetResult(key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.out = slices.DeleteFunc(e.out, func(r Result) bool { return r.Key == key })
}

func (e *Executor) close() {
	e.end()
	e.mu.Lock()
	e.closed = true
	links := e.links
	e.links = map[string]*link{}
	for _, l := range e.idle {
		l.send(e.codec, &message{Kind: kindExit}) // else it lingers, then ends
	}
	e.idle = nil
	e.mu.Unlock()
	for _, l := range links {
		l.conn.Close()
	}
	e.work.Wait()
	e.lock.Close()
}

// Results gives each ended attempt once (again after a restart, until Ack). Not receiving delays only Results.
func (e *Executor) Results() <-chan Result { return e.results }

// Running lists the attempts that may still run or whose Result is not ready, by key.
func (e *Executor) Running() []Running {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []Running
	for key, a := range e.attempts {
		if a.phase == done {
			continue
		}
		list = append(list, Running{Key: key, Meta: a.rec.Spec.Meta, Slots: a.rec.Spec.Slots, PID: a.first.PID,
			Started: a.first.At, Until: a.until, Adopted: a.adopted})
	}
	slices.SortFunc(list, func(a, b Running) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	return list
}

// Renew moves the attempt's lease to until; never to an earlier time. ErrUnknown: not here. ErrLease: too late, it is
// being killed. The caller took until from before it asked the lease's owner.
func (e *Executor) Renew(key string, until BootTime) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := e.attempts[key]
	switch {
	case a == nil || a.phase >= over:
		return fmt.Errorf("exec: renew %s: %w", key, ErrUnknown)
	case NowBoot() >= a.until:
		return fmt.Errorf("exec: renew %s: %w", key, ErrLease)
	}
	a.until = max(a.until, until)
	if a.phase == active && a.link != nil {
		a.link.send(e.codec, &message{Kind: kindRenew, Key: key, Until: a.until})
	}
	return nil
}

// Kill ends the attempt: SIGTERM to all its processes, SIGKILL after Config.Grace. It returns at once; the Result says
// CauseKill and gives the reason. One that has ended is ErrUnknown.
func (e *Executor) Kill(key, reason string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := e.attempts[key]
	if a == nil || a.phase >= over {
		return fmt.Errorf("exec: kill %s: %w", key, ErrUnknown)
	}
	a.kill, a.killed = reason, true
	if a.phase == active && a.link != nil {
		a.link.send(e.codec, &message{Kind: kindKill, Key: key, Reason: reason})
	}
	return nil
}

// Ack forgets an attempt whose Result was received and recorded elsewhere, and removes its directory. Blobs stay.
func (e *Executor) Ack(key string) error {
	e.mu.Lock()
	a := e.attempts[key]
	if a == nil {
		e.mu.Unlock()
		return fmt.Errorf("exec: ack %s: %w", key, ErrUnknown)
	}
	if a.phase != done {
		e.mu.Unlock()
		return fmt.Errorf("exec: ack %s: %w", key, ErrNotEnded)
	}
	e.out = slices.DeleteFunc(e.out, func(r Result) bool { return r.Key == key })
	e.mu.Unlock()

	trash := filepath.Join(e.trashDir(), key)
	if err := os.Rename(a.dir, trash); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("exec: ack: %w", err)
	}
	e.mu.Lock()
	delete(e.attempts, key)
	if e.acked = append(e.acked, key); len(e.acked) > ackedKept {
		e.acked = slices.Clone(e.acked[ackedKept/2:])
	}
	e.mu.Unlock()
	if e.keepSpare(trash, ownerOf(a.rec.Spec.Account)) {
		return nil
	}
	if err := removeTree(trash); err != nil {
		return fmt.Errorf("exec: ack: %w", err)
	}
	return nil
}

// removeTree removes a directory that a job filled: one without write permission is opened first.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			os.Chmod(p, 0o700) // RemoveAll below reports what stays closed
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// tend is called each second.
func (e *Executor) tend() {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.idle) > 0 && now.Sub(e.idle[0].since) > e.cfg.IdleShim {
		e.idle[0].send(e.codec, &message{Kind: kindExit})
		e.idle = e.idle[1:]
	}
	for key, a := range e.attempts {
		if a.phase != active || a.link == nil || NowBoot().Sub(a.until) < shimLate {
			continue
		}
		e.cfg.Log.Warn("a shim did not end its attempt in time and is killed", "attempt", key, "shim", a.link.me.PID)
		a.link.kill() // serve notices, and the rest of the attempt is killed there
	}
}

// shimLate is how long after the end of a lease a shim (stopped, or starved) still has its attempt.
const shimLate = 5 * time.Second
