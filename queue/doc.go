// Package queue is the job queue of one site: a replicated state machine that says which jobs exist and who runs
// each task under which epoch, and a scheduler that proposes what to run next. Both are plain values: no clock, no
// goroutine, no I/O. The replicas of a site feed their [Machine] the same entries in the same order (a raft log) and
// hold equal state, byte for byte; package queue/site is the service around it.
//
//	entry := queue.Entry{At: now.UnixNano(), Commands: []queue.Command{{Submit: &queue.Submit{Spec: spec}}}}
//	data, err := entry.Encode()               // propose data; when it is committed at index, on every replica:
//	results, err := machine.Apply(index, data)
//	plan := queue.Match(machine, offers, nil, 64) // on the leader: what to propose next
//
// A job has tasks (one, or an array kept as a range), a task has attempts. An attempt is known by its epoch, which
// only rises: a completion that carries any other epoch than the task's live one is refused, so each task is
// completed once whatever is lost, repeated or late on the way.
//
// # Why no task has two live attempts
//
// A worker may run an attempt until its lease ends and stops it by itself then. It counts a lease from before it asked
// for it, the owner from after it has answered: to the owner's count a tenth and a grace are added ([Leases]), which
// covers clocks whose rates differ by 5 % from true time and suspends (a worker counts on a clock that goes on in
// suspend, and a suspended owner is only late). The owner gives the task out again only after its own, later deadline,
// by committing [Lost] first.
//
// Renewals are not logged; a new leader knows none of them and starts every lease of a live attempt in full. This is
// safe if no renewal is granted long after another leader was elected: a raft leader with CheckQuorum steps down
// within two election timeouts of losing its majority, and the election of another needs that majority. So a
// renewal by a deposed leader comes at most two election timeouts after the new leader's count began, which the
// grace must exceed, beside the drift: grace > 2 election timeouts + 0.005 TTL. The default grace of 5 s allows
// election timeouts of 1 s and a TTL of 10 min.
package queue
