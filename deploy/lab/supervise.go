package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"vcpeer/deploy/lab/topology"
	"vcpeer/peer/api"
)

// A lab that stays when the command that made it has ended is held by a process of its own: the same program, which
// reads an order from its standard input and reports on its standard output until the lab is up.
type order struct {
	Topology topology.Topology
	Name     string
	Seed     uint64
	LogLevel string
	NoStart  bool
}

// report is one line from the holder: a step, or the end of coming up.
type report struct {
	Step    string       `json:",omitempty"`
	Up      bool         `json:",omitempty"`
	Problem *api.Problem `json:",omitempty"`
}

// UpBehind brings up a lab that is held by a new process, and returns when it is up. hold is the command line that
// makes this program call Hold. When ctx ends before, the lab is taken down again.
func UpBehind(ctx context.Context, t topology.Topology, o Options, hold ...string) (*State, error) {
	in, err := json.Marshal(order{t, o.Name, o.Seed, o.LogLevel, o.NoStart})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(o.Binary, hold...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stderr = os.Stderr // until the lab is up
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
	if _, err := stdin.Write(in); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	stdin.Close()
	if err := follow(stdout, o.Progress); err != nil {
		_ = cmd.Wait() // it takes down what there is
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	_ = cmd.Process.Release()
	return Find(o.Name)
}

// follow reads what the holder reports until the lab is up.
func follow(r io.Reader, progress func(string)) error {
	for sc := bufio.NewScanner(r); sc.Scan(); {
		var rep report
		if err := json.Unmarshal(sc.Bytes(), &rep); err != nil {
			return fmt.Errorf("lab: its holder said %q", sc.Text())
		}
		switch {
		case rep.Problem != nil:
			return rep.Problem
		case rep.Up:
			return nil
		case progress != nil:
			progress(rep.Step)
		}
	}
	return errors.New("lab: its holder ended before the lab was up")
}

// Hold is the life of the process that holds a lab: it brings it up as in says, reports to out, and has it until ctx
// ends or somebody takes the lab down.
func Hold(ctx context.Context, in io.Reader, out io.Writer) error {
	var o order
	if err := json.NewDecoder(in).Decode(&o); err != nil {
		return fmt.Errorf("lab: order: %w", err)
	}
	tell := json.NewEncoder(out)
	l, err := Up(ctx, o.Topology, Options{Name: o.Name, Seed: o.Seed, LogLevel: o.LogLevel, NoStart: o.NoStart,
		Progress: func(step string) { _ = tell.Encode(report{Step: step}) }})
	if err != nil {
		p, ok := errors.AsType[*api.Problem](err)
		if !ok {
			p = &api.Problem{Code: api.CodeUnavailable, Message: err.Error()}
		}
		return tell.Encode(report{Problem: p})
	}
	if err := logTo(filepath.Join(l.Dir, "holder.log")); err != nil {
		return errors.Join(err, l.Down())
	}
	up := func() { _ = tell.Encode(report{Up: true}) } // who asked may be gone
	return errors.Join(l.Serve(ctx, up), l.Down())
}

// logTo makes a file of this process' standard error, and so lets go of that of the command that started it.
func logTo(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer f.Close()
	if err := unix.Dup3(int(f.Fd()), 2, 0); err != nil {
		return fmt.Errorf("lab: %s: %w", path, err)
	}
	return nil
}
