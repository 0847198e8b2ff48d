package group

import (
	"errors"

	"vcpeer/crdt"
)

var (
	// ErrNoQuorum says that there is no leader, as when a majority of the voters cannot be reached. Nothing was done.
	ErrNoQuorum = errors.New("no leader: a majority of the site's voters is not reachable")
	// ErrUncertain says that the outcome of a proposal is unknown: it may or may not be, or become, part of the log.
	ErrUncertain = errors.New("outcome unknown, ask again with the same key")
	// ErrBusy says that too much is waiting to be committed. Nothing was done; try again a little later.
	ErrBusy = errors.New("queue group is busy")
	// ErrTooLarge says that a proposal is over MaxCommands or MaxBytes.
	ErrTooLarge = errors.New("proposal is too large")
	// ErrStopped says that the group does not run, or no longer.
	ErrStopped = errors.New("queue group is stopped")
	// ErrExists says that the directory already belongs to a group.
	ErrExists = errors.New("directory already belongs to a group")
	// ErrForeign says that the directory belongs to another site's group.
	ErrForeign = errors.New("directory belongs to another site")
	// ErrRolledBack says that the group remembers this member acknowledging what its log does not have: the directory
	// was put back from an older copy. It must be removed; the node then joins again as a new member.
	ErrRolledBack = errors.New("log is older than what this member has acknowledged")
	// ErrBadEntry says that a committed entry cannot be understood. The member stops: to skip it would be to differ
	// from the others.
	ErrBadEntry = errors.New("committed entry is not understood")
)

// ErrNotLeader says that another member leads, or none that is known (then it is ErrNoQuorum, too). Nothing was done.
type ErrNotLeader struct {
	Leader crdt.NodeID // zero: not known
}

func (e ErrNotLeader) Error() string {
	if e.Leader.IsZero() {
		return ErrNoQuorum.Error()
	}
	return "not the leader, which is " + e.Leader.String()
}

// Is makes a missing leader match ErrNoQuorum.
func (e ErrNotLeader) Is(target error) bool { return target == ErrNoQuorum && e.Leader.IsZero() }
