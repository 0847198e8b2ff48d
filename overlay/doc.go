// Package overlay makes one network of all nodes and their guests: an Open vSwitch bridge on each, tunnels between them,
// and paths by what was measured. A [Network] owns this node's part; it is told what the records and the other gateways
// say, and converges the bridge, its flows and the machine's interfaces to what follows from that. It never edits: each
// round compares all that is wanted with all that is there, so that what was missed or undone by others heals.
//
//	n, err := overlay.New(overlay.Config{Self: id, Publish: publish, Log: log})
//	go n.Run(ctx)
//	n.SetRecords(records) // whenever they change; never blocks
//	n.SetRows(rows)
//	n.Status()
//
// The parts: path chooses, flow turns choices into tables, ovs writes them, probe measures through them, underlay and
// device ask and set the machine, toobig answers what does not fit. Programs see an interface with an address (hosts and
// userdb beside this package give it its name); nothing here knows how records travel.
package overlay
