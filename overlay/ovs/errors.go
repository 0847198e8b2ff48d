package ovs

import (
	"errors"
	"fmt"
)

// What a caller must decide by.
var (
	ErrNotInstalled = errors.New("Open vSwitch is not installed")
	ErrNotRunning   = errors.New("Open vSwitch is not running")
	ErrForeign      = errors.New("is somebody else's")
)

// Error is one that the user can do something about.
type Error struct {
	Thing string // what it happened to
	Err   error
	Hint  string // what to type or do
}

func (e *Error) Error() string { return fmt.Sprintf("ovs: %s: %v", e.Thing, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

func notRunning(daemon, where string, cause error) error {
	return &Error{
		Thing: fmt.Sprintf("%s (%s)", daemon, where),
		Err:   fmt.Errorf("%w: %w", ErrNotRunning, cause),
		Hint:  "start it: systemctl start openvswitch-switch",
	}
}

// ForeignError says that a wanted name is taken by something this owner did not make. It is ErrForeign.
type ForeignError struct {
	Kind  string // "bridge" or "port"
	Name  string
	Owner string // whose it says it is; empty: it says nothing
}

func (e *ForeignError) Error() string {
	if e.Owner == "" {
		return fmt.Sprintf("ovs: %s %s is there already and not of our making", e.Kind, e.Name)
	}
	return fmt.Sprintf("ovs: %s %s is there already and belongs to %s", e.Kind, e.Name, e.Owner)
}

func (e *ForeignError) Is(target error) bool { return target == ErrForeign }
