// Package group keeps one replicated log for a site: a raft group (Ongaro and Ousterhout, 2014) that founds, grows and
// heals itself. It knows nothing of what the commands mean; a StateMachine does.
//
// # Shape
//
// The core (core.go) is single-threaded and deterministic: etcd's RawNode, the group's own membership, waiting
// proposals and reads. It gets ticks, messages and proposals, and gives back what must be made durable and sent, in
// which order. The shell (group.go, loop.go) owns one core, one wal.Log and the streams to other members. Whole groups of
// cores run in one goroutine in the simulation test.
//
// # Promises
//
//   - Propose returns nil only after the command is durable on a majority of voters and applied here.
//   - ErrUncertain: the outcome is unknown; the command may have happened or may still happen. Retry with a key that
//     makes the command idempotent.
//   - A member is a data directory, not a node: its raft ID is random and lives in the log. A wiped disk is a new
//     member; the old one is replaced. A directory put back from an older copy is noticed and refused (ErrRolledBack).
//   - Voters: 1 of one or two nodes (the second keeps a copy), 3 of three to six, 5 of seven and more; never an even
//     number, since 1 -> 3, replacements and 5 -> 3 each go through joint consensus in one step.
//
// # Time
//
// One tick is 50 ms, a heartbeat 2 ticks, an election timeout 8 to 16 ticks: writes come back about half a second after a
// leader is gone. The timeout stays ten times above the slowest usual fsync (10 to 50 ms on a busy disk), and heartbeats,
// which are most of what an idle node does, stay few; the only member of a group takes five ticks at once, since it has nobody
// to tell. The loop that ticks also syncs, so a leader whose disk hangs stops its heartbeats and is replaced.
//
// # Use
//
//	g, err := group.Open(group.Config{Dir: dir, Self: id, Site: site, Fabric: fab, Machine: m, Peers: peers})
//	if founder { err = g.Found() }
//	go g.Run(ctx)
//	result, err := g.Propose(ctx, command)
package group
