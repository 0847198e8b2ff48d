// Package exec runs attempts of tasks as real processes that outlive the daemon.
//
// An attempt is one run of one task under one lease; its key holds the lease's epoch and is never started twice. The
// package knows no queue: it is given a Spec and a deadline, and gives back a Result, which stays on disk until it is
// acknowledged. Its caller is the worker loop of a node.
//
//	e, err := exec.New(exec.Config{Dir: dir, Blobs: store, Self: "/usr/bin/vcpeer"})
//	go e.Run(ctx)                             // adopts what an earlier daemon left, then serves
//	err = e.Start(ctx, spec, 60*time.Second)  // returns once the process runs
//	err = e.Renew(spec.Key, until)
//	r := <-e.Results(); …; e.Ack(r.Key)
//
// # Shims
//
// Each running attempt has a shim: a process of the same binary (ShimMain) in a session of its own, which starts the
// job, owns its lease (CLOCK_BOOTTIME) and its limits, and writes down how it ended. It serves one attempt at a time
// and is used again for the next, since starting a large Go binary costs more than the job of a short task. The daemon
// may die at any time: the shim goes on, kills the job when its lease passes, and a new daemon finds it again by boot
// ID, process start time and an answer on its socket (0600), never by a bare process ID.
//
// # What is flushed to disk, and what is not
//
// Starting and ending an attempt flushes nothing. Death of processes loses no written file: the exclusive directory of
// the key prevents a second start, and the end is renamed into place. Losing the machine's power ends every job on it;
// attempts found with another boot ID are reported Lost. The start record itself may be gone then, so a caller must not
// present a key again after a reboot: it claims anew, with BootID in the claim, and gets a new epoch. Outputs are
// durable blobs before a Result is given out, so what was reported is there.
//
// # Who dies when
//
// The shim is a child subreaper: whatever the job leaves, double forks and sessions of its own included, stays its
// descendant and is killed when the job's first process ends, before the end is recorded. If the shim itself is killed,
// the first process dies with it (PR_SET_PDEATHSIG) and the daemon kills the rest: by cgroup v2 where it may make
// groups, else by searching /proc for the attempt's random mark in the environment and its session. Without cgroups,
// and with daemon and shim both killed, such a rest lives until a daemon is back.
package exec
