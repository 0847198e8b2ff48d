// Package site is the queue service of one node. It joins the pure core (package queue) with the site's raft group,
// the executor, the blob store and the other nodes. Every node runs the same service; which parts of it work depends on
// the moment:
//
//   - The leader of the site's group keeps the waiting claims and the leases in memory, proposes what to do, and answers
//     when it is committed. One goroutine owns all of that ([leader]); one entry is on its way at a time, and what
//     comes meanwhile goes into the next one. No timer is in the way of a task: the commit that brings work answers
//     the claims that wait for it.
//   - Every node claims work for its free slots from its own site's leader, runs it, renews leases directly with the owner
//     of each task, and reports results there until they are accepted or refused by epoch.
//   - A leader whose nodes wait in vain asks the leaders of sites that have a backlog. Their groups grant to the nodes
//     by name; the answer takes the way of the claims.
//   - A node brings the results of the jobs submitted on it into their submit directories.
//
// Anything sent may be lost, late or repeated. What is done twice is refused by epoch or recognised by key; what is
// lost is asked again, or given out again when its lease ends.
package site
