package ovs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	library "github.com/digitalocean/go-openvswitch/ovs"
)

// runner runs a command of Open vSwitch with env added, and returns what it printed to stdout.
type runner func(ctx context.Context, env []string, stdin io.Reader, name string, args ...string) ([]byte, error)

// execute is the runner; the command ends with ctx.
func execute(ctx context.Context, env []string, stdin io.Reader, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = stdin
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		text := strings.TrimSpace(errs.String())
		return out.Bytes(), fmt.Errorf("%s: %w: %s", name, err, text[:min(len(text), 2000)])
	}
	return out.Bytes(), nil
}

// The versions of OpenFlow that commands speak: bundles need 1.4, what groups can do 1.5.
const (
	flowVersion  = "--protocols=OpenFlow14"
	groupVersion = "--protocols=OpenFlow15"
)

// ofctl runs ovs-ofctl on a bridge of this Open vSwitch. ErrNotRunning: nobody serves the bridge.
func (s *Switch) ofctl(ctx context.Context, stdin, bridge string, args ...string) (string, error) {
	if _, err := s.connected(); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	out, err := s.runner(ctx, s.environment(), strings.NewReader(stdin), "ovs-ofctl", args...)
	if err != nil {
		return "", s.explain(bridge, err)
	}
	return string(out), nil
}

// connected returns the database, or ErrNotRunning. Commands ask too: without its database ovs-vswitchd answers no OpenFlow
// (it needs the database's lock), and they would hang. Flows stay meanwhile, and forward.
func (s *Switch) connected() (*database, error) {
	if db := s.db.Load(); db != nil {
		return db, nil
	}
	return nil, notRunning(Ovsdb, s.cfg.DB, errors.New("not connected"))
}

func (s *Switch) environment() []string { return []string{"OVS_RUNDIR=" + s.cfg.RunDir, "LC_ALL=C"} }

// explain says whether a command failed because nobody serves the bridge.
func (s *Switch) explain(bridge string, err error) error {
	if cause := probe(s.cfg.RunDir, bridge); cause != nil {
		return notRunning(Vswitchd, filepath.Join(s.cfg.RunDir, bridge+".mgmt"), err)
	}
	return fmt.Errorf("ovs: bridge %s: %w", bridge, err)
}

// bundle changes flows of a bridge through the library, all or none. The library passes no context and combines stdout and
// stderr; the functions given to it do both better, and remember their error, which the library would turn to text.
func (s *Switch) bundle(ctx context.Context, bridge string, fill func(*library.FlowTransaction)) error {
	if _, err := s.connected(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	var failure error
	pipe := func(stdin io.Reader, name string, args ...string) (out []byte, err error) {
		out, failure = s.runner(ctx, s.environment(), stdin, name, args...)
		return out, failure
	}
	exec := func(name string, args ...string) ([]byte, error) { return pipe(nil, name, args...) }
	c := library.New(library.Exec(exec), library.Pipe(pipe), library.Protocols([]string{library.ProtocolOpenFlow14}))
	err := c.OpenFlow.AddFlowBundle(bridge, func(tx *library.FlowTransaction) error {
		fill(tx)
		return tx.Commit()
	})
	switch {
	case failure != nil:
		return s.explain(bridge, failure)
	case err != nil:
		return fmt.Errorf("ovs: bridge %s: bundle: %w", bridge, err)
	}
	return nil
}

// words is a match or an action list of the library that is any text.
type words string

func (w words) MarshalText() ([]byte, error) { return []byte(w), nil }
func (w words) GoString() string             { return fmt.Sprintf("ovs.words(%q)", string(w)) }
