// Package lab runs a whole multi-site network on one machine: every node is a machine of its own (package machine) with
// its own Open vSwitch and vcpeer, sites have routers, NAT and firewalls, and between them is a network whose delays,
// losses and rates are known and change at will (package wan). The command line keeps a lab in a process of its own;
// tests and benchmarks have it in theirs:
//
//	t, err := topology.New(topology.Options{Sites: 3, Words: []string{"delay=10ms"}})
//	l, err := lab.Up(ctx, t, lab.Options{Binary: vcpeer})
//	defer l.Down()
//	out, err := l.Exec(ctx, "site1-1", "ping", "-c1", l.Node("site2-1").Addrs[0].String())
//	err = l.Cut("site1<>site2")
//
// However the process ends that has the lab, the kernel ends every node with it; only the files below Options.Dir stay,
// and the next Up or Remove of that name takes them away.
package lab
