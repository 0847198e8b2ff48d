package site

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"vcpeer/queue/exec"
)

// ledger is outside of the system: it sees what truly runs.
type ledger struct {
	t       *testing.T
	mu      sync.Mutex
	running map[string]string // task to attempt
	starts  map[string]int    // by attempt
	ended   map[string]int    // by task: executions that went through to the end
	where   map[string]string // by task: the node of the last start
	overlap []string
}

// taskOf cuts the epoch out of a key JOB.TASK.EPOCH.SITE.
func taskOf(key string) string {
	p := strings.Split(key, ".")
	return p[0] + "." + p[1] + "." + p[3]
}

func (l *ledger) start(s *shim) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running == nil {
		l.running, l.starts, l.ended, l.where = map[string]string{}, map[string]int{}, map[string]int{}, map[string]string{}
	}
	task := taskOf(s.spec.Key)
	if other, ok := l.running[task]; ok {
		l.overlap = append(l.overlap, fmt.Sprintf("%s starts while %s runs", s.spec.Key, other))
	}
	if l.starts[s.spec.Key]++; l.starts[s.spec.Key] > 1 {
		l.overlap = append(l.overlap, s.spec.Key+" is started twice")
	}
	l.running[task] = s.spec.Key
	l.where[task] = s.node.id.String()
}

// room notes a node that runs more than it has slots.
func (l *ledger) room(n *fakeNode, used int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if used > n.slots {
		l.overlap = append(l.overlap, fmt.Sprintf("node %s runs %d tasks on %d slots", n.id.Short(), used, n.slots))
	}
}

func (l *ledger) end(s *shim, whole bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	task := taskOf(s.spec.Key)
	delete(l.running, task)
	if whole {
		l.ended[task]++
	}
}

// shim is one attempt; it outlives daemons.
type shim struct {
	node   *fakeNode
	spec   exec.Spec
	until  exec.BootTime
	ended  bool
	over   chan struct{}
	killed chan exec.Cause
	result exec.Result
}

// daemon is an executor's life with one daemon.
type daemon struct {
	node    *fakeNode
	results chan exec.Result
	ctx     context.Context
	work    sync.WaitGroup
}

// begin gives the results of earlier lives again.
func (d *daemon) begin(ctx context.Context) {
	d.ctx = ctx
	d.node.c.mu.Lock()
	defer d.node.c.mu.Unlock()
	for _, s := range d.node.shims {
		d.await(s)
	}
}

func (d *daemon) await(s *shim) {
	d.work.Go(func() {
		select {
		case <-s.over:
		case <-d.ctx.Done():
			return
		}
		select {
		case d.results <- s.result:
		case <-d.ctx.Done():
		}
	})
}

func (d *daemon) Start(ctx context.Context, spec exec.Spec, lease time.Duration) error {
	time.Sleep(time.Millisecond)
	n := d.node
	until := spec.Asked.Add(lease)
	if n.boot() >= until {
		return exec.ErrLease
	}
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	if d.ctx.Err() != nil {
		return exec.ErrClosed
	}
	if n.shims[spec.Key] != nil {
		return exec.ErrStarted
	}
	if spec.Script != "" && n.blobs[spec.Script] == nil {
		return fmt.Errorf("script is missing")
	}
	s := &shim{node: n, spec: spec, until: until, over: make(chan struct{}), killed: make(chan exec.Cause, 1)}
	s.result = exec.Result{Key: spec.Key, Meta: spec.Meta, Started: time.Now()}
	n.shims[spec.Key] = s
	n.c.led.start(s)
	used := 0
	for _, o := range n.shims {
		if !o.ended {
			used += o.spec.Slots
		}
	}
	n.c.led.room(n, used)
	go s.run(time.Duration(n.c.rng.Float64() * float64(taskTime(spec))))
	d.await(s)
	return nil
}

// taskTime is the first argument: how long the task takes at most.
func taskTime(spec exec.Spec) time.Duration {
	d, err := time.ParseDuration(spec.Argv[0])
	if err != nil {
		panic(err)
	}
	return d
}

func (s *shim) run(takes time.Duration) {
	end := time.NewTimer(takes)
	defer end.Stop()
	for {
		s.node.c.mu.Lock()
		left := s.until.Sub(s.node.boot())
		s.node.c.mu.Unlock()
		if left <= 0 {
			s.finish(exec.CauseLease, 137)
			return
		}
		check := time.NewTimer(left)
		select {
		case <-s.over: // power loss
		case <-end.C:
			s.finish("", 0)
		case c := <-s.killed:
			s.finish(c, 143)
		case <-check.C:
			continue
		}
		check.Stop()
		return
	}
}

func (s *shim) finish(cause exec.Cause, exit int) {
	out := s.node.put([]byte("output of " + taskOf(s.spec.Key)))
	s.node.c.mu.Lock()
	defer s.node.c.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	s.result.Exit, s.result.Killed, s.result.Ended = exit, cause, time.Now()
	s.result.Stdout = exec.Ref{Hash: out, Size: 1}
	for _, o := range s.spec.Outputs {
		s.result.Outputs = append(s.result.Outputs, exec.File{Path: o, Hash: out, Size: 1, Mode: 0o640})
	}
	s.node.c.led.end(s, cause == "")
	close(s.over)
}

func (d *daemon) shim(key string) *shim {
	s := d.node.shims[key]
	if s == nil || s.ended {
		return nil
	}
	return s
}

func (d *daemon) Renew(key string, until exec.BootTime) error {
	d.node.c.mu.Lock()
	defer d.node.c.mu.Unlock()
	s := d.shim(key)
	if s == nil {
		return exec.ErrUnknown
	}
	s.until = max(s.until, until)
	return nil
}

func (d *daemon) Kill(key, _ string) error {
	d.node.c.mu.Lock()
	defer d.node.c.mu.Unlock()
	s := d.shim(key)
	if s == nil {
		return exec.ErrUnknown
	}
	select {
	case s.killed <- exec.CauseKill:
	default:
	}
	return nil
}

func (d *daemon) Running() []exec.Running {
	d.node.c.mu.Lock()
	defer d.node.c.mu.Unlock()
	var all []exec.Running
	for _, s := range d.node.shims {
		if !s.ended {
			all = append(all, exec.Running{Key: s.spec.Key, Meta: s.spec.Meta, Until: s.until, Adopted: true})
		}
	}
	return all
}

func (d *daemon) Results() <-chan exec.Result { return d.results }

func (d *daemon) Ack(key string) error {
	d.node.c.mu.Lock()
	defer d.node.c.mu.Unlock()
	delete(d.node.shims, key)
	return nil
}
