// Package probe measures the links of a gateway through the data path: whether frames arrive, how long they take there and
// back, how many are lost each way, and how large they may be. A link whose control path works while its frames vanish is
// the failure that nothing else sees.
//
// Core is pure: times, frames and wanted targets go in, frames and events come out. Prober is the shell around it, with a
// socket on a port of the bridge. What to probe, and what follows from it, is the caller's.
//
//	c := probe.New(probe.Default(), rng, now)
//	c.Set(now, probe.Self{Label: 1}, []probe.Target{{ID: probe.Gateway(2), Addr: addr, Class: probe.Fast, MTU: 1458}})
//	out, next := c.Tick(now)                  // frames to send; call again at next
//	out = c.Receive(now, arrived, frame[14:]) // answers to send, and events
//	c.Report(now)                             // what is known of each link
//
// # On the wire
//
// A probe is an Ethernet frame of type 0x88b5. On the way out its addresses tell the bridge's flows where it goes (see
// header in ether.go), on arrival they mean nothing; its payload says all (see message in wire.go). One that is asked
// answers by the way that the question came, backwards, and says which of the last 32 questions it got: so both ends know
// what is lost on the way there and what on the way back.
//
// # RTT
//
// What paths are chosen by is propagation, not queues or the noise of a datapath in user space (0.3 to 1 ms, with tails
// of 5 to 50). Hence the least of a window (60 s, or 6 samples where they are rarer). A lower RTT counts at once: no frame
// is too fast by chance. A higher one counts when the window has run out, or sooner when it looks like another route and
// not like a queue (see step.go).
//
// # Loss
//
// Loss is a share of the last 32 probes, of at least 12. It says how good a link is while it is up: probes sent while it was
// down, or before the other end first answered, are left out.
package probe
