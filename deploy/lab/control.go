package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"syscall"
	"time"

	"vcpeer/peer/api"
)

// request is what the holder of a lab is asked over the socket "ctl" in its directory: one request and one answer a
// connection, in JSON. Only root can reach it, as only root can have a lab.
type request struct {
	Verb   string // status, set, cut, heal, kill, start, down
	What   string // pair, site or node
	Words  []string
	Daemon string
	Signal syscall.Signal
}

type answer struct {
	Problem *api.Problem
	Status  *Status
}

func controlPath(dir string) string { return filepath.Join(dir, "ctl") }

// Serve answers requests until ctx ends or one asks for the end of the lab; it calls ready when it can be asked.
func (l *Lab) Serve(ctx context.Context, ready func()) error {
	ln, err := net.Listen("unix", controlPath(l.Dir))
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	ready()
	ctx, down := context.WithCancel(ctx)
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	defer down()
	for {
		c, err := ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("lab: %w", err)
		}
		go l.serveOne(ctx, c, down)
	}
}

func (l *Lab) serveOne(ctx context.Context, c net.Conn, down func()) {
	defer c.Close()
	var q request
	if err := json.NewDecoder(c).Decode(&q); err != nil {
		return
	}
	var a answer
	var err error
	if q.Verb == "down" {
		down()
	} else {
		a.Status, err = l.perform(ctx, q)
	}
	if err != nil {
		if a.Problem, _ = errors.AsType[*api.Problem](err); a.Problem == nil {
			a.Problem = &api.Problem{Code: api.CodeInternal, Message: err.Error()}
		}
	}
	_ = json.NewEncoder(c).Encode(a) // who asked may be gone
}

func (l *Lab) perform(ctx context.Context, q request) (*Status, error) {
	switch q.Verb {
	case "status":
		return l.Status()
	case "set":
		return nil, l.Set(q.What, q.Words...)
	case "cut":
		return nil, l.Cut(q.What)
	case "heal":
		return nil, l.Heal(q.What)
	case "kill":
		return nil, l.Kill(q.What, q.Daemon, q.Signal)
	case "start":
		return nil, l.StartDaemon(ctx, q.What, q.Daemon)
	}
	return nil, fmt.Errorf("lab: unknown verb %q", q.Verb)
}

// Remote is a lab that another process holds.
type Remote struct{ State *State }

// Status tells how the lab is.
func (r Remote) Status(ctx context.Context) (*Status, error) {
	a, err := r.ask(ctx, request{Verb: "status"})
	if err != nil {
		return nil, err
	}
	a.Status.APIVersion, a.Status.Kind = api.Version, "Lab"
	return a.Status, nil
}

// Set is as of Lab.
func (r Remote) Set(ctx context.Context, pair string, words ...string) error {
	return r.do(ctx, request{Verb: "set", What: pair, Words: words})
}

// Cut is as of Lab.
func (r Remote) Cut(ctx context.Context, what string) error {
	return r.do(ctx, request{Verb: "cut", What: what})
}

// Heal is as of Lab.
func (r Remote) Heal(ctx context.Context, what string) error {
	return r.do(ctx, request{Verb: "heal", What: what})
}

// Kill is as of Lab.
func (r Remote) Kill(ctx context.Context, node, daemon string, sig syscall.Signal) error {
	return r.do(ctx, request{Verb: "kill", What: node, Daemon: daemon, Signal: sig})
}

// StartDaemon is as of Lab.
func (r Remote) StartDaemon(ctx context.Context, node, daemon string) error {
	return r.do(ctx, request{Verb: "start", What: node, Daemon: daemon})
}

// Down ends the lab, and what is left of it when its holder has ended without it.
func (r Remote) Down(ctx context.Context) error {
	h := r.State.Holder
	if h.Alive() {
		if err := r.do(ctx, request{Verb: "down"}); err != nil {
			_ = syscall.Kill(h.PID, syscall.SIGTERM) // it is still coming up, or does not answer
		}
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for h.Alive() {
		select {
		case <-tick.C:
		case <-deadline:
			_ = syscall.Kill(h.PID, syscall.SIGKILL) // the kernel ends its machines with it
			deadline = nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return r.State.Remove()
}

func (r Remote) do(ctx context.Context, q request) error {
	_, err := r.ask(ctx, q)
	return err
}

func (r Remote) ask(ctx context.Context, q request) (*answer, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", controlPath(r.State.Dir))
	switch {
	case err != nil && !r.State.Holder.Alive():
		return nil, &api.Problem{Code: api.CodeUnavailable, Message: fmt.Sprintf("lab %s has died: its process has ended", r.State.Name),
			Hint: fmt.Sprintf("vcpeer lab down --name %s removes what it left", r.State.Name)}
	case err != nil:
		return nil, &api.Problem{Code: api.CodeUnavailable, Message: fmt.Sprintf("lab %s does not answer: %v", r.State.Name, err),
			Hint: "it is still coming up, or another program has it"}
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if err := json.NewEncoder(c).Encode(q); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	a := new(answer)
	if err := json.NewDecoder(c).Decode(a); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("lab: %s: %w", r.State.Name, err)
	}
	if a.Problem != nil {
		return nil, a.Problem
	}
	return a, nil
}
